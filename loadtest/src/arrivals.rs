//! When requests are due. Pure: the caller tells the time.

/// The rule by which requests become due.
///
/// Open-loop schedules belong here as further variants. Their times are computed before the run and are never moved:
/// [`Self::due_us`] will then ignore when a lane became free, and lateness shows as dispatch delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Each of `users` sends its next request when its last one has ended. The server sets the pace, so this finds
    /// what it can do at a given concurrency, not how it stands a given rate.
    ClosedLoop {
        /// How many; at least 1.
        users: u32,
    },
}

/// Where the run ends. Requests in flight at that point run to their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// After so many requests.
    Requests(u64),
    /// No request becomes due so many microseconds after the start.
    DurationUs(u64),
}

impl Arrivals {
    /// How many requests can be in flight at once.
    pub const fn lanes(&self) -> u32 {
        match self {
            Self::ClosedLoop { users } => *users,
        }
    }

    /// When request `index` is due that a lane takes which became free at `lane_free_us`, both in microseconds since
    /// the start; none past the limit.
    pub const fn due_us(&self, limit: Limit, index: u64, lane_free_us: u64) -> Option<u64> {
        let due_us = match self {
            Self::ClosedLoop { .. } => lane_free_us,
        };
        let within = match limit {
            Limit::Requests(requests) => index < requests,
            Limit::DurationUs(duration_us) => due_us < duration_us,
        };
        if within { Some(due_us) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: Arrivals = Arrivals::ClosedLoop { users: 3 };

    #[test]
    fn a_closed_loops_request_is_due_when_its_user_is_free() {
        assert_eq!(USERS.lanes(), 3);
        assert_eq!(USERS.due_us(Limit::Requests(10), 0, 0), Some(0));
        assert_eq!(USERS.due_us(Limit::Requests(10), 7, 1_234), Some(1_234));
    }

    #[test]
    fn no_request_is_due_past_the_limit() {
        assert_eq!(USERS.due_us(Limit::Requests(10), 9, 0), Some(0));
        assert_eq!(USERS.due_us(Limit::Requests(10), 10, 0), None);
        assert_eq!(USERS.due_us(Limit::DurationUs(500), 1_000_000, 499), Some(499));
        assert_eq!(USERS.due_us(Limit::DurationUs(500), 0, 500), None);
    }
}
