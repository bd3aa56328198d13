use std::time::Duration;

use super::*;
use crate::figures::made_up::MadeUp;
use crate::scenario::{Arrivals, Scenario};

/// A target whose TTFT grows with the rate, in runs of ten seconds.
struct MadeUpTarget {
    truth: f64,
    runs: Vec<Scenario>,
    fails_at_run: usize,
    stops_at_run: usize,
    tester_max: f64,
}

impl MadeUpTarget {
    fn of(truth: f64) -> Self {
        Self {
            truth,
            runs: Vec::new(),
            fails_at_run: usize::MAX,
            stops_at_run: usize::MAX,
            tester_max: f64::INFINITY,
        }
    }
}

impl Runner for MadeUpTarget {
    type Run = MadeUp;

    async fn run(
        &mut self,
        scenario: Scenario,
        label: &str,
        stop: &CancellationToken,
    ) -> Result<MadeUp, Error> {
        let Arrivals::Poisson { rate } = scenario.arrivals else { panic!("not the scenario's arrivals") };
        assert_eq!(label, format!("run-{:03}", self.runs.len()));
        tokio::time::sleep(Duration::from_secs(10)).await;
        self.runs.push(scenario);
        if self.runs.len() > self.fails_at_run {
            return Err(Error::Broken("the target is gone".into()));
        }
        if self.runs.len() > self.stops_at_run {
            stop.cancel();
        }
        let ttft = 500.0 * rate / self.truth;
        Ok(MadeUp {
            valid: rate <= self.tester_max,
            interrupted: stop.is_cancelled(),
            ..MadeUp::of(&[("ttft_p99_ms", ttft), ("error_share", 0.0)])
        })
    }
}

fn search(settings: Settings) -> Search {
    let scenario = Scenario { arrivals: Arrivals::Poisson { rate: 7.0 }, seed: 100, ..Scenario::default() };
    let asked = ["ttft_p99_ms <= 500".parse().expect("sound")];
    let targets = targets(&asked, &scenario.targets, 0.99);
    Search { scenario, targets, settings, time_s_max: 10_000.0 }
}

async fn run(search: &Search, target: &mut MadeUpTarget, earlier: &[Measured]) -> SearchReport {
    let stop = CancellationToken::new();
    search.run(target, earlier, &stop, |_| Ok(())).await.expect("a report")
}

