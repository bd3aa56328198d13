//! What a run is to do, as a file says it. Its types are the format of `scenarios/*.toml`, and a part of every report.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

mod check;
mod differences;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod walk;

pub(crate) use read::Draft;

/// One scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// The question that it answers, for people.
    pub question: String,
    /// `http://HOST:PORT` of the server.
    pub target: String,
    /// The served model's name; the first of `/v1/models` unless set.
    pub model: Option<String>,
    /// Decides schedule and prompts.
    pub seed: u64,
    /// When requests are due.
    pub arrivals: Arrivals,
    /// Ends the run after so many requests. Either this or `duration_s`; with both, whichever comes first.
    pub requests: Option<u64>,
    /// No request becomes due after so many seconds; what is in flight then runs to its end.
    pub duration_s: Option<f64>,
    /// Requests before the measured ones; they are in no figure.
    pub warmup: u64,
    /// What is asked.
    pub prompts: Prompts,
    /// Counts the tokens of made-up prompts in place of the target: a tokenizer.json, the folder of one, or a GGUF file.
    pub tokenizer: Option<PathBuf>,
    /// What answers are asked for.
    pub answers: Answers,
    /// What a good answer meets.
    pub targets: Targets,
    /// What happens to the servers meanwhile.
    pub faults: Vec<Fault>,
    /// How the client behaves.
    pub client: Client,
    /// Addresses whose `/metrics` are read once a second, beside the target's own.
    pub scrape: Vec<String>,
    /// What the servers cost together, in US dollars an hour.
    pub usd_per_hour: Option<f64>,
}

/// The rule by which requests become due. Rates are requests a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Arrivals {
    /// Each of `users` sends its next request `think_time_s` after its last one has ended.
    ClosedLoop {
        /// How many.
        users: u32,
        /// The mean pause between an answer and the next request; exponential. 0 unless set.
        #[serde(default)]
        think_time_s: f64,
    },
    /// Equal gaps.
    Constant {
        /// Requests a second.
        rate: f64,
    },
    /// Independent users: exponential gaps.
    Poisson {
        /// Mean rate.
        rate: f64,
    },
    /// Gaps from a gamma distribution of mean 1/rate. A coefficient of variation of 1 is Poisson; above it, bursts.
    Gamma {
        /// Mean rate.
        rate: f64,
        /// Standard deviation of gaps over their mean.
        cv: f64,
    },
    /// A Poisson process whose rate grows linearly over the run's duration.
    Ramp {
        /// At the start.
        from: f64,
        /// At the end.
        to: f64,
    },
    /// A Poisson process whose rate changes at once.
    Steps {
        /// One after the other.
        steps: Vec<Step>,
    },
    /// The times, and where it has them the lengths, of a trace: Azure's CSV (`TIMESTAMP,ContextTokens,GeneratedTokens`),
    /// Mooncake's JSONL (`timestamp` in ms, `input_length`, `output_length`, `hash_ids`), or JSONL of `at_s`,
    /// `prompt_tokens`, `max_tokens`.
    Trace {
        /// The file.
        path: PathBuf,
        /// 2 replays in half the time.
        #[serde(default = "one")]
        speed: f64,
    },
}

fn one() -> f64 {
    1.0
}

/// A stretch of time at one rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Requests a second.
    pub rate: f64,
    /// How long.
    pub duration_s: f64,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Prompts {
    /// Made-up words.
    Synthetic {
        /// Tokens of a prompt, the chat template not counted.
        tokens: Length,
        /// How many of them belong to a prefix that prompts share.
        #[serde(default)]
        shared_prefix_tokens: u32,
        /// How many such prefixes there are; each prompt takes one of them.
        #[serde(default = "one_prefix")]
        shared_prefixes: u32,
        /// Whole prompts that come again: a cache can answer them.
        #[serde(default)]
        repeats: Option<Zipf>,
    },
    /// A conversation of several turns; the real answers are carried back.
    Conversation {
        /// Tokens of each of the user's turns.
        tokens: Length,
        /// Turns of a conversation.
        turns: u32,
        /// Tokens of a system prompt that all share.
        #[serde(default)]
        system_tokens: u32,
    },
    /// Lines of `{"prompt": "…"}` or `{"messages": […]}`, with `max_tokens` if wanted, or a JSON list in ShareGPT's form
    /// (`conversations` of `from` and `value`). Taken in turn.
    File {
        /// The file.
        path: PathBuf,
    },
}

