//! What is out of range, or does not fit together.

use std::fmt::{self, Display};

use super::{Answers, Arrivals, Client, Fault, FaultAction, Length, Prompts, Scenario, Targets, Zipf};
use crate::error::Error;
use crate::prompts::{ID_WORDS, Ranks};
use crate::target::Target;

const DAY_S: f64 = 86_400.0;
const WEEK_S: f64 = 7.0 * DAY_S;
const RATE_MAX: f64 = 1_000_000.0;
const RATE_MIN: f64 = 0.000_1;
const TOKENS_MAX: u32 = 1_000_000;
const REQUESTS_MAX: u64 = 1_000_000_000;
/// Prefixes are rendered before the run; these are about 100 MB.
const PREFIX_TOKENS_MAX: u64 = 16_000_000;

/// A setting that is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Its path, such as `arrivals.rate`.
    pub(crate) setting: String,
    /// What is wrong and what to do.
    problem: String,
}

impl Refusal {
    fn new(setting: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { setting: setting.into(), problem: problem.into() }
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.setting, self.problem)
    }
}

type Checked = Result<(), Refusal>;

/// Refuses values outside `min..=max`, and NaN.
fn in_range<T: PartialOrd + Display>(setting: &str, value: T, min: T, max: T) -> Checked {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(Refusal::new(setting, format!("is {value}, but must be from {min} to {max}")))
}

impl Scenario {
    /// The most users of a closed loop; each may hold a connection.
    pub const USERS_MAX: u32 = 20_000;

    /// Refuses what is out of range or does not fit together, by name.
    ///
    /// # Errors
    /// The first setting that is wrong, with its range.
    pub fn validate(&self) -> Result<(), Error> {
        self.check().map_err(|refusal| Error::Config(refusal.to_string()))
    }

    pub(crate) fn check(&self) -> Checked {
        Target::parse(&self.target).map_err(|error| Refusal::new("target", format!("is wrong: {error}")))?;
        if self.model.as_ref().is_some_and(String::is_empty) {
            return Err(Refusal::new("model", "is empty; leave it out for the first that the server has"));
        }
        self.check_end()?;
        in_range("warmup", self.warmup, 0, 1_000_000)?;
        self.arrivals.check()?;
        self.check_count()?;
        self.prompts.check()?;
        if self.tokenizer.is_some() && matches!(self.prompts, Prompts::File { .. }) {
            let problem =
                "counts the tokens of made-up prompts, but prompts are of a file; leave one of them out";
            return Err(Refusal::new("tokenizer", problem));
        }
        self.answers.check()?;
        self.targets.check()?;
        if self.faults.len() > 1_000 {
            return Err(Refusal::new("faults", "are above 1000"));
        }
        self.faults.iter().enumerate().try_for_each(|(index, fault)| fault.check(index))?;
        self.client.check()?;
        if let Arrivals::ClosedLoop { users, .. } = self.arrivals
            && users > self.client.connections_max
        {
            let max = self.client.connections_max;
            let problem =
                format!("is {users}, but `client.connections_max` lets only {max} be in flight; raise it");
            return Err(Refusal::new("arrivals.users", problem));
        }
        check_scrape(&self.scrape)?;
        self.usd_per_hour.map_or(Ok(()), |usd| in_range("usd_per_hour", usd, 0.0, 1_000_000.0))
    }

    fn check_end(&self) -> Checked {
        if let Some(requests) = self.requests {
            in_range("requests", requests, 1, REQUESTS_MAX)?;
        }
        if let Some(duration_s) = self.duration_s {
            in_range("duration_s", duration_s, 0.001, WEEK_S)?;
        }
        match self.arrivals {
            Arrivals::Steps { .. } | Arrivals::Trace { .. } => Ok(()),
            Arrivals::Ramp { .. } if self.duration_s.is_none() => {
                Err(Refusal::new("duration_s", "is missing: a ramp grows over it; add it"))
            }
            _ if self.requests.is_none() && self.duration_s.is_none() => Err(Refusal::new(
                "duration_s",
                "and `requests` are both missing, so the run has no end; add one",
            )),
            _ => Ok(()),
        }
    }

