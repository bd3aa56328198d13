//! MLflow's words, as far as we use them.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::name::RESERVED_PREFIX;
use crate::version::{Measured, NewVersion, Source, Version};

const CHECKSUM: &str = "tenk.checksum";
const SIZE_BYTES: &str = "tenk.size_bytes";
const QUANTIZATION: &str = "tenk.quantization";
const SIMULATED: &str = "tenk.simulated";
const METRIC: &str = "tenk.metric.";
/// MLflow's own.
const FOREIGN_PREFIX: &str = "mlflow.";

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

/// A version, alone or in a list.
#[derive(Debug, Deserialize)]
#[serde(from = "Wrapped")]
pub(super) struct ModelVersion {
    name: String,
    version: String,
    created_ms: u64,
    source: String,
    pub(super) run_id: Option<String>,
    tags: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
struct Bare {
    name: String,
    version: String,
    creation_timestamp: u64,
    #[serde(default)]
    source: String,
    run_id: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Wrapped {
    Alone { model_version: Bare },
    Listed(Bare),
}

impl From<Wrapped> for ModelVersion {
    fn from(wrapped: Wrapped) -> Self {
        let (Wrapped::Alone { model_version: bare } | Wrapped::Listed(bare)) = wrapped;
        let Bare { name, version, creation_timestamp: created_ms, source, run_id, tags } = bare;
        Self { name, version, created_ms, source, run_id, tags }
    }
}

impl ModelVersion {
    /// What it says to us; the error is what cannot be understood. Whoever registered it need not have been us.
    pub(super) fn into_version(self) -> Result<Version, String> {
        let mut version = Version {
            version: self.version.parse().map_err(|_| format!("version `{}` is no number", self.version))?,
            name: self.name,
            source: Source::from(self.source),
            checksum: None,
            size_bytes: 0,
            quantization: None,
            metrics: BTreeMap::new(),
            tags: BTreeMap::new(),
            created_ms: self.created_ms,
        };
        for Tag { key, value } in self.tags {
            let wrong = || format!("the tag `{key}` is `{value}`");
            match key.as_str() {
                CHECKSUM => version.checksum = Some(value),
                SIZE_BYTES => version.size_bytes = value.parse().map_err(|_| wrong())?,
                QUANTIZATION => version.quantization = Some(value),
                SIMULATED => version.source = Source::Simulated,
                _ => match key.strip_prefix(METRIC) {
                    Some(metric) => {
                        let number = value.parse().map_err(|_| wrong())?;
                        version.metrics.insert(metric.to_owned(), number);
                    }
                    None if key.starts_with(RESERVED_PREFIX) || key.starts_with(FOREIGN_PREFIX) => {}
                    None => {
                        version.tags.insert(key, value);
                    }
                },
            }
        }
        Ok(version)
    }
}

/// The tags of a version that is to be made.
pub(super) fn tags_of(new: &NewVersion, measured: &Measured) -> Vec<Tag> {
    let mut tags: Vec<(String, String)> = notes(&new.metrics, &new.tags).collect();
    tags.extend(measured.checksum.clone().map(|checksum| (CHECKSUM.to_owned(), checksum)));
    tags.extend(new.quantization.clone().map(|name| (QUANTIZATION.to_owned(), name)));
    tags.push((SIZE_BYTES.to_owned(), measured.size_bytes.to_string()));
    if new.source == Source::Simulated {
        tags.push((SIMULATED.to_owned(), "true".to_owned()));
    }
    tags.into_iter().map(|(key, value)| Tag { key, value }).collect()
}

/// Metrics and tags as tags. A number's shortest text reads back as the same number.
pub(super) fn notes(
    metrics: &BTreeMap<String, f64>,
    tags: &BTreeMap<String, String>,
) -> impl Iterator<Item = (String, String)> {
    let metrics = metrics.iter().map(|(key, value)| (format!("{METRIC}{key}"), value.to_string()));
    metrics.chain(tags.iter().map(|(key, value)| (key.clone(), value.clone())))
}

#[derive(Debug, Deserialize)]
pub(super) struct Alias {
    pub(super) alias: String,
    pub(super) version: String,
}

/// A name, alone or in a list.
#[derive(Debug, Deserialize)]
#[serde(from = "WrappedModel")]
pub(super) struct RegisteredModel {
    pub(super) name: String,
    pub(super) aliases: Vec<Alias>,
}

#[derive(Debug, Deserialize)]
struct BareModel {
    name: String,
    #[serde(default)]
    aliases: Vec<Alias>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum WrappedModel {
    Alone { registered_model: BareModel },
    Listed(BareModel),
}

impl From<WrappedModel> for RegisteredModel {
    fn from(wrapped: WrappedModel) -> Self {
        let (WrappedModel::Alone { registered_model: bare } | WrappedModel::Listed(bare)) = wrapped;
        Self { name: bare.name, aliases: bare.aliases }
    }
}

/// What lists hold.
pub(super) trait Page: Sized {
    /// One page, as the server sends it.
    type List: DeserializeOwned;
    /// Its items, and what the next page is asked for with.
    fn items(list: Self::List) -> (Vec<Self>, Option<String>);
}

#[derive(Debug, Deserialize)]
pub(super) struct VersionList {
    #[serde(default)]
    model_versions: Vec<ModelVersion>,
    next_page_token: Option<String>,
}

impl Page for ModelVersion {
    type List = VersionList;

