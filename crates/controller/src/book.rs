//! What all records come to.

use std::collections::BTreeMap;

use rollout::Rollout;
use routing::{ModelRoutes, RouteTable, VersionRoute};

use crate::Record;

/// Every model's state: that of its last record.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Book {
    pub(crate) seq: u64,
    pub(crate) epoch: u64,
    pub(crate) models: BTreeMap<String, Entry>,
}

/// One model's state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Entry {
    /// Who has the users when no rollout is on.
    pub(crate) stable: String,
    /// The rollout at hand, or the last one.
    pub(crate) rollout: Option<Rollout>,
}

impl Entry {
    /// The rollout, unless it is over.
    pub(crate) fn active(&self) -> Option<&Rollout> {
        self.rollout.as_ref().filter(|rollout| rollout.is_active())
    }

    /// The share of the users that have the new version of the rollout. When that is over, another version may have
    /// been pinned since.
    pub(crate) fn percent(&self) -> f64 {
        match &self.rollout {
            None => 0.0,
            Some(rollout) if rollout.is_active() => f64::from(rollout.weight()) / 100.0,
            Some(rollout) if rollout.spec.to == self.stable => 100.0,
            Some(_) => 0.0,
        }
    }
}

impl Book {
    /// Takes one more record in.
    pub(crate) fn add(&mut self, record: &Record) {
        (self.seq, self.epoch) = (record.seq, record.epoch);
        if !record.model.is_empty() {
            let entry = Entry { stable: record.stable.clone(), rollout: record.rollout.clone() };
            self.models.insert(record.model.clone(), entry);
        }
    }

    /// Rollouts that are not over.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Rollout> {
        self.models.values().filter_map(Entry::active)
    }

    /// The routes that follow. A version that no row names gets no users, however many workers it has.
    pub(crate) fn table(&self) -> RouteTable {
        let routes = |entry: &Entry| match &entry.rollout {
            Some(rollout) if rollout.is_active() => rollout.routes(),
            last => ModelRoutes {
                versions: vec![VersionRoute::active(
                    &entry.stable,
                    RouteTable::WEIGHT_TOTAL,
                    RouteTable::POOL,
                )],
                // The shuffle stays, so that nobody moves.
                salt: last.as_ref().map_or_else(String::new, |rollout| rollout.id.clone()),
                observe: None,
            },
        };
        let models = self.models.iter().map(|(model, entry)| (model.clone(), routes(entry)));
        RouteTable { epoch: self.epoch, generation: self.seq, models: models.collect() }
    }
}
