//! What a rollout is to do. The same text is read from YAML, JSON and flags.

use routing::RouteTable;
use serde::{Deserialize, Serialize};

/// A rollout as its owner wants it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The model, as requests call it.
    pub model: String,
    /// The version that is to get its users.
    pub to: String,
    /// How it gets them.
    #[serde(default)]
    pub strategy: Strategy,
    /// What is good enough.
    #[serde(default)]
    pub judge: JudgeSpec,
    /// What happens before the first user.
    #[serde(default)]
    pub warm: WarmSpec,
    /// What must be free before a step.
    #[serde(default)]
    pub capacity: CapacitySpec,
    /// How long streams of a version that has lost its users may take to end, before its workers may go, in seconds.
    #[serde(default = "drain_s")]
    pub drain_s: u64,
}

const fn drain_s() -> u64 {
    60
}

/// How a version gets its users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Strategy {
    /// Some, then more, then all; each step is judged.
    Canary {
        /// In order; the last one is all users.
        steps: Vec<Step>,
    },
    /// None, then all at once; the former version stays warm for a while, and one command or a failed verdict brings
    /// everybody back at once.
    BlueGreen {
        /// How long the former version stays warm and the new one is judged, in seconds.
        keep_s: u64,
    },
    /// A share of the requests is sent to the new version as well, and its answers are thrown away: it is judged
    /// before it has any user. The outcome is a report.
    Shadow {
        /// Share of the requests that is mirrored, in percent.
        percent: f64,
        /// How long, in seconds.
        duration_s: u64,
    },
    /// A fixed split for a fixed time. The outcome is a report, whatever it says, unless an absolute guard is hit.
    Ab {
        /// Users of the new version, in percent.
        percent: f64,
        /// How long, in seconds.
        duration_s: u64,
    },
}

impl Default for Strategy {
    fn default() -> Self {
        let step = |percent| Step { percent, ..Step::default() };
        Self::Canary { steps: [5.0, 25.0, 50.0, 100.0].map(step).to_vec() }
    }
}

/// One step of a canary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// Users of the new version, in percent.
    pub percent: f64,
    /// The least users of the new version that must have been heard.
    pub users_min: u64,
    /// The least time, in seconds.
    pub time_min_s: u64,
    /// After this time, in seconds, evidence that is still insufficient holds the rollout for its owner to decide.
    pub time_max_s: u64,
}

impl Default for Step {
    fn default() -> Self {
        Self { percent: 100.0, users_min: 100, time_min_s: 60, time_max_s: 3_600 }
    }
}

/// What is good enough. The differences are those of the new version to the stable one at the same time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JudgeSpec {
    /// The probability that a version which is no worse is reverted, over all metrics, steps and looks. The absolute
    /// guard is not a part of it: it asks for no difference.
    pub false_alarm: f64,
    /// A latency's 95th percentile passes when it is surely less than this much higher, as a share.
    pub margin: f64,
    /// It fails when it is surely more than this much higher. Replicas of one version differ by some percent.
    pub tolerance: f64,
    /// The error rate passes when it is surely less than this much higher, as a difference.
    pub error_margin: f64,
    /// The same for requests that were refused for want of a place, for truncated and for empty answers.
    pub answer_margin: f64,
    /// When surely more than this share of the requests fail, it is reverted at once, from three users with an error
    /// on; whether the stable version fares as badly does not matter.
    pub error_guard: f64,
    /// Whether answers are compared by likelihood.
    pub quality: Option<QualitySpec>,
}

impl Default for JudgeSpec {
    fn default() -> Self {
        Self {
            false_alarm: 0.05,
            margin: 0.25,
            tolerance: 0.10,
            error_margin: 0.01,
            answer_margin: 0.05,
            error_guard: 0.2,
            quality: None,
        }
    }
}

/// How answers are compared: each version's answers to sampled prompts are given to the other version, which says how
/// likely it finds them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QualitySpec {
    /// The mean log-likelihood may be surely less than this much lower, in nats a token.
    pub margin_nats: f64,
    /// Sampled prompts a second, of each gateway.
    pub samples_per_s: f64,
    /// Tokens of each answer that are compared.
    pub tokens_max: u32,
}

impl Default for QualitySpec {
    fn default() -> Self {
        Self { margin_nats: 0.5, samples_per_s: 0.5, tokens_max: 32 }
    }
}

/// What the new version does before its first user: it answers prompts until its times to the first token settle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WarmSpec {
    /// The least prompts that are answered, by all workers together.
    pub prompts_min: u32,
    /// Times have settled when the last ones differ by no more than this, as a share of their median.
    pub settled_within: f64,
    /// After this time, in seconds, the rollout is reverted: the version does not come up.
    pub timeout_s: u64,
}

impl Default for WarmSpec {
    fn default() -> Self {
        Self { prompts_min: 6, settled_within: 0.5, timeout_s: 300 }
    }
}

/// What must be free before users are moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CapacitySpec {
    /// The share of the new version's places that its users may take, with no answer from the response cache.
    pub usage_max: f64,
}

impl Default for CapacitySpec {
    fn default() -> Self {
        Self { usage_max: 0.8 }
    }
}

