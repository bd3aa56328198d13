//! Flags that make a scenario, or change one. `run`, `search` and `sweep` have all of them.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::error::Error;
use crate::reference;
use crate::scenario::{Arrivals, Draft, Length, Prompts, Scenario, Zipf};
use crate::sweep::with_field;

/// Where a run ends that nobody gave an end.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// After so many requests.
    Requests(u64),
    /// After so many seconds.
    DurationS(f64),
}

/// How many requests a run has that nobody gave an end.
pub(super) const REQUESTS: End = End::Requests(100);
/// The users of a closed loop of which nobody said how many.
const USERS: u32 = 8;

/// What a scenario can be told by flags. Each wins over the scenario's file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ScenarioArgs {
    /// The server, as http://HOST:PORT; http://127.0.0.1:8080 unless the scenario says another
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
    /// The model's name; the first of /v1/models unless given
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Decides schedule and prompts. A new one is drawn unless given here or in the scenario, for a server may have
    /// cached the prompts of an earlier run
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// When requests are due: --arrivals closed waits for answers, the others keep their rate whatever the server does
    #[arg(long, value_name = "KIND", help_heading = "Arrivals")]
    pub arrivals: Option<ArrivalsKind>,
    /// Requests a second; Poisson unless --arrivals or the scenario says otherwise
    #[arg(long, value_name = "R", help_heading = "Arrivals")]
    pub rate: Option<f64>,
    /// Coefficient of variation of gamma's gaps: 1 is Poisson, above it bursts
    #[arg(long, value_name = "CV", help_heading = "Arrivals")]
    pub cv: Option<f64>,
    /// Users of a closed loop, each with one request in flight at a time; 8 unless given
    #[arg(long, value_name = "N", help_heading = "Arrivals")]
    pub users: Option<u32>,
    /// Mean pause of such a user between an answer and the next request, in seconds
    #[arg(long, value_name = "S", help_heading = "Arrivals")]
    pub think_time_s: Option<f64>,
    /// End after so many requests; 100 unless an end is given here or in the scenario, and 30 seconds in a search
    #[arg(long, value_name = "N", help_heading = "Arrivals")]
    pub requests: Option<u64>,
    /// Send for so many seconds, then let what is in flight end. With --requests, whichever comes first
    #[arg(long, value_name = "S", help_heading = "Arrivals")]
    pub duration_s: Option<f64>,
    /// Requests to send before the measured ones; they are in no figure
    #[arg(long, value_name = "N", help_heading = "Arrivals")]
    pub warmup: Option<u64>,

    /// About how many tokens a prompt has, the chat template not counted; 128 unless given
    #[arg(long, value_name = "N", help_heading = "Prompts")]
    pub prompt_tokens: Option<u32>,
    /// How many of them all prompts start with; without it no two prompts start alike
    #[arg(long, value_name = "N", help_heading = "Prompts")]
    pub shared_prefix_tokens: Option<u32>,
    /// How many such prefixes there are; each prompt takes one of them; 1 unless given
    #[arg(long, value_name = "N", help_heading = "Prompts")]
    pub shared_prefixes: Option<u32>,
    /// Ask the same N prompts again and again, the r-th most popular in proportion to 1/r, so that a response cache can
    /// answer; without it no prompt comes again
    #[arg(long, value_name = "N", help_heading = "Prompts")]
    pub repeat_prompts: Option<u64>,
    /// In proportion to 1/r^S instead: 0 is uniform, 1 as on the web
    #[arg(long, value_name = "S", help_heading = "Prompts")]
    pub repeat_exponent: Option<f64>,
    /// Take prompts from a file: lines of {"prompt": "…"} or {"messages": […]}, with "max_tokens" if wanted, or
    /// ShareGPT's JSON list
    #[arg(
        long, value_name = "FILE", help_heading = "Prompts",
        conflicts_with_all = [
            "prompt_tokens", "shared_prefix_tokens", "shared_prefixes", "repeat_prompts", "repeat_exponent"
        ]
    )]
    pub prompts: Option<PathBuf>,

    /// Count the tokens of made-up prompts by a tokenizer.json, the folder of one, or a GGUF file, whatever the target's
    /// own /tokenize says; without either, a word is taken for a token
    #[arg(long, value_name = "PATH", help_heading = "Prompts", conflicts_with = "prompts")]
    pub tokenizer: Option<PathBuf>,

    /// The most tokens of an answer; 64 unless given
    #[arg(long, value_name = "N", help_heading = "Answers")]
    pub max_tokens: Option<u32>,
    /// Ask for answers that go on to --max-tokens, where the server knows the field
    #[arg(long, help_heading = "Answers")]
    pub ignore_eos: bool,
    /// Sampling temperature; the server's own unless given
    #[arg(long, value_name = "T", help_heading = "Answers")]
    pub temperature: Option<f32>,
    /// The share of answers to stream, from 0 to 1
    #[arg(long, value_name = "SHARE", help_heading = "Answers")]
    pub streamed: Option<f64>,
    /// Ask for whole answers, as --streamed 0 does; times to first token are then unknown
    #[arg(long, help_heading = "Answers", conflicts_with = "streamed")]
    pub no_stream: bool,
    /// Ask for token ids, which count each chunk's tokens, where the server knows the field
    #[arg(long, help_heading = "Answers")]
    pub return_token_ids: bool,
    /// Hash each answer into records.jsonl, and fail those in which a response cache and the model gave one prompt two
    /// answers. Ask with --temperature 0, or answers differ anyway
    #[arg(long, help_heading = "Answers")]
    pub hash_answers: bool,
    /// Fail answers that differ from those of an earlier run with --hash-answers, given by its folder. Its seed is taken
    /// unless one is given; ask with the same flags otherwise
    #[arg(long, value_name = "DIR", help_heading = "Answers")]
    pub reference: Option<PathBuf>,

    /// A good answer's first token comes within so many milliseconds of when its request was due
    #[arg(long, value_name = "MS", help_heading = "Targets")]
    pub target_ttft_ms: Option<f64>,
    /// A good answer takes at most so many milliseconds for each further token
    #[arg(long, value_name = "MS", help_heading = "Targets")]
    pub target_tpot_ms: Option<f64>,
    /// A good answer's last token comes within so many milliseconds of when its request was due
    #[arg(long, value_name = "MS", help_heading = "Targets")]
    pub target_e2e_ms: Option<f64>,
    /// What the servers cost together in US dollars an hour: the report then has a price for a million good tokens
    #[arg(long, value_name = "USD", help_heading = "Report")]
    pub usd_per_hour: Option<f64>,
    /// Read this address's /metrics too, once a second, beside the target's own; repeatable
    #[arg(long, value_name = "URL", help_heading = "Report")]
    pub scrape: Vec<String>,

    /// Open a connection for each request, where a server closes them unannounced
    #[arg(long, help_heading = "Client")]
    pub no_keep_alive: bool,
    /// The most requests in flight; one that is due beyond them fails; 10000 unless given
    #[arg(long, value_name = "N", help_heading = "Client")]
    pub connections_max: Option<u32>,
    /// The longest wait for a connection, in seconds; 5 unless given
    #[arg(long, value_name = "S", help_heading = "Client")]
    pub connect_timeout_s: Option<f64>,
    /// The longest that a request may take, in seconds; 300 unless given
    #[arg(long, value_name = "S", help_heading = "Client")]
    pub request_timeout_s: Option<f64>,

    /// Set any setting of a scenario file by its path, such as client.connections_max=50 or a flag's name; repeatable,
    /// and wins over all else
    #[arg(long, value_name = "SETTING=VALUE")]
    pub set: Vec<String>,
}

