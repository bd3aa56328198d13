use std::path::PathBuf;

use clap::{CommandFactory, Parser};

use super::*;
use crate::scenario::{Answers, Arrivals, Client, Length, Prompts, Scenario, Targets, Zipf};

#[derive(Parser)]
#[command(after_help = RUN_EXAMPLES)]
struct Command {
    #[command(flatten)]
    args: RunArgs,
}

fn parse(line: &str) -> Result<RunArgs, clap::Error> {
    Command::try_parse_from(std::iter::once("run").chain(line.split_whitespace())).map(|command| command.args)
}

fn scenario(line: &str) -> Scenario {
    parse(line).expect("known").scenario(7).expect("sound")
}

fn refused(line: &str) -> String {
    parse(line).expect("known").scenario(7).expect_err("refused").to_string()
}

#[test]
fn no_argument_is_a_closed_loop_of_a_hundred_requests() {
    let expected = Scenario {
        seed: 7,
        arrivals: Arrivals::ClosedLoop { users: 8, think_time_s: 0.0 },
        requests: Some(100),
        ..Scenario::default()
    };
    assert_eq!(scenario(""), expected);
}

#[test]
fn every_flag_reaches_the_scenario() {
    let line = "--target http://h --model m --seed 9 --rate 3 --arrivals gamma --cv 2 --requests 30 --duration-s 1.5 \
                --warmup 4 --prompt-tokens 40 --shared-prefix-tokens 5 --shared-prefixes 3 \
                --repeat-prompts 50 --repeat-exponent 0.5 --tokenizer t.json --max-tokens 6 --ignore-eos --temperature 0.5 \
                --streamed 0.25 --return-token-ids --hash-answers --reference r \
                --target-ttft-ms 1 --target-tpot-ms 2 --target-e2e-ms 3 \
                --usd-per-hour 4 --scrape http://a:1 --scrape http://b:2 --no-keep-alive --connections-max 11 \
                --connect-timeout-s 2 --request-timeout-s 3";
    let expected = Scenario {
        question: String::new(),
        target: "http://h".into(),
        model: Some("m".into()),
        seed: 9,
        arrivals: Arrivals::Gamma { rate: 3.0, cv: 2.0 },
        requests: Some(30),
        duration_s: Some(1.5),
        warmup: 4,
        prompts: Prompts::Synthetic {
            tokens: Length::Fixed(40),
            shared_prefix_tokens: 5,
            shared_prefixes: 3,
            repeats: Some(Zipf { prompts: 50, exponent: 0.5 }),
        },
        tokenizer: Some("t.json".into()),
        answers: Answers {
            max_tokens: Length::Fixed(6),
            ignore_eos: true,
            temperature: Some(0.5),
            streamed: 0.25,
            return_token_ids: true,
            hash: true,
            reference: Some("r".into()),
        },
        targets: Targets { ttft_ms: Some(1.0), tpot_ms: Some(2.0), end_to_end_ms: Some(3.0) },
        faults: Vec::new(),
        client: Client {
            connect_timeout_s: 2.0,
            request_timeout_s: 3.0,
            keep_alive: false,
            connections_max: 11,
        },
        scrape: vec!["http://a:1".into(), "http://b:2".into()],
        usd_per_hour: Some(4.0),
    };
    assert_eq!(scenario(line), expected);
}

#[test]
fn arrivals_follow_from_the_flags_that_are_given() {
    let arrivals = |line: &str| scenario(line).arrivals;
    assert_eq!(arrivals("--users 3"), Arrivals::ClosedLoop { users: 3, think_time_s: 0.0 });
    assert_eq!(arrivals("--think-time-s 2"), Arrivals::ClosedLoop { users: 8, think_time_s: 2.0 });
    assert_eq!(arrivals("--rate 3"), Arrivals::Poisson { rate: 3.0 });
    assert_eq!(arrivals("--rate 3 --cv 2"), Arrivals::Gamma { rate: 3.0, cv: 2.0 });
    assert_eq!(arrivals("--rate 3 --arrivals constant"), Arrivals::Constant { rate: 3.0 });
    assert_eq!(arrivals("burst"), Arrivals::Gamma { rate: 2.0, cv: 4.0 });
    assert_eq!(arrivals("burst --rate 9"), Arrivals::Gamma { rate: 9.0, cv: 4.0 });
    assert_eq!(arrivals("burst --arrivals poisson"), Arrivals::Poisson { rate: 2.0 });
    assert_eq!(arrivals("burst --users 5"), Arrivals::ClosedLoop { users: 5, think_time_s: 0.0 });
    assert_eq!(arrivals("smoke --rate 5"), Arrivals::Poisson { rate: 5.0 });
}

