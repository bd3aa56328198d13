//! `tenk model register|versions|alias|diff`

mod diff;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use engine::model::Weights;
use model_store::TerminalProgress;
use registry::{NewVersion, Registered, Registry, Selector, Source, Version};

use super::print;
use crate::args::{RegisterArgs, VersionCommand};
use crate::config::Config;
use crate::models::{megabytes, pull};
use crate::registered::open;
use crate::voice::Voice;

const SIMULATED: &str = "simulated:";
const CHECKSUM_DIGITS_SHOWN: usize = 12;

pub(super) fn run(command: VersionCommand) -> Result<()> {
    match command {
        VersionCommand::Register(args) => register(args),
        VersionCommand::Versions { name, json, config } => {
            let registry = open(&Config::load(config.config.as_deref())?)?;
            print(&versions(&registry, &name, json)?)
        }
        VersionCommand::Alias { name, alias, version, remove: _, config } => {
            let registry = open(&Config::load(config.config.as_deref())?)?;
            set_alias(&registry, &name, &alias, version)
        }
        VersionCommand::Diff { name, from, to, config } => {
            let registry = open(&Config::load(config.config.as_deref())?)?;
            let (from, to) = (registry.get(&name, &from)?, registry.get(&name, &to)?);
            print(&diff::diff(&registry, &from, &to)?)
        }
    }
}

fn register(args: RegisterArgs) -> Result<()> {
    let config = Config::load(args.config.config.as_deref())?;
    let registry = open(&config)?;
    registry::check_name(&args.name)?;
    if let Some(alias) = &args.alias {
        registry::check_alias(alias)?;
    }
    let (source, quantization) = if args.source == SIMULATED {
        (Source::Simulated, args.quantization)
    } else {
        let path = pull(&config, &args.source, Voice::Plain)?.path;
        let header = || Ok::<_, anyhow::Error>(Weights::open(&path)?.quantization());
        let quantization = args.quantization.map_or_else(header, Ok);
        let advice = "its header does not say how it is quantized, say it with --quantization";
        let quantization = quantization.context(advice)?;
        (Source::Path(path), Some(quantization))
    };
    let new = NewVersion {
        quantization,
        metrics: args.metric.into_iter().collect(),
        tags: args.tag.into_iter().collect(),
        ..NewVersion::new(args.name, source)
    };
    let Registered { version, is_new } = registry.register_with(&new, &TerminalProgress::stderr())?;
    let Version { name, version: number, .. } = &version;
    if is_new {
        eprintln!("registered version {number} of {name} ({}) in {}", facts(&version), registry.place());
    } else {
        eprintln!("{name} has this very file as version {number} already, since {}", version.created());
        if !new.metrics.is_empty() || !new.tags.is_empty() {
            registry.annotate(name, *number, &new.metrics, &new.tags)?;
            eprintln!("its metrics and tags were added to");
        }
    }
    if let Some(alias) = &args.alias {
        registry.set_alias(name, alias, *number)?;
        eprintln!("{alias} is version {number} from now on");
    }
    // Alone on standard output, for scripts.
    print(&format!("{number}\n"))
}

fn set_alias(registry: &Registry, name: &str, alias: &str, version: Option<u64>) -> Result<()> {
    let before = registry.aliases(name)?.get(alias).copied();
    let was = before.map_or(String::new(), |before| format!(", it was {before}"));
    match version {
        Some(version) => {
            registry.set_alias(name, alias, version)?;
            eprintln!("{alias} of {name} is version {version} from now on{was}");
        }
        None if registry.remove_alias(name, alias)? => eprintln!("{alias} of {name} is gone{was}"),
        // Says what there is instead.
        None => {
            registry.get(name, &Selector::Alias(alias.to_owned()))?;
        }
    }
    Ok(())
}

fn versions(registry: &Registry, name: &str, json: bool) -> Result<String> {
    let versions = registry.versions(name)?;
    if versions.is_empty() {
        // Says what there is instead.
        registry.get(name, &Selector::Number(1))?;
    }
    let mut aliases: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (alias, version) in registry.aliases(name)? {
        aliases.entry(version).or_default().push(alias);
    }
    if json {
        let rows = versions.iter().map(|version| {
            let mut row = serde_json::to_value(version)?;
            row["aliases"] = aliases.get(&version.version).cloned().unwrap_or_default().into();
            Ok(row)
        });
        let rows: Vec<serde_json::Value> = rows.collect::<Result<_>>()?;
        return Ok(format!("{}\n", serde_json::to_string_pretty(&rows)?));
    }
    let mut rows = vec![
        ["version", "aliases", "quantization", "size", "checksum", "created", "source"].map(String::from),
    ];
    for version in &versions {
        rows.push([
            version.version.to_string(),
            aliases.get(&version.version).map(|names| names.join(",")).unwrap_or_default(),
            version.quantization.clone().unwrap_or_else(|| "-".into()),
            size(version),
            checksum(version),
            version.created(),
            version.source.to_string(),
        ]);
    }
    let place = registry.place();
    Ok(table(&rows) + &format!("\nin {place}; `--model registry:{name}@VERSION` serves one\n"))
}

/// Columns as wide as what they hold.
fn table(rows: &[[String; 7]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn facts(version: &Version) -> String {
    match &version.source {
        Source::Simulated => "simulated, without a file".to_owned(),
        _ => {
            let quantization = version.quantization.as_deref().unwrap_or("unknown type");
            format!("{quantization}, {}, SHA-256 {}…", size(version), checksum(version))
        }
    }
}

fn size(version: &Version) -> String {
    if version.checksum.is_some() { megabytes(version.size_bytes) } else { "-".into() }
}

fn checksum(version: &Version) -> String {
    version.checksum.as_ref().map_or("-".into(), |sum| sum.chars().take(CHECKSUM_DIGITS_SHOWN).collect())
}

/// The version's file, if it is on this machine.
fn local(registry: &Registry, version: &Version) -> Option<PathBuf> {
    registry.local_path(version).filter(|path| path.is_file())
}
