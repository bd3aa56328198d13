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
    let endless = ["search", "--assert", "goodput > 0.5"];
    let Ok(Command::Search(args)) = parse(&endless) else { panic!("a search") };
    assert!(args.search().expect_err("refused").to_string().contains("needs an end"));
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
    let comparison = args.comparison().expect("read");
    let row = |figure: &str| comparison.rows.iter().find(|row| row.figure == figure).expect("a row").verdict;
    assert_eq!([row("ttft_p99_ms"), row("sent.ttft_p99_ms")], [Verdict::Better; 2], "{comparison}");
    assert_eq!(row("e2e_p99_ms"), Verdict::NoDifferenceShown);
    assert!(comparison.to_string().contains("A ran model a, B model b"));
}