/// What is wrong with a rollout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct SpecError {
    /// Where, such as `strategy.steps[1].percent`.
    pub field: String,
    /// What, and what was expected.
    pub problem: String,
}

/// A share of users in percent as parts of [`RouteTable::WEIGHT_TOTAL`].
pub fn weight_of_percent(percent: f64) -> u32 {
    (percent / 100.0 * f64::from(RouteTable::WEIGHT_TOTAL)).round() as u32
}

impl Spec {
    /// A canary in the default steps.
    pub fn new(model: impl Into<String>, to: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            to: to.into(),
            strategy: Strategy::default(),
            judge: JudgeSpec::default(),
            warm: WarmSpec::default(),
            capacity: CapacitySpec::default(),
            drain_s: drain_s(),
        }
    }

    /// Checks all of it; an error names the first field that is wrong.
    pub fn validate(&self) -> Result<(), SpecError> {
        for (field, name) in [("model", &self.model), ("to", &self.to)] {
            if name.trim().is_empty() || name.len() > 200 || name.chars().any(char::is_control) {
                return Err(error(field, "must be a name of 1 to 200 characters"));
            }
        }
        self.strategy.validate()?;
        self.judge.validate()?;
        within("warm.prompts_min", f64::from(self.warm.prompts_min), 0.0, 1_000.0)?;
        within("warm.settled_within", self.warm.settled_within, 0.01, 10.0)?;
        within("warm.timeout_s", self.warm.timeout_s as f64, 1.0, DAY_S)?;
        within("capacity.usage_max", self.capacity.usage_max, 0.05, 1.0)?;
        within("drain_s", self.drain_s as f64, 0.0, DAY_S)
    }
}

const DAY_S: f64 = 86_400.0;

impl Strategy {
    fn validate(&self) -> Result<(), SpecError> {
        let steps = match self {
            Self::Canary { steps } => steps,
            Self::BlueGreen { keep_s } => return within("strategy.keep_s", *keep_s as f64, 1.0, 7.0 * DAY_S),
            Self::Shadow { percent, duration_s } => {
                within("strategy.percent", *percent, 0.01, 100.0)?;
                return within("strategy.duration_s", *duration_s as f64, 1.0, 7.0 * DAY_S);
            }
            Self::Ab { percent, duration_s } => {
                within("strategy.percent", *percent, 0.01, 99.99)?;
                return within("strategy.duration_s", *duration_s as f64, 1.0, 90.0 * DAY_S);
            }
        };
        if steps.is_empty() || steps.len() > 20 {
            return Err(error("strategy.steps", "must hold 1 to 20 steps"));
        }
        let mut before = 0.0;
        for (index, step) in steps.iter().enumerate() {
            let field = |name: &str| format!("strategy.steps[{index}].{name}");
            within(&field("percent"), step.percent, 0.01, 100.0)?;
            if step.percent <= before {
                return Err(error(&field("percent"), "must be above that of the step before"));
            }
            before = step.percent;
            within(&field("users_min"), step.users_min as f64, 0.0, 1e9)?;
            within(&field("time_min_s"), step.time_min_s as f64, 0.0, 30.0 * DAY_S)?;
            within(
                &field("time_max_s"),
                step.time_max_s as f64,
                step.time_min_s.max(1) as f64,
                90.0 * DAY_S,
            )?;
        }
        if steps[0].percent >= 100.0 {
            let problem =
                "must be below 100: with all users there, nobody is left to compare with; see `blue_green`";
            return Err(error("strategy.steps[0].percent", problem));
        }
        if before < 100.0 {
            return Err(error("strategy.steps", "must end with a step of 100 percent"));
        }
        Ok(())
    }
}

impl JudgeSpec {
    fn validate(&self) -> Result<(), SpecError> {
        within("judge.false_alarm", self.false_alarm, 1e-6, 0.5)?;
        within("judge.margin", self.margin, 0.02, 10.0)?;
        within("judge.tolerance", self.tolerance, 0.0, self.margin)?;
        within("judge.error_margin", self.error_margin, 1e-4, 1.0)?;
        within("judge.answer_margin", self.answer_margin, 1e-4, 1.0)?;
        within("judge.error_guard", self.error_guard, 1e-3, 1.0)?;
        let Some(quality) = &self.quality else { return Ok(()) };
        within("judge.quality.margin_nats", quality.margin_nats, 0.01, 10.0)?;
        within("judge.quality.samples_per_s", quality.samples_per_s, 0.001, 100.0)?;
        within("judge.quality.tokens_max", f64::from(quality.tokens_max), 1.0, 1_024.0)
    }
}

fn within(field: &str, value: f64, min: f64, max: f64) -> Result<(), SpecError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    // Without an exponent, the largest number has 309 digits.
    let value = if value.abs() < 1e15 { value.to_string() } else { format!("{value:e}") };
    Err(error(field, &format!("is {value}, but must be from {min} to {max}")))
}

fn error(field: &str, problem: &str) -> SpecError {
    SpecError { field: field.to_owned(), problem: problem.to_owned() }
}
