//! The command line.

mod bench;
mod model;
mod rollout;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

pub(crate) use self::bench::{BenchArgs, BenchCommand};
pub(crate) use self::model::{RegisterArgs, UpAlsoArgs, VersionCommand, WorkerAlsoArgs};
pub(crate) use self::rollout::{
    ControllerArgs, ReachArgs, RolloutCommand, SimulateArgs, StartArgs, StrategyKind,
};
use crate::config::Role;
use crate::simulated::EngineKind;

/// Serve language models: a gateway that answers OpenAI's API, workers that run the model, and tools around them.
#[derive(Debug, Parser)]
#[command(
    name = "tenk",
    version,
    max_term_width = 110,
    after_help = "\
Start here:
  tenk up              a gateway and two workers on this machine
  tenk up --engine simulated --workers 50
                       fifty simulated GPUs, without a model
  tenk model list      what is installed and what can be pulled
  tenk loadtest run --target http://127.0.0.1:8080 --users 8

Every setting of a configuration file can also be an environment variable:
TENK_GATEWAY__LISTEN sets `listen` in [gateway]. Variables win over the file,
flags over both; `tenk config show` prints the result.
TENK_LOG=debug logs more, TENK_CACHE_DIR says where models are kept,
HF_ENDPOINT and HF_TOKEN are used where models come from Hugging Face."
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
    /// Pull, list, inspect and quantize models, and keep their versions
    #[command(subcommand, after_help = "Example:\n  tenk model list")]
    Model(ModelCommand),
    /// List, show and fit the profiles of simulated devices
    #[command(subcommand, after_help = "Example:\n  tenk profile list")]
    Profile(ProfileCommand),
    /// Try how new versions of a model are judged
    #[command(subcommand, after_help = "Example:\n  tenk rollout simulate")]
    Rollout(RolloutCommand),
    /// Make API keys
    #[command(subcommand, after_help = "Example:\n  tenk key new --tenant alice")]
    Key(KeyCommand),
    /// Show and check the configuration
    #[command(subcommand, after_help = "Example:\n  tenk config show")]
    Config(ConfigCommand),
    /// Start a controller of rollouts alone
    Controller(ControllerArgs),
    /// Measure how well a model predicts
    #[command(subcommand, after_help = "Example:\n  tenk eval perplexity --text README.md --types q8_0,q4_0")]
    Eval(EvalCommand),
    /// Measure the engine beside the machine's peaks and beside another engine
    #[command(subcommand, after_help = "Example:\n  tenk bench engine")]
    Bench(BenchCommand),
    /// Load a server and report what it did
    #[command(
        subcommand,
        after_help = "Example:\n  tenk loadtest run --target http://127.0.0.1:8080 --users 8"
    )]
    Loadtest(loadtest::Command),
    /// Learn by measuring: a question, your prediction, a minute on this machine, the explanation
    #[command(subcommand, after_help = "Example:\n  tenk lab run batching")]
    Lab(loadtest::LabCommand),
}

/// Where settings come from.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct ConfigArgs {
    /// A TOML file with one section a part; `tenk config show` prints one with every default
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// What every role takes.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct RoleArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// How log lines look
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// End in good order when standard input does, for whoever starts it and may die without a word
    #[arg(long, hide = true)]
    pub(crate) end_with_stdin: bool,
}

/// Plain lines for people, or one JSON object a line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl From<LogFormat> for telemetry::LogFormat {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// What roles that compute take.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct ComputeArgs {
    /// Threads that compute; one for each core unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) threads: Option<u16>,
    /// Where to compute; `auto` is a GPU if one answers and this build has CUDA, else the CPU [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<Device>,
}

/// `tenk eval`
#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Among how many equally likely tokens the model would have to guess each token of a text: computed in 32 bits, in 8
    /// and, where the file has them, in 4, and from each of several types of file, side by side
    #[command(after_help = "\
Examples:
  tenk eval perplexity --text README.md
  tenk eval perplexity --text book.txt --types q8_0,q4_0 --json
  tenk eval perplexity --text book.txt --kv-dtypes f16,int8")]
    Perplexity(PerplexityArgs),
}

