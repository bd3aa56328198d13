use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::error::Error;

fn error_of(text: &str) -> String {
    let draft = Draft::parse("s.toml", text);
    draft.and_then(|draft| draft.finish(|_| None)).expect_err("the text is wrong").to_string()
}

fn parse(text: &str) -> Scenario {
    Draft::parse("s.toml", text).and_then(|draft| draft.finish(|_| None)).expect("sound")
}

/// A scenario of each kind, with every field set.
fn full() -> Vec<Scenario> {
    let length = [
        Length::Fixed(300),
        Length::Uniform { min: 300, max: 400 },
        Length::LogNormal { median: 300.0, sigma: 0.5, max: 900 },
    ];
    let arrivals = [
        Arrivals::ClosedLoop { users: 3, think_time_s: 0.5 },
        Arrivals::Constant { rate: 2.0 },
        Arrivals::Poisson { rate: 2.0 },
        Arrivals::Gamma { rate: 2.0, cv: 3.0 },
        Arrivals::Ramp { from: 1.0, to: 9.0 },
        Arrivals::Steps { steps: vec![Step { rate: 1.0, duration_s: 2.0 }] },
        Arrivals::Trace { path: "t.csv".into(), speed: 2.0 },
    ];
    let prompts = [
        Prompts::Synthetic {
            tokens: length[2],
            shared_prefix_tokens: 10,
            shared_prefixes: 3,
            repeats: Some(Zipf { prompts: 5, exponent: 1.0 }),
        },
        Prompts::Conversation { tokens: length[1], turns: 3, system_tokens: 9 },
        Prompts::File { path: "p.jsonl".into() },
    ];
    let faults = [
        FaultAction::Kill { pid: 1234 },
        FaultAction::Pause { pid: 1234, for_s: 2.0 },
        FaultAction::Inject { worker: "http://h:1".into(), fault: json!({"kind": "hang", "for_s": 1.5}) },
    ];
    let of = |index: usize| Scenario {
        question: "q".into(),
        target: "http://h".into(),
        model: Some("m".into()),
        seed: 7,
        arrivals: arrivals[index].clone(),
        requests: Some(10),
        duration_s: Some(5.0),
        warmup: 1,
        prompts: prompts[index % 3].clone(),
        tokenizer: (index % 3 < 2).then(|| "t.gguf".into()),
        answers: Answers {
            max_tokens: length[index % 3],
            ignore_eos: true,
            temperature: Some(0.5),
            streamed: 0.5,
            return_token_ids: true,
            hash: true,
            reference: Some("r.jsonl".into()),
        },
        targets: Targets { ttft_ms: Some(1.0), tpot_ms: Some(2.0), end_to_end_ms: Some(3.0) },
        faults: faults.iter().map(|action| Fault { at_s: 1.0, action: action.clone() }).collect(),
        client: Client { connections_max: 5, ..Client::default() },
        scrape: vec!["http://h:2".into()],
        usd_per_hour: Some(1.5),
    };
    (0..arrivals.len()).map(of).collect()
}

#[test]
fn the_schema_knows_exactly_the_fields_of_the_types() {
    for scenario in full() {
        let text = toml::to_string(&scenario).expect("TOML");
        assert_eq!(parse(&text), scenario, "{text}");
    }
    let known: Vec<&str> = schema::SCENARIO.iter().map(|field| field.key).collect();
    let json = serde_json::to_value(Scenario::default()).expect("JSON");
    let mut fields: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    fields.sort_unstable();
    let mut sorted = known.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, fields);
}

#[test]
fn an_empty_section_is_the_default() {
    let text = "requests = 3\n[answers]\n[client]\n[targets]\n";
    assert_eq!(parse(text), Scenario { requests: Some(3), ..Scenario::default() });
}

#[test]
fn a_wrong_key_is_told_with_its_line_its_section_and_the_nearest_right_one() {
    for (text, message) in [
        ("requsts = 3\n", "s.toml:1: unknown key `requsts`; did you mean `requests`?"),
        (
            "requests = 3\n\n[arrivals]\nkind = \"poisson\"\nrat = 3\n",
            "s.toml:5: unknown key `rat` in [arrivals]; did you mean `rate`?",
        ),
        (
            "[arrivals]\nkind = \"poisson\"\nrate = 3\nusers = 4\n",
            "s.toml:4: unknown key `users` in [arrivals]; known here are kind, rate",
        ),
        (
            "[prompts]\nkind = \"synthetic\"\ntokens = { median = 3, sigme = 1, max = 9 }\n",
            "s.toml:3: unknown key `sigme` in `prompts.tokens`; did you mean `sigma`?; a length is N, { min, max } or \
             { median, sigma, max }",
        ),
        (
            "[[faults]]\nat_s = 1\naction = \"kill\"\npid = 77\nfor = 3\n",
            "s.toml:5: unknown key `for` in [[faults]]; known here are action, at_s, pid",
        ),
        (
            "[answers]\nmax_token = 3\n",
            "s.toml:2: unknown key `max_token` in [answers]; did you mean `max_tokens`?",
        ),
    ] {
        assert_eq!(error_of(text), message);
    }
}

