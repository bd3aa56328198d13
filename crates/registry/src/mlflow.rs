//! Versions on an MLflow 3 server, over its REST interface: one run a version, which holds its file.
//!
//! Facts that MLflow has no field for are tags of the version: `tenk.checksum`, `tenk.size_bytes`, `tenk.quantization`,
//! `tenk.metric.NAME`. They are given in the request that makes the version, so that none is ever seen without its
//! checksum. MLflow has no compare-and-set: two who register the same file at the same time get two versions, and of
//! two who set an alias the later one wins.

mod artifact;
mod client;
mod wire;

use std::collections::BTreeMap;

use model_store::Progress;
use serde_json::{Value, json};

pub(crate) use self::artifact::cached_path;
use self::client::{ABSENT, Client, EXISTS, INVALID, Method, Refusal};
use self::wire::{Alias, ModelVersion, Page, RegisteredModel, Run, tags_of};
use crate::error::{Error, Known};
use crate::reference::Selector;
use crate::registry::{Registered, now_ms};
use crate::version::{Measured, NewVersion, Source, Version};

/// Where the runs that hold our files are.
const EXPERIMENT: &str = "tenk models";
const PAGE: &str = "200";
/// Far above what a name has; ends a server's endless pages.
const PAGES_MAX: usize = 1_000;

/// An MLflow server.
#[derive(Debug)]
pub(crate) struct Mlflow {
    client: Client,
    timeout_s: u64,
}

impl Mlflow {
    pub(crate) fn new(url: &str, timeout_s: u64, fetch: &model_store::Config) -> Self {
        let timeouts = timeouts(fetch, timeout_s);
        Self { client: Client::new(url, &timeouts), timeout_s }
    }

    pub(crate) fn url(&self) -> &str {
        self.client.url()
    }

    pub(crate) fn register(
        &self,
        new: &NewVersion,
        measured: &Measured,
        progress: &dyn Progress,
    ) -> Result<Registered, Error> {
        let same = |version: &Version| measured.checksum.is_some() && version.checksum == measured.checksum;
        if let Some(version) = self.versions(&new.name)?.into_iter().find(same) {
            return Ok(Registered { version, is_new: false });
        }
        self.create_model(&new.name)?;
        let run = self.create_run(&new.name)?;
        let address = match &new.source {
            Source::Path(path) => self.upload(path, &run, progress)?,
            // MLflow wants an address; nothing is there.
            Source::Simulated | Source::Remote(_) => format!("{}/simulated", run.artifact_uri),
        };
        self.log_metrics(&run.run_id, &new.metrics)?;
        let body = json!({
            "name": new.name, "source": address, "run_id": run.run_id, "tags": tags_of(new, measured),
        });
        let made: Result<ModelVersion, _> = self.client.post("model-versions/create", &body)?;
        let made = made.map_err(|refusal| self.client.refused("create a version", refusal))?;
        let body = json!({"run_id": run.run_id, "status": "FINISHED", "end_time": now_ms()});
        let ended: Result<Value, _> = self.client.post("runs/update", &body)?;
        ended.map_err(|refusal| self.client.refused("end a run", refusal))?;
        Ok(Registered { version: self.version(made)?, is_new: true })
    }

    pub(crate) fn names(&self) -> Result<Vec<String>, Error> {
        let models: Vec<RegisteredModel> = self.pages("registered-models/search", &[])?;
        let mut names: Vec<String> = models.into_iter().map(|model| model.name).collect();
        names.sort();
        Ok(names)
    }

    pub(crate) fn versions(&self, name: &str) -> Result<Vec<Version>, Error> {
        // A name that passed our check needs no escapes.
        let filter = format!("name='{name}'");
        let found: Vec<ModelVersion> = self.pages("model-versions/search", &[("filter", &filter)])?;
        let mut versions =
            found.into_iter().map(|found| self.version(found)).collect::<Result<Vec<_>, _>>()?;
        versions.sort_by_key(|version| version.version);
        Ok(versions)
    }

    pub(crate) fn get(&self, name: &str, selector: &Selector) -> Result<Version, Error> {
        let text = selector.to_string();
        let (path, key) = match selector {
            Selector::Number(_) => ("model-versions/get", "version"),
            Selector::Alias(_) => ("registered-models/alias", "alias"),
        };
        let found: Result<ModelVersion, _> = self.client.get(path, &[("name", name), (key, &text)])?;
        match found {
            Ok(found) => self.version(found),
            Err(refusal) if is_absent(&refusal, selector) => Err(self.known(name)?.missing(name, selector)),
            Err(refusal) => Err(self.client.refused("find a version", refusal)),
        }
    }

    pub(crate) fn aliases(&self, name: &str) -> Result<BTreeMap<String, u64>, Error> {
        let found: Result<RegisteredModel, _> =
            self.client.get("registered-models/get", &[("name", name)])?;
        match found {
            Ok(model) => model.aliases.into_iter().map(|alias: Alias| self.numbered(alias)).collect(),
            Err(refusal) if refusal.code == ABSENT => Ok(BTreeMap::new()),
            Err(refusal) => Err(self.client.refused("list aliases", refusal)),
        }
    }

    pub(crate) fn set_alias(&self, name: &str, alias: &str, version: u64) -> Result<(), Error> {
        let body = json!({"name": name, "alias": alias, "version": version.to_string()});
        let done: Result<Value, _> = self.client.post("registered-models/alias", &body)?;
        match done {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.code == ABSENT => {
                Err(self.known(name)?.missing(name, &Selector::Number(version)))
            }
            Err(refusal) => Err(self.client.refused("set an alias", refusal)),
        }
    }

