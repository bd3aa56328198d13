//! `tenk controller` and `tenk rollout`

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use rollout::simulate::Scenario;

use super::{ConfigArgs, RoleArgs};

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  tenk controller --gateway http://127.0.0.1:8080
  tenk gateway --controller http://127.0.0.1:8090 --worker http://127.0.0.1:8081
  tenk controller --redis redis://10.0.0.5:6379      two of them: one decides, one waits

`tenk up` has one inside. Every decision is written down before anyone acts by
it; a controller that is killed goes on where its last record stands, and
gateways keep the last route table meanwhile.")]
pub(crate) struct ControllerArgs {
    #[command(flatten)]
    pub(crate) role: RoleArgs,
    /// Where to listen [default: 127.0.0.1:8090]; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// The gateway through which new versions are warmed up and compared
    #[arg(long, value_name = "URL")]
    pub(crate) gateway: Option<String>,
    /// The folder for the log of decisions
    #[arg(long, value_name = "FOLDER")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Keep the log in this Redis instead
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// Tell each decision to this address, as JSON
    #[arg(long, value_name = "URL")]
    pub(crate) webhook: Option<String>,
}

/// Where the controller is.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct ReachArgs {
    /// The controller's address [default: http://127.0.0.1:8090]
    #[arg(long, value_name = "URL", env = "TENK_CONTROLLER")]
    pub(crate) controller: Option<String>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// Give a new version of a model its users, step by step, and take them back if it is worse
    #[command(after_help = "\
Examples:
  tenk rollout start chat --to 2                       5% → 25% → 50% → 100%
  tenk rollout start chat --to 2 --steps 25,50,100 --step-s 30 --margin 0.5 --watch
  tenk rollout start chat --to 2 --strategy blue-green --keep-s 600
  tenk rollout start chat --to 2 --strategy shadow --percent 10 --duration-s 300
  tenk rollout start --file rollout.yaml

Workers of the new version must be up; without a rollout they get no users. A
step passes when every metric is surely within its margin of the stable
version's, and the rollout is reverted as soon as one is surely worse.")]
    Start(Box<StartArgs>),
    /// Show how rollouts stand: weights, evidence, verdict, and what is waited for
    #[command(after_help = "Examples:\n  tenk rollout status\n  tenk rollout status chat --watch")]
    Status {
        /// One model; all unless given
        model: Option<String>,
        /// Go on showing until the rollout is over
        #[arg(long, requires = "model")]
        watch: bool,
        /// As JSON
        #[arg(long, conflicts_with = "watch")]
        json: bool,
        #[command(flatten)]
        reach: ReachArgs,
    },
    /// Go to the next step, whatever the evidence says
    #[command(after_help = "Examples:\n  tenk rollout promote chat\n  tenk rollout promote chat --full")]
    Promote {
        /// The model
        model: String,
        /// Give the new version all users at once
        #[arg(long)]
        full: bool,
        #[command(flatten)]
        reach: ReachArgs,
    },
    /// Give the stable version all users back at once; streams under way come to their end
    #[command(after_help = "Example:\n  tenk rollout abort chat")]
    Abort {
        /// The model
        model: String,
        #[command(flatten)]
        reach: ReachArgs,
    },
    /// Move no more users for now; a version that is worse is reverted all the same
    #[command(after_help = "Example:\n  tenk rollout pause chat")]
    Pause {
        /// The model
        model: String,
        /// Go on
        #[arg(long)]
        resume: bool,
        #[command(flatten)]
        reach: ReachArgs,
    },
    /// List every decision, and why it was taken
    #[command(after_help = "Examples:\n  tenk rollout history chat\n  tenk rollout history chat --json")]
    History {
        /// The model
        model: String,
        /// As JSON, with the evidence
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        reach: ReachArgs,
    },
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

/// How a version gets its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StrategyKind {
    /// Some users, then more, then all; each step is judged
    Canary,
    /// All users at once; the old version stays warm, and one command brings everybody back
    BlueGreen,
    /// No user: requests are copied to it, and its answers are compared and thrown away
    Shadow,
    /// A fixed share of the users for a fixed time, and a report
    Ab,
}

/// `tenk rollout start`
#[derive(Debug, ClapArgs)]
pub(crate) struct StartArgs {
    /// The model, as requests call it
    #[arg(required_unless_present = "file")]
    pub(crate) model: Option<String>,
    /// The version that is to get its users: as `tenk model versions` numbers it, or an alias
    #[arg(long, value_name = "VERSION", required_unless_present = "file")]
    pub(crate) to: Option<String>,
    /// A rollout in YAML or JSON; flags go over it
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// How it gets them [default: canary]
    #[arg(long, value_name = "STRATEGY")]
    pub(crate) strategy: Option<StrategyKind>,
    /// Steps of a canary, in percent of the users [default: 5,25,50,100]
    #[arg(long, value_name = "PERCENT", value_delimiter = ',')]
    pub(crate) steps: Vec<f64>,
    /// The least time of a step, in seconds [default: 60]
    #[arg(long, value_name = "S")]
    pub(crate) step_s: Option<u64>,
    /// After this time, in seconds, insufficient evidence holds the rollout [default: 3600]
    #[arg(long, value_name = "S")]
    pub(crate) step_max_s: Option<u64>,
    /// The least users of the new version that a step must have heard [default: 100]
    #[arg(long, value_name = "N")]
    pub(crate) users_min: Option<u64>,
    /// Share of the users (ab) or requests (shadow), in percent [default: 50 and 10]
    #[arg(long, value_name = "PERCENT")]
    pub(crate) percent: Option<f64>,
    /// How long a shadow or an A/B test lasts, in seconds [default: 600]
    #[arg(long, value_name = "S")]
    pub(crate) duration_s: Option<u64>,
    /// How long the old version stays warm after a blue-green switch, in seconds [default: 600]
    #[arg(long, value_name = "S")]
    pub(crate) keep_s: Option<u64>,
    /// A latency passes when it is surely less than this much higher, as a share [default: 0.25]
    #[arg(long, value_name = "SHARE")]
    pub(crate) margin: Option<f64>,
    /// A latency fails when it is surely more than this much higher, as a share [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    pub(crate) tolerance: Option<f64>,
    /// Compare answers, too: by how likely each version finds the other's
    #[arg(long)]
    pub(crate) quality: bool,
    /// Show how it goes until it is over; the exit status says whether the version was promoted
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
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
