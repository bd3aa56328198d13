//! Loads a server over HTTP, and reads what each request left behind.

use std::path::Path;

use loadtest::LoadTest;
use loadtest::scenario::{Answers, Arrivals, Client, Length, Prompts, Scenario};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::{Error, median};

/// A closed loop whose prompts are fresh in every run, and the same ones for each side of a pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) users: u32,
    pub(crate) requests: u64,
    /// Of a prompt, without the chat template.
    pub(crate) prompt_tokens: u32,
    /// How many of them all prompts of a run begin with.
    pub(crate) shared_prefix_tokens: u32,
    pub(crate) answer_tokens: u32,
}

/// One run's figures.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) output_tokens_per_s: f64,
    /// Mean tokens of a prompt, the chat template counted.
    pub(crate) prompt_tokens: f64,
    pub(crate) records: Vec<Record>,
}

/// What a request left behind; times in microseconds since the run's start.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Record {
    index: u64,
    sent_us: u64,
    first_token_us: Option<u64>,
    last_token_us: Option<u64>,
    chunks: Vec<Chunk>,
}

/// A part of an answer.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Chunk {
    at_us: u64,
    tokens: u32,
}

impl Load {
    fn scenario(&self, target: &str, seed: u64) -> Scenario {
        Scenario {
            target: target.to_owned(),
            seed,
            arrivals: Arrivals::ClosedLoop { users: self.users, think_time_s: 0.0 },
            requests: Some(self.requests),
            prompts: Prompts::Synthetic {
                tokens: Length::Fixed(self.prompt_tokens),
                shared_prefix_tokens: self.shared_prefix_tokens,
                shared_prefixes: 1,
                repeats: None,
            },
            answers: Answers {
                max_tokens: Length::Fixed(self.answer_tokens),
                ignore_eos: true,
                temperature: Some(0.0),
                ..Answers::default()
            },
            // llama.cpp's server closes a connection after a stream, and on a machine that is busy with other things it
            // takes a hundred times as long as alone.
            client: Client { keep_alive: false, request_timeout_s: 1800.0, ..Client::default() },
            ..Scenario::default()
        }
    }

    /// Runs it to its end; its files go to `dir`.
    ///
    /// # Errors
    /// If a request failed: figures are of what was meant to be measured, or there are none.
    pub(crate) async fn run(
        &self,
        target: &str,
        seed: u64,
        dir: &Path,
        stop: &CancellationToken,
    ) -> Result<Run, Error> {
        let load_test =
            LoadTest { report_dir: Some(dir.to_owned()), ..LoadTest::new(self.scenario(target, seed)) };
        let report = load_test.run(stop.clone()).await?;
        if report.interrupted {
            return Err(Error::Interrupted);
        }
        if let Some(error) = report.errors.first() {
            let example = &error.example;
            return Err(Error::broken(format!("a request to {target} failed: {example}")));
        }
        let path = dir.join("records.jsonl");
        let text = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
        let figure = |name: &str| report.figure(name).unwrap_or(f64::NAN);
        Ok(Run {
            output_tokens_per_s: figure("output_tokens_per_s"),
            prompt_tokens: figure("prompt_tokens") / self.requests as f64,
            records: records(&text)?,
        })
    }
}

/// In the order in which they were due.
fn records(text: &str) -> Result<Vec<Record>, Error> {
    let read = |line| serde_json::from_str(line);
    let mut records: Vec<Record> = text
        .lines()
        .map(read)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::broken(format!("the load tester's records cannot be read: {error}")))?;
    records.sort_by_key(|record| record.index);
    Ok(records)
}

impl Record {
    pub(crate) fn ttft_ms(&self) -> Result<f64, Error> {
        let first_us = self.first_token_us.ok_or_else(|| Error::broken("an answer had no text"))?;
        Ok(first_us.saturating_sub(self.sent_us) as f64 / 1e3)
    }
}

impl Run {
    /// The middle of all requests' times to first token.
    pub(crate) fn ttft_ms(&self) -> Result<f64, Error> {
        Ok(median(&self.records.iter().map(Record::ttft_ms).collect::<Result<Vec<_>, _>>()?))
    }

    /// Tokens of a prompt over the time to first token, when one client asks for answers of one token.
    pub(crate) fn prefill_tokens_per_s(&self) -> Result<f64, Error> {
        Ok(self.prompt_tokens / self.ttft_ms()? * 1e3)
    }

