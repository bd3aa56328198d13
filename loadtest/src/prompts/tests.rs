use std::collections::{HashMap, HashSet};
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::asking::WARMUP_INDEX_START;
use crate::scenario::{Arrivals, Length, Zipf};

fn synthetic(tokens: Length, prefix: u32, prefixes: u32, repeats: Option<Zipf>) -> Scenario {
    Scenario {
        prompts: Wanted::Synthetic {
            tokens,
            shared_prefix_tokens: prefix,
            shared_prefixes: prefixes,
            repeats,
        },
        ..Scenario::default()
    }
}

fn asker(scenario: &Scenario) -> Asker {
    Asker::new(scenario, Material::default()).expect("an asker")
}

fn messages(asked: &Asked) -> Value {
    serde_json::from_slice(&asked.messages_json).expect("JSON")
}

/// The only message's text.
fn text(asker: &Asker, index: u64) -> String {
    let messages = messages(&asker.request(index, 0, &[]));
    assert_eq!((messages.as_array().map(Vec::len), &messages[0]["role"]), (Some(1), &json!("user")));
    messages[0]["content"].as_str().expect("text").to_owned()
}

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

proptest! {
    #[test]
    fn no_two_prompts_start_alike(seed: u64, one in 0..WARMUP_INDEX_START, other in 0..WARMUP_INDEX_START) {
        prop_assume!(one != other);
        let asker = asker(&Scenario { seed, ..synthetic(Length::Fixed(20), 0, 1, None) });
        let (one, other) = (text(&asker, one), text(&asker, other));
        prop_assert_ne!(&words(&one)[..8], &words(&other)[..8]);
        prop_assert_eq!((words(&one).len(), words(&other).len()), (20, 20));
    }

    #[test]
    fn a_shared_prefix_is_shared_exactly(seed: u64, index in 0..WARMUP_INDEX_START - 1, shared in 1_u32..30) {
        let asker = asker(&Scenario { seed, ..synthetic(Length::Fixed(40), shared, 1, None) });
        let (one, other) = (text(&asker, index), text(&asker, index + 1));
        let (one, other, shared) = (words(&one), words(&other), shared as usize);
        prop_assert_eq!(&one[..shared], &other[..shared]);
        prop_assert_ne!(&one[shared..shared + 8], &other[shared..shared + 8]);
        prop_assert_eq!((one.len(), other.len()), (40, 40));
    }

    #[test]
    fn a_warm_up_prompt_is_no_measured_one(seed: u64, index in 0..WARMUP_INDEX_START, prompts in 1_u64..50) {
        for repeats in [None, Some(Zipf { prompts, exponent: 1.0 })] {
            let asker = asker(&Scenario { seed, ..synthetic(Length::Fixed(20), 0, 1, repeats) });
            let warmup = text(&asker, WARMUP_INDEX_START + index);
            for measured in (0..100).chain([index]) {
                prop_assert_ne!(&text(&asker, measured), &warmup);
            }
        }
    }

    #[test]
    fn a_request_depends_on_its_arguments_alone(seed: u64, index: u64) {
        let scenario = Scenario { seed, ..synthetic(Length::Uniform { min: 9, max: 99 }, 0, 1, None) };
        prop_assert_eq!(asker(&scenario).request(index, 0, &[]), asker(&scenario).request(index, 0, &[]));
    }

    #[test]
    fn prompts_are_equal_if_and_only_if_they_have_the_same_rank(seed: u64, prompts in 1_u64..40, exponent in 0.0_f64..2.0) {
        let zipf = Zipf { prompts, exponent };
        let mut scenario =
            Scenario { seed, ..synthetic(Length::Uniform { min: 20, max: 60 }, 10, 3, Some(zipf)) };
        scenario.answers.max_tokens = Length::Uniform { min: 1, max: 1_000 };
        let asker = asker(&scenario);
        let ranks = Ranks::new(zipf).expect("a law");
        let mut by_rank = HashMap::new();
        for index in 0..200 {
            let rank = ranks.rank(draw(seed_for(seed, Purpose::Rank), index));
            let asked = asker.request(index, 0, &[]);
            let first = by_rank.entry(rank).or_insert_with(|| asked.clone());
            prop_assert_eq!(&first.messages_json, &asked.messages_json);
            prop_assert_eq!(first.max_tokens, asked.max_tokens, "a cap is a part of what a cache compares");
        }
        let different: HashSet<_> = by_rank.values().map(|asked| asked.messages_json.clone()).collect();
        prop_assert_eq!(different.len(), by_rank.len());
    }
}

