//! `tenk lab`: a question, a prediction, a minute of measuring on the reader's own machine, and what came of it.
//!
//! A lab measures whatever it is run on: its tables are of this machine, and its text says why numbers are as they
//! are, never what they are. It starts the servers that it needs as children of this very program, and ends them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::interrupt::Interrupt;

mod batching;
mod bench;
mod checkout;
mod child;
mod chunked_prefill;
mod kv_cache;
mod loads;
mod page;
mod predict;
mod response_cache;
mod table;
mod text;

pub use child::Server;

use bench::Bench;
use checkout::Checkout;
use predict::Prediction;
use table::{Bars, Table};
use text::Text;

/// The files of a lab within its folder.
const DOCUMENT: &str = "lab.json";
const PAGE: &str = "lab.html";

/// Labs: learn by measuring.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum LabCommand {
    /// List the labs and their questions
    #[command(after_help = "Example:\n  tenk lab list")]
    List,
    /// Run a lab: about a minute on this machine
    #[command(after_help = "\
Examples:
  tenk lab run batching
  tenk lab run kv-cache --predict 5
  tenk lab run chunked-prefill
  tenk lab run response-cache --yes --report-dir my-lab

It asks for a prediction, starts the servers that it needs, loads them, and
writes lab.html and lab.json. Ctrl-C ends the lab; its servers end
with it, however it ends.")]
    Run(LabArgs),
}

/// Run a lab.
#[derive(Clone, Debug, clap::Args)]
pub struct LabArgs {
    /// Which one
    lab: Lab,
    /// What you expect, as a number; asked for unless given
    #[arg(long, value_name = "NUMBER")]
    predict: Option<f64>,
    /// Ask for nothing
    #[arg(long)]
    yes: bool,
    /// The model to serve
    #[arg(long, default_value = "smollm2-135m-instruct", value_name = "MODEL")]
    model: String,
    /// Where its page and its figures go [default: lab-NAME]
    #[arg(long, value_name = "DIR")]
    report_dir: Option<PathBuf>,
    /// The program whose servers are measured, instead of this one
    #[arg(long, value_name = "PATH", hide = true)]
    program: Option<PathBuf>,
}

/// The labs that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lab {
    /// What a batch gains, and what it costs each stream
    Batching,
    /// What a repeated prefix saves, and what happens when its memory runs out
    KvCache,
    /// How long a step may be, and who waits for it
    ChunkedPrefill,
    /// How many answers need no model at all
    ResponseCache,
}

/// What a lab measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Findings {
    /// The number that the prediction was about.
    measured: f64,
    /// The same in words, and whatever else the numbers say.
    sentences: Vec<String>,
    tables: Vec<Table>,
    /// The plots.
    bars: Vec<Bars>,
}

/// All of a lab, for `lab.json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    lab: &'a str,
    question: &'a str,
    prediction: Option<f64>,
    findings: &'a Findings,
}

impl Lab {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn text(self) -> Text {
        Text::parse(match self {
            Self::Batching => batching::TEXT,
            Self::KvCache => kv_cache::TEXT,
            Self::ChunkedPrefill => chunked_prefill::TEXT,
            Self::ResponseCache => response_cache::TEXT,
        })
    }

    async fn measure(self, bench: &mut Bench) -> Result<Findings, Error> {
        match self {
            Self::Batching => batching::measure(bench).await,
            Self::KvCache => kv_cache::measure(bench).await,
            Self::ChunkedPrefill => chunked_prefill::measure(bench).await,
            Self::ResponseCache => response_cache::measure(bench).await,
        }
    }
}

impl LabCommand {
    /// Does what was asked, and speaks on standard output.
    ///
    /// # Errors
    /// When a server cannot be started or nothing could be measured.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::List => {
                for lab in Lab::value_variants() {
                    say(&format!("{:<16}{}", lab.name(), lab.text().question));
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Run(args) => run(args).await,
        }
    }
}

async fn run(args: LabArgs) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    match conduct(args, &interrupt.stop).await {
        Err(Error::Interrupted) => Ok(interrupt.status().unwrap_or(ExitCode::FAILURE)),
        other => Ok(other.map(|()| ExitCode::SUCCESS)?),
    }
}

async fn conduct(args: LabArgs, stop: &CancellationToken) -> Result<(), Error> {
    let (name, text) = (args.lab.name(), args.lab.text());
    say(&format!("{}\n\nQuestion    {}\nPrediction  {}", text.title, text.question, text.prediction));
    let prediction = Prediction::take(args.predict, args.yes, stop).await?;
    let dir = args.report_dir.unwrap_or_else(|| PathBuf::from(format!("lab-{name}")));
    let program = match args.program {
        Some(program) => program,
        None => std::env::current_exe()
            .map_err(|error| Error::Broken(format!("where this program lies: {error}")))?,
    };
    let mut bench = Bench::new(program, args.model, dir.clone(), stop.clone())?;
    let findings = args.lab.measure(&mut bench).await?;

    for table in &findings.tables {
        say(&format!("\n{}", table.to_string().trim_end()));
    }
    for bars in &findings.bars {
        say(&format!("\n{}", bars.to_string().trim_end()));
    }
    say("");
    findings.sentences.iter().for_each(|sentence| say(sentence));
    let compared = prediction.compare(findings.measured);
    compared.iter().for_each(|compared| say(compared));
    say(&format!("\n{}", text.explanation.trim_end()));
    let document = Document {
        schema: 1,
        lab: &name,
        question: &text.question,
        prediction: prediction.0,
        findings: &findings,
    };
    write(&dir.join(DOCUMENT), &serde_json::to_string_pretty(&document).unwrap_or_default())?;
    let checkout = Checkout::around(&text);
    write(&dir.join(PAGE), &page::render(&text, &findings, compared.as_deref(), checkout.as_ref()))?;
    say(&format!("\n{} has the same to keep", dir.join(PAGE).display()));
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Speaks to the reader. One who has seen enough, such as `head`, does not end the measurement.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

#[cfg(test)]
mod tests;
