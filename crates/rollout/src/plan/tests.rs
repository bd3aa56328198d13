use proptest::prelude::{Just, Strategy as _, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use routing::{RouteTable, StickyKey};

use super::*;
use crate::spec::Step;
use crate::{Metric, MetricAssessment, Spec};

fn rollout() -> Rollout {
    Rollout::new("chat-1", Spec::new("chat", "2"), "1", 0)
}

fn of(strategy: Strategy) -> Rollout {
    Rollout::new("chat-1", Spec { strategy, ..Spec::new("chat", "2") }, "1", 0)
}

fn fleet() -> Fleet {
    Fleet {
        canary_workers: 1,
        stable_workers: 2,
        canary_places: 16,
        gateways: 1,
        gateways_current: 1,
        ..Fleet::default()
    }
}

fn assessment(verdict: Verdict) -> Assessment {
    let metric = MetricAssessment {
        metric: Metric::Latency(evidence::Latency::EndToEnd),
        stable: Some(1.0),
        canary: Some(1.3),
        low: 0.12,
        high: 0.48,
        margin: 0.25,
        tolerance: 0.1,
        samples: 200,
        verdict,
    };
    Assessment {
        verdict,
        stable_users: 4_000,
        canary_users: 200,
        guard_hit: false,
        canary_requests: 300,
        canary_failed: 90,
        metrics: vec![metric],
    }
}

const WARM: [f64; 8] = [3.0, 0.5, 0.21, 0.2, 0.2, 0.21, 0.2, 0.2];

/// What is decided after `elapsed_s` with a verdict.
fn decided(rollout: &Rollout, verdict: Verdict, elapsed_s: u64) -> Decision {
    let assessment = assessment(verdict);
    let seen = Observed { assessment: Some(&assessment), fleet: fleet(), warm: &WARM, warm_failure: None };
    rollout.plan(&seen, rollout.since_ms + elapsed_s * 1_000)
}

fn phase(decision: &Decision) -> Option<Phase> {
    match decision {
        Decision::Go { phase, .. } => Some(*phase),
        Decision::Stay { .. } => None,
    }
}

#[test]
fn a_good_version_goes_up_its_steps_to_the_end() {
    let mut rollout = rollout();
    let mut told = Vec::new();
    while rollout.is_active() {
        let elapsed_s = if rollout.phase == Phase::Warming { 1 } else { 61 };
        let decision = decided(&rollout, Verdict::Pass, elapsed_s);
        let Decision::Go { phase, reason } = decision else { panic!("{decision:?}") };
        rollout = rollout.at(phase, rollout.since_ms + elapsed_s * 1_000);
        told.push(format!("{:>5}  {reason}", rollout.weight()));
    }
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn every_stop_says_what_it_waits_for() {
    let first = rollout().at(Phase::Step { index: 0 }, 0);
    let few = Assessment { canary_users: 7, ..assessment(Verdict::Pass) };
    let guard = Assessment { guard_hit: true, ..assessment(Verdict::Insufficient) };
    let seen = |assessment| Observed { assessment, fleet: fleet(), warm: &WARM, warm_failure: None };
    let small = Fleet { in_flight: 400, hit_share: 0.5, canary_places: 16, ..fleet() };
    let gone = Fleet { canary_workers: 0, canary_absent_since_ms: Some(10_000), ..fleet() };
    let pass = assessment(Verdict::Pass);
    let drained = rollout().at(Phase::Draining { outcome: Outcome::Reverted }, 0);
    let busy = Fleet { canary_in_flight: 3, ..fleet() };
    let cold =
        Observed { fleet: fleet(), warm: &WARM[..2], warm_failure: Some("503"), ..Observed::default() };
    let told = [
        rollout().plan(&Observed::default(), 1_000),
        rollout().plan(&Observed::default(), 301_000),
        rollout().plan(&cold, 1_000),
        rollout().plan(
            &Observed { fleet: fleet(), warm: &[0.2, 0.2, 0.2, 0.9, 0.2, 0.2], ..Observed::default() },
            1_000,
        ),
        first.plan(&seen(Some(&pass)), 5_000),
        first.plan(&seen(None), 61_000),
        first.plan(&seen(Some(&few)), 61_000),
        decided(&first, Verdict::Insufficient, 61),
        decided(&first, Verdict::Insufficient, 3_601),
        decided(&first, Verdict::Fail, 3),
        first.plan(&seen(Some(&guard)), 3_000),
        first.plan(&Observed { assessment: Some(&pass), fleet: small, ..Observed::default() }, 61_000),
        first.plan(&Observed { fleet: gone, ..Observed::default() }, 45_000),
        Rollout { paused: true, ..first.clone() }.plan(&seen(Some(&pass)), 61_000),
        drained.plan(&Observed { fleet: busy.clone(), ..Observed::default() }, 1_000),
        drained.plan(&Observed { fleet: busy, ..Observed::default() }, 60_000),
    ];
    let told: Vec<String> = told
        .iter()
        .map(|decision| {
            let kind = if phase(decision).is_some() { "go  " } else { "stay" };
            format!("{kind} {}", decision.reason())
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn blue_green_switches_once_and_back_at_once() {
    let warm = of(Strategy::BlueGreen { keep_s: 300 });
    assert_eq!(warm.routes().versions[0].state, routing::VersionState::Preview);
    let switched = warm.at(phase(&decided(&warm, Verdict::Insufficient, 1)).unwrap(), 1_000);
    assert_eq!(switched.weight(), RouteTable::WEIGHT_TOTAL);
    assert_eq!(switched.routes().versions[1].state, routing::VersionState::Preview);
    assert_eq!(phase(&decided(&switched, Verdict::Insufficient, 299)), None);
    let promoted = decided(&switched, Verdict::Insufficient, 300);
    assert_eq!(phase(&promoted), Some(Phase::Draining { outcome: Outcome::Promoted }));
    let (back, _) = switched.command(Command::Abort, 0, 2_000).unwrap();
    assert_eq!((back.weight(), back.winner()), (0, "1"));
}

#[test]
fn an_owner_hears_what_cannot_be_done() {
    let warming = of(Strategy::BlueGreen { keep_s: 300 });
    for command in [Command::Promote, Command::PromoteFully] {
        let refused = warming.command(command, 0, 1_000).unwrap_err();
        assert!(refused.0.starts_with("no worker of 2 takes requests"), "{refused}");
        assert!(warming.command(command, 1, 1_000).is_ok());
    }
    let (draining, _) = warming.command(Command::Abort, 1, 1_000).unwrap();
    for command in [Command::Pause, Command::Promote, Command::Abort, Command::Resume] {
        assert!(draining.command(command, 1, 2_000).is_err(), "{command:?}");
    }
}

#[test]
fn a_shadow_and_a_split_report_and_move_nobody_for_good() {
    for strategy in
        [Strategy::Shadow { percent: 10.0, duration_s: 60 }, Strategy::Ab { percent: 30.0, duration_s: 60 }]
    {
        let warm = of(strategy);
        let running = warm.at(phase(&decided(&warm, Verdict::Pass, 1)).unwrap(), 0);
        assert_eq!(phase(&decided(&running, Verdict::Fail, 59)), None);
        let over = decided(&running, Verdict::Fail, 60);
        assert_eq!(phase(&over), Some(Phase::Draining { outcome: Outcome::Reported }));
        assert!(over.reason().contains("it would be reverted"), "{}", over.reason());
        assert_eq!(running.at(phase(&over).unwrap(), 60_000).winner(), "1");
    }
    let shadow = of(Strategy::Shadow { percent: 10.0, duration_s: 60 }).at(Phase::Step { index: 0 }, 0);
    let observe = shadow.routes().observe.unwrap();
    assert_eq!((shadow.weight(), observe.mirror_to.as_deref(), observe.mirror), (0, Some("2"), 1_000));
}

#[test]
fn a_rollout_survives_json() {
    for phase in [
        Phase::Warming,
        Phase::Step { index: 2 },
        Phase::Held { index: 0 },
        Phase::Done { outcome: Outcome::Reported },
    ] {
        let rollout = rollout().at(phase, 5);
        let json = serde_json::to_string(&rollout).unwrap();
        assert_eq!(serde_json::from_str::<Rollout>(&json).unwrap(), rollout, "{json}");
    }
}

#[test]
fn what_a_spec_leaves_out_has_a_default_and_what_is_wrong_is_named() {
    let spec: Spec = serde_json::from_str(r#"{"model":"chat","to":"2"}"#).unwrap();
    assert_eq!(spec, Spec::new("chat", "2"));
    assert_eq!(spec.validate(), Ok(()));
    let steps = |percents: &[f64]| Strategy::Canary {
        steps: percents.iter().map(|percent| Step { percent: *percent, ..Step::default() }).collect(),
    };
    let wrong = |strategy| Spec { strategy, ..spec.clone() }.validate().unwrap_err().to_string();
    insta::assert_snapshot!(
        [
            wrong(steps(&[])),
            wrong(steps(&[5.0, 50.0])),
            wrong(steps(&[50.0, 50.0, 100.0])),
            wrong(steps(&[f64::NAN, 100.0])),
            wrong(steps(&[f64::MAX, 100.0])),
            wrong(Strategy::Ab { percent: 100.0, duration_s: 5 }),
            wrong(Strategy::BlueGreen { keep_s: 0 }),
        ]
        .join("\n")
    );
}

fn any_strategy() -> impl proptest::strategy::Strategy<Value = Strategy> {
    let steps = prop::collection::btree_set(1u32..100, 0..5).prop_map(|percents| {
        let all = percents.into_iter().map(f64::from).chain([100.0]);
        Strategy::Canary {
            steps: all.map(|percent| Step { percent, users_min: 20, ..Step::default() }).collect(),
        }
    });
    prop_oneof![
        4 => steps,
        1 => (1u64..500).prop_map(|keep_s| Strategy::BlueGreen { keep_s }),
        1 => (1u64..500).prop_map(|duration_s| Strategy::Shadow { percent: 10.0, duration_s }),
        1 => (1u64..500).prop_map(|duration_s| Strategy::Ab { percent: 40.0, duration_s }),
    ]
}

/// One second to four minutes, and what is seen at its end.
#[derive(Clone, Debug)]
struct Moment {
    after_s: u64,
    verdict: Option<Verdict>,
    users: u64,
    guard_hit: bool,
    fleet: Fleet,
    command: Option<Command>,
}

fn any_moment() -> impl proptest::strategy::Strategy<Value = Moment> {
    let verdict = prop_oneof![
        1 => Just(None),
        3 => Just(Some(Verdict::Pass)),
        3 => Just(Some(Verdict::Insufficient)),
        1 => Just(Some(Verdict::Fail)),
    ];
    let command = prop_oneof![
        30 => Just(None),
        1 => Just(Some(Command::Abort)),
        1 => Just(Some(Command::Pause)),
        1 => Just(Some(Command::Resume)),
        1 => Just(Some(Command::Promote)),
        1 => Just(Some(Command::PromoteFully)),
    ];
    let fleet = (0u32..3, 0u32..40, 0u32..60, 0.0..1.0f64, any::<bool>()).prop_map(
        |(canary_workers, canary_places, in_flight, hit_share, current)| Fleet {
            canary_workers,
            canary_places,
            in_flight,
            hit_share,
            gateways_current: u32::from(current),
            ..fleet()
        },
    );
    (1u64..240, verdict, 0u64..60, prop::bool::weighted(0.05), fleet, command).prop_map(
        |(after_s, verdict, users, guard_hit, fleet, command)| Moment {
            after_s,
            verdict,
            users,
            guard_hit,
            fleet,
            command,
        },
    )
}

proptest! {
    #[test]
    fn no_step_is_skipped_nothing_passes_on_insufficient_evidence_and_an_abort_reaches_the_stable_version(
        strategy in any_strategy(),
        moments in prop::collection::vec(any_moment(), 1..60),
    ) {
        let mut rollout = of(strategy);
        let mut now_ms = 0;
        for moment in moments {
            now_ms += moment.after_s * 1_000;
            let assessment = moment.verdict.map(|verdict| Assessment {
                canary_users: moment.users,
                guard_hit: moment.guard_hit,
                ..assessment(verdict)
            });
            let seen = Observed {
                assessment: assessment.as_ref(), fleet: moment.fleet.clone(), warm: &WARM, warm_failure: None,
            };
            prop_assert!(rollout.routes().versions.iter().any(|route| route.weight > 0));
            if let Some(Ok((next, _))) = moment.command.map(|command| rollout.command(command, moment.fleet.canary_workers, now_ms)) {
                let is_promotion = matches!(moment.command, Some(Command::Promote | Command::PromoteFully));
                prop_assert!(!is_promotion || moment.fleet.canary_workers > 0);
                if moment.command == Some(Command::Abort) {
                    prop_assert_eq!(next.winner(), "1");
                    prop_assert_eq!(next.weight(), 0);
                }
                rollout = next;
                continue;
            }
            let Decision::Go { phase, reason } = rollout.plan(&seen, now_ms) else { continue };
            prop_assert!(!reason.is_empty());
            let next = rollout.at(phase, now_ms);
            let canary = matches!(rollout.spec.strategy, Strategy::Canary { .. });
            let judged = rollout.weight() > 0 && rollout.weight() < RouteTable::WEIGHT_TOTAL;
            let promoted = matches!(phase, Phase::Draining { outcome: Outcome::Promoted });
            if canary && rollout.weight() > 0 && (promoted || next.weight() > rollout.weight()) {
                prop_assert!(moment.users >= 20 && moment.verdict.is_some());
                prop_assert!(!judged || moment.verdict == Some(Verdict::Pass));
            }
            if next.weight() > rollout.weight() {
                prop_assert!(!(rollout.paused || judged && moment.guard_hit));
                let index = |phase| match phase { Phase::Step { index } | Phase::Held { index } => index as i64, _ => -1 };
                prop_assert_eq!(index(next.phase), index(rollout.phase) + 1);
            }
            rollout = next;
        }
        let aborted = rollout.command(Command::Abort, 0, now_ms);
        match rollout.phase {
            Phase::Done { .. } | Phase::Draining { outcome: Outcome::Reverted } => prop_assert!(aborted.is_err()),
            _ => {
                let (aborted, _) = aborted.unwrap();
                prop_assert_eq!(aborted.winner(), "1");
            }
        }
    }

    #[test]
    fn users_move_to_the_new_version_alone_while_its_weight_grows(users in prop::collection::vec("[a-z]{1,8}", 1..40)) {
        let mut rollout = rollout();
        let version_of = |rollout: &Rollout, user: &str| {
            let table = RouteTable {
                models: [("chat".to_owned(), rollout.routes())].into(),
                ..RouteTable::default()
            };
            let key = StickyKey::from_parts(None, Some(user), None, None);
            table.assign("chat", key, None).unwrap().version.clone()
        };
        let mut before: Vec<String> = users.iter().map(|user| version_of(&rollout, user)).collect();
        for index in 0..4 {
            rollout = rollout.at(Phase::Step { index }, 0);
            let after: Vec<String> = users.iter().map(|user| version_of(&rollout, user)).collect();
            for (before, after) in before.iter().zip(&after) {
                prop_assert!(before == after || (before == "1" && after == "2"));
            }
            before = after;
        }
        prop_assert!(before.iter().all(|version| version == "2"));
    }
}