#[test]
fn each_of_several_prefixes_is_taken_about_as_often() {
    let asker = asker(&synthetic(Length::Fixed(40), 16, 8, None));
    let mut counts: HashMap<String, u32> = HashMap::new();
    for index in 0..4_000 {
        *counts.entry(words(&text(&asker, index))[..16].join(" ")).or_default() += 1;
    }
    assert_eq!(counts.len(), 8);
    assert!(counts.values().all(|count| (400..600).contains(count)), "{counts:?}");
}

#[test]
fn ten_thousand_requests_a_second_for_a_minute_repeat_as_much_as_the_scenario_says() {
    let scenario = Scenario::shipped("10k").expect("shipped");
    let Wanted::Synthetic { repeats: Some(zipf), .. } = scenario.prompts else { panic!("it repeats") };
    let ranks = Ranks::new(zipf).expect("a law");
    let distinct: HashSet<u64> = (0..600_000).map(|index| ranks.rank(draw(5, index))).collect();
    let repeated = 1.0 - distinct.len() as f64 / 600_000.0;
    assert!((repeated - 0.4).abs() < 0.005, "{repeated}");
}

#[test]
fn lengths_are_scaled_by_what_the_targets_tokenizer_counted() {
    let scenario = synthetic(Length::Fixed(300), 90, 1, None);
    let material = Material { tokens_per_word: TokensPerWord::counted(3, 1), ..Material::default() };
    let asker = Asker::new(&scenario, material).expect("an asker");
    let (one, other) = (text(&asker, 1), text(&asker, 2));
    assert_eq!((words(&one).len(), asker.request(1, 0, &[]).prompt_tokens), (100, 300));
    assert_eq!(words(&one)[..30], words(&other)[..30]);
    assert_ne!(words(&one)[30], words(&other)[30], "the prefix ends where it should");
}

#[test]
fn prompts_have_the_lengths_that_they_say_and_never_less_than_what_makes_them_different() {
    let length = Length::LogNormal { median: 30.0, sigma: 1.0, max: 500 };
    let asker = asker(&synthetic(length, 12, 2, None));
    for index in 0..500 {
        let asked = asker.request(index, 0, &[]);
        assert_eq!(words(&text(&asker, index)).len() as u32, asked.prompt_tokens);
        assert!((20..=500).contains(&asked.prompt_tokens));
    }
}

#[test]
fn the_share_of_streamed_answers_is_what_was_asked_for() {
    let mut scenario = Scenario::default();
    let streamed = |scenario: &Scenario| {
        let asker = asker(scenario);
        (0..10_000).filter(|index| asker.request(*index, 0, &[]).stream).count()
    };
    for (share, expected) in [(0.0, 0..=0), (0.1, 900..=1_100), (1.0, 10_000..=10_000)] {
        scenario.answers.streamed = share;
        assert!(expected.contains(&streamed(&scenario)), "{share}");
    }
}

#[test]
fn a_conversation_carries_the_real_answers_back() {
    let prompts = Wanted::Conversation { tokens: Length::Fixed(10), turns: 3, system_tokens: 12 };
    let scenario = Scenario { prompts, ..Scenario::default() };
    let asker = asker(&scenario);
    let first = asker.request(5, 0, &[]);
    assert!(first.more_turns);
    let answers = ["say \"yes\"\n".to_owned(), "no".to_owned()];
    let second = asker.request(5, 1, &answers[..1]);
    let third = asker.request(5, 2, &answers);
    assert!(second.more_turns && !third.more_turns);
    let roles = |asked: &Asked| -> Vec<String> {
        let messages = messages(asked);
        let messages = messages.as_array().expect("a list");
        messages.iter().map(|message| message["role"].as_str().expect("a role").to_owned()).collect()
    };
    assert_eq!(roles(&first), ["system", "user"]);
    assert_eq!(roles(&third), ["system", "user", "assistant", "user", "assistant", "user"]);
    let (before, after) = (messages(&second), messages(&third));
    assert_eq!(before[2]["content"], "say \"yes\"\n");
    assert_eq!(
        before.as_array(),
        after.as_array().map(|all| all[..4].to_vec()).as_ref(),
        "a turn extends the last"
    );
    assert_ne!(after[1]["content"], after[3]["content"]);
    assert_ne!(messages(&asker.request(6, 0, &[]))[1], after[1], "conversations differ");
    assert_eq!(messages(&asker.request(6, 0, &[]))[0], after[0], "but for their system prompt");
    assert_eq!(first.prompt_tokens, 22);
}