/// The rules by which requests become due that flags can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ArrivalsKind {
    /// Independent users: exponential gaps
    Poisson,
    /// Equal gaps
    Constant,
    /// Bursts: gaps with a coefficient of variation of --cv
    Gamma,
    /// A fixed number of users, each of whom waits for an answer
    Closed,
}

/// Settings that a flag makes, for messages, and for `sweep --field`.
pub(super) const FLAGS: &[(&str, &str)] = &[
    ("target", "--target"),
    ("model", "--model"),
    ("arrivals.rate", "--rate"),
    ("arrivals.cv", "--cv"),
    ("arrivals.users", "--users"),
    ("arrivals.think_time_s", "--think-time-s"),
    ("requests", "--requests"),
    ("duration_s", "--duration-s"),
    ("warmup", "--warmup"),
    ("prompts.tokens", "--prompt-tokens"),
    ("prompts.shared_prefix_tokens", "--shared-prefix-tokens"),
    ("prompts.system_tokens", "--shared-prefix-tokens"),
    ("prompts.shared_prefixes", "--shared-prefixes"),
    ("prompts.repeats.prompts", "--repeat-prompts"),
    ("prompts.repeats.exponent", "--repeat-exponent"),
    ("prompts.path", "--prompts"),
    ("tokenizer", "--tokenizer"),
    ("answers.max_tokens", "--max-tokens"),
    ("answers.temperature", "--temperature"),
    ("answers.streamed", "--streamed"),
    ("targets.ttft_ms", "--target-ttft-ms"),
    ("targets.tpot_ms", "--target-tpot-ms"),
    ("targets.end_to_end_ms", "--target-e2e-ms"),
    ("usd_per_hour", "--usd-per-hour"),
    ("scrape", "--scrape"),
    ("client.connections_max", "--connections-max"),
    ("client.connect_timeout_s", "--connect-timeout-s"),
    ("client.request_timeout_s", "--request-timeout-s"),
];

