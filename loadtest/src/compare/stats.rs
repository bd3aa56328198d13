//! Student's t and Welch's interval, for means of few repeats. Pure.

use std::fmt;

use serde::Serialize;

use crate::assertion::rounded;

/// The share of intervals that hold the truth.
pub const CONFIDENCE: f64 = 0.95;

/// Mean and spread of repeats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// How many.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Their variance, with count − 1 below; 0 for a single one.
    pub variance: f64,
}

impl Sample {
    /// Summarizes; none of nothing.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let variance = if count > 1 { squares / (count - 1) as f64 } else { 0.0 };
        Some(Self { count, mean, variance })
    }

    /// How far the mean's interval reaches to either side; none for a single value.
    pub fn half_width(&self) -> Option<f64> {
        let degrees = self.count.checked_sub(1).filter(|degrees| *degrees > 0)?;
        Some(t_quantile(upper(), degrees as f64) * (self.variance / self.count as f64).sqrt())
    }
}

impl fmt::Display for Sample {
    /// The mean and its interval, where repeats tell it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match self.half_width() {
            Some(half_width) => format!("{} ± {}", rounded(self.mean), rounded(half_width)),
            None => rounded(self.mean),
        })
    }
}

/// The difference of two means, `right − left`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Of the means.
    pub mean: f64,
    /// How far its interval reaches to either side.
    pub half_width: f64,
}

impl Difference {
    /// Welch's interval (B. L. Welch, "The generalization of 'Student's' problem when several different population
    /// variances are involved", Biometrika 1947), which does not take the two for equally noisy. None unless both
    /// have repeats: without them there is no telling noise from difference.
    pub fn welch(left: &Sample, right: &Sample) -> Option<Self> {
        if left.count < 2 || right.count < 2 {
            return None;
        }
        let mean = right.mean - left.mean;
        let shares = [left, right].map(|sample| sample.variance / sample.count as f64);
        let variance = shares[0] + shares[1];
        if variance <= 0.0 {
            return Some(Self { mean, half_width: 0.0 });
        }
        let below =
            shares[0].powi(2) / (left.count - 1) as f64 + shares[1].powi(2) / (right.count - 1) as f64;
        let degrees = (variance.powi(2) / below).max(1.0);
        Some(Self { mean, half_width: t_quantile(upper(), degrees) * variance.sqrt() })
    }

    /// Whether the interval leaves zero out.
    pub fn is_shown(&self) -> bool {
        self.mean.abs() > self.half_width
    }
}

fn upper() -> f64 {
    0.5 + CONFIDENCE / 2.0
}

/// The value that Student's t with `degrees` of freedom, at least 1, stays below with probability `p`, for p from 0.5.
pub fn t_quantile(p: f64, degrees: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while t_cumulative(high, degrees) < p && high < 1e9 {
        high *= 2.0;
    }
    // Each step halves the error; beyond 100 there is nothing left of an f64.
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if t_cumulative(middle, degrees) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The probability that Student's t stays below `t`, for t from 0.
fn t_cumulative(t: f64, degrees: f64) -> f64 {
    1.0 - 0.5 * incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + t * t))
}

/// The regularized incomplete beta function I_x(a, b), by its continued fraction (Abramowitz and Stegun, 26.5.8).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln();
    // The fraction converges fast on one side of the mean only; the function is symmetric about it.
    if x < (a + 1.0) / (a + b + 2.0) {
        front.exp() * beta_fraction(a, b, x) / a
    } else {
        1.0 - front.exp() * beta_fraction(b, a, 1.0 - x) / b
    }
}

/// The continued fraction's value, by Lentz's method.
fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut factor = 1.0;
        for term in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + term * d);
            c = away_from_zero(1.0 + term / c);
            factor = c * d;
            value *= factor;
        }
        if (factor - 1.0).abs() < 1e-15 {
            break;
        }
    }
    value
}

