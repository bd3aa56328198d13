//! `tenk bench`

use std::path::PathBuf;

use bench::Part;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::ConfigArgs;

/// `tenk bench`
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measure the engine on this machine: prefill and decode beside the hardware's peaks, and beside llama.cpp
    #[command(after_help = "\
Examples:
  tenk bench engine
  tenk bench engine --peer llama.cpp
  tenk bench engine --peer llama.cpp --only prefill,decode --pairs 9
  tenk bench engine --only roofline --streams 1,64 --json roofline.json
  tenk bench engine --fit my-machine           writes my-machine.toml, which
  tenk up --engine simulated --profile ./my-machine.toml     takes

It computes on the processor, as workers without a GPU do. The peaks are
measured first, in the same run; `share` says how much of the bound that holds
for a step it reaches, and 100% is all that the machine has.

The parts are roofline (in this process), prefill, decode, http, contended,
prefix, memory and start (over HTTP, with servers that it starts and ends).
Without --peer it measures roofline and prefix. A ratio is ours to the other's,
the middle one of all pairs, with the least and the most. On a machine that does
other things meanwhile, trust ratios and not rates.

llama.cpp's server comes as a Python package, into the cache folder, once.")]
    Engine(BenchArgs),
    /// Keep a core busy until standard input ends
    #[command(hide = true)]
    Spin,
}

/// `tenk bench engine`
#[derive(Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    /// A name of `tenk model list`, a path, or hf:OWNER/REPO [default: as configured]
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// What to measure besides, in turns
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<Peer>,
    /// Only these parts, such as roofline,decode
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    pub(crate) only: Vec<Part>,
    /// Threads that compute, on every side; one for each core unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) threads: Option<u16>,
    /// How often each measurement in this process is repeated; medians are shown
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) repeats: usize,
    /// How often each side of a comparison is measured, in turns; medians are shown
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) pairs: usize,
    /// Streams of the decode in this process
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,4,8,16,32")]
    pub(crate) streams: Vec<usize>,
    /// Tokens of the prompt of the prefill in this process
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) prompt_tokens: usize,
    /// Tokens of each answer of the decode in this process
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) answer_tokens: usize,
    /// Fit a profile for simulated engines to the steps in this process, and write it to NAME.toml, or to a FILE that
    /// ends so; the steps go to a .jsonl file beside it
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) fit: Option<PathBuf>,
    /// Print JSON; to a file, if one is given, beside the table
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub(crate) json: Option<Option<PathBuf>>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// Engines that ours is laid beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// Its server, from the Python package xllamacpp
    #[value(name = "llama.cpp")]
    LlamaCpp,
}