    /// Refuses a rate and a duration that come to more requests than a run may have.
    fn check_count(&self) -> Checked {
        let duration_s = self.duration_s.unwrap_or(0.0);
        let (setting, count) = match &self.arrivals {
            Arrivals::Constant { rate } | Arrivals::Poisson { rate } | Arrivals::Gamma { rate, .. } => {
                ("arrivals.rate", rate * duration_s)
            }
            Arrivals::Ramp { from, to } => ("arrivals.to", f64::midpoint(*from, *to) * duration_s),
            Arrivals::Steps { steps } => {
                ("arrivals.steps", steps.iter().map(|step| step.rate * step.duration_s).sum())
            }
            Arrivals::ClosedLoop { .. } | Arrivals::Trace { .. } => return Ok(()),
        };
        if self.requests.is_some() || count <= REQUESTS_MAX as f64 {
            return Ok(());
        }
        Err(Refusal::new(
            setting,
            format!(
                "comes to {count:.0} requests, but a run has at most {REQUESTS_MAX}; lower it or the duration"
            ),
        ))
    }
}

impl Arrivals {
    fn check(&self) -> Checked {
        match self {
            Self::ClosedLoop { users, think_time_s } => {
                in_range("arrivals.users", *users, 1, Scenario::USERS_MAX)?;
                in_range("arrivals.think_time_s", *think_time_s, 0.0, DAY_S)
            }
            Self::Constant { rate } | Self::Poisson { rate } => {
                in_range("arrivals.rate", *rate, RATE_MIN, RATE_MAX)
            }
            Self::Gamma { rate, cv } => {
                in_range("arrivals.rate", *rate, RATE_MIN, RATE_MAX)?;
                in_range("arrivals.cv", *cv, 0.01, 10.0)
            }
            Self::Ramp { from, to } => {
                in_range("arrivals.from", *from, 0.0, RATE_MAX)?;
                in_range("arrivals.to", *to, 0.0, RATE_MAX)?;
                if from + to < RATE_MIN {
                    return Err(Refusal::new(
                        "arrivals.to",
                        "is 0 as `arrivals.from` is, so no request comes",
                    ));
                }
                Ok(())
            }
            Self::Steps { steps } => {
                in_range("arrivals.steps", steps.len(), 1, 1_000).map_err(|refusal| Refusal {
                    problem: refusal.problem.replacen("is ", "has a number of steps that is ", 1),
                    ..refusal
                })?;
                for (index, step) in steps.iter().enumerate() {
                    let setting = |key: &str| format!("arrivals.steps[{index}].{key}");
                    in_range(&setting("rate"), step.rate, 0.0, RATE_MAX)?;
                    in_range(&setting("duration_s"), step.duration_s, 0.001, WEEK_S)?;
                }
                if steps.iter().all(|step| step.rate < RATE_MIN) {
                    return Err(Refusal::new("arrivals.steps", "have no rate above 0, so no request comes"));
                }
                Ok(())
            }
            Self::Trace { path, speed } => {
                if path.as_os_str().is_empty() {
                    return Err(Refusal::new("arrivals.path", "is empty, but must name the trace's file"));
                }
                in_range("arrivals.speed", *speed, 0.001, 1_000.0)
            }
        }
    }
}

impl Length {
    fn check(&self, setting: &str, min: u32) -> Checked {
        match *self {
            Self::Fixed(tokens) => in_range(setting, tokens, min, TOKENS_MAX),
            Self::Uniform { min: least, max } => {
                in_range(&format!("{setting}.min"), least, min, TOKENS_MAX)?;
                in_range(&format!("{setting}.max"), max, least, TOKENS_MAX)
            }
            Self::LogNormal { median, sigma, max } => {
                in_range(&format!("{setting}.max"), max, min, TOKENS_MAX)?;
                in_range(&format!("{setting}.median"), median, 1.0, f64::from(max))?;
                in_range(&format!("{setting}.sigma"), sigma, 0.0, 5.0)
            }
        }
    }
}

