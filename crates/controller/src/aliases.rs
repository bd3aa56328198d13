//! `stable` and `canary` follow what was decided, in a place that may be slow or away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// From a write that failed to the next attempt, at first; each time it doubles.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Where aliases of versions are kept, so that `stable` and `canary` follow what was decided.
pub trait Aliases: Send + Sync + fmt::Debug {
    /// The version that an alias of a model means; nothing where there is no such alias. Blocks.
    ///
    /// # Errors
    /// Why it cannot be known at the moment.
    fn get(&self, model: &str, alias: &str) -> Result<Option<String>, String>;

    /// Moves an alias of a model, or takes it away. A version that is not kept there is no error. Blocks.
    ///
    /// # Errors
    /// Why it cannot be done at the moment. It is tried again.
    fn set(&self, model: &str, alias: &str, version: Option<&str>) -> Result<(), String>;
}

/// Writes aliases beside the task that decides. The last word about each counts, and is said until it is heard.
#[derive(Debug)]
pub(crate) struct AliasKeeper {
    aliases: Arc<dyn Aliases>,
    wanted: watch::Sender<Wanted>,
}

/// By model and alias.
type Wanted = BTreeMap<(String, &'static str), Wish>;

/// What an alias is to mean.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    version: String,
    /// Whether it is to mean this version, or this one no longer.
    is_meant: bool,
    /// Of the controller: whoever takes over says everything again.
    epoch: u64,
}

impl AliasKeeper {
    pub(crate) fn start(aliases: Arc<dyn Aliases>) -> Self {
        let (wanted, told) = watch::channel(Wanted::new());
        tokio::spawn(keep(Arc::clone(&aliases), told));
        Self { aliases, wanted }
    }

    /// Where they are kept, for questions.
    pub(crate) fn place(&self) -> Arc<dyn Aliases> {
        Arc::clone(&self.aliases)
    }

    /// Says which version is meant. Never waits.
    pub(crate) fn point(&self, epoch: u64, model: &str, alias: &'static str, version: &str) {
        self.want(model, alias, Wish { version: version.to_owned(), is_meant: true, epoch });
    }

    /// Says that an alias goes, if it means this version still: its owner may have moved it. Never waits.
    pub(crate) fn clear(&self, epoch: u64, model: &str, alias: &'static str, version: &str) {
        self.want(model, alias, Wish { version: version.to_owned(), is_meant: false, epoch });
    }

    fn want(&self, model: &str, alias: &'static str, wish: Wish) {
        self.wanted.send_modify(|wanted| {
            wanted.insert((model.to_owned(), alias), wish);
        });
    }

    /// Says nothing more: another controller decides.
    pub(crate) fn stop(&self) {
        self.wanted.send_modify(Wanted::clear);
    }
}

/// Does what is wanted, again and again where it fails, until the keeper is gone.
async fn keep(aliases: Arc<dyn Aliases>, mut told: watch::Receiver<Wanted>) {
    let (mut written, mut failed) = (Wanted::new(), BTreeSet::new());
    let mut pause = PAUSE_MIN;
    loop {
        let wanted = told.borrow_and_update().clone();
        written.retain(|key, _| wanted.contains_key(key));
        failed.retain(|key| wanted.contains_key(key));
        let mut is_complete = true;
        for (key, wish) in wanted {
            // There may be a newer word by now.
            if written.get(&key) == Some(&wish) || told.borrow().get(&key) != Some(&wish) {
                continue;
            }
            let (model, alias) = key.clone();
            let (place, doing) = (Arc::clone(&aliases), wish.clone());
            let done = tokio::task::spawn_blocking(move || fulfil(&*place, &model, alias, &doing)).await;
            let (model, alias) = &key;
            match done.unwrap_or_else(|broken| Err(broken.to_string())) {
                Ok(()) => {
                    if failed.remove(&key) {
                        tracing::info!(model, alias, "the registry has taken an alias at last");
                    }
                    written.insert(key, wish);
                }
                Err(error) => {
                    is_complete = false;
                    if !failed.contains(&key) {
                        tracing::warn!(
                            model,
                            alias,
                            error,
                            "the registry does not take an alias; it is tried again"
                        );
                        failed.insert(key);
                    }
                }
            }
        }
        let is_kept = if is_complete {
            pause = PAUSE_MIN;
            told.changed().await.is_ok()
        } else {
            let changed = timeout(pause, told.changed()).await;
            pause = (pause * 2).min(PAUSE_MAX);
            !matches!(changed, Ok(Err(_)))
        };
        if !is_kept {
            return;
        }
    }
}

fn fulfil(aliases: &dyn Aliases, model: &str, alias: &str, wish: &Wish) -> Result<(), String> {
    if wish.is_meant {
        return aliases.set(model, alias, Some(&wish.version));
    }
    match aliases.get(model, alias)? {
        Some(version) if version == wish.version => aliases.set(model, alias, None),
        _ => Ok(()),
    }
}