#[test]
fn a_wrong_value_is_told_with_its_line_in_plain_words() {
    for (text, message) in [
        (
            "[arrivals]\nkind = \"poison\"\n",
            "s.toml:2: `arrivals.kind` is `poison`, but must be one of `closed_loop`, `constant`, `poisson`, `gamma`, \
             `ramp`, `steps`, `trace`; did you mean `poisson`?",
        ),
        (
            "[prompts]\ntokens = 9\n",
            "s.toml:1: `prompts` lacks `kind`, one of `synthetic`, `conversation`, `file`; add it",
        ),
        ("[arrivals]\nkind = \"gamma\"\nrate = 1\n", "s.toml:1: `arrivals` lacks `cv`; add it"),
        (
            "[arrivals]\nkind = \"poisson\"\n\nrate = \"fast\"\n",
            "s.toml:4: `arrivals.rate` is \"fast\", but must be a number",
        ),
        ("requests = -1\n", "s.toml:1: `requests` is -1, but must be a whole number, 0 or more"),
        ("requests = 1.5\n", "s.toml:1: `requests` is 1.5, but must be a whole number, 0 or more"),
        (
            "[client]\nconnections_max = 5_000_000_000\n",
            "s.toml:2: `client.connections_max` is 5_000_000_000, but must be a whole number from 0 to 4294967295",
        ),
        (
            "[client]\nkeep_alive = \"yes\"\n",
            "s.toml:2: `client.keep_alive` is \"yes\", but must be true or false",
        ),
        ("target = 3\n", "s.toml:1: `target` is 3, but must be text in quotes"),
        (
            "scrape = \"x\"\n",
            "s.toml:1: `scrape` is \"x\", but must be a list of texts, such as [\"…\", \"…\"]",
        ),
        (
            "[answers]\nmax_tokens = \"long\"\n",
            "s.toml:2: `answers.max_tokens` is \"long\", but must be a whole number, { min = 1, max = 9 } or \
             { median = 5, sigma = 1, max = 9 }",
        ),
        (
            "[answers]\nmax_tokens = { min = 3 }\n",
            "s.toml:2: `answers.max_tokens` lacks `max`; add it; a length is N, { min, max } or { median, sigma, max }",
        ),
        ("arrivals = 3\n", "s.toml:1: `arrivals` is 3, but must be a section, [arrivals]"),
        (
            "[faults]\nat_s = 1\n",
            "s.toml:1: `faults` is a section, but must be a list of sections, [[faults]]",
        ),
        ("seed = 1\nseed = 2\n", "s.toml:2: `seed` is there twice; keep one"),
        ("[arrivals\n", "s.toml:1: unclosed table, expected `]`"),
    ] {
        assert_eq!(error_of(text), message);
    }
}

