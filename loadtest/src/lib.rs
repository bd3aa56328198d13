//! A load tester for any HTTP server that speaks OpenAI's API.
//!
//! It exists because most testers measure themselves: they count network chunks as tokens, leave out requests that
//! never started, and take a broken stream for a short answer. This one says what each figure means, below, and
//! keeps to it. It shares a machine with what it measures, so a chunk is parsed for its few needed fields only and
//! records are folded away as they come.
//!
//! It must not know what server it measures: everything goes over the public HTTP API, and whatever a server does not
//! offer (`/tokenize`, usage, token ids) is done without, and said so in the report's notes.
//!
//! # Definitions
//!
//! All times are taken in this process, on one monotonic clock that starts with the measured run. Latencies are those
//! of requests that succeeded; failed ones are counted by kind.
//!
//! | figure | definition |
//! |---|---|
//! | scheduled | when the request was due: in an open loop as its schedule says, which was there before the run and is never moved; in a closed loop when its user was free and had thought, the run's start for the first one; a conversation's next turn when the last one had ended |
//! | sent | when the request was handed to the HTTP client; opening a connection comes after it and counts |
//! | resent | sent once more on a new connection, since the server had closed an idle one before a byte of an answer; its times run from the first sending |
//! | unsent | due when as many requests were in flight as may be: never sent, failed, and counted as offered |
//! | output chunk | a streamed event that brought text; one that brings only a role, a finish reason or usage is no token |
//! | TTFT | first output chunk − *scheduled*, so that no wait is left out: `scheduled.ttft_*`; beside it `sent.ttft_*`, first output chunk − *sent* |
//! | output tokens | the server's `usage.completion_tokens`; without usage, the tokens of the chunks |
//! | tokens of a chunk | its token ids, or the growth of its running usage; else the request's usage spread over its chunks, one each and the rest by length of text; else one |
//! | end-to-end | last output chunk (unstreamed: end of the body) − *scheduled*, and − *sent*: `scheduled.e2e_*`, `sent.e2e_*` |
//! | TPOT | (end-to-end − TTFT), both from *sent*, / (output tokens − 1), for answers of two tokens and more |
//! | inter-token latency | gaps between tokens, not chunks: the gap before a chunk of n tokens is n gaps of an n-th, and the first chunk's further tokens have gaps of 0. They sum to end-to-end − TTFT |
//! | inter-chunk latency | gaps between output chunks: what a reader sees as a stall |
//! | dispatch delay | sent − scheduled: the tester's own lateness. A run whose median exceeds 10 ms is invalid |
//! | span | first measured *sent* to the last measured end; throughputs are over it, its ramp-down included |
//! | output tokens/s | output tokens of requests that succeeded / span |
//! | goodput | requests that succeeded within all targets of the scenario, times from *scheduled*, over requests offered: failed ones and ones never sent are among these |
//! | success | status 200–299, a finish reason, and for a stream `[DONE]`: whatever its status, a stream that lacks one is truncated and failed |
//! | abandoned | in flight when the run was interrupted: neither success nor failure, in no figure |
//! | warm-up | requests that run to their end before the measured run starts; in no figure |
//!
//! Histograms are HDR histograms over 1 µs to 1 hour with three significant digits.

mod answer;
pub mod answer_hash;
mod api_key;
pub mod arrivals;
pub mod asking;
pub mod assertion;
mod client;
mod clock;
mod collector;
mod commands;
pub mod compare;
mod driver;
mod error;
pub mod faults;
pub mod figures;
mod interrupt;
mod lab;
mod lengths;
pub mod limits;
mod live;
pub mod merge;
pub mod metrics;
mod plot;
pub mod prompts;
mod random;
pub mod record;
pub mod reference;
pub mod report;
mod runner;
pub mod scenario;
pub mod scrape;
pub mod search;
pub mod sweep;
mod target;
#[cfg(test)]
mod tests;
mod tokenizer;
pub mod trace;
mod words;

pub use api_key::ApiKey;
pub use arrivals::Shard;
pub use commands::Command;
pub use driver::LoadTest;
pub use error::Error;
pub use lab::{LabCommand, Server};
pub use tokenizer::{CountTokens, OpenTokenizer};
