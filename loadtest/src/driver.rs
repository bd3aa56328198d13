//! Drives a run: asks what it must know, warms up, sends what is due, and gathers the report.
//!
//! All of that happens on one thread with a runtime of its own: one core is enough, nothing is handed between threads
//! but finished records, and whatever else the process does takes no turn between a time and its taking.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::api_key::ApiKey;
use crate::arrivals::{ClosedLoop, Limit, Pace, Shard};
use crate::clock::Clock;
use crate::collector::{BATCH_PERIOD, Collector, Records};
use crate::error::Error;
use crate::faults::Timeline;
use crate::live::{Live, Plan, Progress};
use crate::prompts::PromptBasis;
use crate::reference::Reference;
use crate::report::{Event, Report, RunFacts};
use crate::scenario::Scenario;
use crate::scrape::{Scraper, TargetMetrics};
use crate::target::Target;
use crate::tokenizer::OpenTokenizer;

mod files;
mod lanes;
mod phase;
mod prepare;

use lanes::Lanes;
use phase::Phase;
use prepare::{Prepared, prepare};

/// Users of the warm-up before an open loop, which has none of its own: enough to open connections and to wake a
/// server, too few to leave it a queue.
const WARMUP_USERS_MAX: u32 = 16;

/// One run, ready to start.
#[derive(Clone, Debug)]
pub struct LoadTest {
    /// What to do.
    pub scenario: Scenario,
    /// Sent to the target and nowhere else.
    pub api_key: Option<ApiKey>,
    /// Opens the tokenizer that the scenario names; without it, a scenario that names one is refused.
    pub open_tokenizer: Option<OpenTokenizer>,
    /// Gets `records.jsonl`, one line a request, warm-up included. Made if absent.
    pub report_dir: Option<PathBuf>,
    /// Show a line of progress on standard error.
    pub progress: bool,
    /// Which part of the scenario's load this process sends.
    pub shard: Shard,
    /// When the measured run starts, in seconds since 1970, so that several processes start together. The warm-up
    /// comes before; if it takes longer, the schedule stays where it is. At once after the warm-up unless set.
    pub start_at: Option<f64>,
}

impl LoadTest {
    /// A run of all of `scenario` in this process, at once, that writes nothing.
    pub const fn new(scenario: Scenario) -> Self {
        Self {
            scenario,
            api_key: None,
            open_tokenizer: None,
            report_dir: None,
            progress: false,
            shard: Shard::WHOLE,
            start_at: None,
        }
    }

    /// Runs to the end, or until `stop` is cancelled: then nothing more is sent, what is in flight is abandoned, and
    /// the report says that the run was interrupted. The same happens when the future is dropped.
    ///
    /// # Errors
    /// When the settings are refused, the target does not say which model it serves, or a file cannot be read or
    /// written. Requests that fail are in the report.
    pub async fn run(self, stop: CancellationToken) -> Result<Report, Error> {
        let stop = stop.child_token();
        let _stop_when_dropped = stop.clone().drop_guard();
        let (done, report) = oneshot::channel();
        std::thread::Builder::new()
            .name("loadtest-sender".into())
            .spawn(move || {
                // Nobody waits for it when the future was dropped.
                let _ = done.send(self.run_on_this_thread(&stop));
            })
            .map_err(|error| Error::Broken(format!("no thread for the requests: {error}")))?;
        report.await.map_err(|_| Error::Broken("the thread that sends requests panicked".into()))?
    }

    fn run_on_this_thread(self, stop: &CancellationToken) -> Result<Report, Error> {
        let start = StartAt::new(self.start_at)?;
        self.scenario.validate()?;
        if !self.shard.is_valid() {
            let Shard { index, count } = self.shard;
            return Err(Error::Config(format!(
                "shard {index} of {count} does not exist; shards count from 0"
            )));
        }
        let target = Target::parse(&self.scenario.target)?;
        files::allow_connections(self.scenario.client.connections_max);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::Broken(format!("no runtime for the requests: {error}")))?;

        let driven = runtime.block_on(self.drive(&target, start, stop));
        // Whoever still sends is cut off, and lets go of the way to the collector; a look-up of a name may go on.
        runtime.shutdown_background();
        let driven = driven?;
        let collected = driven.collector.finish()?;
        let Measured { started, abandoned, events, target_metrics } = driven.measured;
        Ok(Report::new(RunFacts {
            scenario: self.scenario,
            target: target.base,
            model: driven.model,
            prompt_basis: driven.prompt_basis,
            started_unix_s: started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            processes: 1,
            interrupted: stop.is_cancelled(),
            abandoned,
            warmup_sent: collected.warmup_sent,
            warmup_failed: collected.warmup_failed,
            metrics: collected.metrics,
            events,
            target_metrics,
        }))
    }

    async fn drive(
        &self,
        target: &Target,
        start: StartAt,
        stop: &CancellationToken,
    ) -> Result<Driven, Error> {
        let faults = Timeline::new(&self.scenario.faults)?;
        let reference = self.scenario.answers.reference.as_deref().map(Reference::read).transpose()?;
        let preparing = prepare(&self.scenario, target.clone(), self.api_key.as_ref(), self.open_tokenizer);
        let prepared = stop.run_until_cancelled(preparing).await.ok_or(Error::Interrupted)??;
        let Prepared { client, asking, pace, model, prompt_basis } = prepared;
        let progress = Arc::<Progress>::default();
        let plan = Plan::of(&self.scenario, self.shard);
        let live = self.progress.then(|| Live::start(plan, Arc::clone(&progress)));
        let targets = self.scenario.targets;
        let (collector, records) = Collector::start(self.report_dir.as_deref(), targets, reference, live)?;
        let lanes = Arc::new(Lanes::new(client, asking, records, progress));
        let run =
            Run { scenario: &self.scenario, target: &target.base, shard: self.shard, start, lanes, stop };
        let measured = run.phases(pace, faults).await?;
        Ok(Driven { collector, model, prompt_basis, measured })
    }
}

