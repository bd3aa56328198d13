//! From values to places on an axis, and the values that are worth a label.

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From 0 in equal steps.
    Linear,
    /// In equal factors; what is not positive lies at its start.
    Log,
    /// Seconds from 0.
    Time,
    /// Shares from 0 to 1, with as much room from 0.9 to 0.99 as from 0 to 0.9: where tails can be seen.
    Tail,
}

/// The least share of a tail that is shown: below it lies one value in a hundred thousand.
const TAIL_MIN: f64 = 1e-5;
const TICKS: f64 = 5.0;
const TIME_STEPS: [f64; 17] = [
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0,
    7_200.0,
];
/// From this many seconds on, times are written as minutes and seconds.
pub(crate) const MINUTES_FROM_S: f64 = 180.0;

/// An axis of known length.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    kind: Kind,
    min: f64,
    max: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// An axis between two places that holds all `values`.
    pub(super) fn new(kind: Kind, values: impl Iterator<Item = f64> + Clone, (from, to): (f64, f64)) -> Self {
        let max = values.clone().fold(f64::NEG_INFINITY, f64::max);
        let (min, max) = match kind {
            Kind::Linear if max <= 0.0 => (0.0, 1.0),
            Kind::Linear => {
                let step = nice_step(max / TICKS);
                (0.0, ((max / step - 1e-9).ceil() * step).max(step))
            }
            Kind::Time => (0.0, if max > 0.0 { max } else { 1.0 }),
            Kind::Tail => (0.0, tail(max).max(1.0)),
            Kind::Log => {
                let least = values.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
                let least = if least.is_finite() { least } else { 1.0 };
                let (min, max) = (one_two_five(least, false), one_two_five(max.max(least), true));
                if max / min < 4.0 {
                    (one_two_five(min / 1.5, false), one_two_five(max * 1.5, true))
                } else {
                    (min, max)
                }
            }
        };
        Self { kind, min, max, from, to }
    }

    /// Where a value lies.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = match self.kind {
            Kind::Linear | Kind::Time => (value - self.min) / (self.max - self.min),
            Kind::Log => (value.max(self.min) / self.min).ln() / (self.max / self.min).ln(),
            Kind::Tail => tail(value) / self.max,
        };
        self.from + share * (self.to - self.from)
    }

    /// Whether a value lies on the axis.
    pub(super) fn holds(&self, value: f64) -> bool {
        let share = (self.at(value) - self.from) / (self.to - self.from);
        (-1e-9..=1.0 + 1e-9).contains(&share)
    }

    /// The values that are labelled, and their labels.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        match self.kind {
            Kind::Linear => {
                steps(self.max, nice_step(self.max / TICKS)).map(|value| (value, short(value))).collect()
            }
            Kind::Time => {
                let fits = |step: &&f64| self.max / **step <= 8.0;
                let step =
                    TIME_STEPS.iter().find(fits).copied().unwrap_or_else(|| nice_step(self.max / TICKS));
                let label = |value: f64| {
                    if self.max < MINUTES_FROM_S { short(value) } else { clock(value) }
                };
                steps(self.max, step).map(|value| (value, label(value))).collect()
            }
            Kind::Log => self.log_ticks(),
            Kind::Tail => {
                let shares =
                    [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")];
                let within = shares.into_iter().filter(|(share, _)| tail(*share) <= self.max + 1e-9);
                within.map(|(share, label)| (share, label.to_owned())).collect()
            }
        }
    }

    fn log_ticks(&self) -> Vec<(f64, String)> {
        let decades = (self.max / self.min).log10();
        let factors: &[f64] = if decades <= 3.2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let first = self.min.log10().floor() as i32;
        let last = self.max.log10().ceil() as i32;
        let all =
            (first..=last).flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)));
        let within = all.filter(|value| (self.min * 0.999..=self.max * 1.001).contains(value));
        within.map(|value| (value, short(value))).collect()
    }
}

