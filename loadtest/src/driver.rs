//! Drives a run: asks what it must know, warms up, lets the users loose, and gathers the report.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::arrivals::{Arrivals, Limit};
use crate::client::{Client, Clock, Job};
use crate::collector::Collector;
use crate::config::{ApiKey, RunConfig};
use crate::error::Error;
use crate::live::{Live, Plan, Progress};
use crate::prompts::{PROMPT_FILE_BYTES_MAX, PromptBasis, Prompts, Synthetic, parse_prompts};
use crate::record::{FailureKind, RequestRecord};
use crate::report::{Report, RunFacts};
use crate::scrape::Scraper;
use crate::target::Target;

/// How long a user whose connection was refused waits, lest a dead server be measured by its refusals.
const CONNECT_PAUSE_US: u64 = 100_000;
/// How often a sample prompt is made longer or shorter until the target counts the tokens that were asked for.
const LENGTH_CORRECTIONS_MAX: u32 = 3;
/// An index that no request has.
const SAMPLE_INDEX: u64 = u64::MAX;

/// One run, ready to start.
#[derive(Clone, Debug)]
pub struct LoadTest {
    /// What to do.
    pub config: RunConfig,
    /// Sent to the target and nowhere else.
    pub api_key: Option<ApiKey>,
    /// Gets `records.jsonl`, one line a request, warm-up included. Made if absent.
    pub report_dir: Option<PathBuf>,
    /// Show a line of progress on standard error.
    pub progress: bool,
}

impl LoadTest {
    /// Runs to the end, or until `stop` is cancelled: then nothing more is sent, what is in flight is abandoned, and
    /// the report says that the run was interrupted.
    ///
    /// # Errors
    /// When the settings are refused, the target does not say which model it serves, or a file cannot be read or
    /// written. Requests that fail are in the report.
    pub async fn run(self, stop: CancellationToken) -> Result<Report, Error> {
        self.config.validate()?;
        let target = Target::parse(&self.config.target)?;
        let prepared = stop.run_until_cancelled(self.prepare(target.clone())).await;
        let (shared, model, prompt_basis) = prepared.ok_or(Error::Interrupted)??;

        let (config, started) = (&self.config, SystemTime::now());
        let scenario = config.scenario();
        let progress = Arc::<Progress>::default();
        let live = self.progress.then(|| Live::start(Plan::of(&scenario), Arc::clone(&progress)));
        let collector = Collector::start(self.report_dir.as_deref(), scenario.targets, live)?;
        let lanes = Lanes { shared, records: collector.records.clone(), progress, stop: stop.clone() };
        let arrivals = config.arrivals();
        let warmup = Phase { arrivals, limit: Limit::Requests(config.warmup), warmup: true };
        let measured = Phase { arrivals, limit: config.limit(), warmup: false };
        lanes.run(warmup).await?;
        lanes.progress.start();
        let scraper = Scraper::start(&target.base, &scenario.scrape, Clock::start());
        let abandoned = lanes.run(measured).await?;
        let target_metrics = scraper.finish().await;
        drop(lanes);
        let collected = collector.finish().await?;

        Ok(Report::new(RunFacts {
            scenario,
            target: target.base,
            model,
            prompt_basis,
            started_unix_s: started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            processes: 1,
            interrupted: stop.is_cancelled(),
            abandoned,
            warmup_sent: collected.warmup_sent,
            warmup_failed: collected.warmup_failed,
            metrics: collected.metrics,
            events: Vec::new(),
            target_metrics,
        }))
    }

    async fn prepare(&self, target: Target) -> Result<(Arc<Shared>, String, PromptBasis), Error> {
        let config = &self.config;
        let mut client = Client::new(config, target, self.api_key.as_ref())?;
        let model = match &config.model {
            Some(model) => model.clone(),
            None => client.first_model().await?,
        };
        client.set_model(&model);
        let (prompts, prompt_basis) = match &config.prompt_file {
            Some(path) => {
                let prompts = read_prompts(path).await?;
                let basis = PromptBasis::File { prompts: prompts.len() };
                (Prompts::File(prompts), basis)
            }
            None => {
                let (synthetic, basis) = synthetic_prompts(config, &client).await?;
                (Prompts::Synthetic(synthetic), basis)
            }
        };
        Ok((Arc::new(Shared { client, prompts }), model, prompt_basis))
    }
}

