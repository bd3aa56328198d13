//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

/// Serve language models: a gateway that answers OpenAI's API, workers that run the model, and tools around them.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 110,
    after_help = "\
Start here:
  tenk up                                  a gateway and two workers on this machine, with the default model
  tenk model list                          what is installed and what can be pulled
  tenk loadtest run --target http://127.0.0.1:8080 --users 8

Every setting of a configuration file can also be an environment variable: TENK_GATEWAY__LISTEN sets `listen` in
[gateway]. Flags win over variables, variables over the file; `tenk config show` prints the result."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything in one process: pull the model, start workers and a gateway, print what to try
    Up(UpArgs),
    /// Start a gateway alone
    Gateway(GatewayArgs),
    /// Start a worker alone
    Worker(WorkerArgs),
    /// Pull, list, inspect and quantize models
    #[command(subcommand)]
    Model(ModelCommand),
    /// Make API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Show and check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Load a server and report what it did
    #[command(subcommand)]
    Loadtest(LoadtestCommand),
}

/// What every role takes.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct CommonArgs {
    /// A TOML file with one section a part; `tenk config show` prints one with every default
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How log lines look: text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// Threads that compute; all cores unless given
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  tenk up
  tenk up --workers 4 --redis redis://127.0.0.1:6379
  tenk up --model ./my-model.gguf --listen 127.0.0.1:9000")]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// Workers for each model
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: u16,
    /// A model's name, hf:OWNER/REPO, or a path to a .gguf file or model folder; may be given several times
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Vec<String>,
    /// Share the response cache through this Redis, such as redis://127.0.0.1:6379
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// Where the gateway listens [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  tenk gateway --worker http://127.0.0.1:8081 --worker http://127.0.0.1:8082
  tenk gateway --listen 0.0.0.0:8080 --config gateway.toml      (off loopback it needs [[gateway.keys]])")]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// Where to listen [default: 127.0.0.1:8080]; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// A worker's address; may be given several times. Any server of OpenAI's API will do
    #[arg(long, value_name = "URL")]
    pub(crate) worker: Vec<String>,
    /// Share the response cache through this Redis
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  tenk worker --model smollm2-135m-instruct --listen 127.0.0.1:8081
  tenk worker --model ./my-model.gguf --served-model-name mine")]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// Where to listen [default: 127.0.0.1:8081]; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// A model's name, hf:OWNER/REPO, or a path
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// What requests call the model; its own name unless given
    #[arg(long, value_name = "NAME")]
    pub(crate) served_model_name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Fetch a model, or make sure that it is there
    Pull {
        /// A name from `tenk model list`, or hf:OWNER/REPO; /FILE.gguf and @REVISION may follow
        model: String,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// List what is installed and what can be pulled
    List {
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Print a model's shape, and what it takes to hold it
    Inspect {
        /// A name or a path
        model: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Write a GGUF model anew with its matrices in another type
    Quantize {
        /// The .gguf file to read
        input: PathBuf,
        /// The .gguf file to write
        output: PathBuf,
        /// q8_0, q4_0, q4_k, f16, f32, …
        #[arg(long, value_name = "TYPE")]
        to: String,
        /// Replace the output if it exists
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key for a tenant; it is printed once and kept nowhere
    New {
        /// Who will hold it; keys of one tenant share caches
        #[arg(long, value_name = "NAME")]
        tenant: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting in force, as a configuration file
    Show {
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Say whether the configuration is sound
    Check {
        #[command(flatten)]
        common: CommonArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LoadtestCommand {
    /// A fixed number of users, each with one request in flight
    Run(Box<loadtest::RunArgs>),
}
