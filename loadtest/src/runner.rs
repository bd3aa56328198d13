//! Joins searches, sweeps and labs to the driver.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::config::{ApiKey, RunConfig};
use crate::driver::LoadTest;
use crate::error::Error;
use crate::figures::{Figures, Runner};
use crate::report::{Report, Summary};
use crate::scenario::{Arrivals, Length, Prompts, Scenario};

/// Runs scenarios over the network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Driver {
    /// Sent to the target and nowhere else.
    pub(crate) api_key: Option<ApiKey>,
    /// Gets a folder for each run.
    pub(crate) report_dir: Option<PathBuf>,
    /// Show a line of progress on standard error.
    pub(crate) progress: bool,
}

impl Runner for Driver {
    type Run = Report;

    async fn run(
        &mut self,
        scenario: Scenario,
        label: &str,
        stop: &CancellationToken,
    ) -> Result<Report, Error> {
        let report_dir = self.report_dir.as_ref().map(|dir| dir.join(label));
        let load_test = LoadTest {
            config: config(&scenario)?,
            api_key: self.api_key.clone(),
            report_dir: report_dir.clone(),
            progress: self.progress,
        };
        let report = load_test.run(stop.clone()).await?;
        if let Some(dir) = report_dir {
            report.save(&dir)?;
        }
        Ok(report)
    }
}

/// What of a scenario the driver knows today.
fn config(scenario: &Scenario) -> Result<RunConfig, Error> {
    let refuse = |what: &str| Error::Config(format!("the driver does not run {what} yet"));
    let Arrivals::ClosedLoop { users, think_time_s: 0.0 } = scenario.arrivals else {
        return Err(refuse("arrivals other than a closed loop without think time"));
    };
    let Length::Fixed(max_tokens) = scenario.answers.max_tokens else {
        return Err(refuse("answers of several lengths"));
    };
    let (prompt_tokens, shared_prefix_tokens, prompt_file) = match &scenario.prompts {
        Prompts::Synthetic {
            tokens: Length::Fixed(tokens),
            shared_prefix_tokens,
            shared_prefixes: 1,
            repeats: None,
        } => (*tokens, *shared_prefix_tokens, None),
        Prompts::File { path } => (128, 0, Some(path.clone())),
        _ => return Err(refuse("such prompts")),
    };
    Ok(RunConfig {
        target: scenario.target.clone(),
        model: scenario.model.clone(),
        users,
        requests: scenario.requests,
        duration_s: scenario.duration_s,
        warmup: scenario.warmup,
        prompt_tokens,
        shared_prefix_tokens,
        prompt_file,
        max_tokens,
        ignore_eos: scenario.answers.ignore_eos,
        temperature: scenario.answers.temperature,
        stream: scenario.answers.streamed > 0.5,
        return_token_ids: scenario.answers.return_token_ids,
        keep_alive: scenario.client.keep_alive,
        seed: scenario.seed,
        connect_timeout_s: scenario.client.connect_timeout_s,
        request_timeout_s: scenario.client.request_timeout_s,
    })
}

impl Figures for Report {
    fn figure(&self, name: &str) -> Option<f64> {
        let requests = &self.requests;
        match name {
            "requests_per_s" => return Some(self.throughput.requests_per_s),
            "output_tokens_per_s" => return Some(self.throughput.output_tokens_per_s),
            "prompt_tokens_per_s" => return Some(self.throughput.prompt_tokens_per_s),
            "error_share" => {
                let all = requests.succeeded + requests.failed;
                return (all > 0).then(|| requests.failed as f64 / all as f64);
            }
            _ => {}
        }
        let latency = &self.latency;
        let name = name.strip_prefix("scheduled.").unwrap_or(name);
        let (kind, statistic) = name.strip_suffix("_ms")?.rsplit_once('_')?;
        let summary: &Option<Summary> = match kind {
            "ttft" => &latency.ttft_from_schedule_ms,
            "e2e" => &latency.end_to_end_from_schedule_ms,
            "sent.ttft" => &latency.ttft_ms,
            "sent.e2e" => &latency.end_to_end_ms,
            "tpot" => &latency.tpot_ms,
            "inter_token" => &latency.inter_token_ms,
            "inter_chunk" => &latency.inter_chunk_ms,
            "dispatch_delay" => &latency.dispatch_delay_ms,
            _ => return None,
        };
        let summary = summary.as_ref()?;
        match statistic {
            "mean" => Some(summary.mean),
            "p50" => Some(summary.p50),
            "p90" => Some(summary.p90),
            "p95" => Some(summary.p95),
            "p99" => Some(summary.p99),
            "max" => Some(summary.max),
            _ => None,
        }
    }

    fn valid(&self) -> bool {
        self.valid
    }

    fn interrupted(&self) -> bool {
        self.interrupted
    }
}
