use clap::{CommandFactory, Parser};

use super::*;
use crate::compare::Verdict;
use crate::record::RequestRecord;
use crate::report::{Report, RunFacts, sample};
use crate::scenario::{Arrivals, Scenario};

#[derive(Debug, Parser)]
struct Tenk {
    #[command(subcommand)]
    command: Command,
}

fn parse(words: &[&str]) -> Result<Command, clap::Error> {
    Tenk::try_parse_from(std::iter::once("loadtest").chain(words.iter().copied())).map(|tenk| tenk.command)
}

fn refused(words: &[&str]) -> String {
    parse(words).expect_err("refused").to_string()
}

#[test]
fn the_commands_fit_together_and_show_examples() {
    let mut command = Tenk::command();
    command.clone().debug_assert();
    for subcommand in command.get_subcommands_mut() {
        let help = subcommand.render_long_help().to_string();
        assert!(help.contains("Example"), "{help}");
    }
}

#[test]
fn a_search_takes_its_flags_over_the_defaults() {
    let words = ["search", "--target", "http://h", "--set", "duration_s=5", "--set", "answers.max_tokens=9"];
    let words = [&words[..], &["--assert", "ttft_p99_ms < 500", "--start", "4", "--repeats", "5"]].concat();
    let Ok(Command::Search(args)) = parse(&words) else { panic!("a search") };
    let search = args.search().expect("sound");
    assert_eq!(search.scenario.target, "http://h");
    assert_eq!(search.scenario.duration_s, Some(5.0));
    assert_eq!(search.scenario.arrivals, Arrivals::Poisson { rate: 4.0 });
    assert_eq!((search.settings.start, search.settings.repeats), (4.0, 5));
    assert_eq!(search.targets.len(), 2, "failures are bounded, too");
}

#[test]
fn misuse_is_refused_before_anything_runs() {
    assert!(refused(&["search", "--assert", "ttft_p9_ms < 5"]).contains("did you mean"));
    assert!(refused(&["search", "--resume"]).contains("--report-dir"));
    assert!(refused(&["sweep", "--field", "users"]).contains("--values"));
    assert!(refused(&["compare", "a"]).contains("2 values"));
    assert!(refused(&["compare", "--a", "x"]).contains("--b"));
    assert!(refused(&["compare", "a", "b", "--figure", "x"]).contains("no figure `x`"));
    assert!(refused(&["merge", "a", "--report-dir", "c"]).contains("DIR"));
    let search = |line: &str| {
        let words: Vec<&str> = std::iter::once("search").chain(line.split_whitespace()).collect();
        let Ok(Command::Search(args)) = parse(&words) else { panic!("a search: {line}") };
        args.search()
    };
    for line in ["--rate 3", "--users 3", "chat --think-time-s 1"] {
        assert!(search(line).expect_err("refused").to_string().contains("--start says which"), "{line}");
    }
    assert!(search("--arrivals closed").expect_err("refused").to_string().contains("closed loop"));
    let endless = search("smoke --start 4").expect("sound").scenario;
    assert_eq!((endless.requests, endless.arrivals), (Some(20), Arrivals::Poisson { rate: 4.0 }));
    assert_eq!(search("").expect("sound").scenario.duration_s, Some(30.0));
    assert_eq!(search("--cv 3").expect("sound").scenario.arrivals, Arrivals::Gamma { rate: 1.0, cv: 3.0 });
}

#[test]
fn a_search_does_not_take_a_ramp_for_a_rate() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("ramp.toml");
    std::fs::write(&path, "duration_s = 5\n[arrivals]\nkind = \"ramp\"\nfrom = 1\nto = 9\n")
        .expect("written");
    let Ok(Command::Search(args)) = parse(&["search", &path.display().to_string()]) else {
        panic!("a search")
    };
    assert!(args.search().expect_err("refused").to_string().contains("constant, poisson or gamma"));
}