    fn items(list: VersionList) -> (Vec<Self>, Option<String>) {
        (list.model_versions, list.next_page_token)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ModelList {
    #[serde(default)]
    registered_models: Vec<RegisteredModel>,
    next_page_token: Option<String>,
}

impl Page for RegisteredModel {
    type List = ModelList;

    fn items(list: ModelList) -> (Vec<Self>, Option<String>) {
        (list.registered_models, list.next_page_token)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Experiment {
    pub(super) experiment_id: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct FoundExperiment {
    pub(super) experiment: Experiment,
}

#[derive(Debug, Deserialize)]
pub(super) struct Run {
    pub(super) run: RunBody,
}

#[derive(Debug, Deserialize)]
pub(super) struct RunBody {
    pub(super) info: RunInfo,
}

#[derive(Debug, Deserialize)]
pub(super) struct RunInfo {
    pub(super) run_id: String,
    /// Such as `mlflow-artifacts:/1/RUN/artifacts`.
    pub(super) artifact_uri: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(tags: &str) -> Result<Version, String> {
        let text = format!(
            r#"{{"name": "m", "version": "2", "creation_timestamp": 5, "source": "mlflow-artifacts:/1/r/artifacts/m.gguf",
                "status": "READY", "tags": [{tags}]}}"#
        );
        let listed: ModelVersion = serde_json::from_str(&text).unwrap();
        let alone: ModelVersion = serde_json::from_str(&format!(r#"{{"model_version": {text}}}"#)).unwrap();
        assert_eq!(listed.into_version(), alone.into_version());
        let listed: ModelVersion = serde_json::from_str(&text).unwrap();
        listed.into_version()
    }

    #[test]
    fn what_is_written_as_tags_reads_back_as_the_same_version() {
        let mut new = NewVersion::new("m", Source::Path("/m.gguf".into()));
        new.quantization = Some("q8_0".into());
        new.metrics = BTreeMap::from([("perplexity".into(), 0.1 + 0.2), ("loss".into(), -1e-300)]);
        new.tags = BTreeMap::from([("team".into(), "a \"b\"".into())]);
        let measured = Measured { checksum: Some("ab".into()), size_bytes: 7 };
        let tags: Vec<String> =
            tags_of(&new, &measured).iter().map(|tag| serde_json::to_string(tag).unwrap()).collect();
        let read = version(&tags.join(",")).unwrap();
        assert_eq!((read.version, read.created_ms, read.size_bytes), (2, 5, 7));
        assert_eq!((read.metrics, read.tags, read.checksum), (new.metrics, new.tags, measured.checksum));
        assert_eq!(read.quantization, new.quantization);
    }

    #[test]
    fn what_someone_else_registered_is_read_as_far_as_it_goes() {
        let read = version(r#"{"key": "mlflow.user", "value": "me"}, {"key": "team"}"#).unwrap();
        assert_eq!((read.checksum, read.tags.len()), (None, 1));
        assert!(version(r#"{"key": "tenk.size_bytes", "value": "big"}"#).is_err());
        let simulated = version(r#"{"key": "tenk.simulated", "value": "true"}"#).unwrap();
        assert_eq!(simulated.source, Source::Simulated);
    }
}