    pub(crate) fn remove_alias(&self, name: &str, alias: &str) -> Result<bool, Error> {
        // MLflow answers the same whether it was there or not.
        if !self.aliases(name)?.contains_key(alias) {
            return Ok(false);
        }
        let body = json!({"name": name, "alias": alias});
        let done: Result<Value, _> = self.client.send(Method::Delete, "registered-models/alias", &body)?;
        done.map(|_| true).map_err(|refusal| self.client.refused("remove an alias", refusal))
    }

    pub(crate) fn annotate(
        &self,
        name: &str,
        version: u64,
        metrics: &BTreeMap<String, f64>,
        tags: &BTreeMap<String, String>,
    ) -> Result<Version, Error> {
        let number = version.to_string();
        let found: Result<ModelVersion, _> =
            self.client.get("model-versions/get", &[("name", name), ("version", &number)])?;
        let found = match found {
            Ok(found) => found,
            Err(refusal) if refusal.code == ABSENT => {
                return Err(self.known(name)?.missing(name, &Selector::Number(version)));
            }
            Err(refusal) => return Err(self.client.refused("find a version", refusal)),
        };
        if let Some(run_id) = found.run_id.filter(|run_id| !run_id.is_empty()) {
            self.log_metrics(&run_id, metrics)?;
        }
        for (key, value) in wire::notes(metrics, tags) {
            let body = json!({"name": name, "version": number, "key": key, "value": value});
            let done: Result<Value, _> = self.client.post("model-versions/set-tag", &body)?;
            done.map_err(|refusal| self.client.refused("set a tag", refusal))?;
        }
        self.get(name, &Selector::Number(version))
    }

    fn create_model(&self, name: &str) -> Result<(), Error> {
        let made: Result<Value, _> = self.client.post("registered-models/create", &json!({"name": name}))?;
        match made {
            Err(refusal) if refusal.code != EXISTS => Err(self.client.refused("create a model", refusal)),
            _ => Ok(()),
        }
    }

    fn create_run(&self, name: &str) -> Result<wire::RunInfo, Error> {
        let made: Result<wire::Experiment, _> =
            self.client.post("experiments/create", &json!({"name": EXPERIMENT}))?;
        let experiment_id = match made {
            Ok(made) => made.experiment_id,
            Err(refusal) if refusal.code == EXISTS => {
                let found: Result<wire::FoundExperiment, _> =
                    self.client.get("experiments/get-by-name", &[("experiment_name", EXPERIMENT)])?;
                found
                    .map_err(|refusal| self.client.refused("find the experiment", refusal))?
                    .experiment
                    .experiment_id
            }
            Err(refusal) => return Err(self.client.refused("create an experiment", refusal)),
        };
        let body = json!({"experiment_id": experiment_id, "run_name": name, "start_time": now_ms()});
        let run: Result<Run, _> = self.client.post("runs/create", &body)?;
        Ok(run.map_err(|refusal| self.client.refused("create a run", refusal))?.run.info)
    }

    /// For MLflow's own charts; what we read are tags.
    fn log_metrics(&self, run_id: &str, metrics: &BTreeMap<String, f64>) -> Result<(), Error> {
        if metrics.is_empty() {
            return Ok(());
        }
        let now = now_ms();
        let metric = |(key, value)| json!({"key": key, "value": value, "timestamp": now, "step": 0});
        let metrics: Vec<Value> = metrics.iter().map(metric).collect();
        let body = json!({"run_id": run_id, "metrics": metrics});
        let done: Result<Value, _> = self.client.post("runs/log-batch", &body)?;
        done.map(drop).map_err(|refusal| self.client.refused("log metrics", refusal))
    }

    /// All items of a list that comes in pages.
    fn pages<P: Page>(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<P>, Error> {
        let mut items = Vec::new();
        let mut token: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut query = query.to_vec();
            query.push(("max_results", PAGE));
            query.extend(token.as_deref().map(|token| ("page_token", token)));
            let page: Result<P::List, _> = self.client.get(path, &query)?;
            let page = page.map_err(|refusal| self.client.refused("list what there is", refusal))?;
            let (more, next) = P::items(page);
            items.extend(more);
            token = next.filter(|token| !token.is_empty());
            if token.is_none() {
                break;
            }
        }
        Ok(items)
    }

    fn known(&self, name: &str) -> Result<Known, Error> {
        let numbers = self.versions(name)?.iter().map(|version| version.version).collect();
        Ok(Known { names: self.names()?, numbers, aliases: self.aliases(name)? })
    }

    fn version(&self, found: ModelVersion) -> Result<Version, Error> {
        found.into_version().map_err(|reason| self.client.bad_answer(reason))
    }

    fn numbered(&self, alias: Alias) -> Result<(String, u64), Error> {
        let number = alias.version.parse();
        let number = number
            .map_err(|_| self.client.bad_answer(format!("version `{}` is no number", alias.version)))?;
        Ok((alias.alias, number))
    }
}

/// An unknown alias is told as a wrong argument.
fn is_absent(refusal: &Refusal, selector: &Selector) -> bool {
    let is_alias = matches!(selector, Selector::Alias(_));
    refusal.code == ABSENT || (is_alias && refusal.code == INVALID && refusal.message.contains("not found"))
}

/// A download's bounds, with the server's patience.
fn timeouts(fetch: &model_store::Config, timeout_s: u64) -> model_store::Config {
    let timeout_ms = timeout_s * 1_000;
    model_store::Config {
        stall_timeout_ms: timeout_ms,
        connect_timeout_ms: fetch.connect_timeout_ms.min(timeout_ms),
        ..fetch.clone()
    }
}
