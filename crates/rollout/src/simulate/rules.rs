//! What others judge by, on the requests of the first step.

use evidence::Sketch;

use super::{Ended, RuleOutcome};

/// A window of the threshold rule, in seconds.
const WINDOW_S: u64 = 60;
/// Windows that a version must pass.
const WINDOWS: u32 = 3;
/// Reverts above this ratio of 95th percentiles.
const RATIO_MAX: f64 = 1.25;
/// Reverts above this share of errors.
const ERRORS_MAX: f64 = 0.01;
/// A normal variable is above this with a probability of 5%.
const Z_MAX: f64 = 1.645;

/// What a version did.
#[derive(Clone, Debug, Default)]
struct Arm {
    /// Of all requests, not of users.
    times: Sketch,
    requests: u64,
    errors: u64,
}

/// Rules under way.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Of this window, and of all time: the stable version, then the new one.
    window: [Arm; 2],
    total: [Sketch; 2],
    windows_passed: u32,
    threshold: Option<RuleOutcome>,
    each_minute: Option<RuleOutcome>,
}

impl Rules {
    /// Takes in a request that ended: its time to the end in seconds, or `None` if it failed.
    pub(super) fn record(&mut self, version: usize, time_s: Option<f64>) {
        let arm = &mut self.window[version];
        arm.requests += 1;
        match time_s {
            Some(time_s) => arm.times.add(time_s),
            None => arm.errors += 1,
        }
    }

    /// Looks at a window that is over. `so_far` is how things stand: seconds since the first user, and users.
    pub(super) fn look(&mut self, second: u64, so_far: (u64, u64)) {
        if !second.is_multiple_of(WINDOW_S) {
            return;
        }
        let window = std::mem::take(&mut self.window);
        for (total, arm) in self.total.iter_mut().zip(&window) {
            total.merge(&arm.times);
        }
        if self.threshold.is_none() {
            self.threshold = self.judge_window(&window).map(|ended| outcome(ended, so_far));
        }
        if self.each_minute.is_none() && is_slower(&self.total) {
            self.each_minute = Some(outcome(Ended::Reverted, so_far));
        }
    }

    fn judge_window(&mut self, [stable, canary]: &[Arm; 2]) -> Option<Ended> {
        // Without a request there is no value; a rule waits for the next window.
        let (stable_p95, canary_p95) = stable.times.quantile(0.95).zip(canary.times.quantile(0.95))?;
        let errors = canary.errors as f64 / canary.requests as f64;
        if canary_p95 > RATIO_MAX * stable_p95 || errors > ERRORS_MAX {
            return Some(Ended::Reverted);
        }
        self.windows_passed += 1;
        (self.windows_passed == WINDOWS).then_some(Ended::Promoted)
    }

    /// How they ended: thresholds, the test at the end, the test at every minute.
    pub(super) fn outcomes(&self, so_far: (u64, u64)) -> [RuleOutcome; 3] {
        let at_end = if is_slower(&self.total) { Ended::Reverted } else { Ended::Promoted };
        [
            self.threshold.unwrap_or_else(|| outcome(Ended::Held, so_far)),
            outcome(at_end, so_far),
            self.each_minute.unwrap_or_else(|| outcome(Ended::Promoted, so_far)),
        ]
    }
}

fn outcome(ended: Ended, (after_s, users_exposed): (u64, u64)) -> RuleOutcome {
    RuleOutcome { ended, after_s, users_exposed }
}

/// Mann and Whitney's test that the new version's times are longer, at 5%, with the normal approximation and the
/// correction for ties (equal times are those in one bucket).
fn is_slower([stable, canary]: &[Sketch; 2]) -> bool {
    let (n, m) = (stable.count() as f64, canary.count() as f64);
    let all = n + m;
    if n < 1.0 || m < 1.0 {
        return false;
    }
    let (mut below, mut wins, mut ties) = (0.0, 0.0, 0.0);
    let mut both = stable.clone();
    both.merge(canary);
    for (bucket, count) in both.buckets() {
        let of_stable = (stable.count_from(bucket) - stable.count_from(bucket + 1)) as f64;
        let of_both = count as f64;
        wins += (of_both - of_stable) * (below + of_stable / 2.0);
        below += of_stable;
        ties += of_both.powi(3) - of_both;
    }
    let variance = n * m / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    wins - n * m / 2.0 > Z_MAX * variance.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(times: impl Iterator<Item = f64>) -> Sketch {
        let mut sketch = Sketch::default();
        times.for_each(|time| sketch.add(time));
        sketch
    }

    #[test]
    fn a_rank_test_tells_longer_times_from_equal_ones() {
        let times = |factor: f64| sketch((1..400).map(move |index| factor * f64::from(index) / 100.0));
        assert!(is_slower(&[times(1.0), times(1.2)]));
        assert!(!is_slower(&[times(1.0), times(1.0)]));
        assert!(!is_slower(&[times(1.0), times(0.8)]));
        assert!(!is_slower(&[times(1.0), Sketch::default()]));
    }

    #[test]
    fn thresholds_revert_by_one_window_and_promote_by_three() {
        let mut rules = Rules::default();
        let mut minute = |index: u64, time: f64| {
            (0..20).for_each(|_| rules.record(0, Some(1.0)));
            (0..20).for_each(|_| rules.record(1, Some(time)));
            rules.look(index * 60, (index * 60, 5));
            rules.outcomes((600, 9))[0]
        };
        assert_eq!(minute(1, 1.1).ended, Ended::Held);
        minute(2, 1.1);
        let promoted = minute(3, 1.1);
        assert_eq!(promoted, RuleOutcome { ended: Ended::Promoted, after_s: 180, users_exposed: 5 });
        assert_eq!(minute(4, 2.0), promoted);
        let mut rules = Rules::default();
        rules.record(0, Some(1.0));
        (0..30).for_each(|_| rules.record(1, Some(1.0)));
        rules.record(1, None);
        rules.look(60, (60, 5));
        assert_eq!(rules.outcomes((600, 9))[0].ended, Ended::Reverted);
    }
}
