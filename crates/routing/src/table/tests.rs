use proptest::prelude::*;

use super::*;

fn table(versions: &[(&str, u32)]) -> RouteTable {
    let versions = versions
        .iter()
        .map(|(version, weight)| VersionRoute::active(*version, *weight, format!("{version}-pool")));
    RouteTable {
        epoch: 1,
        generation: 1,
        models: BTreeMap::from([("m".into(), ModelRoutes::new(versions.collect()))]),
    }
}

fn user(number: u32) -> StickyKey {
    StickyKey::from_parts(None, Some(&number.to_string()), None, None)
}

fn assigned(table: &RouteTable, number: u32) -> &str {
    &table.assign("m", user(number), None).expect("has an active version").version
}

/// Weights of `count` versions that add up to the total.
fn weights(count: usize) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..=RouteTable::WEIGHT_TOTAL, count - 1).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts.push(RouteTable::WEIGHT_TOTAL);
        let starts = [0].into_iter().chain(cuts.clone());
        cuts.iter().zip(starts).map(|(end, start)| end - start).collect()
    })
}

const NAMES: [&str; 4] = ["v4", "v3", "v2", "v1"];

proptest! {
    #[test]
    fn a_growing_canary_only_gains_users(before in 0..=10_000_u32, growth in 0..=10_000_u32) {
        let after = (before + growth).min(10_000);
        let [before, after] = [before, after].map(|canary| table(&[("canary", canary), ("stable", 10_000 - canary)]));
        for number in 0..300 {
            if assigned(&before, number) == "canary" {
                prop_assert_eq!(assigned(&after, number), "canary");
            }
        }
    }

    #[test]
    fn weight_that_moves_between_neighbours_moves_only_users_of_these_two_and_only_that_way(
        weights in weights(NAMES.len()), giver in 0..NAMES.len(), to_newer in any::<bool>(), share in 0.0..=1.0_f64,
    ) {
        let taker = if to_newer { giver.wrapping_sub(1) } else { giver + 1 };
        prop_assume!(taker < NAMES.len());
        let moved = (f64::from(weights[giver]) * share) as u32;
        let mut after = weights.clone();
        after[giver] -= moved;
        after[taker] += moved;
        let [before, after] = [weights, after].map(|weights| {
            table(&NAMES.into_iter().zip(weights).collect::<Vec<_>>())
        });
        for number in 0..300 {
            let (from, to) = (assigned(&before, number), assigned(&after, number));
            prop_assert!(from == to || (from == NAMES[giver] && to == NAMES[taker]), "{} moved to {}", from, to);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn each_version_gets_the_share_of_users_that_its_weight_says(weights in weights(NAMES.len())) {
        const USERS: u32 = 10_000;
        let table = table(&NAMES.into_iter().zip(weights.clone()).collect::<Vec<_>>());
        let mut users = BTreeMap::new();
        for number in 0..USERS {
            *users.entry(assigned(&table, number)).or_insert(0_u32) += 1;
        }
        for (name, weight) in NAMES.into_iter().zip(weights) {
            let share = f64::from(users.get(name).copied().unwrap_or(0)) / f64::from(USERS);
            let expected = f64::from(weight) / f64::from(RouteTable::WEIGHT_TOTAL);
            // Five standard deviations of the largest variance that a share can have.
            prop_assert!((share - expected).abs() < 0.025, "{} got {}, expected {}", name, share, expected);
            prop_assert!(weight > 0 || share == 0.0, "{} has no weight, but users", name);
        }
    }
}

#[test]
fn another_salt_draws_other_users_to_the_canary() {
    let mut salted = table(&[("canary", 1_000), ("stable", 9_000)]);
    let plain = salted.clone();
    salted.models.get_mut("m").expect("is there").salt = "rollout-7".into();
    let canary = |table: &RouteTable| {
        (0..2_000).filter(|number| assigned(table, *number) == "canary").collect::<Vec<_>>()
    };
    let (plain, salted) = (canary(&plain), canary(&salted));
    let both = plain.iter().filter(|number| salted.contains(number)).count();
    assert!((100..300).contains(&plain.len()) && (100..300).contains(&salted.len()));
    assert!(both < 60, "a tenth of a tenth was expected in both, but {both} of 2000 are");
}

#[test]
fn only_active_versions_get_users_and_a_preview_only_those_that_ask() {
    let mut table = table(&[("new", 5_000), ("old", 0), ("stable", 5_000)]);
    let versions = &mut table.models.get_mut("m").expect("is there").versions;
    versions[0].state = VersionState::Preview;
    versions[1].state = VersionState::Draining;
    assert!((0..100).all(|number| assigned(&table, number) == "stable"));
    let ask = |version| table.assign("m", user(1), Some(version)).map(|route| route.pool.as_str());
    assert_eq!(ask("new"), Ok("new-pool"));
    assert_eq!(ask("stable"), Ok("stable-pool"));
    assert!(matches!(ask("old"), Err(RouteError::VersionDraining { .. })));
    assert!(matches!(ask("none"), Err(RouteError::UnknownVersion { .. })));
    assert!(matches!(table.assign("x", user(1), None), Err(RouteError::UnknownModel { .. })));
}

#[test]
fn a_model_without_weights_is_an_error_and_not_a_guess() {
    let table = table(&[("a", 0), ("b", 0)]);
    assert_eq!(table.assign("m", user(1), None), Err(RouteError::NoActiveVersion { model: "m".into() }));
}

#[test]
fn a_later_epoch_supersedes_any_generation_of_an_earlier_one() {
    let at = |epoch, generation| RouteTable { epoch, generation, ..RouteTable::default() };
    assert!(at(2, 0).supersedes(&at(1, 99)));
    assert!(at(1, 2).supersedes(&at(1, 1)));
    assert!(!at(1, 1).supersedes(&at(1, 1)));
    assert!(!at(1, 99).supersedes(&at(2, 0)));
}

#[test]
fn a_table_that_breaks_its_rules_is_refused() {
    assert_eq!(RouteTable::single("m", "v1", "default").validate(), Ok(()));
    assert_eq!(table(&[("b", 500), ("a", 9_500)]).validate(), Ok(()));
    let reason = |table: RouteTable| table.validate().expect_err("breaks a rule").to_string();
    assert!(reason(table(&[("b", 500), ("a", 9_000)])).contains("add up to 9500"));
    assert!(reason(table(&[("a", 500), ("a", 9_500)])).contains("twice"));
    assert!(reason(table(&[("a", 0); 17])).contains("17 versions"));
    let mut many = RouteTable::default();
    many.models.extend((0..1_001).map(|model| (model.to_string(), ModelRoutes::default())));
    assert!(reason(many).contains("1001 models"));
}

#[test]
fn a_table_survives_json_and_lists_its_models() {
    let mut table = table(&[("b", 500), ("a", 9_500)]);
    table.models.insert("a-model".into(), ModelRoutes::default());
    let text = serde_json::to_string(&table).expect("serializes");
    assert_eq!(serde_json::from_str::<RouteTable>(&text).expect("parses"), table);
    assert_eq!(table.models().collect::<Vec<_>>(), ["a-model", "m"]);
    let short = r#"{"epoch":0,"generation":0,"models":{"m":{"versions":[{"version":"v1","weight":10000,"pool":"p"}]}}}"#;
    assert_eq!(
        serde_json::from_str::<RouteTable>(short).expect("parses"),
        RouteTable::single("m", "v1", "p")
    );
}
