//! A small histogram, of which a timeline holds thousands.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Counts of microseconds in buckets that are exact up to 63 and a 32nd to a 64th of their value wide above. Only
/// buckets that are not empty take memory, so that one second of a run costs a few kilobytes, where a histogram of
/// three digits costs two hundred. Sums are exact: a value's bucket depends on nothing else.
///
/// In JSON it is a list of pairs (the least value of a bucket in microseconds, how many are in it).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch(BTreeMap<u16, u64>);

const SUB_BUCKET_BITS: u32 = 5;

fn bucket_of(value: u64) -> u16 {
    let exponent = value.checked_ilog2().unwrap_or(0).saturating_sub(SUB_BUCKET_BITS);
    // At most 58 · 32 + 63.
    ((exponent << SUB_BUCKET_BITS) as u64 + (value >> exponent)) as u16
}

/// The bucket's least value and how many values it spans.
const fn span_of(bucket: u16) -> (u64, u64) {
    let (bucket, sub_buckets) = (bucket as u64, 1_u64 << SUB_BUCKET_BITS);
    let exponent = (bucket / sub_buckets).saturating_sub(1);
    ((bucket - exponent * sub_buckets) << exponent, 1 << exponent)
}

impl Sketch {
    /// Counts a value `count` times.
    pub fn add(&mut self, value_us: u64, count: u64) {
        *self.0.entry(bucket_of(value_us)).or_default() += count;
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            *self.0.entry(*bucket).or_default() += count;
        }
    }

    /// How many values were counted.
    pub fn len(&self) -> u64 {
        self.0.values().sum()
    }

    /// Whether none were.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that a share `quantile` of all does not exceed, in milliseconds and within 1.6%: the middle of its
    /// bucket. None without values.
    pub fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let wanted = ((self.len() as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.0.iter().find(|(_, count)| {
            seen += **count;
            seen >= wanted
        });
        found.map(|(bucket, _)| {
            let (least, width) = span_of(*bucket);
            (least as f64 + (width - 1) as f64 / 2.0) / 1e3
        })
    }
}

impl Serialize for Sketch {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|(bucket, count)| (span_of(*bucket).0, *count)))
    }
}

impl<'de> Deserialize<'de> for Sketch {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut sketch = Self::default();
        for (value_us, count) in Vec::<(u64, u64)>::deserialize(from)? {
            sketch.add(value_us, count);
        }
        Ok(sketch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_has_no_percentile() {
        assert_eq!(Sketch::default().quantile_ms(0.5), None);
    }

    #[test]
    fn buckets_follow_each_other_without_gap_or_overlap() {
        for bucket in 0..1_900 {
            let (least, width) = span_of(bucket);
            assert_eq!((bucket_of(least), bucket_of(least + (width - 1))), (bucket, bucket));
            assert_eq!(span_of(bucket + 1).0, least + width);
        }
        assert_eq!(bucket_of(u64::MAX), 58 * 32 + 63);
    }

    proptest! {
        #[test]
        fn percentiles_are_within_two_in_a_hundred_of_an_exact_sort(
            mut values in prop::collection::vec(0_u64..100_000_000, 1..300),
            quantile in 0.0_f64..=1.0,
        ) {
            let mut sketch = Sketch::default();
            values.iter().for_each(|value| sketch.add(*value, 1));
            values.sort_unstable();
            let rank = ((values.len() as f64 * quantile).ceil() as usize).max(1);
            let exact_ms = values[rank - 1] as f64 / 1e3;
            let ms = sketch.quantile_ms(quantile).expect("values");
            prop_assert!((ms - exact_ms).abs() <= 0.02 * exact_ms, "{ms} is not {exact_ms}");
        }

        #[test]
        fn json_gives_back_the_same(values in prop::collection::vec((any::<u64>(), 1_u64..9), 0..50)) {
            let mut sketch = Sketch::default();
            values.iter().for_each(|(value, count)| sketch.add(*value, *count));
            let json = serde_json::to_string(&sketch).expect("json");
            prop_assert_eq!(serde_json::from_str::<Sketch>(&json).expect("a sketch"), sketch);
        }
    }
}