fn from_file(text: &str) -> Asker {
    let file = PromptFile::parse(Path::new("p"), text.as_bytes()).expect("prompts");
    let scenario = Scenario { prompts: Wanted::File { path: "p".into() }, ..Scenario::default() };
    Asker::new(&scenario, Material { file: Some(file), ..Material::default() }).expect("an asker")
}

#[test]
fn a_files_prompts_are_taken_in_turn() {
    let asker = from_file(
        "{\"prompt\": \"hi \\\"you\\\"\"}\n\n{\"messages\": [{\"role\": \"system\", \"content\": \"x\"}], \
         \"max_tokens\": 3}\n",
    );
    let asked = |index| asker.request(index, 0, &[]);
    assert_eq!(messages(&asked(0)), json!([{"role": "user", "content": "hi \"you\""}]));
    assert_eq!(messages(&asked(1)), json!([{"role": "system", "content": "x"}]));
    assert_eq!(messages(&asked(2)), messages(&asked(0)));
    assert_eq!(messages(&asked(WARMUP_INDEX_START)), messages(&asked(0)));
    assert_eq!((asked(0).max_tokens, asked(1).max_tokens, asked(1).prompt_tokens), (64, 3, 0));
}

#[test]
fn share_gpts_people_are_asked_again_and_the_target_answers() {
    let asker = from_file(
        "\n[{\"id\": \"a\", \"conversations\": [{\"from\": \"gpt\", \"value\": \"old\"}]},\n\
         {\"conversations\": [{\"from\": \"system\", \"value\": \"s\"}, {\"from\": \"human\", \"value\": \"one\"},\n\
         {\"from\": \"gpt\", \"value\": \"old\"}, {\"from\": \"human\", \"value\": \"two\"}]},\n\
         {\"conversations\": [{\"from\": \"user\", \"value\": \"three\"}]}]",
    );
    let first = asker.request(0, 0, &[]);
    assert!(first.more_turns);
    assert_eq!(
        messages(&first),
        json!([{"role": "system", "content": "s"}, {"role": "user", "content": "one"}])
    );
    let second = asker.request(0, 1, &["new".to_owned()]);
    assert!(!second.more_turns);
    assert_eq!(
        messages(&second),
        json!([
            {"role": "system", "content": "s"}, {"role": "user", "content": "one"},
            {"role": "assistant", "content": "new"}, {"role": "user", "content": "two"},
        ])
    );
    assert_eq!(messages(&asker.request(1, 0, &[])), json!([{"role": "user", "content": "three"}]));
    assert_eq!(messages(&asker.request(2, 0, &[])), messages(&first), "the empty one was left out");
}

#[test]
fn a_bad_file_is_refused_by_its_line() {
    let refused = |text: &str| {
        PromptFile::parse(Path::new("p.jsonl"), text.as_bytes()).expect_err("refused").to_string()
    };
    assert!(refused("\n{\"prompt\": \"hi\"}\n{\"prompt\": 3}").starts_with("p.jsonl: line 3: "));
    assert!(refused("{\"messages\": \"hi\"}").contains("must be a list"));
    assert!(refused("{}").contains("either `prompt` or `messages`"));
    assert!(refused("{\"promt\": \"hi\"}").contains("unknown field `promt`"));
    assert!(refused("{\"prompt\": \"a\", \"max_tokens\": 0}").contains("`max_tokens` is 0"));
    assert!(refused("\n").contains("no prompt"));
    let wrong_list = "\n[{\"conversations\": []},\n{\"conversation\": []}]";
    let message = refused(wrong_list);
    assert!(
        message.starts_with("p.jsonl: line 3: conversation 2: missing field `conversations`"),
        "{message}"
    );
    let stranger = refused("[{\"conversations\": [{\"from\": \"dog\", \"value\": \"w\"}]}]");
    assert!(stranger.contains("conversation 1: `from` is `dog`"), "{stranger}");
}

#[test]
fn a_files_prompts_must_have_been_read() {
    let scenario = Scenario { prompts: Wanted::File { path: "p".into() }, ..Scenario::default() };
    assert!(Asker::new(&scenario, Material::default()).is_err());
}

