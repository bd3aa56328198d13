//! Where a search or a sweep has its scenario from.

use std::path::PathBuf;

use crate::api_key::ApiKey;
use crate::error::Error;
use crate::scenario::{Arrivals, Draft, Scenario};
use crate::sweep::with_field;

/// A scenario file, flags over it.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct SourceArgs {
    /// A scenario: a name of this program's own, or a TOML file; without it, the defaults
    #[arg(long, value_name = "SCENARIO.toml|NAME")]
    pub scenario: Option<String>,
    /// The server, as http://HOST:PORT, instead of the scenario's
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
    /// Set a field of the scenario by its path, such as answers.max_tokens=32; may be given several times
    #[arg(long, value_name = "FIELD=VALUE")]
    pub set: Vec<String>,
    /// Sent as a bearer token
    #[arg(long, env = "TENK_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<ApiKey>,
    /// Write each run's report, and that of the whole, into this folder
    #[arg(long, value_name = "DIR")]
    pub report_dir: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

impl SourceArgs {
    /// The scenario that they mean; `arrivals` where no file says any.
    pub(super) fn scenario(&self, arrivals: Arrivals) -> Result<Scenario, Error> {
        let mut scenario = match &self.scenario {
            None => Scenario { arrivals, ..Scenario::default() },
            Some(name) => Draft::open(name)?.finish(|_| None)?,
        };
        if let Some(target) = &self.target {
            scenario.target.clone_from(target);
        }
        for set in &self.set {
            let (field, value) = set.split_once('=').ok_or_else(|| {
                Error::Config(format!(
                    "--set {set} has no `=`; a field's path, `=` and a value were expected"
                ))
            })?;
            scenario = with_field(&scenario, field.trim(), value.trim())?;
        }
        if scenario.requests.is_none() && scenario.duration_s.is_none() {
            return Err(Error::Config(
                "a run needs an end; give --set duration_s=30, or `duration_s` or `requests` in the scenario"
                    .into(),
            ));
        }
        Ok(scenario)
    }
}
