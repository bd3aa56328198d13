//! What is wrong with the new version, if anything is.

use std::fmt;
use std::str::FromStr;

/// How a new version, and the world around it, behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// No difference.
    Aa,
    /// All times are 10% longer.
    Latency10,
    /// All times are 50% longer.
    Latency50,
    /// 0.5% of the requests fail.
    Errors05,
    /// 2% of the requests fail.
    Errors2,
    /// No difference; both versions' times grow to 2.7 times what they were.
    Drift,
    /// No difference; answers are short or long, ten times apart.
    Bimodal,
    /// No difference; one request a second.
    LittleTraffic,
}

/// A name that no scenario has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no scenario; expected one of {}", names())]
pub struct UnknownScenario {
    given: String,
}

fn names() -> String {
    Scenario::ALL.map(Scenario::name).join(", ")
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Aa,
        Self::Latency10,
        Self::Latency50,
        Self::Errors05,
        Self::Errors2,
        Self::Drift,
        Self::Bimodal,
        Self::LittleTraffic,
    ];

    /// Its name on command lines and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aa => "aa",
            Self::Latency10 => "latency_10",
            Self::Latency50 => "latency_50",
            Self::Errors05 => "errors_05",
            Self::Errors2 => "errors_2",
            Self::Drift => "drift",
            Self::Bimodal => "bimodal",
            Self::LittleTraffic => "little_traffic",
        }
    }

    /// What it is, in a few words.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Aa => "no difference",
            Self::Latency10 => "times 10% longer",
            Self::Latency50 => "times 50% longer",
            Self::Errors05 => "0.5% errors",
            Self::Errors2 => "2% errors",
            Self::Drift => "both get 2.7 times slower",
            Self::Bimodal => "short and long answers",
            Self::LittleTraffic => "1 request/s",
        }
    }

    /// How many times as long the new version takes.
    pub(super) const fn ratio(self) -> f64 {
        match self {
            Self::Latency10 => 1.1,
            Self::Latency50 => 1.5,
            _ => 1.0,
        }
    }

    /// The new version's share of errors, beside which the stable one has `baseline`.
    pub(super) const fn errors(self, baseline: f64) -> f64 {
        match self {
            Self::Errors05 => 0.005,
            Self::Errors2 => 0.02,
            _ => baseline,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = UnknownScenario;

    fn from_str(text: &str) -> Result<Self, UnknownScenario> {
        let found = Self::ALL.into_iter().find(|scenario| scenario.name() == text);
        found.ok_or_else(|| UnknownScenario { given: text.chars().take(100).collect() })
    }
}