#[test]
fn flags_that_do_not_fit_together_are_refused_with_what_to_do() {
    assert!(refused("--rate 3 --users 2").contains("--users and --think-time-s belong to a closed loop"));
    assert!(refused("--rate 3 --arrivals closed").contains("belong to an open loop"));
    assert!(refused("--arrivals poisson").contains("needs --rate"));
    assert!(refused("--arrivals gamma --rate 3").contains("needs --cv"));
    assert!(refused("--arrivals constant --rate 3 --cv 2").contains("belongs to --arrivals gamma"));
    assert!(parse("--prompts p.jsonl --prompt-tokens 9").is_err());
    assert!(parse("--streamed 0.5 --no-stream").is_err());
    assert!(parse("--prompts p.jsonl --tokenizer t.json").is_err());
}

#[test]
fn a_flags_value_that_is_out_of_range_is_refused_with_the_flags_name() {
    assert_eq!(refused("--rate 0"), "--rate: `arrivals.rate` is 0, but must be from 0.0001 to 1000000");
    assert_eq!(
        refused("smoke --prompt-tokens 3"),
        "--prompt-tokens: `prompts.tokens` is 3, but must be from 8 to 1000000"
    );
    assert_eq!(refused("--requests 0"), "--requests: `requests` is 0, but must be from 1 to 1000000000");
}

#[test]
fn flags_win_over_a_file_and_leave_the_rest_of_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("s.toml");
    let text = "seed = 3\nrequests = 9\nduration_s = 5\nscrape = [\"http://a:1\"]\n[prompts]\nkind = \"conversation\"\n\
                tokens = 20\nturns = 2\n[answers]\nmax_tokens = 5\nignore_eos = true\n";
    std::fs::write(&path, text).expect("written");
    let path = path.display();
    let scenario =
        scenario(&format!("{path} --duration-s 8 --prompt-tokens 30 --no-stream --scrape http://b:2"));
    assert_eq!((scenario.seed, scenario.requests, scenario.duration_s), (3, None, Some(8.0)));
    assert_eq!(scenario.scrape, ["http://a:1", "http://b:2"]);
    assert_eq!(
        scenario.prompts,
        Prompts::Conversation { tokens: Length::Fixed(30), turns: 2, system_tokens: 0 }
    );
    assert_eq!((scenario.answers.max_tokens, scenario.answers.ignore_eos), (Length::Fixed(5), true));
    assert!(scenario.answers.streamed.abs() < f64::EPSILON);
}

#[test]
fn what_a_file_says_wrong_has_its_line_and_what_a_flag_says_wrong_has_the_flag() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("s.toml");
    std::fs::write(&path, "requests = 1\n\nwarmup = 2000000\n").expect("written");
    let path = path.display();
    let problem = "is 2000000, but must be from 0 to 1000000";
    assert_eq!(refused(&path.to_string()), format!("{path}:3: `warmup` {problem}"));
    assert_eq!(
        refused(&format!("{path} --warmup 3000000")),
        format!("--warmup: `warmup` {}", problem.replace('2', "3"))
    );
    assert_eq!(scenario(&format!("{path} --warmup 3")).warmup, 3, "a flag mends a file");
}

#[test]
fn a_path_on_the_command_line_starts_where_the_command_was_given() {
    let scenario = scenario("smoke --prompts p.jsonl");
    assert_eq!(scenario.prompts, Prompts::File { path: PathBuf::from("p.jsonl") });
    assert_eq!(scenario.requests, Some(20), "the rest is the scenario's");
}

