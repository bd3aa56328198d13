//! `tenk eval perplexity`

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use engine::model::dtype_name;
use engine::ops::KvDtype;
use engine::{LoadOptions, LoadedModel, WeightKind, inspect, perplexity};
use quantize::{QuantizeOptions, parse_dtype, quantize};
use serde::Serialize;

use super::{print, set_threads};
use crate::args::{EvalCommand, PerplexityArgs};
use crate::config::Config;
use crate::models::pull;
use crate::voice::Voice;

pub(super) fn run(command: EvalCommand) -> Result<ExitCode> {
    let EvalCommand::Perplexity(args) = command;
    set_threads(&args.compute)?;
    let rows = measure(&args)?;
    print(&if args.json { format!("{}\n", serde_json::to_string_pretty(&rows)?) } else { table(&rows) })?;
    Ok(ExitCode::SUCCESS)
}

/// One file's weights, computed with in one way.
#[derive(Debug, Serialize)]
struct Row {
    /// The type of the file's weights.
    weights: String,
    /// What they are computed as.
    computed_as: &'static str,
    /// How keys and values are kept.
    kv_cache: &'static str,
    perplexity: f64,
    /// To the first row's.
    ratio: f64,
    tokens: usize,
}

fn measure(args: &PerplexityArgs) -> Result<Vec<Row>> {
    let config = Config::load(args.config.config.as_deref())?;
    let name = args.model.as_deref().unwrap_or(&config.model.name);
    let model = pull(&config, name, Voice::Plain)?;
    let text = std::fs::read_to_string(&args.text)
        .with_context(|| format!("the text `{}` cannot be read", args.text.display()))?;
    let mut rows = Vec::new();
    measure_file(&mut rows, "as they are", &model.path, &text, args, &config)?;
    let folder = tempfile::tempdir()?;
    for name in &args.types {
        let to = parse_dtype(name)?;
        let path = folder.path().join(format!("{}.gguf", dtype_name(to)));
        quantize(&model.path, &path, to, &QuantizeOptions::default(), |_| {})?;
        measure_file(&mut rows, dtype_name(to), &path, &text, args, &config)?;
        std::fs::remove_file(&path)?;
    }
    Ok(rows)
}

fn measure_file(
    rows: &mut Vec<Row>,
    weights: &str,
    path: &Path,
    text: &str,
    args: &PerplexityArgs,
    config: &Config,
) -> Result<()> {
    let kv_dtypes: Vec<KvDtype> = match args.kv_dtypes.as_slice() {
        [] => vec![config.engine.kv_dtype],
        dtypes => dtypes.iter().copied().map(KvDtype::from).collect(),
    };
    let mut weight_dtypes = vec![(WeightKind::F32, "f32"), (WeightKind::Int8, "int8")];
    if inspect(path)?.num_four_bits > 0 {
        weight_dtypes.push((WeightKind::Auto, "int4"));
    }
    let ways =
        weight_dtypes.iter().flat_map(|weight| kv_dtypes.iter().map(move |kv_dtype| (*weight, *kv_dtype)));
    for ((weight_dtype, computed_as), kv_dtype) in ways {
        let device = engine::DeviceKind::Cpu;
        let config = engine::Config { weight_dtype, kv_dtype, device, ..config.engine.clone() };
        let kv_cache = kv_dtype.as_str();
        let options = LoadOptions { name: weights.to_owned(), version: String::new(), config };
        let model = LoadedModel::load(path, options)?;
        let mut tokens = model.tokenizer().encode(text, false, false)?;
        tokens.truncate(args.tokens_max);
        let windows = tokens.len() / args.window.max(1);
        let mut done = 0;
        let terminal = std::io::stderr().is_terminal();
        let result = perplexity(&model, &tokens, args.window, |so_far| {
            done += 1;
            if terminal {
                eprint!(
                    "\r{weights}, {computed_as}, KV {kv_cache}: {done}/{windows} windows, {:.3}   ",
                    so_far.value()
                );
            }
        });
        if terminal {
            eprintln!();
        }
        let found = result?;
        let ratio = found.value() / rows.first().map_or(found.value(), |first| first.perplexity);
        let (perplexity, tokens) = (found.value(), found.num_tokens);
        rows.push(Row { weights: weights.to_owned(), computed_as, kv_cache, perplexity, ratio, tokens });
    }
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<14}{:<14}{:<10}{:>12}{:>10}{:>10}\n",
        "weights", "computed as", "KV-cache", "perplexity", "ratio", "tokens"
    );
    for Row { weights, computed_as, kv_cache, perplexity, ratio, tokens } in rows {
        text += &format!(
            "{weights:<14}{computed_as:<14}{kv_cache:<10}{perplexity:>12.4}{ratio:>10.4}{tokens:>10}\n"
        );
    }
    text
}
