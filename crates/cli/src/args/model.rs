//! `tenk model register|versions|alias|diff`, and how several versions are served side by side

use std::net::SocketAddr;

use clap::{Args as ClapArgs, Subcommand};
use registry::Selector;

use super::ConfigArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum VersionCommand {
    /// Register a model's file as the next version of a name
    #[command(after_help = "\
Examples:
  tenk model register mine ./my-model.gguf --alias stable
  tenk model register mine smollm2-135m-instruct --metric perplexity=8.1 --tag team=search
  tenk model register mine simulated: --alias canary
  tenk worker --model registry:mine@stable    serves it

Its SHA-256 is taken, and whoever serves the version checks it. The file stays
where it is, or goes to MLflow if `url` in [registry] names one. The version's
number goes to standard output. A file that is registered already keeps its
number; metrics and tags are added to it. `simulated:` is a version without a
file, for engines that are simulated.")]
    Register(RegisterArgs),
    /// List a model's versions
    #[command(after_help = "\
Examples:
  tenk model versions mine
  tenk model versions mine --json")]
    Versions {
        /// The name it was registered under
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Make an alias, such as stable or canary, mean a version
    #[command(after_help = "\
Examples:
  tenk model alias mine stable 2
  tenk model alias mine canary --remove")]
    Alias {
        /// The name it was registered under
        name: String,
        /// Letters, digits, `_` and `-`; neither `latest` nor like a version's number
        alias: String,
        /// The version that it is to mean
        #[arg(value_parser = clap::value_parser!(u64).range(1..), required_unless_present = "remove")]
        version: Option<u64>,
        /// Take the alias away
        #[arg(long, conflicts_with = "version")]
        remove: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Say what differs between two versions
    #[command(after_help = "\
Examples:
  tenk model diff mine 1 2
  tenk model diff mine stable canary

Of two .gguf files that are on this machine, the headers are compared, too.")]
    Diff {
        /// The name it was registered under
        name: String,
        /// A version's number, or an alias
        from: Selector,
        /// A version's number, or an alias
        to: Selector,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// `tenk model register`
#[derive(Debug, ClapArgs)]
pub(crate) struct RegisterArgs {
    /// What requests will call it; letters, digits, `.`, `_` and `-`
    pub(crate) name: String,
    /// A path, a name of `tenk model list`, hf:OWNER/REPO, or simulated: for a version without a file
    pub(crate) source: String,
    /// The type of most of its weights, such as q8_0 [default: what the file says]
    #[arg(long, value_name = "TYPE")]
    pub(crate) quantization: Option<String>,
    /// What was measured of it; may be given several times
    #[arg(long, value_name = "KEY=NUMBER", value_parser = metric)]
    pub(crate) metric: Vec<(String, f64)>,
    /// What to find it by; may be given several times
    #[arg(long, value_name = "KEY=TEXT", value_parser = tag)]
    pub(crate) tag: Vec<(String, String)>,
    /// An alias that is to mean it from now on
    #[arg(long, value_name = "ALIAS")]
    pub(crate) alias: Option<String>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=TEXT, such as team=search")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn metric(text: &str) -> Result<(String, f64), String> {
    let expected = "expected KEY=NUMBER, such as perplexity=8.1";
    let (key, value) = text.split_once('=').ok_or(expected)?;
    Ok((key.to_owned(), value.parse().map_err(|_| expected)?))
}

/// A worker's further engines.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct WorkerAlsoArgs {
    /// A model to serve beside the first, in this process at an address of its own, such as another version of it;
    /// may be given several times
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    pub(crate) also: Vec<String>,
    /// Where those listen, one after the other [default: the next ports]
    #[arg(long, value_name = "ADDR", value_delimiter = ',', requires = "also")]
    pub(crate) also_listen: Vec<SocketAddr>,
}

/// Further workers of `tenk up`.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct UpAlsoArgs {
    /// A model to serve beside the others, such as registry:NAME@canary for another version of one; may be given
    /// several times
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    pub(crate) also: Vec<String>,
    /// Workers for each of those
    #[arg(long, value_name = "N", requires = "also", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) also_workers: u16,
}
