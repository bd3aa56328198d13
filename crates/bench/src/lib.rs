//! Measures the engine on this machine: what share of the hardware's peaks it reaches, and how it stands beside
//! llama.cpp's server.
//!
//! It exists because a rate alone says nothing: 200 tokens a second are good on one machine and a fault on another. So
//! the peaks of arithmetic and memory are measured in the same run, each figure is laid beside the bound that holds
//! for it, and another engine is measured in turns, on the same file and threads. It must not know how the engine
//! computes: it sees steps, tokens and HTTP.
//!
//! # Definitions
//!
//! | figure | definition |
//! |---|---|
//! | prefill, in process | a prompt that shares nothing with another, alone; its tokens / the time of its steps |
//! | decode, in process | steps that compute one token for each of the streams and nothing else; tokens / time from the first such step's start to the last one's end |
//! | least time of a step | the larger one of two: multiply-adds with weights / their peak + multiply-adds of attention / the peak of floats; and bytes of weights, keys and values that must be read / the peak of reading |
//! | share of the bound | least time / time: 1 is all that the machine has |
//! | decode, over HTTP | tokens that came after the last stream's first token and no later than the first stream's last one / that time: all streams are being answered, and no prompt is computed |
//! | prefill, over HTTP | tokens of the prompt, template included / time to first token of a client alone, answers of one token |
//! | HTTP, 8 clients | output tokens / time from the first request's sending to the last answer's end |
//! | resident | `VmRSS` after some requests; most resident: `VmHWM`, loading included |
//! | start to ready | from starting the process to its first good answer to a probe of its health |
//! | ratio | of ours to the peer's in each pair of runs; the middle one of all pairs, with the least and the most |

mod error;
mod fit;
mod in_process;
mod load;
mod part;
mod peaks;
mod python;
mod report;
mod roofline;
mod servers;
mod side_by_side;
mod statistics;
mod steps;
mod table;

pub use error::Error;
pub use part::Part;
pub use peaks::Peaks;
pub use report::{Figure, Model, Ratio, Report};
pub use roofline::{Bound, Point, Work};
pub use servers::spin;
pub use statistics::median;

use std::path::PathBuf;
use std::sync::Arc;

use engine::{LoadOptions, LoadedModel};
use tokio_util::sync::CancellationToken;

/// What to measure, and with what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program whose workers are measured over HTTP.
    pub program: PathBuf,
    /// Where the peer is kept once it is installed.
    pub cache_dir: PathBuf,
    /// A `.gguf` file, or a folder, which no peer can be measured with.
    pub model: PathBuf,
    /// What it is called.
    pub model_name: String,
    /// Threads that compute, on every side.
    pub threads: usize,
    /// Which parts; none twice.
    pub parts: Vec<Part>,
    /// Whether llama.cpp's server is measured, too.
    pub with_peer: bool,
    /// How often each measurement in this process is repeated.
    pub repeats: usize,
    /// How often each side of a comparison is measured.
    pub pairs: usize,
    /// Streams of the decode in this process.
    pub streams: Vec<usize>,
    /// Tokens of a prompt of the prefill.
    pub prompt_tokens: usize,
    /// Tokens of an answer of the decode.
    pub answer_tokens: usize,
    /// What to call the profile that is fitted to the steps in this process, if one is.
    pub fit: Option<String>,
}

/// Hears what is going on, in words.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// Measures everything that was asked for.
///
/// # Errors
/// If the model cannot be loaded, a server does not start or fails a request, or `stop` was cancelled: then nothing is
/// reported, and every process that was started has ended.
pub async fn run(options: Options, progress: Progress, stop: CancellationToken) -> Result<Report, Error> {
    options.validate()?;
    let peaks = match options.measures_in_process() {
        true => Some(peaks::measure(options.threads, &progress).await?),
        false => None,
    };
    let mut report = Report::new(&options, peaks);
    if let Some(peaks) = peaks {
        let model = load(&options, &progress).await?;
        let measured = in_process::measure(&model, &options, &peaks, &progress, &stop).await?;
        report.model.parameters = Some(measured.parameters);
        report.model.weight_bytes = Some(measured.weight_bytes);
        report.engine = measured.points;
        (report.profile, report.step_log) = measured.profile.unzip();
    }
    if options.parts.iter().any(|part| part.is_over_http()) {
        report.figures = side_by_side::measure(&options, &progress, &stop).await?;
    }
    Ok(report)
}

/// Beside the runtime, for it takes seconds.
async fn load(options: &Options, progress: &Progress) -> Result<LoadedModel, Error> {
    progress(&format!("loading {}", options.model_name));
    let config = in_process::engine_config(options);
    let load = LoadOptions { name: options.model_name.clone(), version: "bench".into(), config };
    let path = options.model.clone();
    let loading = tokio::task::spawn_blocking(move || LoadedModel::load(&path, load));
    Ok(loading.await.map_err(|_| Error::broken("loading the model panicked"))??)
}

impl Options {
    fn measures_in_process(&self) -> bool {
        self.fit.is_some() || self.parts.iter().any(|part| !part.is_over_http())
    }

    fn validate(&self) -> Result<(), Error> {
        let refuse = |what: &str| Err(Error::Options(what.to_owned()));
        match self {
            Self { repeats: 0, .. } => refuse("--repeats is 0, but must be at least 1"),
            Self { pairs: 0, .. } => refuse("--pairs is 0, but must be at least 1"),
            Self { streams, .. } if streams.is_empty() || streams.contains(&0) => {
                refuse("--streams must name one number or more, each at least 1")
            }
            Self { prompt_tokens, answer_tokens, .. } if *prompt_tokens < 2 || *answer_tokens < 8 => {
                refuse("--prompt-tokens must be at least 2 and --answer-tokens at least 8")
            }
            _ => Ok(()),
        }
    }
}