#[tokio::test(start_paused = true)]
async fn the_highest_rate_that_meets_is_found_and_every_run_is_told() {
    let mut target = MadeUpTarget::of(37.0);
    let report = run(&search(Settings::default()), &mut target, &[]).await;
    assert_eq!(report.ended, Ended::Complete);
    let rate = report.found.rate.expect("found");
    assert!((35.1..=37.0).contains(&rate), "{rate}");
    assert_eq!(report.targets, ["ttft_p99_ms <= 500", "error_share <= 0.01"]);
    assert_eq!(report.runs.len(), target.runs.len());
    let seeds: Vec<u64> = target.runs.iter().map(|run| run.seed).collect();
    assert_eq!(seeds[..3], [100, 101, 102], "each run asks other prompts");
    let shown = report.to_string();
    assert!(shown.contains("requests/s meet the targets") && shown.contains("± 0"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_search_that_was_stopped_reports_what_it_measured_and_can_go_on() {
    let search = search(Settings::default());
    let whole = run(&search, &mut MadeUpTarget::of(37.0), &[]).await;
    let mut target = MadeUpTarget { stops_at_run: 9, ..MadeUpTarget::of(37.0) };
    let part = run(&search, &mut target, &[]).await;
    assert_eq!((part.ended.clone(), part.runs.len()), (Ended::Interrupted, 9));
    assert!(part.verdict().starts_with("UNFINISHED, interrupted: 8 requests/s meet"), "{}", part.verdict());

    // Through JSON, as the command does it.
    let earlier: Vec<Measured> =
        serde_json::from_value(serde_json::to_value(&part.runs).expect("JSON")).expect("runs");
    let rest: Vec<Measured> = whole.runs[9..].to_vec();
    let mut target = MadeUpTarget::of(37.0);
    let report = search
        .run(
            &mut Relabelled { target: &mut target, from: 9 },
            &earlier,
            &CancellationToken::new(),
            |_| Ok(()),
        )
        .await
        .expect("a report");
    assert_eq!(report.runs[9..], rest);
    assert_eq!(report.found, whole.found);
}

/// Runs of a search that goes on are counted on.
struct Relabelled<'a> {
    target: &'a mut MadeUpTarget,
    from: usize,
}

impl Runner for Relabelled<'_> {
    type Run = MadeUp;

    async fn run(
        &mut self,
        scenario: Scenario,
        label: &str,
        stop: &CancellationToken,
    ) -> Result<MadeUp, Error> {
        let number: usize =
            label.strip_prefix("run-").and_then(|number| number.parse().ok()).expect("a number");
        self.target.run(scenario, &format!("run-{:03}", number - self.from), stop).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_runs_of_another_search_are_refused() {
    let part = run(&search(Settings::default()), &mut MadeUpTarget::of(37.0), &[]).await;
    let other = search(Settings { start: 3.0, ..Settings::default() });
    let refused = other
        .run(&mut MadeUpTarget::of(37.0), &part.runs, &CancellationToken::new(), |_| Ok(()))
        .await
        .expect_err("refused");
    assert!(refused.to_string().contains("same settings"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_fails_ends_the_search_with_what_was_measured() {
    let mut target = MadeUpTarget { fails_at_run: 4, ..MadeUpTarget::of(37.0) };
    let report = run(&search(Settings::default()), &mut target, &[]).await;
    assert_eq!(report.runs.len(), 4);
    assert_eq!(report.found.rate, Some(2.0));
    assert!(report.verdict().contains("a run failed") && report.verdict().contains("the target is gone"));
}

#[tokio::test(start_paused = true)]
async fn a_first_run_that_fails_is_an_error() {
    let mut target = MadeUpTarget { fails_at_run: 0, ..MadeUpTarget::of(37.0) };
    let stop = CancellationToken::new();
    let failed =
        search(Settings::default()).run(&mut target, &[], &stop, |_| Ok(())).await.expect_err("failed");
    assert!(failed.to_string().contains("the target is gone"), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn no_run_is_started_that_would_end_too_late() {
    let search = Search { time_s_max: 55.0, ..search(Settings::default()) };
    let mut target = MadeUpTarget::of(37.0);
    let report = run(&search, &mut target, &[]).await;
    assert_eq!((report.ended.clone(), target.runs.len()), (Ended::TimeMax, 5));
}

#[tokio::test(start_paused = true)]
async fn an_invalid_run_is_no_pass_and_is_told_as_the_testers_limit() {
    let mut target = MadeUpTarget { tester_max: 20.0, ..MadeUpTarget::of(37.0) };
    let report = run(&search(Settings::default()), &mut target, &[]).await;
    assert!(report.found.rate.is_some_and(|rate| rate <= 20.0));
    assert!(
        report.verdict().contains("the tester itself could not keep its schedule"),
        "{}",
        report.verdict()
    );
}

#[test]
fn the_scenarios_own_targets_are_met_by_a_share_of_requests() {
    let own = Targets { ttft_ms: Some(300.0), ..Targets::default() };
    let shown = |assertions: &[Assertion], own: &Targets| -> Vec<String> {
        targets(assertions, own, 0.99).iter().map(ToString::to_string).collect()
    };
    assert_eq!(shown(&[], &own), ["goodput >= 0.99"]);
    assert_eq!(shown(&["goodput > 0.5".parse().expect("sound")], &own), ["goodput > 0.5"]);
    assert_eq!(shown(&[], &Targets::default()), Vec::<String>::new());
}

#[test]
fn a_scenario_without_a_rate_is_refused() {
    let closed = Search { scenario: Scenario::default(), ..search(Settings::default()) };
    assert!(closed.validate().expect_err("refused").to_string().contains("constant, poisson or gamma"));
    let aimless = Search { targets: Vec::new(), ..search(Settings::default()) };
    assert!(aimless.validate().expect_err("refused").to_string().contains("needs a target"));
}