impl Prompts {
    fn check(&self) -> Checked {
        let own = ID_WORDS as u32;
        match self {
            Self::Synthetic { tokens, shared_prefix_tokens, shared_prefixes, repeats } => {
                tokens.check("prompts.tokens", own)?;
                in_range("prompts.shared_prefix_tokens", *shared_prefix_tokens, 0, TOKENS_MAX - own)?;
                in_range("prompts.shared_prefixes", *shared_prefixes, 1, 100_000)?;
                if u64::from(*shared_prefix_tokens) * u64::from(*shared_prefixes) > PREFIX_TOKENS_MAX {
                    let problem = format!(
                        "of {shared_prefix_tokens} tokens each are {shared_prefixes}, but all prefixes together may \
                         have {PREFIX_TOKENS_MAX} tokens; lower either"
                    );
                    return Err(Refusal::new("prompts.shared_prefixes", problem));
                }
                let shortest = match tokens {
                    Length::LogNormal { max, .. } => *max,
                    other => other.least(),
                };
                if shared_prefix_tokens + own > shortest {
                    let problem = format!(
                        "is {shared_prefix_tokens} of {shortest} prompt tokens, but each prompt needs {own} of its \
                         own; lower it or raise `prompts.tokens`"
                    );
                    return Err(Refusal::new("prompts.shared_prefix_tokens", problem));
                }
                repeats.as_ref().map_or(Ok(()), Zipf::check)
            }
            Self::Conversation { tokens, turns, system_tokens } => {
                tokens.check("prompts.tokens", own)?;
                in_range("prompts.turns", *turns, 1, 1_000)?;
                in_range("prompts.system_tokens", *system_tokens, 0, TOKENS_MAX)
            }
            Self::File { path } if path.as_os_str().is_empty() => {
                Err(Refusal::new("prompts.path", "is empty, but must name the file of prompts"))
            }
            Self::File { .. } => Ok(()),
        }
    }
}

impl Zipf {
    fn check(&self) -> Checked {
        in_range("prompts.repeats.prompts", self.prompts, 1, Ranks::PROMPTS_MAX)?;
        in_range("prompts.repeats.exponent", self.exponent, 0.0, 10.0)
    }
}

impl Answers {
    fn check(&self) -> Checked {
        self.max_tokens.check("answers.max_tokens", 1)?;
        if let Some(temperature) = self.temperature {
            in_range("answers.temperature", temperature, 0.0, 2.0)?;
        }
        in_range("answers.streamed", self.streamed, 0.0, 1.0)
    }
}

impl Targets {
    fn check(&self) -> Checked {
        for (setting, target_ms) in [
            ("targets.ttft_ms", self.ttft_ms),
            ("targets.tpot_ms", self.tpot_ms),
            ("targets.end_to_end_ms", self.end_to_end_ms),
        ] {
            if let Some(target_ms) = target_ms {
                in_range(setting, target_ms, 0.001, DAY_S * 1e3)?;
            }
        }
        Ok(())
    }
}

impl Fault {
    fn check(&self, index: usize) -> Checked {
        let setting = |key: &str| format!("faults[{index}].{key}");
        in_range(&setting("at_s"), self.at_s, 0.0, WEEK_S)?;
        match &self.action {
            FaultAction::Kill { pid } => check_pid(&setting("pid"), *pid),
            FaultAction::Pause { pid, for_s } => {
                check_pid(&setting("pid"), *pid)?;
                in_range(&setting("for_s"), *for_s, 0.001, DAY_S)
            }
            FaultAction::Inject { worker, fault } => {
                Target::parse(worker)
                    .map_err(|error| Refusal::new(setting("worker"), format!("is wrong: {error}")))?;
                if fault.is_object() {
                    return Ok(());
                }
                Err(Refusal::new(setting("fault"), "must be a section, such as { kind = \"crash\" }"))
            }
        }
    }
}

/// Numbers that mean a group of processes, or the first of all, are no single server.
fn check_pid(setting: &str, pid: u32) -> Checked {
    in_range(setting, pid, 2, i32::MAX.unsigned_abs())
}

impl Client {
    fn check(&self) -> Checked {
        in_range("client.connect_timeout_s", self.connect_timeout_s, 0.001, DAY_S)?;
        in_range("client.request_timeout_s", self.request_timeout_s, 0.001, DAY_S)?;
        in_range("client.connections_max", self.connections_max, 1, u32::from(u16::MAX))
    }
}

fn check_scrape(addresses: &[String]) -> Checked {
    if addresses.len() > 1_000 {
        return Err(Refusal::new("scrape", "has more than 1000 addresses"));
    }
    for address in addresses {
        Target::parse(address).map_err(|error| Refusal::new("scrape", format!("is wrong: {error}")))?;
    }
    Ok(())
}
