//! The commands of `tenk loadtest`: arguments in, output and an exit status out.

mod bridge;
mod flags;
mod run;
mod scenarios;

pub use flags::ScenarioArgs;
pub use run::{RUN_EXAMPLES, RunArgs, Shard, Verdict, run};
pub use scenarios::list_scenarios;
