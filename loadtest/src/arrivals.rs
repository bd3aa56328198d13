//! When requests are due. Pure: the caller tells the time.
//!
//! An open loop's times are a function of the scenario and its seed alone. They are never moved: a tester or a server
//! that falls behind shows as lateness, and does not thin out the load.

use crate::error::Error;
use crate::scenario;

mod draws;
mod intensity;

use draws::Draws;
use intensity::Intensity;

/// Keeps the draws of schedules apart from those of prompts with the same seed.
const GAPS: u64 = 0x6761_7073;
const PAUSES: u64 = 0x7061_7573;

/// Who decides when a request is due.
#[derive(Clone, Debug)]
pub enum Pace {
    /// A schedule that was there before the run.
    Open(Schedule),
    /// The server: a user asks again when it has answered.
    Closed(ClosedLoop),
}

impl Pace {
    /// What `arrivals` mean. `trace_us` are the due times of a trace, ascending, at its own speed; for other arrivals
    /// they are not looked at.
    ///
    /// # Errors
    /// When a rate, a shape or a time is out of range, or the rule needs what is not given.
    pub fn new(
        arrivals: &scenario::Arrivals,
        seed: u64,
        limit: Limit,
        trace_us: Vec<u64>,
    ) -> Result<Self, Error> {
        match arrivals {
            scenario::Arrivals::ClosedLoop { users, think_time_s } => {
                not_negative("think_time_s", *think_time_s)?;
                Ok(Self::Closed(ClosedLoop { users: *users, think_time_s: *think_time_s, seed, limit }))
            }
            open => Ok(Self::Open(Schedule::new(open, seed, limit, trace_us)?)),
        }
    }
}

/// Where a run ends, whichever comes first. Requests in flight at that point run to their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Indexes stay below this.
    pub requests: Option<u64>,
    /// No request becomes due so many microseconds after the start.
    pub duration_us: Option<u64>,
}

impl Limit {
    /// The limit that a scenario sets.
    pub fn of(scenario: &scenario::Scenario) -> Self {
        let duration_us = scenario.duration_s.map(|seconds| (seconds * 1e6) as u64);
        Self { requests: scenario.requests, duration_us }
    }

    /// Whether request `index` may be sent when it is due at `due_us`.
    pub fn allows(&self, index: u64, due_us: u64) -> bool {
        self.requests.is_none_or(|requests| index < requests)
            && self.duration_us.is_none_or(|duration_us| due_us < duration_us)
    }
}

/// One of several processes that share a schedule: it takes the requests whose index modulo `count` is `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which one, from 0.
    pub index: u32,
    /// How many there are; at least 1.
    pub count: u32,
}

impl Shard {
    /// The only one.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Whether there can be such a one.
    pub const fn is_valid(self) -> bool {
        self.index < self.count
    }

    /// How many of `total` things, numbered from 0, are its own.
    pub const fn share(self, total: u64) -> u64 {
        let (index, count) = (self.index as u64, self.count as u64);
        (total + count - 1 - index) / count
    }

    /// The number among all of its own `nth` one.
    pub const fn global(self, nth: u64) -> u64 {
        nth.saturating_mul(self.count as u64).saturating_add(self.index as u64)
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self::WHOLE
    }
}

/// A request, or a conversation's first one, and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its number in the whole schedule, from 0.
    pub index: u64,
    /// Microseconds after the start.
    pub at_us: u64,
}

/// The due times of an open loop, in order. Each is computed when it is asked for, from its index and the ones before,
/// so that a long schedule takes no memory.
#[derive(Clone, Debug)]
pub struct Schedule {
    rule: Rule,
    seed: u64,
    limit: Limit,
    shard: Shard,
    next_index: u64,
    /// How many requests are expected until now; the gaps' common measure, before rates stretch it.
    expected: f64,
}

#[derive(Clone, Debug)]
enum Rule {
    Process { gaps: Gaps, intensity: Intensity },
    Trace { times_us: Vec<u64>, speed: f64 },
}

/// Gaps of mean 1.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Gaps {
    Equal,
    Exponential,
    Gamma { shape: f64 },
}

impl Gaps {
    /// The one before request `index`.
    fn before(self, seed: u64, index: u64) -> f64 {
        match self {
            // The first one is due at once.
            Self::Equal => f64::from(u8::from(index > 0)),
            Self::Exponential => Draws::new(seed ^ GAPS, index).exponential(),
            Self::Gamma { shape } => Draws::new(seed ^ GAPS, index).gamma(shape) / shape,
        }
    }
}

impl Schedule {
    fn new(
        arrivals: &scenario::Arrivals,
        seed: u64,
        limit: Limit,
        trace_us: Vec<u64>,
    ) -> Result<Self, Error> {
        let rule = rule(arrivals, limit, trace_us)?;
        Ok(Self { rule, seed, limit, shard: Shard::WHOLE, next_index: 0, expected: 0.0 })
    }