#[test]
fn what_is_out_of_range_is_refused_with_its_line_its_name_and_its_range() {
    let poisson = |rest: &str| format!("requests = 3\n[arrivals]\nkind = \"poisson\"\n{rest}\n");
    let synthetic = |rest: &str| format!("requests = 3\n[prompts]\nkind = \"synthetic\"\n{rest}\n");
    for (text, message) in [
        ("requests = 0\n".into(), "s.toml:1: `requests` is 0, but must be from 1 to 1000000000"),
        ("duration_s = 0\n".into(), "s.toml:1: `duration_s` is 0, but must be from 0.001 to 604800"),
        ("duration_s = nan\n".into(), "s.toml:1: `duration_s` is NaN, but must be from 0.001 to 604800"),
        (poisson("rate = 0"), "s.toml:4: `arrivals.rate` is 0, but must be from 0.0001 to 1000000"),
        (
            "requests = 1\n[arrivals]\nkind = \"closed_loop\"\nusers = 0\n".into(),
            "s.toml:4: `arrivals.users` is 0, but must be from 1 to 20000",
        ),
        (
            "requests = 1\n[arrivals]\nkind = \"gamma\"\nrate = 1\ncv = 20\n".into(),
            "s.toml:5: `arrivals.cv` is 20, but must be from 0.01 to 10",
        ),
        (
            "[arrivals]\nkind = \"steps\"\nsteps = [\n  { rate = 1, duration_s = 1 },\n  { rate = 2, duration_s = 0 },\n]\n"
                .into(),
            "s.toml:5: `arrivals.steps[1].duration_s` is 0, but must be from 0.001 to 604800",
        ),
        (
            "[arrivals]\nkind = \"steps\"\nsteps = []\n".into(),
            "s.toml:3: `arrivals.steps` has a number of steps that is 0, but must be from 1 to 1000",
        ),
        (
            "[arrivals]\nkind = \"trace\"\npath = \"t\"\nspeed = 0\n".into(),
            "s.toml:4: `arrivals.speed` is 0, but must be from 0.001 to 1000",
        ),
        (synthetic("tokens = 7"), "s.toml:4: `prompts.tokens` is 7, but must be from 8 to 1000000"),
        (
            synthetic("tokens = { min = 30, max = 20 }"),
            "s.toml:4: `prompts.tokens.max` is 20, but must be from 30 to 1000000",
        ),
        (
            synthetic("tokens = { median = 30, sigma = 9, max = 50 }"),
            "s.toml:4: `prompts.tokens.sigma` is 9, but must be from 0 to 5",
        ),
        (
            synthetic("tokens = 20\nshared_prefix_tokens = 13"),
            "s.toml:5: `prompts.shared_prefix_tokens` is 13 of 20 prompt tokens, but each prompt needs 8 of its own; \
             lower it or raise `prompts.tokens`",
        ),
        (
            synthetic("tokens = 20\nrepeats = { prompts = 2000000, exponent = 1 }"),
            "s.toml:5: `prompts.repeats.prompts` is 2000000, but must be from 1 to 1000000",
        ),
        (
            "requests = 1\n[answers]\nstreamed = 1.5\n".into(),
            "s.toml:3: `answers.streamed` is 1.5, but must be from 0 to 1",
        ),
        (
            "requests = 1\n[answers]\ntemperature = 3\n".into(),
            "s.toml:3: `answers.temperature` is 3, but must be from 0 to 2",
        ),
        (
            "requests = 1\n[targets]\nttft_ms = 0\n".into(),
            "s.toml:3: `targets.ttft_ms` is 0, but must be from 0.001 to 86400000",
        ),
        (
            "requests = 1\n[[faults]]\nat_s = 1\naction = \"kill\"\npid = 1\n".into(),
            "s.toml:5: `faults[0].pid` is 1, but must be from 2 to 2147483647",
        ),
        (
            "requests = 1\n[client]\nconnections_max = 0\n".into(),
            "s.toml:3: `client.connections_max` is 0, but must be from 1 to 65535",
        ),
        ("requests = 1\nusd_per_hour = -1\n".into(), "s.toml:2: `usd_per_hour` is -1, but must be from 0 to 1000000"),
    ] {
        assert_eq!(error_of(&text), message, "{text}");
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    for (text, message) in [
        ("", "`duration_s` and `requests` are both missing, so the run has no end; add one"),
        (
            "requests = 3\n[arrivals]\nkind = \"ramp\"\nfrom = 1\nto = 2\n",
            "`duration_s` is missing: a ramp grows over it; add it",
        ),
        (
            "duration_s = 9\n[arrivals]\nkind = \"ramp\"\nfrom = 0\nto = 0\n",
            "s.toml:5: `arrivals.to` is 0 as `arrivals.from` is, so no request comes",
        ),
        (
            "duration_s = 600000\n[arrivals]\nkind = \"constant\"\nrate = 10000\n",
            "s.toml:4: `arrivals.rate` comes to 6000000000 requests, but a run has at most 1000000000; lower it or the \
             duration",
        ),
        (
            "requests = 3\n[arrivals]\nkind = \"closed_loop\"\nusers = 9\n[client]\nconnections_max = 8\n",
            "s.toml:4: `arrivals.users` is 9, but `client.connections_max` lets only 8 be in flight; raise it",
        ),
        (
            "requests = 3\ntokenizer = \"t.json\"\n[prompts]\nkind = \"file\"\npath = \"p.jsonl\"\n",
            "s.toml:2: `tokenizer` counts the tokens of made-up prompts, but prompts are of a file; leave one of them out",
        ),
        (
            "requests = 3\ntarget = \"https://h\"\n",
            "s.toml:2: `target` is wrong: the target `https://h` is https, which this tester does not speak; give a \
             plain http:// address",
        ),
        (
            "requests = 3\nmodel = \"\"\n",
            "s.toml:2: `model` is empty; leave it out for the first that the server has",
        ),
    ] {
        assert_eq!(error_of(text), message, "{text}");
    }
    assert!(Scenario::default().validate().is_err(), "it has no end");
    Scenario { requests: Some(1), ..Scenario::default() }.validate().expect("the rest is sound");
}

#[test]
fn paths_in_a_file_start_where_the_file_lies() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("s.toml");
    let text = "tokenizer = \"t.gguf\"\n[arrivals]\nkind = \"trace\"\npath = \"t.csv\"\n\
                [answers]\nreference = \"/r.jsonl\"\n";
    std::fs::write(&file, text).expect("written");
    assert_eq!(Scenario::read(&file).expect("sound").tokenizer, Some(dir.path().join("t.gguf")));
    let text =
        text.replace("tokenizer = \"t.gguf\"\n", "") + "[prompts]\nkind = \"file\"\npath = \"sub/p.jsonl\"\n";
    std::fs::write(&file, text).expect("written");
    let scenario = Scenario::read(&file).expect("sound");
    assert_eq!(scenario.arrivals, Arrivals::Trace { path: dir.path().join("t.csv"), speed: 1.0 });
    assert_eq!(scenario.prompts, Prompts::File { path: dir.path().join("sub/p.jsonl") });
    assert_eq!(scenario.answers.reference.as_deref(), Some(Path::new("/r.jsonl")));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Scenario::read(Path::new("not/there.toml")).expect_err("no file");
    assert!(
        matches!(error, Error::File { .. }) && error.to_string().starts_with("not/there.toml: "),
        "{error}"
    );
}

