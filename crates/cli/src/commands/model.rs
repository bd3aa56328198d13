//! `tenk model`: fetch, list, look into, quantize.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use engine::Inspection;
use engine::quantize::{QuantizeOptions, dtype_name, parse_dtype, quantize};

use super::prepare::{cache_root, megabytes, pull, resolve};
use super::settings;
use crate::args::{Common, ModelCommand};
use crate::config::Config;

const SECTIONS: [&str; 2] = ["model", "model_store"];

pub(super) fn run(command: ModelCommand) -> anyhow::Result<ExitCode> {
    match command {
        ModelCommand::Pull { model, common } => {
            let resolved = pull(&config(&common)?, &model)?;
            println!("{}", resolved.path.display());
        }
        ModelCommand::List { common } => list(&config(&common)?)?,
        ModelCommand::Inspect { model, json, common } => inspect(&config(&common)?, &model, json)?,
        ModelCommand::Quantize { model, to, output, force, common } => {
            let input = resolve(&config(&common)?, &model)?;
            quantize_file(&input.path, &output, &to, force)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn config(common: &Common) -> anyhow::Result<Config> {
    let settings = settings(common, Vec::new())?;
    settings.validate_sections(&SECTIONS)?;
    Ok(settings.config)
}

fn list(config: &Config) -> anyhow::Result<()> {
    let models = model_store::list(&cache_root(config)?)?;
    let width = models.iter().map(|model| model.reference.len()).max().unwrap_or_default();
    for model in models {
        let state = if model.installed.is_some() { "installed" } else { "not installed" };
        let size = megabytes(model.size_bytes);
        let line = format!("{:width$}  {size:>9}  {state:13}  {}", model.reference, model.description);
        println!("{}", line.trim_end());
    }
    Ok(())
}

fn inspect(config: &Config, model: &str, json: bool) -> anyhow::Result<()> {
    let resolved = resolve(config, model)?;
    let inspection = engine::inspect(&resolved.path)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&inspection).context("cannot write JSON")?);
        return Ok(());
    }
    println!("{}", resolved.path.display());
    for (label, value) in rows(&inspection) {
        println!("  {label:22}{value}");
    }
    Ok(())
}

fn rows(inspection: &Inspection) -> [(&'static str, String); 11] {
    let heads = format!("{} ({} for keys and values)", inspection.num_heads, inspection.num_kv_heads);
    let template = match &inspection.chat_template {
        Some(template) => format!("{} characters", template.chars().count()),
        None => "none; ChatML is used".to_owned(),
    };
    [
        ("format", format!("{}, {}", inspection.format, inspection.quantization)),
        ("architecture", inspection.architecture.to_owned()),
        ("parameters", format!("{:.1} M", inspection.parameters as f64 / 1e6)),
        ("layers", inspection.num_layers.to_string()),
        ("hidden size", inspection.hidden_size.to_string()),
        ("heads", heads),
        ("vocabulary", format!("{} tokens", inspection.vocab_size)),
        ("context", format!("{} tokens", inspection.context_len)),
        ("on disk", megabytes(inspection.file_bytes)),
        (
            "in memory",
            format!(
                "{} of weights, {} for 1,000 tokens of KV-cache",
                megabytes(inspection.weights_bytes as u64),
                megabytes(inspection.kv_bytes_per_1000_tokens as u64)
            ),
        ),
        ("chat template", template),
    ]
}

fn quantize_file(input: &Path, output: &Path, to: &str, force: bool) -> anyhow::Result<()> {
    let dtype = parse_dtype(to)?;
    let report = quantize(input, output, dtype, &QuantizeOptions { force }, |progress| {
        if progress.tensors_done == progress.tensors_total || progress.tensors_done % 32 == 0 {
            eprintln!("{} of {} tensors", progress.tensors_done, progress.tensors_total);
        }
    })?;
    for tensor in report.fallbacks() {
        eprintln!(
            "{} is {}, as its rows do not fit {}",
            tensor.name,
            dtype_name(tensor.to),
            dtype_name(dtype)
        );
    }
    println!(
        "{}: {}, from {}",
        output.display(),
        megabytes(report.output_bytes),
        megabytes(report.input_bytes)
    );
    Ok(())
}
