//! `tenk rollout`

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use rollout::simulate::Scenario;

/// `tenk rollout`
#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// Try the judge: thousands of made-up rollouts, how many good versions it reverts and how soon it finds bad ones
    #[command(after_help = "\
Examples:
  tenk rollout simulate
  tenk rollout simulate --runs 1000 --json
  tenk rollout simulate --scenario latency_50,errors_2 --requests-per-s 10
  tenk rollout simulate --scenario aa --sensitivity
  tenk rollout simulate --latencies seconds.txt --minutes 30

Scenarios: aa (no difference), latency_10, latency_50 (times 10% and 50% longer),
errors_05, errors_2 (0.5% and 2% errors), drift (both versions slow down),
bimodal (short and long answers), little_traffic (1 request/s).

Judge and plan are those of a real rollout: steps of 5, 25, 50 and 100% of the
users, at least a minute and 100 users each. Two other rules look at the same
requests, split as in the first step: thresholds on each minute's p95 and error
share, as deployment tools have them, and a Mann-Whitney test, once at the end
and, as it should not be used, every minute. A rollout with no end after
--minutes counts as held. The same seed gives the same figures.

FILE holds one time in seconds a line, or a JSON array of them; they take the
place of the log-normal distribution.")]
    Simulate(SimulateArgs),
}

/// `tenk rollout simulate`
#[derive(Debug, ClapArgs)]
pub(crate) struct SimulateArgs {
    /// Rollouts of each scenario
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) runs: u32,
    /// Only these scenarios, such as aa,latency_50
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) scenario: Vec<Scenario>,
    /// Where random numbers begin
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Requests a second, of both versions together; little_traffic has 1
    #[arg(long, value_name = "RATE", default_value_t = 50.0)]
    pub(crate) requests_per_s: f64,
    /// Users of the new version in the first step, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    pub(crate) percent: f64,
    /// How long is looked at
    #[arg(long, value_name = "MINUTES", default_value_t = 10.0)]
    pub(crate) minutes: f64,
    /// Recorded times in the place of made-up ones
    #[arg(long, value_name = "FILE")]
    pub(crate) latencies: Option<PathBuf>,
    /// Also show what becomes of good versions when workers of one version differ twice as much
    #[arg(long)]
    pub(crate) sensitivity: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
