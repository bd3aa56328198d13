//! Whether a failed request may be sent again.
//!
//! A fixed number of retries a request multiplies the load exactly when workers fail under it. A budget bounds the
//! whole: each request earns a fraction of a retry that expires after a while, and a small steady allowance lets a
//! quiet gateway retry too. The method is that of Finagle's `RetryBudget`.

use std::time::Duration;

use crate::RetryBudgetConfig;

/// The window moves by a tenth of itself.
const SLOTS: usize = 10;
/// All amounts are in millionths of a retry.
const RETRY: u64 = 1_000_000;

/// Earned and spent retries of one gateway. Times are since any fixed moment; one that lies before an earlier one is
/// taken for that earlier one.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    earned_per_request: u64,
    slot_length: Duration,
    /// What was earned in each tenth of the window and is not spent yet; a ring.
    earned: [u64; SLOTS],
    /// The number of the slot of the latest call, counted from time zero.
    latest_slot: u64,
    allowance: u64,
    allowance_max: u64,
    allowance_per_us: u64,
    /// Up to when the allowance has been added.
    allowed_at: Duration,
}

impl RetryBudget {
    /// A budget that has its whole burst to spend.
    pub fn new(config: &RetryBudgetConfig) -> Self {
        let allowance_max = u64::from(config.burst_retries) * RETRY;
        Self {
            earned_per_request: u64::from(config.retry_percent) * RETRY / 100,
            slot_length: (Duration::from_millis(config.window_ms) / SLOTS as u32)
                .max(Duration::from_nanos(1)),
            earned: [0; SLOTS],
            latest_slot: 0,
            allowance: allowance_max,
            allowance_max,
            // One retry a second is a millionth of one a microsecond.
            allowance_per_us: u64::from(config.min_retries_per_s),
            allowed_at: Duration::ZERO,
        }
    }

    /// A request came, not counting retries.
    pub fn deposit(&mut self, now: Duration) {
        self.advance(now);
        self.earned[ring(self.latest_slot)] += self.earned_per_request;
    }

    /// Takes one retry where there is one. What was earned goes first, the oldest of it before the rest.
    pub fn try_withdraw(&mut self, now: Duration) -> bool {
        self.advance(now);
        if self.earned.iter().sum::<u64>() + self.allowance < RETRY {
            return false;
        }
        let mut owed = RETRY;
        for slot in self.latest_slot + 1..=self.latest_slot + SLOTS as u64 {
            let amount = &mut self.earned[ring(slot)];
            let paid = owed.min(*amount);
            *amount -= paid;
            owed -= paid;
        }
        self.allowance -= owed;
        true
    }

    fn advance(&mut self, now: Duration) {
        let slot = saturated(now.as_nanos() / self.slot_length.as_nanos());
        for expired in 1..=slot.saturating_sub(self.latest_slot).min(SLOTS as u64) {
            self.earned[ring(self.latest_slot + expired)] = 0;
        }
        self.latest_slot = self.latest_slot.max(slot);

        // Whole microseconds only; what is left of one is added another time.
        let elapsed_us = saturated(now.saturating_sub(self.allowed_at).as_micros());
        let added = elapsed_us.saturating_mul(self.allowance_per_us);
        self.allowance = self.allowance.saturating_add(added).min(self.allowance_max);
        self.allowed_at += Duration::from_micros(elapsed_us);
    }
}

fn ring(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

fn saturated(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn withdrawals(budget: &mut RetryBudget, now: Duration) -> usize {
        (0..100_000).take_while(|_| budget.try_withdraw(now)).count()
    }

    #[test]
    fn all_requests_of_a_killed_worker_can_be_sent_again_at_once_by_default() {
        let mut budget = RetryBudget::new(&RetryBudgetConfig::default());
        (0..32).for_each(|_| budget.deposit(at(5)));
        assert!((0..64).all(|_| budget.try_withdraw(at(5))));
    }

    #[test]
    fn a_fifth_of_the_requests_can_be_retried_beyond_the_burst_and_this_right_expires() {
        let mut budget = RetryBudget::new(&RetryBudgetConfig { min_retries_per_s: 0, ..Default::default() });
        (0..1_000).for_each(|_| budget.deposit(at(500)));
        let mut late = budget.clone();
        assert_eq!(withdrawals(&mut budget, at(9_999)), 200 + 64);
        assert_eq!(withdrawals(&mut late, at(10_500)), 64);
    }

    #[test]
    fn what_is_about_to_expire_is_spent_first() {
        let mut budget = RetryBudget::new(&RetryBudgetConfig {
            min_retries_per_s: 0,
            burst_retries: 0,
            ..Default::default()
        });
        (0..50).for_each(|_| budget.deposit(at(500)));
        (0..50).for_each(|_| budget.deposit(at(9_000)));
        assert!((0..10).all(|_| budget.try_withdraw(at(9_000))));
        assert_eq!(withdrawals(&mut budget, at(12_000)), 10);
    }

    #[test]
    fn the_allowance_refills_at_its_rate_up_to_the_burst_even_under_frequent_calls() {
        let mut budget = RetryBudget::new(&RetryBudgetConfig { retry_percent: 0, ..Default::default() });
        assert_eq!(withdrawals(&mut budget, at(0)), 64);
        for step in 0..=1_000_000 {
            budget.deposit(Duration::from_nanos(step * 1_500));
        }
        assert_eq!(withdrawals(&mut budget, at(1_500)), 15);
        assert_eq!(withdrawals(&mut budget, at(3_600_000)), 64);
    }

    #[test]
    fn a_budget_of_nothing_allows_nothing() {
        let config =
            RetryBudgetConfig { retry_percent: 0, min_retries_per_s: 0, burst_retries: 0, window_ms: 100 };
        let mut budget = RetryBudget::new(&config);
        budget.deposit(at(1));
        assert!(!budget.try_withdraw(at(2)));
    }

    proptest! {
        #[test]
        fn retries_never_exceed_what_requests_burst_and_rate_allow_together(
            calls in prop::collection::vec((any::<bool>(), 0..400_u64), 1..400),
        ) {
            let config = RetryBudgetConfig { burst_retries: 5, min_retries_per_s: 2, ..Default::default() };
            let mut budget = RetryBudget::new(&config);
            let (mut now_ms, mut requests, mut retries) = (0, 0, 0);
            for (is_request, pause_ms) in calls {
                now_ms += pause_ms;
                if is_request {
                    budget.deposit(at(now_ms));
                    requests += 1;
                } else if budget.try_withdraw(at(now_ms)) {
                    retries += 1;
                } else {
                    let unspent = RETRY > budget.allowance + budget.earned.iter().sum::<u64>();
                    prop_assert!(unspent, "refused although there was a whole retry");
                }
                let allowed = 5.0 + f64::from(requests) * 0.2 + now_ms as f64 * 0.002;
                prop_assert!(f64::from(retries) <= allowed, "{} retries, but {} allowed", retries, allowed);
            }
        }

        #[test]
        fn a_time_that_runs_backwards_does_no_harm(times in prop::collection::vec(any::<u64>(), 1..50)) {
            let mut budget = RetryBudget::new(&RetryBudgetConfig::default());
            for time in times {
                budget.deposit(Duration::from_nanos(time));
                budget.try_withdraw(Duration::from_nanos(time / 2));
                prop_assert!(budget.allowance <= budget.allowance_max);
            }
        }
    }
}
