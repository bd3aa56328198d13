//! The commands of `tenk loadtest`: arguments in, output and an exit status out.

mod flags;
mod run;
mod scenarios;

pub use flags::ScenarioArgs;
pub use run::{RUN_EXAMPLES, RunArgs, Verdict, run};
pub use scenarios::list_scenarios;
