//! A version, and what is said of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::name::{check_key, check_name};

const SIMULATED: &str = "simulated:";
const TAG_BYTES_MAX: usize = 5_000;
const ENTRIES_MAX: usize = 100;

/// Where a version's file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Source {
    /// A `.gguf` file or a model folder on this machine, as an absolute path.
    Path(PathBuf),
    /// An address that the registry's server knows, such as `mlflow-artifacts:/1/RUN/artifacts/tiny.gguf`.
    Remote(String),
    /// Nowhere: simulated engines need none.
    Simulated,
}

impl From<String> for Source {
    fn from(text: String) -> Self {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        let is_scheme =
            |scheme: &str| scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        match scheme {
            _ if text == SIMULATED => Self::Simulated,
            Some(scheme) if is_scheme(scheme) => Self::Remote(text),
            _ => Self::Path(text.into()),
        }
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Remote(address) => f.write_str(address),
            Self::Simulated => f.write_str(SIMULATED),
        }
    }
}

/// One version of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Version {
    /// The model's name.
    pub name: String,
    /// Its number, from 1 on.
    pub version: u64,
    /// Where its file is.
    pub source: Source,
    /// The file's SHA-256 in lowercase hex, as [`model_store::checksum`] computes it; none where there is no file, and
    /// where someone else registered it without one.
    pub checksum: Option<String>,
    /// The file's size, in bytes.
    pub size_bytes: u64,
    /// The type of most of its weights, such as `q8_0`.
    pub quantization: Option<String>,
    /// What was measured of it.
    pub metrics: BTreeMap<String, f64>,
    /// What people want to find it by.
    pub tags: BTreeMap<String, String>,
    /// When it was registered, in milliseconds since 1970.
    pub created_ms: u64,
}

impl Version {
    /// When it was registered, such as `2026-11-29 14:05` in UTC.
    pub fn created(&self) -> String {
        let mut moment = utc(self.created_ms);
        moment.truncate("2026-01-01 00:00".len());
        moment
    }
}

/// A moment in milliseconds since 1970, in UTC and to the second, such as `2026-01-31 23:59:59`.
pub fn utc(at_ms: u64) -> String {
    let seconds = at_ms / 1_000;
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// A day since 1970 as year, month and day. By Howard Hinnant's `civil_from_days`: years begin in March, so that the day
/// that leap years add comes last.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, of_month)
}

/// What is to become a version.
#[derive(Clone, Debug, PartialEq)]
pub struct NewVersion {
    /// The model's name.
    pub name: String,
    /// A file or folder on this machine, or [`Source::Simulated`].
    pub source: Source,
    /// The type of most of its weights, such as `q8_0`.
    pub quantization: Option<String>,
    /// What was measured of it.
    pub metrics: BTreeMap<String, f64>,
    /// What people want to find it by.
    pub tags: BTreeMap<String, String>,
}

impl NewVersion {
    /// One of which nothing more is known.
    pub fn new(name: impl Into<String>, source: Source) -> Self {
        let (metrics, tags) = (BTreeMap::new(), BTreeMap::new());
        Self { name: name.into(), source, quantization: None, metrics, tags }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        check_name(&self.name)?;
        check_notes(&self.metrics, &self.tags)
    }
}

/// Whether metrics and tags can be kept by either backend.
pub(crate) fn check_notes(
    metrics: &BTreeMap<String, f64>,
    tags: &BTreeMap<String, String>,
) -> Result<(), Error> {
    for (key, value) in metrics {
        check_key("metric", key)?;
        if !value.is_finite() {
            return Err(Error::BadMetric { key: key.clone(), value: *value });
        }
    }
    let long = |what, key: &String| Error::BadName {
        what,
        name: key.clone(),
        expected: "at most 100 of them, with values of at most 5000 bytes",
    };
    for (key, value) in tags {
        check_key("tag", key)?;
        if value.len() > TAG_BYTES_MAX || tags.len() > ENTRIES_MAX {
            return Err(long("tag", key));
        }
    }
    match metrics.keys().nth(ENTRIES_MAX) {
        Some(key) => Err(long("metric", key)),
        None => Ok(()),
    }
}

/// A file's checksum and size, taken before anything is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) checksum: Option<String>,
    pub(crate) size_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_path_an_address_or_nothing() {
        let source = |text: &str| Source::from(text.to_owned());
        assert_eq!(source("/models/a:b.gguf"), Source::Path("/models/a:b.gguf".into()));
        assert_eq!(source("simulated:"), Source::Simulated);
        let remote = "mlflow-artifacts:/1/r/artifacts/m.gguf";
        assert_eq!(source(remote), Source::Remote(remote.into()));
        for text in ["/m.gguf", "simulated:", remote, "s3://b/k"] {
            assert_eq!(source(text).to_string(), text);
        }
    }

    #[test]
    fn a_version_says_when_it_was_made() {
        let at = |created_ms| {
            let (metrics, tags, name) = (BTreeMap::new(), BTreeMap::new(), String::new());
            let (checksum, quantization, source) = (None, None, Source::Simulated);
            let version = Version {
                name,
                version: 1,
                source,
                checksum,
                size_bytes: 0,
                quantization,
                metrics,
                tags,
                created_ms,
            };
            version.created()
        };
        assert_eq!(at(0), "1970-01-01 00:00");
        assert_eq!(at(951_782_400_000), "2000-02-29 00:00");
        assert_eq!(at(1_795_920_233_404), "2026-11-29 02:43");
        assert_eq!(at(4_107_542_399_000), "2100-02-28 23:59");
    }

    #[test]
    fn a_metric_must_be_a_number_that_json_can_hold() {
        let mut new = NewVersion::new("m", Source::Simulated);
        new.metrics.insert("loss".into(), f64::NAN);
        assert!(matches!(new.check(), Err(Error::BadMetric { .. })));
    }
}