fn one_prefix() -> u32 {
    1
}

/// Which of a number of prompts comes next: the r-th most popular with a probability in proportion to r^-exponent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zipf {
    /// How many prompts there are.
    pub prompts: u64,
    /// 0 is uniform; web traffic is near 1.
    pub exponent: f64,
}

/// A number of tokens: the same for all, or drawn for each request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Length {
    /// The same for all.
    Fixed(u32),
    /// Each whole number between the two, both included, as likely as the other.
    Uniform {
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// Log-normal, as lengths of real prompts roughly are; cut to `max`.
    LogNormal {
        /// Half are shorter.
        median: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
        /// The most.
        max: u32,
    },
}

/// What answers are asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answers {
    /// The most tokens of an answer.
    pub max_tokens: Length,
    /// Ask for answers that go on to `max_tokens`, where the server knows the field.
    pub ignore_eos: bool,
    /// Sampling temperature; the server's own unless set.
    pub temperature: Option<f32>,
    /// The share of answers that are streamed, from 0 to 1.
    pub streamed: f64,
    /// Ask for token ids, which count each chunk's tokens, where the server knows the field.
    pub return_token_ids: bool,
    /// Hash each answer's text, to compare runs with each other.
    pub hash: bool,
    /// Answers must have the hashes of this earlier run's records, request by request.
    pub reference: Option<PathBuf>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            max_tokens: Length::Fixed(64),
            ignore_eos: false,
            temperature: None,
            streamed: 1.0,
            return_token_ids: false,
            hash: false,
            reference: None,
        }
    }
}

/// What a request must meet, all of it, to count as good. Times run from when it was scheduled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Targets {
    /// Time to first token.
    pub ttft_ms: Option<f64>,
    /// Time per output token.
    pub tpot_ms: Option<f64>,
    /// Time to last token.
    pub end_to_end_ms: Option<f64>,
}

/// Something that happens to a server at a moment of the run. The schema of files refuses unknown keys here: serde does
/// not know them beside a field that is flattened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Seconds after the start.
    pub at_s: f64,
    /// What.
    #[serde(flatten)]
    pub action: FaultAction,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum FaultAction {
    /// SIGKILL to a process of this machine.
    Kill {
        /// Its number.
        pid: u32,
    },
    /// SIGSTOP, and SIGCONT after a while.
    Pause {
        /// Its number.
        pid: u32,
        /// How long it stands still.
        for_s: f64,
    },
    /// POST of a JSON body to a simulated worker's `/admin/faults`.
    Inject {
        /// The worker's base address.
        worker: String,
        /// As the worker's documentation says.
        fault: serde_json::Value,
    },
}

/// How the client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Client {
    /// The longest wait for a connection.
    pub connect_timeout_s: f64,
    /// The longest that a request may take, from sending to its end.
    pub request_timeout_s: f64,
    /// Use a connection for more than one request.
    pub keep_alive: bool,
    /// The most requests in flight; in an open loop, one that is due beyond them is never sent, and fails.
    pub connections_max: u32,
}

impl Default for Client {
    fn default() -> Self {
        Self { connect_timeout_s: 5.0, request_timeout_s: 300.0, keep_alive: true, connections_max: 10_000 }
    }
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            question: String::new(),
            target: "http://127.0.0.1:8080".into(),
            model: None,
            seed: 0,
            arrivals: Arrivals::ClosedLoop { users: 8, think_time_s: 0.0 },
            requests: None,
            duration_s: None,
            warmup: 0,
            prompts: Prompts::Synthetic {
                tokens: Length::Fixed(128),
                shared_prefix_tokens: 0,
                shared_prefixes: 1,
                repeats: None,
            },
            tokenizer: None,
            answers: Answers::default(),
            targets: Targets::default(),
            faults: Vec::new(),
            client: Client::default(),
            scrape: Vec::new(),
            usd_per_hour: None,
        }
    }
}
