//! What `run`, `search` and `sweep` have in common: a scenario, flags over it, and where results go.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::flags::{End, ScenarioArgs};
use crate::api_key::ApiKey;
use crate::error::Error;
use crate::scenario::Scenario;

/// A scenario, flags over it, and where results go.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SourceArgs {
    /// A scenario: a name of this program's own, or a TOML file; without it, flags make one
    #[arg(value_name = "SCENARIO.toml|NAME")]
    pub scenario: Option<String>,
    /// What changes it, or makes one.
    #[command(flatten)]
    pub flags: ScenarioArgs,
    /// Sent as a bearer token
    #[arg(long, env = "TENK_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<ApiKey>,
    /// Write the report's files into this folder: a page, JSON, and for each run records.jsonl, a line a request
    #[arg(long, value_name = "DIR", help_heading = "Report")]
    pub report_dir: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long, help_heading = "Report")]
    pub json: bool,
}

impl SourceArgs {
    /// The scenario that they mean, with a seed of its own unless one is given: caches have the prompts of an earlier
    /// run. `end` where nobody said how long a run is.
    pub(super) fn scenario(&self, end: End) -> Result<Scenario, Error> {
        self.flags.scenario(self.scenario.as_deref(), new_seed(), end)
    }
}

/// A seed that no earlier run had.
pub(super) fn new_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
