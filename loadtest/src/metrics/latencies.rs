//! The histograms of a run, and their form in a report, from which they are restored exactly.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::timings::{Timings, inter_token_gaps};
use crate::error::Error;
use crate::record::RequestRecord;

/// Histograms of microseconds from 1 to an hour, three significant digits. Of requests that succeeded, but for
/// [`Self::dispatch_delay`].
///
/// In JSON each is a list of pairs (a value in microseconds, how often it came), which is all that a histogram knows:
/// what is read back is the same histogram, and sums of such are those of the whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latencies {
    /// First text − scheduled.
    #[serde(with = "pairs")]
    pub scheduled_ttft: Histogram<u64>,
    /// Last text − scheduled.
    #[serde(with = "pairs")]
    pub scheduled_e2e: Histogram<u64>,
    /// First text − sent.
    #[serde(with = "pairs")]
    pub sent_ttft: Histogram<u64>,
    /// Last text − sent.
    #[serde(with = "pairs")]
    pub sent_e2e: Histogram<u64>,
    /// See [`Timings::tpot_us`].
    #[serde(with = "pairs")]
    pub tpot: Histogram<u64>,
    /// See [`inter_token_gaps`].
    #[serde(with = "pairs")]
    pub inter_token: Histogram<u64>,
    /// Gaps between chunks.
    #[serde(with = "pairs")]
    pub inter_chunk: Histogram<u64>,
    /// Sent − scheduled, of every request that was sent.
    #[serde(with = "pairs")]
    pub dispatch_delay: Histogram<u64>,
}

const HOUR_US: u64 = 3_600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

fn empty() -> Result<Histogram<u64>, String> {
    Histogram::new_with_bounds(1, HOUR_US, SIGNIFICANT_DIGITS)
        .map_err(|error| format!("a histogram cannot be made: {error}"))
}

impl Latencies {
    pub(super) fn new() -> Result<Self, Error> {
        let empty = empty().map_err(Error::Broken)?;
        Ok(Self {
            scheduled_ttft: empty.clone(),
            scheduled_e2e: empty.clone(),
            sent_ttft: empty.clone(),
            sent_e2e: empty.clone(),
            tpot: empty.clone(),
            inter_token: empty.clone(),
            inter_chunk: empty.clone(),
            dispatch_delay: empty,
        })
    }

    /// Folds in a success.
    pub(super) fn add(&mut self, record: &RequestRecord) {
        let timings = Timings::of(record);
        let optional = [
            (&mut self.scheduled_ttft, timings.ttft_from_schedule_us),
            (&mut self.scheduled_e2e, timings.end_to_end_from_schedule_us),
            (&mut self.sent_ttft, timings.ttft_us),
            (&mut self.sent_e2e, timings.end_to_end_us),
            (&mut self.tpot, timings.tpot_us),
        ];
        for (histogram, value) in optional {
            if let Some(value_us) = value {
                histogram.saturating_record(value_us);
            }
        }
        for (_, gap_us, count) in inter_token_gaps(&record.chunks) {
            self.inter_token.saturating_record_n(gap_us, count);
        }
        for pair in record.chunks.windows(2) {
            self.inter_chunk.saturating_record(pair[1].at_us.saturating_sub(pair[0].at_us));
        }
    }

    pub(super) fn merge(&mut self, other: &Self) -> Result<(), Error> {
        let pairs = [
            (&mut self.scheduled_ttft, &other.scheduled_ttft),
            (&mut self.scheduled_e2e, &other.scheduled_e2e),
            (&mut self.sent_ttft, &other.sent_ttft),
            (&mut self.sent_e2e, &other.sent_e2e),
            (&mut self.tpot, &other.tpot),
            (&mut self.inter_token, &other.inter_token),
            (&mut self.inter_chunk, &other.inter_chunk),
            (&mut self.dispatch_delay, &other.dispatch_delay),
        ];
        for (sum, part) in pairs {
            sum.add(part).map_err(|error| Error::Broken(format!("histograms do not add up: {error}")))?;
        }
        Ok(())
    }
}

/// A histogram's counts: the largest value of each bucket that is not empty, with how many are in it.
pub(crate) fn counts(histogram: &Histogram<u64>) -> impl Iterator<Item = (u64, u64)> {
    histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()))
}

mod pairs {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Histogram, counts, empty};

    pub(super) fn serialize<S: Serializer>(histogram: &Histogram<u64>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(counts(histogram))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Histogram<u64>, D::Error> {
        let mut histogram = empty().map_err(D::Error::custom)?;
        for (value_us, count) in Vec::<(u64, u64)>::deserialize(from)? {
            histogram.record_n(value_us, count).map_err(|_| {
                D::Error::custom(format!("a latency of {value_us} µs is beyond an hour, the most there is"))
            })?;
        }
        Ok(histogram)
    }
}
