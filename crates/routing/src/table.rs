//! Which versions a model has, and which share of its users each one gets.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::{RouteError, StickyKey};

/// All routes at one moment. Whoever changes them sends a whole new table; a gateway keeps the one that supersedes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Counts the writers: it grows when another one takes over, so that a late word of the former one is ignored.
    pub epoch: u64,
    /// Counts the changes of one writer.
    pub generation: u64,
    /// By the name that requests use.
    #[serde(default)]
    pub models: BTreeMap<String, ModelRoutes>,
}

/// The versions of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRoutes {
    /// Newest first. Users lie on a line that is cut in this order, so weight that moves between neighbours moves
    /// only users of these two, and only in that direction. A canary in front of the stable version so gains users
    /// and loses none while it grows. A second canary belongs behind the stable version, never beside the first.
    pub versions: Vec<VersionRoute>,
    /// Shuffles the users' places on the line. A rollout that sets its own, while one version still has all the
    /// weight, moves nobody and spares the same users from being the first to meet every new version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub salt: String,
    /// What is to be told about its versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observe: Option<Observe>,
}

/// What a gateway tells about a model's versions while a rollout is on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observe {
    /// What is seen belongs to this step of a rollout. A new name begins anew.
    pub step: String,
    /// How many prompts a minute are to be told along, for warming up and for comparing answers.
    pub prompts_per_min: u32,
    /// The version that also gets copies of requests, whose answers nobody sees.
    pub mirror_to: Option<String>,
    /// Of how many requests, as parts of [`RouteTable::WEIGHT_TOTAL`].
    pub mirror: u32,
}

/// One version of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRoute {
    /// Its name, unique within the model.
    pub version: String,
    /// Parts of [`RouteTable::WEIGHT_TOTAL`] of the model's users.
    pub weight: u32,
    /// The workers that serve it.
    pub pool: String,
    /// Whether it takes requests.
    #[serde(default)]
    pub state: VersionState,
}

/// What a version takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// Requests by weight, and those that ask for it.
    #[default]
    Active,
    /// Only requests that ask for it: a version that is tried before it gets users. Its weight does not count.
    Preview,
    /// No new requests: what runs there comes to its end. Its weight does not count.
    Draining,
}

impl VersionRoute {
    /// An active version.
    pub fn active(version: impl Into<String>, weight: u32, pool: impl Into<String>) -> Self {
        Self { version: version.into(), weight, pool: pool.into(), state: VersionState::Active }
    }

    /// The weight that counts.
    fn weight_in_force(&self) -> u32 {
        if self.state == VersionState::Active { self.weight } else { 0 }
    }
}

impl ModelRoutes {
    /// Versions newest first, with no salt.
    pub fn new(versions: Vec<VersionRoute>) -> Self {
        Self { versions, ..Self::default() }
    }
}

impl RouteTable {
    /// The pool of workers that were given by address, of which the version alone tells them apart.
    pub const POOL: &str = "default";
    /// What the weights of a model's active versions add up to: a weight of 500 is 5% of the users.
    pub const WEIGHT_TOTAL: u32 = 10_000;
    /// The most models in a table.
    pub const MODELS_MAX: usize = 1_000;
    /// The most versions of one model: they become labels of metrics.
    pub const VERSIONS_MAX: usize = 16;

    /// The table of a gateway that nobody has told anything else: one model, one version, one pool.
    pub fn single(model: impl Into<String>, version: impl Into<String>, pool: impl Into<String>) -> Self {
        let routes = ModelRoutes::new(vec![VersionRoute::active(version, Self::WEIGHT_TOTAL, pool)]);
        Self { epoch: 0, generation: 0, models: BTreeMap::from([(model.into(), routes)]) }
    }

    /// Whether this table is newer than `other`. The same table twice is not.
    pub fn supersedes(&self, other: &Self) -> bool {
        (self.epoch, self.generation) > (other.epoch, other.generation)
    }

    /// The names of the models, in order.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// The version for a request: the one that it asks for, else the one that its key falls to.
    ///
    /// Fails with [`RouteError::UnknownModel`], with [`RouteError::UnknownVersion`] or
    /// [`RouteError::VersionDraining`] where one was asked for, and with [`RouteError::NoActiveVersion`].
    pub fn assign(
        &self,
        model: &str,
        sticky: StickyKey,
        override_version: Option<&str>,
    ) -> Result<&VersionRoute, RouteError> {
        let routes =
            self.models.get(model).ok_or_else(|| RouteError::UnknownModel { model: model.into() })?;
        match override_version {
            Some(version) => routes.find(model, version),
            None => routes.by_weight(model, sticky),
        }
    }

    /// Checks a table that came from outside: bounds, unique versions, and weights that add up.
    pub fn validate(&self) -> Result<(), RouteError> {
        if self.models.len() > Self::MODELS_MAX {
            return Err(RouteError::InvalidTable {
                model: String::new(),
                reason: format!(
                    "it has {} models, but at most {} are allowed",
                    self.models.len(),
                    Self::MODELS_MAX
                ),
            });
        }
        self.models.iter().try_for_each(|(model, routes)| {
            routes.validate().map_err(|reason| RouteError::InvalidTable { model: model.clone(), reason })
        })
    }
}

impl ModelRoutes {
    fn find(&self, model: &str, version: &str) -> Result<&VersionRoute, RouteError> {
        match self.versions.iter().find(|route| route.version == version) {
            None => Err(RouteError::UnknownVersion { model: model.into(), version: version.into() }),
            Some(route) if route.state == VersionState::Draining => {
                Err(RouteError::VersionDraining { model: model.into(), version: version.into() })
            }
            Some(route) => Ok(route),
        }
    }

    fn by_weight(&self, model: &str, sticky: StickyKey) -> Result<&VersionRoute, RouteError> {
        let total: u64 = self.versions.iter().map(|route| u64::from(route.weight_in_force())).sum();
        let position = u128::from(sticky.position(model, &self.salt));
        // Below `total`, and spread over it as evenly as the hash over `u64`.
        let point = (position * u128::from(total)) >> 64;
        let mut end = 0;
        self.versions
            .iter()
            .find(|route| {
                end += u128::from(route.weight_in_force());
                point < end
            })
            .ok_or_else(|| RouteError::NoActiveVersion { model: model.into() })
    }

    fn validate(&self) -> Result<(), String> {
        if self.versions.len() > RouteTable::VERSIONS_MAX {
            let (count, max) = (self.versions.len(), RouteTable::VERSIONS_MAX);
            return Err(format!("it has {count} versions, but at most {max} are allowed"));
        }
        let mut names = HashSet::new();
        if let Some(twice) = self.versions.iter().find(|route| !names.insert(&route.version)) {
            return Err(format!("version `{}` is there twice, but names must be unique", twice.version));
        }
        let total: u64 = self.versions.iter().map(|route| u64::from(route.weight_in_force())).sum();
        if total != u64::from(RouteTable::WEIGHT_TOTAL) {
            let expected = RouteTable::WEIGHT_TOTAL;
            return Err(format!(
                "the weights of its active versions add up to {total}, but must to {expected}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
