//! The warm-up or the measured run: who sends when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lanes::{Conversation, Lanes};
use crate::arrivals::{ClosedLoop, Limit, Pace, Schedule, Shard};
use crate::clock::{Alarm, Clock};
use crate::error::Error;

/// So many requests that are overdue are sent before the runtime looks at its sockets again.
const OVERDUE_TOGETHER_MAX: u32 = 32;

#[derive(Debug)]
pub(super) struct Phase {
    pub(super) pace: Pace,
    pub(super) warmup: bool,
    pub(super) clock: Clock,
    pub(super) shard: Shard,
    /// In an open loop.
    pub(super) in_flight_max: u32,
}

impl Phase {
    /// Sends everything and waits for its end.
    pub(super) async fn run(self, lanes: Arc<Lanes>) -> Result<(), Error> {
        match self.pace.clone() {
            Pace::Open(schedule) => self.keep(schedule.shard(self.shard), &lanes).await?,
            Pace::Closed(users) => self.let_loose(users, &lanes),
        }
        if lanes.wait_until_idle().await {
            return Ok(());
        }
        Err(Error::Broken("a request could not be led to its end".into()))
    }

    /// Sends what is due when it is due, whatever became of the requests before.
    async fn keep(&self, schedule: Schedule, lanes: &Arc<Lanes>) -> Result<(), Error> {
        let broken = |error: std::io::Error| Error::Broken(format!("no timer: {error}"));
        let mut alarm = Alarm::new().map_err(broken)?;
        let limit = schedule.limit();
        let mut overdue_together = 0;
        for due in schedule {
            if alarm.wait_until(self.clock, due.at_us).await.map_err(broken)? {
                overdue_together = 0;
            } else {
                overdue_together += 1;
                if overdue_together % OVERDUE_TOGETHER_MAX == 0 {
                    tokio::task::yield_now().await;
                }
            }
            if lanes.active() >= u64::from(self.in_flight_max) {
                lanes.give_up(due.index, due.at_us, self.clock).await;
                continue;
            }
            let (conversation, place) = (self.conversation(due.index), lanes.enter());
            let lanes = Arc::clone(lanes);
            tokio::spawn(async move {
                let next_due_us = |_, free_us| limit.allows(0, free_us).then_some(free_us);
                lanes.converse(conversation, due.at_us, next_due_us).await;
                drop(place);
            });
        }
        Ok(())
    }

    /// Starts the users, who go on by themselves.
    fn let_loose(&self, users: ClosedLoop, lanes: &Arc<Lanes>) {
        let next_nth = Arc::new(AtomicU64::new(0));
        for _ in 0..users.users_of(self.shard) {
            let user = User { users, shard: self.shard, next_nth: Arc::clone(&next_nth) };
            let (conversation, place) = (self.conversation(0), lanes.enter());
            let lanes = Arc::clone(lanes);
            tokio::spawn(async move {
                user.run(conversation, &lanes).await;
                drop(place);
            });
        }
    }

    const fn conversation(&self, index: u64) -> Conversation {
        Conversation { index, warmup: self.warmup, clock: self.clock }
    }
}

struct User {
    users: ClosedLoop,
    shard: Shard,
    /// Counts the conversations of all users of this process.
    next_nth: Arc<AtomicU64>,
}

impl User {
    /// Leads one conversation after the other.
    async fn run(self, like: Conversation, lanes: &Lanes) {
        let limit: Limit = self.users.limit();
        let clock: Clock = like.clock;
        let mut free_us = 0;
        loop {
            let index = self.shard.global(self.next_nth.fetch_add(1, Ordering::Relaxed));
            let due_us = self.users.due_us(index, 0, free_us);
            if !limit.allows(index, due_us) {
                return;
            }
            clock.sleep_until(due_us).await;
            let next_due_us = |turn, free_us| {
                let due_us = self.users.due_us(index, turn, free_us);
                limit.allows(index, due_us).then_some(due_us)
            };
            free_us = lanes.converse(Conversation { index, ..like }, due_us, next_due_us).await;
        }
    }
}