#[test]
fn every_shipped_scenario_is_sound_asks_a_question_and_says_it_in_a_comment() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<String> = std::fs::read_dir(&folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().replace(".toml", ""))
        .collect();
    files.sort();
    let names: Vec<&str> = Scenario::shipped_names().collect();
    assert_eq!(files, names, "each file is shipped");
    for name in names {
        let path = folder.join(format!("{name}.toml"));
        let scenario = Scenario::read(&path).expect("sound");
        assert_eq!(scenario, Scenario::shipped(name).expect("sound"));
        let text = std::fs::read_to_string(&path).expect("text");
        assert!(scenario.question.ends_with('?'), "{name}");
        assert!(text.starts_with("# Question: ") && text.contains("# How to read it: "), "{name}");
        assert!(text.contains(&format!("tenk loadtest run {name} ")), "{name} shows how it is run");
    }
}

#[test]
fn a_name_that_is_nearly_right_is_corrected() {
    let error = Scenario::shipped("smok").expect_err("no such name").to_string();
    assert_eq!(
        error,
        "there is no scenario `smok` among 10k, burst, cache-zipf, chat, shared-prefix, smoke, soak; did you mean \
         `smoke`?; a file's name ends in .toml"
    );
}

#[test]
fn the_readmes_example_is_sound_and_shows_every_section() {
    let readme = include_str!("../../README.md");
    let example =
        readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let scenario = parse(example);
    assert_eq!(scenario.faults.len(), 1);
    for field in schema::SCENARIO.iter().filter(|field| field.key != "requests") {
        let is_there =
            example.contains(&format!("{} = ", field.key)) || example.contains(&format!("[{}]", field.key));
        assert!(is_there, "{} is not shown", field.key);
    }
    for name in Scenario::shipped_names() {
        assert!(readme.contains(&format!("| `{name}` |")), "{name} is not listed");
    }
}

proptest! {
    #[test]
    fn whatever_a_file_holds_it_is_a_scenario_or_refused_with_a_message(
        lines in prop::collection::vec(
            prop::sample::select(vec![
                "requests = 3", "[arrivals]", "kind = \"poisson\"", "kind = \"steps\"", "rate = 3", "rate = \"é\"",
                "steps = [{ rate = 1, duration_s = 2 }, 3]", "arrivals.kind = \"constant\"", "[prompts]", "[[faults]]",
                "kind = \"synthetic\"", "tokens = { min = 9, max = 8 }", "tokens = [9]", "at_s = -1", "action = \"kill\"",
                "pid = 0x10", "[client]", "[[client]]", "scrape = [1]", "seed = 99999999999999999999", "ü = 1", "x",
            ]),
            0..8,
        ),
    ) {
        let text = lines.join("\n");
        if let Err(error) = Draft::parse("s.toml", &text).and_then(|draft| draft.finish(|_| None)) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