async fn read_prompts(path: &Path) -> Result<Vec<crate::prompts::FilePrompt>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let bytes = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if bytes > PROMPT_FILE_BYTES_MAX {
        return Err(Error::Config(format!(
            "the file of prompts has {bytes} bytes; at most {PROMPT_FILE_BYTES_MAX} are allowed"
        )));
    }
    parse_prompts(path, &tokio::fs::read_to_string(path).await.map_err(failed)?)
}

/// Makes prompts whose tokens the target itself counts, or guesses at one token a word where it cannot.
async fn synthetic_prompts(config: &RunConfig, client: &Client) -> Result<(Synthetic, PromptBasis), Error> {
    let wanted = u64::from(config.prompt_tokens);
    let mut synthetic = Synthetic::new(config.seed, wanted, u64::from(config.shared_prefix_tokens));
    let Some(mut sample_tokens) = client.count_tokens(&synthetic.text(SAMPLE_INDEX)).await? else {
        return Ok((synthetic, PromptBasis::Estimated));
    };
    for _ in 0..LENGTH_CORRECTIONS_MAX {
        let scaled = synthetic.scaled(wanted, sample_tokens);
        if scaled == synthetic {
            break;
        }
        synthetic = scaled;
        sample_tokens = client.count_tokens(&synthetic.text(SAMPLE_INDEX)).await?.unwrap_or(sample_tokens);
    }
    Ok((synthetic, PromptBasis::Counted { sample_tokens }))
}

struct Shared {
    client: Client,
    prompts: Prompts,
}

/// The warm-up or the measured run.
#[derive(Clone, Copy, Debug)]
struct Phase {
    arrivals: Arrivals,
    limit: Limit,
    warmup: bool,
}

/// The tasks that send; in a closed loop each is a user.
struct Lanes {
    shared: Arc<Shared>,
    records: mpsc::Sender<RequestRecord>,
    progress: Arc<Progress>,
    stop: CancellationToken,
}

impl Lanes {
    /// Runs one phase to its end and returns how many requests were abandoned.
    async fn run(&self, phase: Phase) -> Result<u64, Error> {
        let lanes = match phase.limit {
            Limit::Requests(requests) => u64::from(phase.arrivals.lanes()).min(requests),
            Limit::DurationUs(_) => u64::from(phase.arrivals.lanes()),
        };
        let next_index = Arc::new(AtomicU64::new(0));
        let clock = Clock::start();
        let mut tasks = JoinSet::new();
        for _ in 0..lanes {
            let lane = Lane {
                phase,
                clock,
                next_index: Arc::clone(&next_index),
                shared: Arc::clone(&self.shared),
                records: self.records.clone(),
                progress: Arc::clone(&self.progress),
            };
            let stop = self.stop.clone();
            tasks.spawn(async move {
                let mut in_flight = false;
                match stop.run_until_cancelled(lane.run(&mut in_flight)).await {
                    Some(()) => 0,
                    None => u64::from(in_flight),
                }
            });
        }
        let mut abandoned = 0;
        while let Some(ended) = tasks.join_next().await {
            abandoned += ended.map_err(|error| Error::Broken(error.to_string()))?;
        }
        Ok(abandoned)
    }
}

struct Lane {
    phase: Phase,
    clock: Clock,
    next_index: Arc<AtomicU64>,
    shared: Arc<Shared>,
    records: mpsc::Sender<RequestRecord>,
    progress: Arc<Progress>,
}

impl Lane {
    /// Sends one request after the other. `in_flight` tells whoever drops this future whether one was cut off.
    async fn run(self, in_flight: &mut bool) {
        let mut free_us = 0;
        loop {
            let index = self.next_index.fetch_add(1, Ordering::Relaxed);
            let Some(scheduled_us) = self.phase.arrivals.due_us(self.phase.limit, index, free_us) else {
                return;
            };
            let early_us = scheduled_us.saturating_sub(self.clock.now_us());
            if early_us > 0 {
                tokio::time::sleep(Duration::from_micros(early_us)).await;
            }
            *in_flight = true;
            if !self.phase.warmup {
                self.progress.count_sent();
            }
            let prompt_index = if self.phase.warmup { Prompts::WARMUP_INDEX_START + index } else { index };
            let prompt = self.shared.prompts.request(prompt_index);
            let job = Job { index, warmup: self.phase.warmup, scheduled_us, prompt };
            let record = self.shared.client.send(job, self.clock).await;
            let refused = record.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Connect);
            free_us = record.done_us + if refused { CONNECT_PAUSE_US } else { 0 };
            // A collector that has ended could not write its file and says so when it is asked.
            if self.records.send(record).await.is_err() {
                return;
            }
            *in_flight = false;
        }
    }
}