/// `tenk eval perplexity`
#[derive(Debug, ClapArgs)]
pub(crate) struct PerplexityArgs {
    /// The text, better one that the model was not trained on
    #[arg(long, value_name = "FILE")]
    pub(crate) text: PathBuf,
    /// A name of `tenk model list`, a path, or hf:OWNER/REPO [default: as configured]
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Types that the model's file is quantized to besides, such as q8_0,q4_0
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    pub(crate) types: Vec<String>,
    /// How keys and values are kept, one after the other [default: as configured]
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    pub(crate) kv_dtypes: Vec<KvDtype>,
    /// Tokens of a window; the first half is context, the second half is scored
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) window: usize,
    /// The most tokens of the text
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    pub(crate) tokens_max: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KvDtype {
    F16,
    F32,
    Int8,
}

impl From<KvDtype> for engine::ops::KvDtype {
    fn from(dtype: KvDtype) -> Self {
        match dtype {
            KvDtype::F16 => Self::F16,
            KvDtype::F32 => Self::F32,
            KvDtype::Int8 => Self::Int8,
        }
    }
}

/// What a machine computes with.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Device {
    Auto,
    Cpu,
    Cuda,
}

impl From<Device> for engine::DeviceKind {
    fn from(device: Device) -> Self {
        match device {
            Device::Auto => Self::Auto,
            Device::Cpu => Self::Cpu,
            Device::Cuda => Self::Cuda,
        }
    }
}