    /// The part of it that one of several processes sends.
    pub fn shard(self, shard: Shard) -> Self {
        Self { shard, ..self }
    }

    /// Where it ends.
    pub const fn limit(&self) -> Limit {
        self.limit
    }

    /// The next of the whole schedule.
    fn next_of_all(&mut self) -> Option<Due> {
        let index = self.next_index;
        let at_us = match &self.rule {
            Rule::Process { gaps, intensity } => {
                self.expected += gaps.before(self.seed, index);
                (intensity.time_s(self.expected)? * 1e6).round() as u64
            }
            Rule::Trace { times_us, speed } => {
                (*times_us.get(usize::try_from(index).ok()?)? as f64 / speed).round() as u64
            }
        };
        self.next_index += 1;
        self.limit.allows(index, at_us).then_some(Due { index, at_us })
    }
}

impl Iterator for Schedule {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        loop {
            let due = self.next_of_all()?;
            if due.index % u64::from(self.shard.count) == u64::from(self.shard.index) {
                return Some(due);
            }
        }
    }
}

fn rule(arrivals: &scenario::Arrivals, limit: Limit, trace_us: Vec<u64>) -> Result<Rule, Error> {
    let process = |gaps, intensity| Ok(Rule::Process { gaps, intensity });
    match arrivals {
        scenario::Arrivals::ClosedLoop { .. } => Err(Error::Config("a closed loop has no schedule".into())),
        scenario::Arrivals::Constant { rate } => {
            process(Gaps::Equal, Intensity::constant(positive("rate", *rate)?))
        }
        scenario::Arrivals::Poisson { rate } => {
            process(Gaps::Exponential, Intensity::constant(positive("rate", *rate)?))
        }
        scenario::Arrivals::Gamma { rate, cv } => {
            let intensity = Intensity::constant(positive("rate", *rate)?);
            let shape = positive("cv", *cv)?.powi(-2);
            process(Gaps::Gamma { shape }, intensity)
        }
        scenario::Arrivals::Ramp { from, to } => {
            let duration_us =
                limit.duration_us.ok_or_else(|| Error::Config("a ramp needs duration_s".into()))?;
            let (from, to) = (not_negative("from", *from)?, not_negative("to", *to)?);
            process(Gaps::Exponential, Intensity::new([(duration_us as f64 / 1e6, from, to)]))
        }
        scenario::Arrivals::Steps { steps } => {
            for step in steps {
                not_negative("a step's rate", step.rate)?;
                positive("a step's duration_s", step.duration_s)?;
            }
            let segments = steps.iter().map(|step| (step.duration_s, step.rate, step.rate));
            process(Gaps::Exponential, Intensity::new(segments))
        }
        scenario::Arrivals::Trace { speed, .. } => {
            let speed = positive("speed", *speed)?;
            if !trace_us.is_sorted() {
                return Err(Error::Config("a trace's times must not go back; sort its lines by time".into()));
            }
            Ok(Rule::Trace { times_us: trace_us, speed })
        }
    }
}

fn positive(name: &str, value: f64) -> Result<f64, Error> {
    if value > 0.0 && value.is_finite() {
        return Ok(value);
    }
    Err(Error::Config(format!("{name} must be a number above 0, but is {value}")))
}

fn not_negative(name: &str, value: f64) -> Result<f64, Error> {
    if value >= 0.0 && value.is_finite() {
        return Ok(value);
    }
    Err(Error::Config(format!("{name} must be a number of at least 0, but is {value}")))
}

/// Users who ask, read, think and ask again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClosedLoop {
    /// How many, of all processes together.
    pub users: u32,
    think_time_s: f64,
    seed: u64,
    limit: Limit,
}

impl ClosedLoop {
    /// Users without pauses.
    pub const fn without_pauses(users: u32, limit: Limit) -> Self {
        Self { users, think_time_s: 0.0, seed: 0, limit }
    }

    /// Where it ends.
    pub const fn limit(&self) -> Limit {
        self.limit
    }

    /// How many users a process has. None has more than there are requests.
    pub fn users_of(&self, shard: Shard) -> u64 {
        let requests = self.limit.requests.map_or(u64::MAX, |requests| shard.share(requests));
        shard.share(u64::from(self.users)).min(requests)
    }

    /// When turn `turn` of conversation `index` is due if its user's last answer ended at `free_us`. A user's first
    /// request, `free_us` being 0, is due at once.
    pub fn due_us(&self, index: u64, turn: u32, free_us: u64) -> u64 {
        if free_us == 0 || self.think_time_s == 0.0 {
            return free_us;
        }
        let pause = Draws::new(self.seed ^ PAUSES ^ (u64::from(turn) << 32), index).exponential();
        free_us + (pause * self.think_time_s * 1e6).round() as u64
    }
}

#[cfg(test)]
mod tests;