/// The logarithm of the gamma function of x > 0, by Stirling's series after shifting x up.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 10.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance * expected.abs(), "{found} is not {expected}");
    }

    #[test]
    fn quantiles_of_t_are_those_of_printed_tables() {
        // Two-sided 95%: t(0.975).
        let table = [
            (1.0, 12.7062),
            (2.0, 4.30265),
            (3.0, 3.18245),
            (4.0, 2.77645),
            (5.0, 2.57058),
            (9.0, 2.26216),
            (10.0, 2.22814),
            (30.0, 2.04227),
            (120.0, 1.97993),
            (1e6, 1.95997),
        ];
        for (degrees, expected) in table {
            close(t_quantile(0.975, degrees), expected, 3e-6);
        }
        close(t_quantile(0.95, 5.0), 2.01505, 3e-6);
        close(t_quantile(0.995, 10.0), 3.16927, 3e-6);
        assert!(t_quantile(0.5, 7.0).abs() < 1e-9);
    }

    #[test]
    fn quantiles_of_one_and_two_degrees_are_their_closed_forms() {
        for p in [0.6, 0.75, 0.9, 0.975, 0.999] {
            close(t_quantile(p, 1.0), (std::f64::consts::PI * (p - 0.5)).tan(), 1e-9);
            close(t_quantile(p, 2.0), (2.0 * p - 1.0) / (2.0 * p * (1.0 - p)).sqrt(), 1e-9);
        }
    }

    #[test]
    fn the_gamma_function_is_the_factorial() {
        let mut factorial = 1.0_f64;
        for n in 1..20 {
            close(ln_gamma(f64::from(n) + 1.0).exp(), factorial * f64::from(n), 1e-11);
            factorial *= f64::from(n);
        }
        close(ln_gamma(0.5).exp(), std::f64::consts::PI.sqrt(), 1e-11);
    }

    #[test]
    fn welchs_interval_is_that_of_a_case_worked_by_hand() {
        // Means 3 and 7, variances 2.5 and 10, five each: s² = 2.5, degrees 6.25/(0.25/4 + 4/4) = 5.88.
        let left = Sample::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).expect("values");
        let right = Sample::of(&[3.0, 5.0, 7.0, 9.0, 11.0]).expect("values");
        assert_eq!((left.mean, left.variance), (3.0, 2.5));
        assert_eq!((right.mean, right.variance), (7.0, 10.0));
        let difference = Difference::welch(&left, &right).expect("repeats");
        assert_eq!(difference.mean, 4.0);
        let degrees = 6.25 / (0.25 / 4.0 + 1.0);
        close(difference.half_width, t_quantile(0.975, degrees) * 2.5_f64.sqrt(), 1e-12);
        close(difference.half_width, 3.8880, 2e-3);
        assert!(difference.is_shown());
    }

    #[test]
    fn a_single_run_has_no_interval() {
        let one = Sample::of(&[5.0]).expect("a value");
        let two = Sample::of(&[5.0, 5.0]).expect("values");
        assert_eq!((one.half_width(), Difference::welch(&one, &two)), (None, None));
        assert_eq!(Sample::of(&[]), None);
        assert_eq!(Difference::welch(&two, &two), Some(Difference { mean: 0.0, half_width: 0.0 }));
    }

    /// Sums of twelve uniform values are close enough to normal ones here.
    fn normal(state: &mut u64) -> f64 {
        let uniform = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*state >> 11) as f64 / (1_u64 << 53) as f64
        };
        (0..12).map(|_| uniform(state)).sum::<f64>() - 6.0
    }

    #[test]
    fn the_interval_holds_the_truth_nineteen_times_in_twenty() {
        let (mut state, mut held) = (7, 0);
        let rounds = 4_000;
        for _ in 0..rounds {
            let left: Vec<f64> = (0..4).map(|_| 10.0 + normal(&mut state)).collect();
            let right: Vec<f64> = (0..6).map(|_| 12.0 + 3.0 * normal(&mut state)).collect();
            let both = [left, right].map(|values| Sample::of(&values).expect("values"));
            let difference = Difference::welch(&both[0], &both[1]).expect("repeats");
            held += u32::from((difference.mean - 2.0).abs() <= difference.half_width);
        }
        let share = f64::from(held) / f64::from(rounds);
        assert!((0.935..=0.965).contains(&share), "{share}");
    }

    proptest! {
        #[test]
        fn a_quantile_undoes_the_distribution(p in 0.5001_f64..0.9999, degrees in 1.0_f64..500.0) {
            let back = t_cumulative(t_quantile(p, degrees), degrees);
            prop_assert!((back - p).abs() < 1e-9, "{} is not {}", back, p);
        }

        #[test]
        fn swapping_sides_turns_the_difference_round(
            left in proptest::collection::vec(-1e3_f64..1e3, 2..9),
            right in proptest::collection::vec(-1e3_f64..1e3, 2..9),
        ) {
            let (left, right) = (Sample::of(&left).expect("values"), Sample::of(&right).expect("values"));
            let there = Difference::welch(&left, &right).expect("repeats");
            let back = Difference::welch(&right, &left).expect("repeats");
            prop_assert!((there.mean + back.mean).abs() < 1e-9);
            prop_assert!((there.half_width - back.half_width).abs() < 1e-9 * there.half_width.max(1.0));
        }
    }
}
