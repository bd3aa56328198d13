//! Judgements in words.

use std::fmt;

use evidence::{Latency, Rate};

use super::{Assessment, Metric, MetricAssessment, UNBOUNDED, Verdict};

impl Metric {
    /// Its name in sentences.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate(Rate::Error) => "error rate",
            Self::Rate(Rate::Refused) => "refusal rate",
            Self::Rate(Rate::Truncated) => "truncation rate",
            Self::Rate(Rate::Empty) => "empty-answer rate",
            Self::Latency(Latency::TimeToFirstToken) => "p95 time to first token",
            Self::Latency(Latency::InterToken) => "p95 inter-token latency",
            Self::Latency(Latency::EndToEnd) => "p95 end-to-end latency",
            Self::Quality => "loss of likelihood",
        }
    }

    /// A difference without its sign.
    fn size(self, difference: f64) -> String {
        let size = difference.abs();
        match self {
            Self::Latency(_) => format!("{:.0}%", size * 100.0),
            Self::Rate(_) => match trimmed(size * 100.0) {
                points if points == "1" => "1 point".to_owned(),
                points => format!("{points} points"),
            },
            Self::Quality => format!("{} nats a token", trimmed(size)),
        }
    }

    /// What a version shows.
    fn value(self, value: f64) -> String {
        match self {
            Self::Latency(_) if value < 1.0 => format!("{} ms", trimmed(value * 1e3)),
            Self::Latency(_) => format!("{} s", trimmed(value)),
            Self::Rate(_) => format!("{}%", trimmed(value * 100.0)),
            Self::Quality => format!("{} nats a token", trimmed(value)),
        }
    }

    fn is_low_known(self, low: f64) -> bool {
        low > if self == Self::Quality { -UNBOUNDED } else { -1.0 }
    }

    fn is_high_known(self, high: f64) -> bool {
        high < if matches!(self, Self::Rate(_)) { 1.0 } else { UNBOUNDED }
    }
}

/// With two digits behind the point at most.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl MetricAssessment {
    /// Where the difference lies, such as "8% to 14% higher"; `None` where nothing is known.
    fn span(&self) -> Option<String> {
        let size = |difference| self.metric.size(difference);
        let signed = |difference: f64| {
            format!("{} {}", size(difference), if difference < 0.0 { "lower" } else { "higher" })
        };
        let low = Some(self.low).filter(|low| self.metric.is_low_known(*low));
        let high = Some(self.high).filter(|high| self.metric.is_high_known(*high));
        Some(match (low, high) {
            (None, None) => return None,
            (Some(low), None) if low < 0.0 => format!("at most {}", signed(low)),
            (Some(low), None) => format!("at least {}", signed(low)),
            (None, Some(high)) if high < 0.0 => format!("at least {}", signed(high)),
            (None, Some(high)) => format!("at most {}", signed(high)),
            (Some(low), Some(high)) if low >= 0.0 => format!("{} to {}", size(low), signed(high)),
            (Some(low), Some(high)) if high <= 0.0 => {
                format!("{} to {} lower", size(high), size(low))
            }
            (Some(low), Some(high)) => format!("between {} and {}", signed(low), signed(high)),
        })
    }
}

impl fmt::Display for MetricAssessment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, span) = (self.metric.name(), self.span());
        let span = span.as_deref().unwrap_or("not known yet");
        match self.verdict {
            Verdict::Pass => {
                write!(formatter, "{name} is {span}, within the margin of {}", self.metric.size(self.margin))
            }
            Verdict::Fail => {
                if self.tolerance > 0.0 {
                    let tolerance = self.metric.size(self.tolerance);
                    write!(formatter, "{name} is {span}, above the {tolerance} that is tolerated")?;
                } else {
                    write!(formatter, "{name} is surely higher")?;
                }
                match (self.canary, self.stable) {
                    (Some(canary), Some(stable)) => {
                        write!(
                            formatter,
                            ": {} beside {}",
                            self.metric.value(canary),
                            self.metric.value(stable)
                        )
                    }
                    _ => Ok(()),
                }
            }
            Verdict::Insufficient => write!(
                formatter,
                "{name} is {span}, not surely within the margin of {} after {} samples",
                self.metric.size(self.margin),
                self.samples
            ),
        }
    }
}

impl fmt::Display for Assessment {
    /// What decided it: the metrics that fail, else those that are not sure, else all.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let worst = self.metrics.iter().map(|metric| metric.verdict).max();
        let deciding = self.metrics.iter().filter(|metric| Some(metric.verdict) == worst);
        let mut reasons: Vec<String> = deciding.map(ToString::to_string).collect();
        if self.guard_hit {
            if worst != Some(Verdict::Fail) {
                reasons.clear();
            }
            reasons.insert(
                0,
                format!(
                    "{}% of the requests fail, surely above the guard",
                    trimmed(self.failed_share() * 100.0)
                ),
            );
        }
        formatter.write_str(&reasons.join("; "))
    }
}
