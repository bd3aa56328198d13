//! Whether answers are what they should be while the server is loaded: those of an earlier run, request by request,
//! and those of one prompt among themselves, whether a cache gave them or the model.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;

use crate::error::Error;
use crate::record::{CacheStatus, Failure, FailureKind, RequestRecord};
use crate::report::REPORT_FILE;

/// How many prompts are followed; more would make a long run's memory grow.
const PROMPTS_MAX: usize = 100_000;

/// The answers of an earlier run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// By request and turn.
    answers: HashMap<(u64, u32), Answer>,
}

/// An answer of an earlier run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    hash: u64,
    /// What was asked; unknown in records of older versions.
    prompt_hash: Option<u64>,
}

/// The file of a run's records within its folder.
const RECORDS: &str = "records.jsonl";

/// What is read of a line of `records.jsonl`.
#[derive(Deserialize)]
struct Line {
    index: u64,
    #[serde(default)]
    turn: u32,
    #[serde(default)]
    warmup: bool,
    #[serde(default)]
    answer_hash: Option<u64>,
    #[serde(default)]
    prompt_hash: Option<u64>,
}

/// The seed of an earlier run, given by its folder or its records, if its report lies there.
pub(crate) fn seed_of(path: &Path) -> Option<u64> {
    let dir = if path.is_dir() { path } else { path.parent()? };
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join(REPORT_FILE)).ok()?).ok()?;
    report.pointer("/scenario/seed")?.as_u64()
}

impl Reference {
    /// Reads the `records.jsonl` of an earlier run, given by its folder or the file. Warm-up requests, and those without an answer, are no reference.
    ///
    /// # Errors
    /// When the file cannot be read, a line is no record, or no record has a hash.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let path = if path.is_dir() { path.join(RECORDS) } else { path.to_owned() };
        let failed = |source| Error::File { path: path.clone(), source };
        Self::from_lines(&path, BufReader::new(std::fs::File::open(&path).map_err(failed)?))
    }

    fn from_lines(path: &Path, lines: impl BufRead) -> Result<Self, Error> {
        let mut answers = HashMap::new();
        for (at, line) in lines.lines().enumerate() {
            let line = line.map_err(|source| Error::File { path: path.to_owned(), source })?;
            let record: Line = serde_json::from_str(&line).map_err(|error| {
                Error::Config(format!("{}: line {}: {error}; a record was expected", path.display(), at + 1))
            })?;
            if let (false, Some(hash)) = (record.warmup, record.answer_hash) {
                let answer = Answer { hash, prompt_hash: record.prompt_hash };
                answers.insert((record.index, record.turn), answer);
            }
        }
        if answers.is_empty() {
            return Err(Error::Config(format!(
                "{} has no answer hashes; run the reference with --hash-answers, or `hash = true` in [answers]",
                path.display()
            )));
        }
        Ok(Self { answers })
    }

    /// The hash that a turn of request `index` had.
    pub fn expected(&self, index: u64, turn: u32) -> Option<u64> {
        self.answers.get(&(index, turn)).map(|answer| answer.hash)
    }

    /// What is wrong with an answer; none where the reference has none, or the same.
    fn against(&self, record: &RequestRecord, hash: u64) -> Option<String> {
        let answer = self.answers.get(&(record.index, record.turn))?;
        if let (Some(then), Some(now)) = (answer.prompt_hash, record.prompt_hash)
            && then != now
        {
            // The later turns of a conversation carry its earlier answers.
            return Some(if record.turn == 0 {
                "the reference run asked something else: run both with the same --seed and the same scenario"
                    .into()
            } else {
                "an earlier answer of this conversation was not the reference run's".into()
            });
        }
        (answer.hash != hash)
            .then(|| format!("the reference run's answer was another ({:016x})", answer.hash))
    }
}

/// What answers are held against while they come.
#[derive(Debug, Default)]
pub struct Judge {
    reference: Option<Reference>,
    /// By prompt and the most tokens of its answer: the hashes of the first answer from a cache and from the model.
    first: HashMap<(u64, u32), [Option<u64>; 2]>,
}

impl Judge {
    /// One with an earlier run's answers, or without.
    pub fn new(reference: Option<Reference>) -> Self {
        Self { reference, first: HashMap::new() }
    }

    /// Turns a success into a failure if its answer is not what it was in the reference run, or if a cache and the model
    /// gave two answers to one prompt: with greedy sampling there is one. The first 100,000 prompts are followed.
    pub fn judge(&mut self, record: &mut RequestRecord) {
        let (Some(hash), None, false) = (record.answer_hash, &record.failure, record.warmup) else { return };
        let referred = self.reference.as_ref().and_then(|reference| reference.against(record, hash));
        let example = referred.or_else(|| self.against_itself(record, hash));
        if let Some(example) = example {
            let example = format!("request {} ({hash:016x}): {example}", record.index);
            record.failure = Some(Failure::new(FailureKind::Mismatch, example));
        }
    }

