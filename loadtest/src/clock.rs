//! The one clock of a run, and an alarm that keeps to it.

use std::time::{Duration, Instant};

/// Microseconds since the start of a phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Starts in a while; until then it stands at 0.
    pub(crate) fn start_in(wait: Duration) -> Self {
        Self(Instant::now() + wait)
    }

    /// Started so long ago.
    pub(crate) fn started_before(since: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_sub(since).unwrap_or(now))
    }

    /// When it stood, or will stand, at 0.
    pub(crate) fn started_at(self) -> tokio::time::Instant {
        self.0.into()
    }

    pub(crate) fn now_us(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// How long it is until then.
    fn until(self, at_us: u64) -> Duration {
        (self.0 + Duration::from_micros(at_us)).saturating_duration_since(Instant::now())
    }

    /// Waits until the clock stands at `at_us`, to the runtime's millisecond. It returns at once when that is past.
    pub(crate) async fn sleep_until(self, at_us: u64) {
        let wait = self.until(at_us);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// Wakes one task at given times, to some ten microseconds where the system can: a runtime's timers are good to a
/// millisecond, and twenty requests may be due within one.
#[derive(Debug)]
pub(crate) struct Alarm(system::Alarm);

impl Alarm {
    /// One for this runtime.
    pub(crate) fn new() -> std::io::Result<Self> {
        system::Alarm::new().map(Self)
    }

    /// Waits until `clock` stands at `at_us`. False when that was past already, and nothing was waited for.
    pub(crate) async fn wait_until(&mut self, clock: Clock, at_us: u64) -> std::io::Result<bool> {
        let mut waited = false;
        loop {
            let wait = clock.until(at_us);
            if wait.is_zero() {
                return Ok(waited);
            }
            waited = true;
            self.0.wait(wait).await?;
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::os::fd::{AsFd, AsRawFd, RawFd};
    use std::time::Duration;

    use nix::sys::time::TimeSpec;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    #[derive(Debug)]
    pub(super) struct Alarm(AsyncFd<Timer>);

    #[derive(Debug)]
    struct Timer(TimerFd);

    impl AsRawFd for Timer {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_fd().as_raw_fd()
        }
    }

    impl Alarm {
        #[expect(
            deprecated,
            reason = "what takes its place is unsafe; a timer that owns its descriptor keeps what that asks for"
        )]
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
            AsyncFd::with_interest(Timer(timer), Interest::READABLE).map(Self)
        }

        /// May return early.
        pub(super) async fn wait(&mut self, wait: Duration) -> io::Result<()> {
            let once = Expiration::OneShot(TimeSpec::from_duration(wait));
            self.0.get_ref().0.set(once, TimerSetTimeFlags::empty())?;
            // Setting it anew takes back the expiration that made it readable, so nothing needs to be read.
            self.0.readable().await?.clear_ready();
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::time::Duration;

    #[derive(Debug)]
    pub(super) struct Alarm;

    impl Alarm {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) async fn wait(&mut self, wait: Duration) -> io::Result<()> {
            tokio::time::sleep(wait).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_is_never_early_and_does_not_wait_for_what_is_past() {
        let mut alarm = Alarm::new().expect("a timer");
        let clock = Clock::start();
        for at_us in [300, 700, 2_500] {
            assert!(alarm.wait_until(clock, at_us).await.expect("a timer") || clock.now_us() >= at_us);
            assert!(clock.now_us() >= at_us);
        }
        assert!(!alarm.wait_until(clock, 0).await.expect("a timer"));
    }

    #[test]
    fn a_clock_that_starts_later_stands_at_nothing() {
        assert_eq!(Clock::start_in(Duration::from_secs(3_600)).now_us(), 0);
    }
}