#[test]
fn prompts_come_again_by_flags_and_exponents_are_ones_unless_given() {
    let repeats = |line: &str| match scenario(line).prompts {
        Prompts::Synthetic { repeats, .. } => repeats,
        other => panic!("{other:?}"),
    };
    assert_eq!(repeats("--repeat-prompts 9"), Some(Zipf { prompts: 9, exponent: 1.0 }));
    assert_eq!(repeats("cache-zipf --repeat-prompts 9"), Some(Zipf { prompts: 9, exponent: 1.0 }));
    assert_eq!(repeats("10k --repeat-exponent 2"), Some(Zipf { prompts: 1_000_000, exponent: 2.0 }));
    assert!(refused("--repeat-exponent 2").contains("needs --repeat-prompts"));
    assert!(refused("soak --repeat-prompts 2").contains("the scenario has conversations"));
    assert_eq!(
        refused("--repeat-prompts 0"),
        "--repeat-prompts: `prompts.repeats.prompts` is 0, but must be from 1 to 1000000"
    );
}

#[test]
fn any_setting_of_a_file_can_be_set_and_wins() {
    assert_eq!(scenario("chat --set client.connections_max=50").client.connections_max, 50);
    assert_eq!(scenario("--max-tokens 3 --set max-tokens=4").answers.max_tokens, Length::Fixed(4));
    assert!(scenario("smoke --set seed=3 --shard 1/2").seed == 3);
    assert!(refused("--set client.connection=5").contains("did you mean `connections_max`?"));
    assert!(refused("--set client").contains("has no `=`"));
}

#[test]
fn a_reference_run_lends_its_seed_unless_one_is_given() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("report.json"), r#"{"scenario":{"seed":12}}"#).expect("written");
    let folder = dir.path().display();
    assert_eq!(scenario(&format!("smoke --reference {folder}")).seed, 12);
    assert_eq!(scenario(&format!("smoke --reference {folder} --seed 3")).seed, 3);
    assert_eq!(scenario("smoke --reference nowhere").seed, 7);
}

#[test]
fn a_shard_is_counted_from_one_and_needs_a_seed_that_all_know() {
    assert_eq!(parse("--shard 1/4").expect("a shard").shard, Some(Shard { index: 0, count: 4 }));
    assert_eq!(parse("--shard 4/4").expect("a shard").shard, Some(Shard { index: 3, count: 4 }));
    for wrong in ["0/4", "5/4", "1/0", "1", "a/b", "1/1001"] {
        assert!(parse(&format!("--shard {wrong}")).is_err(), "{wrong}");
    }
    assert!(refused("smoke --shard 1/2").contains("give each the same --seed"));
    assert_eq!(scenario("smoke --shard 1/2 --seed 5").seed, 5);
}

#[test]
fn what_concerns_the_run_and_not_the_scenario_is_kept_beside_it() {
    let args = Command::try_parse_from([
        "run",
        "smoke",
        "--assert",
        "ttft_p99_ms < 500",
        "--assert",
        "requests_failed == 0",
        "--start-at",
        "1767225600.5",
    ]);
    let args = args.expect("known").args;
    let asserts: Vec<String> = args.asserts.iter().map(ToString::to_string).collect();
    assert_eq!(asserts, ["ttft_p99_ms < 500", "requests_failed == 0"]);
    assert!(parse("--assert ttft<5").is_err(), "no such figure");
    assert_eq!(args.start_at, Some(1_767_225_600.5));
    assert!(parse("--start-at soon").is_err());
}

#[test]
fn a_name_that_is_no_scenario_is_told_with_those_that_are() {
    assert!(refused("chatt").contains("did you mean `chat`?"));
    assert!(refused("nowhere/x.toml").starts_with("nowhere/x.toml: "));
}

#[test]
fn help_teaches_with_examples_that_work() {
    let help = Command::command().render_long_help().to_string();
    assert!(
        help.contains("tenk loadtest run smoke --target") && help.contains("Several processes:"),
        "{help}"
    );
    let examples = RUN_EXAMPLES.lines().filter_map(|line| line.trim().strip_prefix("tenk loadtest run "));
    let mut count = 0;
    for example in examples.filter(|example| !example.contains("my-scenario.toml")) {
        let words = example.split_once(" --assert").map_or(example, |(before, _)| before);
        assert_ne!(scenario(words).seed, 0, "{example}");
        count += 1;
    }
    assert_eq!(count, 6);
}