#[test]
fn what_a_sweep_varies_makes_the_arrivals_that_have_it() {
    let sweep = |line: &str| {
        let words: Vec<&str> = std::iter::once("sweep").chain(line.split_whitespace()).collect();
        let Ok(Command::Sweep(args)) = parse(&words) else { panic!("a sweep: {line}") };
        args.sweep()
    };
    let arrivals = |line: &str| sweep(line).expect("sound").scenario.arrivals;
    assert_eq!(arrivals("--field rate --values 2,4"), Arrivals::Poisson { rate: 2.0 });
    assert_eq!(arrivals("burst --field rate --values 3"), Arrivals::Gamma { rate: 3.0, cv: 4.0 });
    assert_eq!(
        arrivals("chat --field users --values 3"),
        Arrivals::ClosedLoop { users: 3, think_time_s: 0.0 }
    );
    assert_eq!(arrivals("--rate 2 --field max-tokens --values 3"), Arrivals::Poisson { rate: 2.0 });
    assert!(sweep("--field rate --values fast").expect_err("refused").to_string().contains("a rate"));
    let whole = sweep("--field max-tokens --values 3").expect("sound");
    assert_eq!(whole.scenario.requests, Some(100));
}

#[test]
fn every_flag_of_a_scenario_can_be_swept_by_its_name() {
    for (setting, flag) in flags::FLAGS {
        // Paths and lists are no values that vary, and one flag serves two kinds of prompts.
        if ["prompts.path", "scrape", "prompts.system_tokens"].contains(setting) {
            continue;
        }
        assert_eq!(crate::sweep::setting(flag), *setting);
        assert_eq!(crate::sweep::setting(flag.trim_start_matches('-')), *setting);
    }
}

#[test]
fn a_search_goes_on_with_its_own_scenario_and_seed_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let words = ["search", "chat", "--seed", "5", "--report-dir", "d"];
    let Ok(Command::Search(args)) = parse(&words) else { panic!("a search") };
    let mut search = args.search().expect("sound");
    save(dir.path(), "search.json", &serde_json::json!({ "scenario": search.scenario, "runs": [] }))
        .expect("written");
    let read = || super::search::Earlier::read(dir.path()).expect("read");
    search.scenario.seed = 9;
    assert_eq!(read().runs_for(&mut search).expect("the same"), []);
    assert_eq!(search.scenario.seed, 5);
    search.scenario.duration_s = Some(7.0);
    assert!(
        read()
            .runs_for(&mut search)
            .expect_err("refused")
            .to_string()
            .contains("`duration_s` is 120.0 and 7.0")
    );
}

#[test]
fn folders_of_repeats_are_compared_figure_by_figure() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = |side: &str, run: usize, ttft: f64| {
        let dir = folder.path().join(side).join(format!("run-{run}"));
        let first_us = (ttft * 1e3) as u64;
        let record = RequestRecord { first_token_us: Some(first_us), ..sample::success() };
        let facts = sample::facts_of(Scenario::default(), &[record]);
        Report::new(RunFacts { model: side.into(), ..facts }).save(&dir).expect("written");
    };
    for run in 0..3 {
        report("a", run, 100.0 + run as f64);
        report("b", run, 90.0 + run as f64);
    }
    let [a, b] = ["a", "b"].map(|side| folder.path().join(side).display().to_string());
    let Ok(Command::Compare(args)) = parse(&["compare", &a, &b, "--all"]) else { panic!("a comparison") };
    let comparison = args.compare().expect("read").comparison;
    let row = |figure: &str| comparison.rows.iter().find(|row| row.figure == figure).expect("a row").verdict;
    assert_eq!([row("ttft_p99_ms"), row("sent.ttft_p99_ms")], [Verdict::Better; 2], "{comparison}");
    assert_eq!(row("e2e_p99_ms"), Verdict::NoDifferenceShown);
    assert!(comparison.to_string().contains("A ran model a, B model b"));
}

#[test]
fn a_sweeps_page_is_made_of_the_reports_in_its_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    for (run, ttft_us) in [(0, 5_000), (1, 6_000), (3, 9_000)] {
        let record = RequestRecord { first_token_us: Some(ttft_us), ..sample::success() };
        let facts = sample::facts_of(Scenario::default(), &[record]);
        Report::new(facts).save(&folder.path().join(format!("run-{run:03}"))).expect("written");
    }
    let report = crate::sweep::SweepReport {
        schema: 1,
        scenario: Scenario::default(),
        field: "users".into(),
        points: Vec::new(),
        runs: 4,
        stopped: Some("it was interrupted".into()),
    };
    let page = pages::of_sweep(&report, 2, &["1".into(), "64".into()], folder.path()).expect("a page");
    for part in [
        "What changes with users",
        "UNFINISHED: it was interrupted",
        "3 runs",
        "href=\"run-003/report.html\">64<",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    pages::save_page(&folder.path().join("new"), &page).expect("written");
    assert!(folder.path().join("new/report.html").is_file());
}