impl ScenarioArgs {
    /// The scenario of this name or file with these flags over it; `None` starts from the defaults. `new_seed` is taken
    /// where nobody gave one, and `end` where nobody said how long a run is.
    ///
    /// # Errors
    /// When the file cannot be read, or something is wrong in it or in the flags.
    pub fn scenario(&self, name_or_path: Option<&str>, new_seed: u64, end: End) -> Result<Scenario, Error> {
        let mut draft = name_or_path.map_or_else(|| Ok(Draft::default()), Draft::open)?;
        let is_seeded = draft.has("seed");
        let scenario = &mut draft.scenario;
        replace(&mut scenario.target, self.target.clone());
        scenario.model = self.model.clone().or(scenario.model.take());
        self.put_arrivals(scenario)?;
        self.put_end(scenario, name_or_path.is_some(), end);
        replace(&mut scenario.warmup, self.warmup);
        self.put_prompts(&mut scenario.prompts)?;
        scenario.tokenizer = self.tokenizer.clone().or(scenario.tokenizer.take());
        self.put_answers(scenario);
        self.put_rest(scenario);
        // The prompts of the reference run are those of its seed.
        let of_reference = scenario.answers.reference.as_deref().and_then(reference::seed_of);
        let unless_given = of_reference.unwrap_or(if is_seeded { scenario.seed } else { new_seed });
        scenario.seed = self.seed.unwrap_or(unless_given);
        for set in &self.set {
            let (field, value) = set.split_once('=').ok_or_else(|| {
                Error::Config(format!(
                    "--set {set} has no `=`; a setting's path, `=` and a value were expected"
                ))
            })?;
            *scenario = with_field(scenario, field.trim(), value.trim())?;
        }
        let flag_of =
            |setting: &str| FLAGS.iter().find(|(known, _)| *known == setting).map(|(_, flag)| *flag);
        draft.finish(flag_of)
    }

    /// Whether a seed was given, here or in the scenario: processes that share a run need the same one.
    pub(crate) fn has_seed(&self, name_or_path: Option<&str>) -> Result<bool, Error> {
        let is_set = || self.set.iter().any(|set| set.trim_start().starts_with("seed"));
        Ok(self.seed.is_some()
            || is_set()
            || name_or_path.map_or(Ok(false), |name| Draft::open(name).map(|d| d.has("seed")))?)
    }

    fn put_arrivals(&self, scenario: &mut Scenario) -> Result<(), Error> {
        let of_closed = self.users.is_some() || self.think_time_s.is_some();
        let kind = match (self.arrivals, self.rate, self.cv) {
            (Some(kind), ..) => kind,
            (None, _, Some(_)) => ArrivalsKind::Gamma,
            (None, Some(_), None) => match scenario.arrivals {
                Arrivals::Constant { .. } => ArrivalsKind::Constant,
                Arrivals::Gamma { .. } => ArrivalsKind::Gamma,
                _ => ArrivalsKind::Poisson,
            },
            (None, None, None) if of_closed => ArrivalsKind::Closed,
            (None, None, None) => return Ok(()),
        };
        let refused = |message: &str| Err(Error::Config(message.into()));
        if kind != ArrivalsKind::Closed && of_closed {
            return refused(
                "--users and --think-time-s belong to a closed loop, whose rate the server sets; leave them out \
                            or --rate, --cv and --arrivals",
            );
        }
        if kind == ArrivalsKind::Closed && (self.rate.is_some() || self.cv.is_some()) {
            return refused(
                "--rate and --cv belong to an open loop; leave them out, or give --arrivals poisson",
            );
        }
        if kind != ArrivalsKind::Gamma && self.cv.is_some() {
            return refused("--cv belongs to --arrivals gamma");
        }
        let (known_rate, known_cv) = match scenario.arrivals {
            Arrivals::Constant { rate } | Arrivals::Poisson { rate } => (Some(rate), None),
            Arrivals::Gamma { rate, cv } => (Some(rate), Some(cv)),
            _ => (None, None),
        };
        let rate = self
            .rate
            .or(known_rate)
            .ok_or_else(|| Error::Config("an open loop needs --rate, in requests a second".into()));
        scenario.arrivals = match kind {
            ArrivalsKind::Closed => self.closed_loop(&scenario.arrivals),
            ArrivalsKind::Constant => Arrivals::Constant { rate: rate? },
            ArrivalsKind::Poisson => Arrivals::Poisson { rate: rate? },
            ArrivalsKind::Gamma => {
                let Some(cv) = self.cv.or(known_cv) else {
                    return refused("--arrivals gamma needs --cv, such as --cv 3 for bursts");
                };
                Arrivals::Gamma { rate: rate?, cv }
            }
        };
        Ok(())
    }

