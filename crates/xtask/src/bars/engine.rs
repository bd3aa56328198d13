//! The engine beside llama.cpp's server, as `tenk bench engine` measures them, and what 8 bits cost.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::load::{figure, report_of};
use super::server::work_folder;
use super::{Bench, Figure, Required};
use crate::needs::packages;
use crate::workspace;

/// What must be reached: the figure's id in the report, where its number is, and the bound.
const REQUIRED: &[(&str, &str, Required)] = &[
    ("prefill", RATIO, Required::AtLeast(2.0)),
    ("decode_1", RATIO, Required::AtLeast(1.2)),
    ("decode_8", RATIO, Required::AtLeast(1.8)),
    ("decode_32", RATIO, Required::AtLeast(2.5)),
    ("http_8", RATIO, Required::AtLeast(2.0)),
    ("contended_8", RATIO, Required::AtLeast(3.0)),
    ("prefix_ttft", RATIO, Required::AtMost(0.1)),
    ("resident", RATIO, Required::AtMost(1.2)),
    ("ready", OURS, Required::AtMost(1.0)),
];
const RATIO: &str = "/ratio/median";
const OURS: &str = "/ours";
/// The most that weights of few bits may cost.
const PERPLEXITY: Required = Required::AtMost(1.01);
/// Tokens that it is measured on.
const PERPLEXITY_TOKENS: &str = "8192";

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    packages::install_missing(packages::OF_BARS, bench.unattended)?;
    let mut figures = side_by_side(bench)?;
    figures.extend(perplexity(bench)?);
    Ok(figures)
}

fn side_by_side(bench: &Bench) -> Result<Vec<Figure>> {
    let file = work_folder(&bench.target)?.join("engine.json");
    let mut command = Command::new(&bench.tenk);
    command.args(["bench", "engine", "--peer", "llama.cpp", "--pairs", &bench.pairs.to_string()]);
    // Its progress and its table are for whoever waits.
    let status = command.arg("--json").arg(&file).stdout(std::io::stderr()).status();
    ensure!(
        status.context("the bench did not start")?.success(),
        "`{command:?}` failed; see its words above"
    );
    let report = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    figures(&serde_json::from_str(&report).context("the bench's report is no JSON")?)
}

/// Every figure of the report, with its bound if it has one.
fn figures(report: &Value) -> Result<Vec<Figure>> {
    let found = report["figures"].as_array().context("the report has no figures")?;
    let text = |figure: &Value, field: &str| figure[field].as_str().unwrap_or_default().to_owned();
    let mut figures = Vec::new();
    for (id, path, required) in REQUIRED {
        let measured = found.iter().find(|figure| figure["id"] == *id);
        let measured = measured.with_context(|| format!("the report has no figure `{id}`"))?;
        let value = figure(measured, path)?;
        let name = text(measured, "name");
        let unit = if *path == OURS { "s" } else { "× the other" };
        figures.push(Figure::new(name, value, unit).required(*required));
    }
    for point in report["engine"].as_array().into_iter().flatten() {
        let streams = &point["streams"];
        let (name, bound) = (text(point, "phase"), text(point, "bound"));
        let share = figure(point, "/share_of_bound")?;
        figures.push(Figure::new(
            format!("{name}, {streams} at once, share of the bound, {bound}"),
            share,
            "",
        ));
    }
    Ok(figures)
}

/// Of weights in 8 bits, and in 4 as the file has them, to the same in 32, on the project's own documents: nobody was trained on them.
fn perplexity(bench: &Bench) -> Result<Vec<Figure>> {
    let root = workspace::root();
    let read = |name: &str| std::fs::read_to_string(root.join(name)).with_context(|| name.to_owned());
    let text = work_folder(&bench.target)?.join("perplexity.txt");
    std::fs::write(&text, read("ARCHITECTURE.md")? + &read("README.md")?)?;
    let mut command = Command::new(&bench.tenk);
    command.args(["eval", "perplexity", "--json", "--tokens-max", PERPLEXITY_TOKENS, "--text"]).arg(&text);
    let rows = report_of(command)?;
    let ratio = |computed_as: &str| {
        let row = rows.as_array().into_iter().flatten().find(|row| row["computed_as"] == computed_as);
        let ratio =
            figure(row.with_context(|| format!("the evaluation has no row of {computed_as}"))?, "/ratio")?;
        Ok(Figure::new(format!("perplexity, {computed_as}"), ratio, "× f32").required(PERPLEXITY))
    };
    ["int8", "int4"].into_iter().map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(ids: impl Iterator<Item = &'static str>) -> Value {
        let figure = |id| json!({ "id": id, "name": id, "ours": 0.7, "ratio": { "median": 1.3 } });
        let point = json!({ "phase": "decode", "streams": 8, "bound": "memory", "share_of_bound": 0.5 });
        json!({ "figures": ids.map(figure).collect::<Vec<_>>(), "engine": [point] })
    }

    #[test]
    fn every_requirement_finds_its_number() {
        let figures = figures(&report(REQUIRED.iter().map(|row| row.0))).expect("all there");
        assert_eq!(figures.len(), REQUIRED.len() + 1);
        assert_eq!((figures[0].measured, figures[8].measured), (1.3, 0.7), "a ratio, and seconds of ours");
        assert_eq!(figures[9].name, "decode, 8 at once, share of the bound, memory");
    }

    #[test]
    fn a_figure_that_was_not_measured_is_named() {
        let error = figures(&report(["prefill"].into_iter())).expect_err("the others are missing");
        assert!(error.to_string().contains("`decode_1`"), "{error}");
    }
}
