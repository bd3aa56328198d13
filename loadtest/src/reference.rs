//! Whether answers are what they should be while the server is loaded: those of an earlier run, request by request,
//! and those of one prompt among themselves, whether a cache gave them or the model.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How many differences are told one by one.
const SHOWN_MAX: usize = 5;
/// How many prompts are followed; more would make a long run's memory grow.
const PROMPTS_MAX: usize = 100_000;

/// The answers of an earlier run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    hashes: HashMap<u64, u64>,
}

/// What is read of a line of `records.jsonl`.
#[derive(Deserialize)]
struct Line {
    index: u64,
    #[serde(default)]
    warmup: bool,
    #[serde(default)]
    answer_hash: Option<u64>,
}

impl Reference {
    /// Reads the `records.jsonl` of an earlier run. Warm-up requests, and those without an answer, are no reference.
    ///
    /// # Errors
    /// When the file cannot be read, a line is no record, or no record has a hash.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        Self::from_lines(path, BufReader::new(std::fs::File::open(path).map_err(failed)?))
    }

    fn from_lines(path: &Path, lines: impl BufRead) -> Result<Self, Error> {
        let mut hashes = HashMap::new();
        for (at, line) in lines.lines().enumerate() {
            let line = line.map_err(|source| Error::File { path: path.to_owned(), source })?;
            let record: Line = serde_json::from_str(&line).map_err(|error| {
                Error::Config(format!("{}: line {}: {error}; a record was expected", path.display(), at + 1))
            })?;
            if let (false, Some(hash)) = (record.warmup, record.answer_hash) {
                hashes.insert(record.index, hash);
            }
        }
        if hashes.is_empty() {
            return Err(Error::Config(format!(
                "{} has no answer hashes; run the reference with `hash = true` in [answers]",
                path.display()
            )));
        }
        Ok(Self { hashes })
    }

    /// The hash that request `index` had.
    pub fn expected(&self, index: u64) -> Option<u64> {
        self.hashes.get(&index).copied()
    }
}

/// One answer that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The request.
    pub index: u64,
    /// The hash that was expected.
    pub expected: u64,
    /// The hash that it had.
    pub found: u64,
}

/// How the answers of a run compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mismatches {
    /// Answers that were compared.
    pub compared: u64,
    /// Of these, those that differ.
    pub differing: u64,
    /// Answers without a counterpart: requests that the reference did not make, or that failed there.
    pub without_counterpart: u64,
    /// The first that differ, in the order in which they came.
    pub first: Vec<Mismatch>,
}

impl Mismatches {
    /// Compares one answer; whether it is as expected, or nothing was.
    pub fn add(&mut self, index: u64, expected: Option<u64>, found: u64) -> bool {
        let Some(expected) = expected else {
            self.without_counterpart += 1;
            return true;
        };
        self.compared += 1;
        if expected == found {
            return true;
        }
        self.differing += 1;
        if self.first.len() < SHOWN_MAX {
            self.first.push(Mismatch { index, expected, found });
        }
        false
    }

    /// Takes over what another part of the same run saw.
    pub fn merge(&mut self, other: &Self) {
        self.compared += other.compared;
        self.differing += other.differing;
        self.without_counterpart += other.without_counterpart;
        let room = SHOWN_MAX.saturating_sub(self.first.len());
        self.first.extend(other.first.iter().take(room));
    }
}

impl fmt::Display for Mismatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} answers differ", self.differing, self.compared)?;
        for (at, mismatch) in self.first.iter().enumerate() {
            let before = if at == 0 { ": " } else { ", " };
            let Mismatch { index, expected, found } = mismatch;
            write!(f, "{before}request {index} ({found:016x}, not {expected:016x})")?;
        }
        if self.differing > self.first.len() as u64 {
            f.write_str(", …")?;
        }
        Ok(())
    }
}

/// Answers of the same prompt within one run, for greedy sampling: whether a cache gave an answer or the model did, it
/// must be the same. The first 100,000 prompts are followed.
#[derive(Clone, Debug, Default)]
pub struct SamePrompt {
    /// By prompt and the most tokens of its answer: the hashes of the first answer from a cache and from the model.
    first: HashMap<(u64, u32), [Option<u64>; 2]>,
    /// Cached answers against computed ones.
    pub cached: Mismatches,
    /// Answers of one kind against the first of their kind: whether the server is deterministic at all.
    pub alike: Mismatches,
}

impl SamePrompt {
    /// Takes one answer of request `index`. `prompt` identifies the prompt, and `max_tokens` where its answer was cut;
    /// `from_cache` says who gave it.
    pub fn add(&mut self, index: u64, (prompt, max_tokens): (u64, u32), from_cache: bool, hash: u64) {
        if self.first.len() >= PROMPTS_MAX && !self.first.contains_key(&(prompt, max_tokens)) {
            return;
        }
        let seen = self.first.entry((prompt, max_tokens)).or_default();
        let (own, other) = (usize::from(from_cache), usize::from(!from_cache));
        if let Some(first) = seen[own] {
            self.alike.add(index, Some(first), hash);
        }
        if let Some(first) = seen[other] {
            self.cached.add(index, Some(first), hash);
        }
        seen[own].get_or_insert(hash);
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
        assert_eq!([0, 1, 2].map(|index| reference.expected(index)), [Some(u64::MAX), None, Some(7)]);
    }

    #[test]
    fn a_file_that_is_no_reference_is_refused_with_its_line() {
        let refused = |text: &str| read(text).expect_err("refused").to_string();
        assert!(refused("{\"index\":0,\"answer_hash\":1}\nx\n").contains("line 2"));
        assert!(refused("{\"index\":0}\n").contains("hash = true"));
        let absent = Reference::read(Path::new("absent.jsonl")).expect_err("refused").to_string();
        assert!(absent.contains("absent.jsonl"));
    }

    #[test]
    fn differences_are_counted_and_the_first_are_told() {
        let mut mismatches = Mismatches::default();
        assert!(mismatches.add(0, Some(1), 1));
        assert!(mismatches.add(1, None, 1));
        for index in 2..10 {
            assert!(!mismatches.add(index, Some(1), index));
        }
        assert_eq!((mismatches.compared, mismatches.differing, mismatches.without_counterpart), (9, 8, 1));
        assert_eq!(mismatches.first.len(), SHOWN_MAX);
        let shown = mismatches.to_string();
        assert!(
            shown.starts_with("8 of 9 answers differ: request 2 (0000000000000002, not 0000000000000001)")
        );
        assert!(shown.ends_with('…'));
        let mut whole = Mismatches { compared: 3, ..Mismatches::default() };
        whole.merge(&mismatches);
        assert_eq!((whole.compared, whole.differing, whole.first.len()), (12, 8, SHOWN_MAX));
    }

    #[test]
    fn a_cached_answer_must_be_the_computed_one() {
        let mut answers = SamePrompt::default();
        answers.add(0, (10, 64), false, 1);
        answers.add(1, (10, 64), true, 1);
        answers.add(2, (10, 64), true, 2);
        // Another prompt, and the same one cut elsewhere.
        answers.add(3, (11, 64), true, 3);
        answers.add(4, (10, 8), true, 4);
        assert_eq!((answers.cached.compared, answers.cached.differing), (2, 1));
        assert_eq!(answers.cached.first[0].index, 2);
        assert_eq!((answers.alike.compared, answers.alike.differing), (1, 1));
    }
}
