//! What is looked at.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A time that a user waits for; one sample a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Latency {
    /// From arrival to the first token of a stream.
    TimeToFirstToken,
    /// Mean time between the tokens of a stream.
    #[serde(rename = "inter_token_latency")]
    InterToken,
    /// From arrival to the last byte.
    #[serde(rename = "end_to_end_latency")]
    EndToEnd,
}

impl Latency {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::TimeToFirstToken, Self::InterToken, Self::EndToEnd];

    /// Its name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TimeToFirstToken => "time_to_first_token",
            Self::InterToken => "inter_token_latency",
            Self::EndToEnd => "end_to_end_latency",
        }
    }
}

/// Something that goes wrong, or not, in a request; one sample a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rate {
    /// A worker failed, hung up, took too long, or could not be reached. That another worker answered after all does
    /// not matter.
    Error,
    /// A worker had no place for it.
    Refused,
    /// The answer ended at its length, or without a reason.
    Truncated,
    /// The answer has no text.
    Empty,
}

impl Rate {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Error, Self::Refused, Self::Truncated, Self::Empty];
}

/// How much of a prompt had to be computed: times that begin with it are compared within one of these alone. A prompt of
/// 4,000 tokens takes longer than one of 40 on any version, and a version that is new to its users begins without their
/// prefixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stratum(u8);

impl Stratum {
    /// How many there are.
    pub const COUNT: u8 = 6;
    const BOUNDS: [u64; 5] = [64, 256, 1_024, 4_096, 16_384];

    /// The stratum of a prompt of which so many tokens were not in the prefix cache.
    pub fn of_uncached_tokens(tokens: u64) -> Self {
        Self(Self::BOUNDS.iter().take_while(|bound| tokens >= **bound).count() as u8)
    }
}

/// Which samples a sketch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LatencyKey {
    /// What was measured.
    pub latency: Latency,
    /// How much of the prompts had to be computed; the first one for what is not compared by that.
    pub stratum: Stratum,
}

/// A text that names no samples.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no samples; expected LATENCY/STRATUM")]
pub struct UnknownKey(String);

impl fmt::Display for LatencyKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.latency.as_str(), self.stratum.0)
    }
}

impl From<LatencyKey> for String {
    fn from(key: LatencyKey) -> Self {
        key.to_string()
    }
}

impl FromStr for LatencyKey {
    type Err = UnknownKey;

    fn from_str(text: &str) -> Result<Self, UnknownKey> {
        let unknown = || UnknownKey(text.chars().take(100).collect());
        let (latency, stratum) = text.split_once('/').ok_or_else(unknown)?;
        let latency = Latency::ALL.into_iter().find(|known| known.as_str() == latency);
        let stratum = stratum.parse().ok().filter(|stratum| *stratum < Stratum::COUNT);
        match (latency, stratum) {
            (Some(latency), Some(stratum)) => Ok(Self { latency, stratum: Stratum(stratum) }),
            _ => Err(unknown()),
        }
    }
}

impl TryFrom<String> for LatencyKey {
    type Error = UnknownKey;

    fn try_from(text: String) -> Result<Self, UnknownKey> {
        text.parse()
    }
}