fn traced(requests: Vec<TraceRequest>, scenario: Scenario) -> Asker {
    let arrivals = Arrivals::Trace { path: "t".into(), speed: 1.0 };
    let material = Material { trace: requests.into(), ..Material::default() };
    Asker::new(&Scenario { arrivals, ..scenario }, material).expect("an asker")
}

#[test]
fn a_traces_lengths_win_where_it_has_them() {
    let full = TraceRequest { prompt_tokens: Some(50), max_tokens: Some(7), ..TraceRequest::default() };
    let asker = traced(vec![full, TraceRequest::default()], synthetic(Length::Fixed(30), 0, 1, None));
    let lengths = |index| {
        let asked = asker.request(index, 0, &[]);
        (words(&text(&asker, index)).len(), asked.prompt_tokens, asked.max_tokens)
    };
    assert_eq!((lengths(0), lengths(1), lengths(2)), ((50, 50, 7), (30, 30, 64), (50, 50, 7)));
    assert_ne!(text(&asker, 0), text(&asker, 2), "the same length is not the same text");
}

#[test]
fn equal_blocks_of_a_trace_are_equal_text() {
    let request = |tokens: u32, blocks: &[u64]| TraceRequest {
        prompt_tokens: Some(tokens),
        max_tokens: Some(1),
        blocks: blocks.to_vec(),
        ..TraceRequest::default()
    };
    let requests = vec![
        request(1_100, &[1, 2, 3]),
        request(1_100, &[1, 2, 4]),
        request(1_100, &[9, 2, 3]),
        request(700, &[1, 2]),
        request(700, &[1]),
    ];
    let asker = traced(requests, Scenario::default());
    let texts: Vec<String> = (0..5).map(|index| text(&asker, index)).collect();
    let words: Vec<Vec<&str>> = texts.iter().map(|text| words(text)).collect();
    assert_eq!(words.iter().map(Vec::len).collect::<Vec<_>>(), [1_100, 1_100, 1_100, 700, 700]);
    assert_eq!(words[0][..1_024], words[1][..1_024]);
    assert_ne!(words[0][1_024..], words[1][1_024..]);
    assert_ne!(words[0][..512], words[2][..512]);
    assert_eq!(words[0][512..], words[2][512..], "a block is the same wherever it stands");
    assert_eq!(words[0][..700], words[3][..], "a block that is not full is a part of the full one");
    assert_eq!(words[3][..512], words[4][..512]);
    assert_ne!(words[3][512..520], words[4][512..520], "what no block covers is the prompt's own");
    let warmup = text(&asker, WARMUP_INDEX_START);
    assert_ne!(warmup.split(' ').take(8).collect::<Vec<_>>(), words[0][..8], "warm-up warms no cache");
}

#[tokio::test]
async fn what_a_scenario_names_is_read_and_its_words_are_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let (prompts, trace) = (dir.path().join("p.jsonl"), dir.path().join("t.jsonl"));
    std::fs::write(&prompts, "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n").expect("written");
    std::fs::write(&trace, "{\"at_s\": 1}\n").expect("written");
    let two_a_word = async |text: &str| Ok(Some(2 * text.split(' ').count() as u64));

    let arrivals = Arrivals::Trace { path: trace, speed: 1.0 };
    let scenario = Scenario { arrivals, ..synthetic(Length::Fixed(60), 0, 1, None) };
    let mut material = Material::read(&scenario).expect("read");
    assert_eq!(material.trace.len(), 1);
    let basis = material.calibrate(&scenario, two_a_word).await.expect("counted");
    assert_eq!(basis, PromptBasis::Counted { sample_tokens: 60 });
    let asker = Asker::new(&scenario, material).expect("an asker");
    assert_eq!(words(&text(&asker, 0)).len(), 30);

    let scenario = Scenario { prompts: Wanted::File { path: prompts }, ..Scenario::default() };
    let mut material = Material::read(&scenario).expect("read");
    let basis = material.calibrate(&scenario, two_a_word).await.expect("nothing to count");
    assert_eq!(basis, PromptBasis::File { prompts: 2 });
    let scenario = Scenario { prompts: Wanted::File { path: "not/there".into() }, ..Scenario::default() };
    assert!(matches!(Material::read(&scenario), Err(Error::File { .. })));
}
