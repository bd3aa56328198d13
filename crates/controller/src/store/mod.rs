//! Where decisions are kept.

mod file;
mod shared;

use crate::{Config, ControllerError, Record};
pub(crate) use file::FileStore;
pub(crate) use shared::RedisStore;

/// A log that one controller at a time may write to.
#[derive(Debug)]
pub(crate) enum Store {
    /// In a folder of this machine.
    File(FileStore),
    /// In Redis.
    Redis(RedisStore),
}

/// What whoever begins to decide finds.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Above all former ones.
    pub(crate) epoch: u64,
    /// All that was decided so far.
    pub(crate) records: Vec<Record>,
    /// What a former controller had seen of the evidence.
    pub(crate) checkpoint: Option<String>,
}

impl Store {
    /// The log of these settings; `default_dir` where no place is set. Nothing is opened yet.
    pub(crate) fn new(config: &Config, default_dir: &std::path::Path) -> Result<Self, ControllerError> {
        match &config.redis_url {
            Some(url) => RedisStore::new(url).map(Self::Redis),
            None => {
                let folder = config.state_dir.clone().unwrap_or_else(|| default_dir.to_owned());
                Ok(Self::File(FileStore::new(folder)))
            }
        }
    }

    /// What whoever decides holds, for people.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::File(store) => format!("the lock in {}", store.folder().display()),
            Self::Redis(_) => "the lease in Redis".into(),
        }
    }

    /// Begins to decide, in an epoch above `above`, unless another controller does: then there is nothing.
    pub(crate) async fn take(&mut self, above: u64) -> Result<Option<Taken>, ControllerError> {
        match self {
            Self::File(store) => store.take(above).await,
            Self::Redis(store) => store.take(above).await,
        }
    }

    /// Decides no more, so that another one can.
    pub(crate) fn release(&mut self) {
        match self {
            Self::File(store) => store.release(),
            Self::Redis(store) => store.release(),
        }
    }

    /// Goes on deciding; fails with [`ControllerError::Fenced`] where another controller does.
    pub(crate) async fn keep(&mut self) -> Result<(), ControllerError> {
        match self {
            Self::File(_) => Ok(()),
            Self::Redis(store) => store.keep().await,
        }
    }

    /// Writes a decision down for good, or fails; where Redis fell silent, it may be written all the same, and whoever
    /// takes over goes by it.
    pub(crate) async fn append(&mut self, record: &Record) -> Result<(), ControllerError> {
        match self {
            Self::File(store) => store.append(record).await,
            Self::Redis(store) => store.append(record).await,
        }
    }

    /// Notes what was seen of the evidence. Losing it makes a judge slower, and nothing wrong.
    pub(crate) async fn checkpoint(&mut self, text: String) -> Result<(), ControllerError> {
        match self {
            Self::File(store) => store.checkpoint(text).await,
            Self::Redis(store) => store.checkpoint(text).await,
        }
    }

    /// The last records, newest last, that `wanted` wants.
    pub(crate) async fn history(
        &mut self,
        wanted: impl Fn(&Record) -> bool + Send + 'static,
        max: usize,
    ) -> Result<Vec<Record>, ControllerError> {
        let mut records = match self {
            Self::File(store) => store.records().await?,
            Self::Redis(store) => store.records().await?,
        };
        records.retain(wanted);
        Ok(records.split_off(records.len().saturating_sub(max)))
    }
}

/// Reads a log's lines.
fn read<'a>(name: &str, lines: impl Iterator<Item = &'a str>) -> Result<Vec<Record>, ControllerError> {
    let corrupt = |line| move |source| ControllerError::Corrupt { path: name.to_owned(), line, source };
    lines.zip(1..).map(|(text, line)| serde_json::from_str(text).map_err(corrupt(line))).collect()
}

#[cfg(test)]
mod tests;
