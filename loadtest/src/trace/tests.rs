use std::io::BufReader;
use std::path::PathBuf;

use super::*;

fn parsed(text: &str) -> Vec<TraceRequest> {
    parse(Path::new("t"), text.as_bytes()).expect("a trace")
}

fn refused(text: &str) -> String {
    parse(Path::new("t"), text.as_bytes()).expect_err("refused").to_string()
}

#[test]
fn azures_times_start_with_the_first_request() {
    let text = "\u{feff}TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 23:59:59.5000000,374,44\r\n\
                2023-11-17 00:00:00.2500000,396,0\r\n";
    let expected = [(0, 374, 44), (750_000, 396, 1)].map(|(at_us, prompt, answer)| TraceRequest {
        at_us,
        prompt_tokens: Some(prompt),
        max_tokens: Some(answer),
        blocks: Vec::new(),
    });
    assert_eq!(parsed(text), expected);
}

#[test]
fn mooncakes_times_are_milliseconds_and_its_blocks_are_kept() {
    let text = "{\"timestamp\": 3000, \"input_length\": 600, \"output_length\": 52, \"hash_ids\": [4, 7]}\n\
                {\"timestamp\": 3052, \"input_length\": 512, \"output_length\": 0, \"hash_ids\": [4], \"x\": 1}\n";
    let expected = [(0, 600, 52, vec![4, 7]), (52_000, 512, 1, vec![4])];
    let expected = expected.map(|(at_us, prompt, answer, blocks)| TraceRequest {
        at_us,
        prompt_tokens: Some(prompt),
        max_tokens: Some(answer),
        blocks,
    });
    assert_eq!(parsed(text), expected);
}

#[test]
fn our_own_lines_may_leave_lengths_to_the_scenario() {
    let text = "\n{\"at_s\": 0.5}\n{\"at_s\": 0.5, \"prompt_tokens\": 9, \"max_tokens\": 3}\n";
    let bare = TraceRequest { at_us: 500_000, ..TraceRequest::default() };
    let full = TraceRequest { prompt_tokens: Some(9), max_tokens: Some(3), ..bare.clone() };
    assert_eq!(parsed(text), [bare, full], "our own times are kept as they are");
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n";
    for (text, message) in [
        (
            format!("{azure}yesterday,1,2\n"),
            "t: line 3: `TIMESTAMP` is `yesterday`, but must be like `2023-11-16 18:15:46.6805900`",
        ),
        (
            format!("{azure}2023-11-16 18:15:47,many,2\n"),
            "t: line 3: `ContextTokens` is `many`, but must be a whole number",
        ),
        (format!("{azure}2023-11-16 18:15:47\n"), "t: line 3: the line ends before its `ContextTokens`"),
        (
            format!("{azure}2023-11-16 18:15:46,1,2\n"),
            "t: line 3: is earlier than the line before; sort the trace by time",
        ),
        (
            "TIMESTAMP,ContextTokens\n".into(),
            "t: line 1: the header lacks `GeneratedTokens`; TIMESTAMP,ContextTokens,GeneratedTokens was expected, or \
             lines of JSON",
        ),
        ("\n".into(), "t: line 1: the trace holds no request"),
        ("{\"at\": 1}\n".into(), "t: line 1: either `at_s` or Mooncake's `timestamp` was expected"),
        (
            "{\"at_s\": 0}\n{\"at_s\": -1}\n".into(),
            "t: line 2: `at_s` is -1 s, but must be from 0 to 31622400 s",
        ),
        ("{\"at_s\": 0, \"max_tokens\": 0}\n".into(), "t: line 1: `max_tokens` is 0, but must be 1 or more"),
        (
            "{\"timestamp\": 0, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": [1, 2]}\n".into(),
            "t: line 1: `hash_ids` has 2 blocks of 512 tokens, but `input_length` is 512",
        ),
    ] {
        assert_eq!(refused(&text), message);
    }
    assert!(refused("{\"at_s\": 0, \"max_token\": 1}\n").starts_with("t: line 1: unknown field `max_token`"));
    assert!(refused("{\"at_s\": 0\n").starts_with("t: line 1: EOF"));
}

#[test]
fn a_trace_that_is_not_there_is_named() {
    assert!(matches!(read(Path::new("not/there.csv")), Err(Error::File { .. })));
}

#[test]
fn azures_own_file_can_be_read_where_it_is() {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "..", "..", "shared", "data", "azure-llm-inference-2023-conv.csv"]
            .iter()
            .collect();
    let Ok(file) = std::fs::File::open(&path) else { return };
    let requests = parse(&path, BufReader::new(file)).expect("a trace");
    assert_eq!(requests.len(), 19_366);
    let mut prompts: Vec<u32> = requests.iter().filter_map(|request| request.prompt_tokens).collect();
    let mut answers: Vec<u32> = requests.iter().filter_map(|request| request.max_tokens).collect();
    prompts.sort_unstable();
    answers.sort_unstable();
    assert_eq!((prompts[19_366 / 2], answers[19_366 / 2]), (1_020, 129), "the medians of the chat scenario");
    let hour_us = requests.last().expect("one").at_us;
    assert!((3_500_000_000..3_503_000_000).contains(&hour_us), "{hour_us}");
}
