//! The route table that follows from what workers serve, where nobody has given another one.

use std::collections::BTreeMap;

use routing::{ModelRoutes, RouteTable, VersionRoute};

/// What one worker serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served<'a> {
    pub(super) model: &'a str,
    pub(super) version: &'a str,
    pub(super) up: bool,
}

/// One row a model; where workers serve several versions, each gets its workers' share.
pub(super) fn routes<'a>(served: impl Iterator<Item = Served<'a>>) -> BTreeMap<String, ModelRoutes> {
    let mut counts: BTreeMap<&str, BTreeMap<&str, Share>> = BTreeMap::new();
    for Served { model, version, up } in served {
        let share = counts.entry(model).or_default().entry(version).or_default();
        share.workers += 1;
        share.workers_up += u32::from(up);
    }
    counts.into_iter().map(|(model, versions)| (model.to_owned(), shares(&versions))).collect()
}

/// How many workers a version has.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    workers: u32,
    workers_up: u32,
}

/// Weights by the workers that are up; by all of them where none is, so that a model does not vanish with them.
fn shares(versions: &BTreeMap<&str, Share>) -> ModelRoutes {
    let up: u32 = versions.values().map(|share| share.workers_up).sum();
    let count = |share: &Share| if up == 0 { share.workers } else { share.workers_up };
    let total: u32 = versions.values().map(count).sum();
    let (mut counted, mut given) = (0, 0);
    let routes = versions.iter().map(|(version, share)| {
        counted += count(share);
        // Rounding goes to the neighbours, and the weights add up whatever it does.
        let end = RouteTable::WEIGHT_TOTAL * counted / total;
        let weight = end - std::mem::replace(&mut given, end);
        VersionRoute::active(*version, weight, RouteTable::POOL)
    });
    ModelRoutes::new(routes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(versions: &[(&str, u32, u32)]) -> Vec<u32> {
        let share = |&(version, workers, workers_up)| (version, Share { workers, workers_up });
        let routes = shares(&versions.iter().map(share).collect());
        routes.versions.iter().map(|route| route.weight).collect()
    }

    #[test]
    fn versions_share_users_as_they_share_workers_that_are_up() {
        assert_eq!(weights(&[("a", 1, 1)]), [10_000]);
        assert_eq!(weights(&[("a", 1, 1), ("b", 2, 2)]), [3_333, 6_667]);
        assert_eq!(weights(&[("a", 2, 0), ("b", 1, 1)]), [0, 10_000]);
        assert_eq!(weights(&[("a", 3, 0), ("b", 1, 0)]), [7_500, 2_500]);
        assert_eq!(weights(&[("a", 7, 7); 1]).iter().sum::<u32>(), RouteTable::WEIGHT_TOTAL);
        let many: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"].map(|version| (version, 3, 3)).to_vec();
        assert_eq!(weights(&many).iter().sum::<u32>(), RouteTable::WEIGHT_TOTAL);
    }
}