    fn against_itself(&mut self, record: &RequestRecord, hash: u64) -> Option<String> {
        let prompt = (record.prompt_hash?, record.max_tokens);
        if self.first.len() >= PROMPTS_MAX && !self.first.contains_key(&prompt) {
            return None;
        }
        let from_cache = matches!(record.cache?, CacheStatus::Hit | CacheStatus::Coalesced);
        let seen = self.first.entry(prompt).or_default();
        seen[usize::from(from_cache)].get_or_insert(hash);
        let other = seen[usize::from(!from_cache)].filter(|other| *other != hash)?;
        let (this, that) = if from_cache { ("cache", "model") } else { ("model", "cache") };
        Some(format!("the {this} answered otherwise than the {that} ({other:016x})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Reference, Error> {
        Reference::from_lines(Path::new("records.jsonl"), text.as_bytes())
    }

    #[test]
    fn hashes_are_read_by_request_and_warm_up_is_left_out() {
        let reference = read(
            "{\"index\":0,\"warmup\":true,\"answer_hash\":1}\n{\"index\":0,\"warmup\":false,\"answer_hash\":18446744073709551615}\n\
             {\"index\":1,\"answer_hash\":null,\"done_us\":5}\n{\"index\":2,\"answer_hash\":7}\n",
        )
        .expect("records");
        assert_eq!([0, 1, 2].map(|index| reference.expected(index, 0)), [Some(u64::MAX), None, Some(7)]);
    }

    #[test]
    fn a_file_that_is_no_reference_is_refused_with_its_line() {
        let refused = |text: &str| read(text).expect_err("refused").to_string();
        assert!(refused("{\"index\":0,\"answer_hash\":1}\nx\n").contains("line 2"));
        assert!(refused("{\"index\":0}\n").contains("hash = true"));
        let absent = Reference::read(Path::new("absent.jsonl")).expect_err("refused").to_string();
        assert!(absent.contains("absent.jsonl"));
    }

    fn answered(index: u64, hash: u64) -> RequestRecord {
        RequestRecord { index, answer_hash: Some(hash), max_tokens: 64, ..RequestRecord::default() }
    }

    fn judged(judge: &mut Judge, mut record: RequestRecord) -> Option<String> {
        judge.judge(&mut record);
        record.failure.map(|failure| failure.example)
    }

    #[test]
    fn an_answer_that_is_not_the_references_is_a_failure() {
        let reference = read("{\"index\":0,\"answer_hash\":1}\n{\"index\":0,\"turn\":1,\"answer_hash\":2}\n");
        let mut judge = Judge::new(Some(reference.expect("records")));
        assert_eq!(judged(&mut judge, answered(0, 1)), None);
        assert_eq!(judged(&mut judge, answered(7, 9)), None, "without a counterpart");
        assert_eq!(judged(&mut judge, RequestRecord { turn: 1, ..answered(0, 2) }), None);
        let told = judged(&mut judge, answered(0, 2)).expect("another answer");
        assert!(
            told.contains("request 0 (0000000000000002)") && told.contains("(0000000000000001)"),
            "{told}"
        );
        assert_eq!(judged(&mut judge, RequestRecord { warmup: true, ..answered(0, 2) }), None);
    }

    #[test]
    fn a_reference_that_asked_something_else_says_so() {
        let reference = read("{\"index\":0,\"answer_hash\":1,\"prompt_hash\":8}\n").expect("records");
        let mut judge = Judge::new(Some(reference));
        let asked = |prompt| RequestRecord { prompt_hash: Some(prompt), ..answered(0, 1) };
        assert_eq!(judged(&mut judge, asked(8)), None);
        assert!(judged(&mut judge, asked(9)).expect("another prompt").contains("the same --seed"));
    }

    #[test]
    fn a_reference_is_found_by_its_folder_and_lends_its_seed() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(RECORDS), "{\"index\":0,\"answer_hash\":1}\n").expect("written");
        assert_eq!(seed_of(folder.path()), None);
        std::fs::write(folder.path().join(REPORT_FILE), "{\"scenario\":{\"seed\":9}}").expect("written");
        assert_eq!(seed_of(folder.path()), Some(9));
        assert_eq!(seed_of(&folder.path().join(RECORDS)), Some(9));
        assert_eq!(Reference::read(folder.path()).expect("read").expected(0, 0), Some(1));
    }

    #[test]
    fn a_cached_answer_must_be_the_computed_one() {
        let mut judge = Judge::default();
        let asked = |prompt, max_tokens, cache, hash| RequestRecord {
            prompt_hash: Some(prompt),
            max_tokens,
            cache: Some(cache),
            ..answered(3, hash)
        };
        assert_eq!(judged(&mut judge, asked(10, 64, CacheStatus::Miss, 1)), None);
        assert_eq!(judged(&mut judge, asked(10, 64, CacheStatus::Hit, 1)), None);
        let told = judged(&mut judge, asked(10, 64, CacheStatus::Coalesced, 2)).expect("differs");
        assert!(told.contains("the cache answered otherwise than the model"), "{told}");
        // Another prompt, and the same one cut elsewhere.
        assert_eq!(judged(&mut judge, asked(11, 64, CacheStatus::Hit, 3)), None);
        assert_eq!(judged(&mut judge, asked(10, 8, CacheStatus::Hit, 4)), None);
    }
}