    fn closed_loop(&self, known: &Arrivals) -> Arrivals {
        let (users, think_time_s) = match *known {
            Arrivals::ClosedLoop { users, think_time_s } => (users, think_time_s),
            _ => (USERS, 0.0),
        };
        Arrivals::ClosedLoop {
            users: self.users.unwrap_or(users),
            think_time_s: self.think_time_s.unwrap_or(think_time_s),
        }
    }

    /// An end that is given here takes the place of the scenario's whole end.
    fn put_end(&self, scenario: &mut Scenario, has_file: bool, unless_given: End) {
        if self.requests.is_some() || self.duration_s.is_some() {
            (scenario.requests, scenario.duration_s) = (self.requests, self.duration_s);
        } else if !has_file {
            match unless_given {
                End::Requests(requests) => scenario.requests = Some(requests),
                End::DurationS(duration_s) => scenario.duration_s = Some(duration_s),
            }
        }
    }

    fn put_prompts(&self, prompts: &mut Prompts) -> Result<(), Error> {
        if let Some(path) = &self.prompts {
            *prompts = Prompts::File { path: path.clone() };
        }
        let lengths = self.prompt_tokens.is_some() || self.shared_prefix_tokens.is_some();
        let of_synthetic =
            self.shared_prefixes.is_some() || self.repeat_prompts.is_some() || self.repeat_exponent.is_some();
        if !lengths && !of_synthetic {
            return Ok(());
        }
        if matches!(prompts, Prompts::File { .. }) {
            *prompts = Scenario::default().prompts;
        }
        match prompts {
            Prompts::Synthetic { tokens, shared_prefix_tokens, shared_prefixes, repeats } => {
                replace(tokens, self.prompt_tokens.map(Length::Fixed));
                replace(shared_prefix_tokens, self.shared_prefix_tokens);
                replace(shared_prefixes, self.shared_prefixes);
                self.put_repeats(repeats)
            }
            Prompts::Conversation { .. } if of_synthetic => Err(Error::Config(
                "--shared-prefixes, --repeat-prompts and --repeat-exponent belong to single prompts, but the scenario \
                 has conversations; leave them out, or take another scenario"
                    .into(),
            )),
            Prompts::Conversation { tokens, system_tokens, .. } => {
                replace(tokens, self.prompt_tokens.map(Length::Fixed));
                replace(system_tokens, self.shared_prefix_tokens);
                Ok(())
            }
            Prompts::File { .. } => Ok(()),
        }
    }

    fn put_repeats(&self, repeats: &mut Option<Zipf>) -> Result<(), Error> {
        if self.repeat_prompts.is_none() && self.repeat_exponent.is_none() {
            return Ok(());
        }
        let prompts = self.repeat_prompts.or(repeats.map(|zipf| zipf.prompts)).ok_or_else(|| {
            Error::Config("--repeat-exponent needs --repeat-prompts, the number of prompts".into())
        })?;
        let exponent = self.repeat_exponent.or(repeats.map(|zipf| zipf.exponent)).unwrap_or(1.0);
        *repeats = Some(Zipf { prompts, exponent });
        Ok(())
    }

    fn put_answers(&self, scenario: &mut Scenario) {
        let answers = &mut scenario.answers;
        replace(&mut answers.max_tokens, self.max_tokens.map(Length::Fixed));
        answers.ignore_eos |= self.ignore_eos;
        answers.temperature = self.temperature.or(answers.temperature);
        replace(&mut answers.streamed, if self.no_stream { Some(0.0) } else { self.streamed });
        answers.return_token_ids |= self.return_token_ids;
        answers.hash |= self.hash_answers;
        answers.reference = self.reference.clone().or(answers.reference.take());
    }

    fn put_rest(&self, scenario: &mut Scenario) {
        let targets = &mut scenario.targets;
        targets.ttft_ms = self.target_ttft_ms.or(targets.ttft_ms);
        targets.tpot_ms = self.target_tpot_ms.or(targets.tpot_ms);
        targets.end_to_end_ms = self.target_e2e_ms.or(targets.end_to_end_ms);
        scenario.usd_per_hour = self.usd_per_hour.or(scenario.usd_per_hour);
        scenario.scrape.extend(self.scrape.iter().cloned());
        let client = &mut scenario.client;
        client.keep_alive &= !self.no_keep_alive;
        replace(&mut client.connections_max, self.connections_max);
        replace(&mut client.connect_timeout_s, self.connect_timeout_s);
        replace(&mut client.request_timeout_s, self.request_timeout_s);
    }
}

fn replace<T>(setting: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *setting = given;
    }
}