/// What a run leaves for its report.
struct Driven {
    collector: Collector,
    model: String,
    prompt_basis: PromptBasis,
    measured: Measured,
}

/// When the measured run starts.
#[derive(Clone, Copy, Debug)]
struct StartAt(Option<SystemTime>);

impl StartAt {
    fn new(unix_s: Option<f64>) -> Result<Self, Error> {
        let Some(unix_s) = unix_s else { return Ok(Self(None)) };
        let since = Duration::try_from_secs_f64(unix_s);
        let at = since.ok().and_then(|since| UNIX_EPOCH.checked_add(since));
        match at {
            Some(at) if at > SystemTime::now() => Ok(Self(Some(at))),
            _ => Err(Error::Config(format!(
                "the start at {unix_s} is past or no time; give seconds since 1970"
            ))),
        }
    }

    /// A clock that starts then, or that started then if the warm-up took longer.
    fn clock(self) -> Clock {
        let now = SystemTime::now();
        match self.0.unwrap_or(now).duration_since(now) {
            Ok(wait) => Clock::start_in(wait),
            Err(late) => Clock::started_before(late.duration()),
        }
    }
}

/// The warm-up and the measured run.
struct Run<'a> {
    scenario: &'a Scenario,
    target: &'a str,
    shard: Shard,
    start: StartAt,
    lanes: Arc<Lanes>,
    stop: &'a CancellationToken,
}

/// What the measured run leaves beside its records.
struct Measured {
    started: SystemTime,
    /// Requests in flight when it was stopped.
    abandoned: u64,
    events: Vec<Event>,
    target_metrics: TargetMetrics,
}

impl Run<'_> {
    /// Runs both.
    async fn phases(&self, pace: Pace, faults: Timeline) -> Result<Measured, Error> {
        let flushing = tokio::spawn(flush_regularly(Arc::clone(&self.lanes)));
        self.phase(self.warmup(&pace), true, Clock::start()).await?;
        let started = self.start.0.unwrap_or_else(SystemTime::now);
        let clock = self.start.clock();
        self.lanes.progress.start();
        let scraper = Scraper::start(self.target, &self.scenario.scrape, clock);
        let over = self.stop.child_token();
        let measured = async {
            let _over = over.clone().drop_guard();
            match self.stop.is_cancelled() {
                // What is left of the warm-up is in no figure.
                true => Ok(0),
                false => self.phase(pace, false, clock).await,
            }
        };
        let (abandoned, events) = tokio::join!(measured, faults.run(clock.started_at(), &over));
        let abandoned = abandoned?;
        let target_metrics = scraper.finish().await;
        flushing.abort();
        self.lanes.records.flush().await;
        Ok(Measured { started, abandoned, events, target_metrics })
    }

    /// Runs one phase to its end, or until it is stopped, and returns how many requests were then in flight.
    async fn phase(&self, pace: Pace, warmup: bool, clock: Clock) -> Result<u64, Error> {
        let in_flight_max = self.scenario.client.connections_max;
        let phase = Phase { pace, warmup, clock, shard: self.shard, in_flight_max };
        let records: &Records = &self.lanes.records;
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Ok(self.lanes.in_flight()),
            // The collector itself will say why.
            () = records.broken() => Ok(0),
            outcome = phase.run(Arc::clone(&self.lanes)) => outcome.map(|()| 0),
        }
    }

    /// A closed loop, whatever the measured run is: it is to be over soon and to overload nobody.
    fn warmup(&self, pace: &Pace) -> Pace {
        let users = match pace {
            Pace::Closed(users) => users.users,
            Pace::Open(_) => WARMUP_USERS_MAX.min(self.scenario.client.connections_max),
        };
        let limit = Limit { requests: Some(self.scenario.warmup), duration_us: None };
        Pace::Closed(ClosedLoop::without_pauses(users, limit))
    }
}

async fn flush_regularly(lanes: Arc<Lanes>) {
    loop {
        tokio::time::sleep(BATCH_PERIOD).await;
        lanes.records.flush().await;
    }
}

#[cfg(test)]
mod tests;