fn tail(share: f64) -> f64 {
    -(1.0 - share).max(TAIL_MIN).log10()
}

fn steps(max: f64, step: f64) -> impl Iterator<Item = f64> {
    let count = (max / step + 1e-9).floor() as u32;
    (0..=count).map(move |index| f64::from(index) * step)
}

/// The least of 1, 2, 2.5 and 5 times a power of ten that is at least `step`.
fn nice_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 2.5, 5.0, 10.0];
    factors
        .into_iter()
        .map(|factor| factor * power)
        .find(|nice| *nice >= step * 0.999)
        .unwrap_or(10.0 * power)
}

/// The nearest of 1, 2 and 5 times a power of ten, from above or from below.
fn one_two_five(value: f64, up: bool) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let mut candidates = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter();
    if up {
        candidates.find(|candidate| *candidate >= value * 0.999).unwrap_or(value)
    } else {
        candidates.rfind(|candidate| *candidate <= value * 1.001).unwrap_or(value)
    }
}

/// A number as short as it can be read.
pub(super) fn short(value: f64) -> String {
    let trimmed = |text: String| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match value.abs() {
        size if size >= 999_999.5 => format!("{}M", trimmed(format!("{:.2}", value / 1e6))),
        size if size >= 9_999.5 => format!("{}k", trimmed(format!("{:.1}", value / 1e3))),
        size if size >= 999.5 => {
            let whole = value.round() as i64;
            format!("{},{:03}", whole / 1_000, whole.abs() % 1_000)
        }
        size if size >= 1.0 || size == 0.0 => trimmed(format!("{value:.2}")),
        _ => trimmed(format!("{value:.5}")),
    }
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(kind: Kind, values: &[f64]) -> Vec<String> {
        let scale = Scale::new(kind, values.iter().copied(), (0.0, 100.0));
        scale.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn labels_are_round_numbers() {
        assert_eq!(labels(Kind::Linear, &[3.0, 7.2]), ["0", "2", "4", "6", "8"]);
        assert_eq!(labels(Kind::Linear, &[0.0]), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels(Kind::Linear, &[11_000.0]), ["0", "2,500", "5,000", "7,500", "10k", "12.5k"]);
        assert_eq!(labels(Kind::Log, &[12.0, 800.0]), ["10", "20", "50", "100", "200", "500", "1,000"]);
        assert_eq!(labels(Kind::Log, &[0.3, 8_000.0]), ["1", "10", "100", "1,000", "10k"]);
        assert_eq!(labels(Kind::Time, &[30.0]), ["0", "5", "10", "15", "20", "25", "30"]);
        assert_eq!(labels(Kind::Time, &[600.0]), ["0:00", "2:00", "4:00", "6:00", "8:00", "10:00"]);
        assert_eq!(labels(Kind::Tail, &[0.99]), ["0", "50", "90", "99"]);
    }

    #[test]
    fn a_single_value_is_within_a_logarithmic_axis() {
        let scale = Scale::new(Kind::Log, std::iter::once(10.0), (0.0, 100.0));
        assert!(scale.at(10.0) > 0.0 && scale.at(10.0) < 100.0 && scale.ticks().len() > 1);
    }

    proptest! {
        #[test]
        fn every_value_lies_on_its_axis(values in prop::collection::vec(0.0_f64..1e6, 1..20)) {
            for kind in [Kind::Linear, Kind::Log, Kind::Time] {
                let scale = Scale::new(kind, values.iter().copied(), (300.0, 10.0));
                for value in &values {
                    prop_assert!(scale.holds(*value), "{kind:?} {value}");
                }
                let ticks = scale.ticks();
                prop_assert!(ticks.len() <= 13 && !ticks.is_empty(), "{kind:?} {ticks:?}");
                for (value, _) in ticks {
                    prop_assert!(scale.holds(value), "{kind:?} {value}");
                }
            }
        }
    }
}