/// What computes answers.
#[derive(Clone, Copy, Debug, Default, ClapArgs)]
pub(crate) struct EngineArgs {
    /// What computes the answers
    #[arg(long, value_name = "ENGINE", default_value = "model")]
    pub(crate) engine: EngineKind,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  tenk up
  tenk up --workers 4 --redis redis://127.0.0.1:6379
  tenk up --model ./my-model.gguf --listen 127.0.0.1:9000
  tenk up --model smollm2-135m-instruct --model ./other.gguf
  tenk up --engine simulated --workers 50
  tenk up --engine simulated --profile l40s-llama-8b --profile ./mine.toml
  tenk up --model registry:mine --also registry:mine@canary --also-workers 1

Requests call a model by its name in `tenk model list`, by OWNER/REPO if it is
from Hugging Face, and by its file's name without .gguf if it is a path: here
`other`. The workers listen on free ports of this machine, for the gateway
alone. Ctrl-C lets requests under way finish; a second one ends at once.")]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) role: RoleArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Workers for each model or profile
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: u16,
    /// A model's name, hf:OWNER/REPO, registry:NAME@VERSION, or a path to a .gguf file or model folder; may be given
    /// several times
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Vec<String>,
    #[command(flatten)]
    pub(crate) also: UpAlsoArgs,
    /// Whose time a simulated engine takes: a name of `tenk profile list`, or a .toml file [default: h100-llama-8b];
    /// may be given several times
    #[arg(long, value_name = "PROFILE")]
    pub(crate) profile: Vec<String>,
    /// Start no controller: versions share users as they share workers
    #[arg(long)]
    pub(crate) no_controller: bool,
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
  tenk gateway --listen 0.0.0.0:8080 --config gateway.toml

Where others can reach it, it wants API keys: `tenk key new` makes one and
prints what gateway.toml needs. Any server of OpenAI's API can be a worker.")]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    pub(crate) role: RoleArgs,
    /// Where to listen [default: 127.0.0.1:8080]; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// The controller of rollouts, such as http://127.0.0.1:8090
    #[arg(long, value_name = "URL")]
    pub(crate) controller: Option<String>,
    /// A worker's address; may be given several times, and adds to `workers` in [gateway]
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
  tenk worker --model ./my-model.gguf --served-model-name mine
  tenk gateway --worker http://127.0.0.1:8081      puts a gateway in front
  tenk worker --engine simulated --profile l40s-llama-8b
  tenk worker --step-log steps.jsonl
  tenk worker --model registry:mine@1 --also registry:mine@2

A simulated worker has faults on request: POST to /admin/faults one of
{\"kind\":\"crash\"}, {\"kind\":\"hang\",\"for_s\":5}, {\"kind\":\"slow\",\"factor\":3},
{\"kind\":\"error_rate\",\"share\":0.1}, {\"kind\":\"garbage\"},
{\"kind\":\"drop\",\"share\":0.1}; GET lists them, DELETE ends them.

Unless --served-model-name is given, requests call a model by its name in
`tenk model list`, by OWNER/REPO if it is from Hugging Face, and by its file's
name without .gguf if it is a path: `./my-model.gguf` is `my-model`.")]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) role: RoleArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Where to listen [default: 127.0.0.1:8081]; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// A model's name, hf:OWNER/REPO, registry:NAME@VERSION, or a path
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) also: WorkerAlsoArgs,
    /// What requests call the model; its own name unless given
    #[arg(long, value_name = "NAME")]
    pub(crate) served_model_name: Option<String>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Whose time a simulated engine takes: a name of `tenk profile list`, or a .toml file [default: h100-llama-8b]
    #[arg(long, value_name = "PROFILE")]
    pub(crate) profile: Option<String>,
    /// Write each step's runs and time to this file, for `tenk profile fit`
    #[arg(long, value_name = "FILE")]
    pub(crate) step_log: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// List the profiles that come with it
    #[command(after_help = "Example:\n  tenk profile list")]
    List,
    /// Print a profile: device, model, what was fitted to what, and what is left between them
    #[command(after_help = "Example:\n  tenk profile show h100-llama-8b > mine.toml")]
    Show {
        /// A name of the list, or a .toml file
        profile: String,
    },
    /// Fit a profile to an engine's step log, or anew to a profile's own figures
    #[command(after_help = "\
Examples:
  tenk worker --step-log steps.jsonl
  tenk profile fit --step-log steps.jsonl --name mine > mine.toml
  tenk profile fit --figures mine.toml > fitted.toml

The profile goes to standard output, what is left between it and what it was
fitted to, to standard error.")]
    Fit {
        /// What `tenk worker --step-log` wrote
        #[arg(long, value_name = "FILE", requires = "name")]
        step_log: Option<PathBuf>,
        /// What to call the profile
        #[arg(long, value_name = "NAME", requires = "step_log")]
        name: Option<String>,
        /// A profile whose figures are to be fitted to
        #[arg(
            long,
            value_name = "PROFILE",
            required_unless_present = "step_log",
            conflicts_with = "step_log"
        )]
        figures: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Fetch a model, or make sure that it is there
    #[command(after_help = "\
Examples:
  tenk model pull smollm2-135m-instruct
  tenk model pull hf:Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf

The path goes to standard output. A download that broke off goes on where it
stopped. TENK_CACHE_DIR says where models are kept, HF_TOKEN opens private
repositories, HF_ENDPOINT names a mirror.")]
    Pull {
        /// A name from `tenk model list`, or hf:OWNER/REPO; /FILE.gguf and @REVISION may follow
        model: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List what is installed and what can be pulled
    #[command(after_help = "\
Example:
  tenk model list

A .gguf file put into a folder of its own beside the others is listed, too.")]
    List {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Print a model's shape, and what it takes to hold it
    #[command(after_help = "\
Examples:
  tenk model inspect smollm2-135m-instruct
  tenk model inspect --json ./my-model.gguf")]
    Inspect {
        /// A name or a path
        model: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Write a GGUF model anew with its matrices in another type
    #[command(after_help = "\
Example:
  tenk model quantize my-model.gguf my-model.q8_0.gguf --to q8_0

The quality is never better than the input's. A matrix whose rows do not fit
the type's blocks takes q8_0 or f16, and is named.")]
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
    #[command(flatten)]
    Versions(VersionCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key for a tenant; it is printed once and kept nowhere
    #[command(after_help = "\
Example:
  tenk key new --tenant alice

The key goes to standard output; what the gateway's configuration needs, its
SHA-256, goes to standard error.")]
    New {
        /// Who will hold it; keys of one tenant share caches
        #[arg(long, value_name = "NAME")]
        tenant: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting in force, as a configuration file
    #[command(after_help = "\
Examples:
  tenk config show > tenk.toml
  TENK_SCHEDULER__MAX_NUM_SEQS=64 tenk config show

A secret that is set is shown as a comment, such as # api_key = \"***\".")]
    Show {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Say whether the configuration is sound
    #[command(after_help = "\
Examples:
  tenk config check --config tenk.toml
  tenk config check --config worker.toml --role worker")]
    Check {
        /// What is to start with it
        #[arg(long, default_value = "up")]
        role: Role,
        #[command(flatten)]
        config: ConfigArgs,
    },
}