    /// Tokens a second while every stream is being answered: what came after the last stream's first token, and no
    /// later than the first stream's last.
    pub(crate) fn decode_tokens_per_s(&self) -> Result<f64, Error> {
        let firsts = self.records.iter().filter_map(|record| record.first_token_us);
        let lasts = self.records.iter().filter_map(|record| record.last_token_us);
        let (Some(from_us), Some(to_us)) = (firsts.max(), lasts.min()) else {
            return Err(Error::broken("no answer had text"));
        };
        if from_us >= to_us {
            let what = "the first stream had its last token before the last one had its first";
            return Err(Error::broken(format!("{what}: there is no time in which all are decoding")));
        }
        let chunks = self.records.iter().flat_map(|record| &record.chunks);
        let within = chunks.filter(|chunk| chunk.at_us > from_us && chunk.at_us <= to_us);
        let tokens: u64 = within.map(|chunk| u64::from(chunk.tokens)).sum();
        Ok(tokens as f64 / (to_us - from_us) as f64 * 1e6)
    }

    /// The first request's time to first token, and the middle one of the later ones'.
    pub(crate) fn first_and_later_ttft_ms(&self) -> Result<(f64, f64), Error> {
        let Some((first, later)) = self.records.split_first() else {
            return Err(Error::broken("there were no requests"));
        };
        Ok((first.ttft_ms()?, Self { records: later.to_vec(), ..self.clone() }.ttft_ms()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: u64, sent_us: u64, tokens: &[(u64, u32)]) -> Record {
        Record {
            index,
            sent_us,
            first_token_us: tokens.first().map(|chunk| chunk.0),
            last_token_us: tokens.last().map(|chunk| chunk.0),
            chunks: tokens.iter().map(|(at_us, tokens)| Chunk { at_us: *at_us, tokens: *tokens }).collect(),
        }
    }

    fn run(records: Vec<Record>) -> Run {
        Run { output_tokens_per_s: 1.0, prompt_tokens: 100.0, records }
    }

    #[test]
    fn the_rate_of_a_decode_leaves_out_prompts_and_streams_that_have_ended() {
        let early = record(0, 0, &[(1_000, 1), (100_000, 1), (200_000, 1), (300_000, 2)]);
        let late = record(1, 0, &[(100_000, 1), (250_000, 1), (900_000, 5)]);
        // From 100 ms to 300 ms: tokens at 200, 250 and 300 ms.
        let rate = run(vec![early, late]).decode_tokens_per_s().expect("they overlap");
        assert!((rate - 4.0 / 0.2).abs() < 1e-9, "{rate}");
    }

    #[test]
    fn streams_that_never_decode_together_have_no_rate() {
        let first = record(0, 0, &[(1_000, 1), (2_000, 1)]);
        let second = record(1, 0, &[(3_000, 1), (4_000, 1)]);
        let error = run(vec![first, second]).decode_tokens_per_s().expect_err("apart");
        assert!(error.to_string().contains("no time in which all are decoding"), "{error}");
    }

    #[test]
    fn a_cold_prefix_is_the_first_request_and_the_later_ones_are_warm() {
        let ran = run(vec![
            record(0, 1_000, &[(501_000, 1)]),
            record(1, 600_000, &[(620_000, 1)]),
            record(2, 700_000, &[(740_000, 1)]),
        ]);
        assert_eq!(ran.first_and_later_ttft_ms().expect("text"), (500.0, 30.0));
        assert_eq!(ran.ttft_ms().expect("text"), 40.0);
        assert_eq!(ran.prefill_tokens_per_s().expect("text"), 2500.0);
        assert!(record(0, 0, &[]).ttft_ms().is_err(), "no text, no time");
    }

    #[test]
    fn records_are_read_in_the_order_in_which_they_were_due() {
        let line = |index| {
            format!(
                r#"{{"index":{index},"sent_us":1,"first_token_us":2,"last_token_us":null,"chunks":[],"more":0}}"#
            )
        };
        let read = records(&format!("{}\n{}\n", line(1), line(0))).expect("records");
        assert_eq!(read.iter().map(|record| record.index).collect::<Vec<_>>(), [0, 1]);
        assert!(records("{}").is_err());
    }
}
