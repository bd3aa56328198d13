//! The pages of searches and sweeps, made from the reports of their runs as they lie in the folder.

use std::path::{Path, PathBuf};

use crate::assertion::{Assertion, rounded};
use crate::error::Error;
use crate::figures::run_label;
use crate::plot::escape;
use crate::report::html::{Run, Runs};
use crate::report::{HTML_FILE, REPORT_FILE, Report};
use crate::scenario::Scenario;
use crate::search::SearchReport;
use crate::sweep::{SweepReport, setting};

/// Writes a page into a folder, which is there by then or made.
pub(super) fn save_page(dir: &Path, page: &str) -> Result<(), Error> {
    let path = dir.join(HTML_FILE);
    let failed = |path: PathBuf| |source| Error::File { path, source };
    std::fs::create_dir_all(dir).map_err(failed(dir.to_owned()))?;
    std::fs::write(&path, page).map_err(failed(path))
}

/// The reports of the first `count` runs, as far as they are there: a search that goes on may find some deleted.
fn reports(dir: &Path, count: usize) -> Result<Vec<(usize, Report)>, Error> {
    let paths = (0..count).map(|number| (number, dir.join(run_label(number)).join(REPORT_FILE)));
    paths
        .filter(|(_, path)| path.is_file())
        .map(|(number, path)| Ok((number, Report::load(&path)?)))
        .collect()
}

fn own_page(number: usize) -> Option<String> {
    Some(format!("{}/{HTML_FILE}", run_label(number)))
}

fn title(scenario: &Scenario, what: &str) -> String {
    let question = scenario.question.trim();
    if question.is_empty() { what.to_owned() } else { format!("{what}: {question}") }
}

/// A search: the rate that was found, and what targets came to at each rate.
pub(super) fn of_search(search: &SearchReport, dir: &Path) -> Result<String, Error> {
    let reports = reports(dir, search.runs.len())?;
    let bounds = search.targets.iter().filter_map(|target| target.parse::<Assertion>().ok());
    let runs = reports.iter().map(|(number, report)| {
        let measured = &search.runs[*number];
        let label = format!("{} requests/s: {}", rounded(measured.rate), measured.outcome);
        Run { report, x: Some(measured.rate), label, page: own_page(*number) }
    });
    let runs = Runs {
        title: title(&search.scenario, "The highest rate that meets the targets"),
        verdict: format!("{} (targets: {})", search.verdict(), search.targets.join(", ")),
        by: "rate".to_owned(),
        axis: "requests/s offered".to_owned(),
        bounds: bounds.map(|assertion| (assertion.figure, assertion.number)).collect(),
        table: rates(search),
        runs: runs.collect(),
    };
    Ok(runs.page())
}

fn rates(search: &SearchReport) -> String {
    let figures = search.figures();
    let heads: String = figures.iter().map(|figure| format!("<th>{}</th>", escape(figure))).collect();
    let row = |rate: &crate::search::RateSummary| {
        let cells: String = figures
            .iter()
            .map(|figure| {
                format!("<td>{}</td>", rate.figures.get(figure).map_or("–".to_owned(), ToString::to_string))
            })
            .collect();
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"text\">{}</td>{cells}</tr>\n",
            rounded(rate.rate),
            rate.met,
            rate.missed,
            rate.invalid,
            rate.verdict()
        )
    };
    format!(
        "<h2>Rates</h2>\n<div class=\"scroll\"><table>\n<tr><th>requests/s</th><th>met</th><th>missed</th><th>invalid</th>\
         <th class=\"text\">verdict</th>{heads}</tr>\n{}</table></div>\n<p class=\"soft\">± is a 95% interval of the mean \
         over a rate's runs.</p>\n",
        search.rates.iter().map(row).collect::<String>()
    )
}

/// A sweep: every figure against what varies.
pub(super) fn of_sweep(
    sweep: &SweepReport,
    repeats: u32,
    values: &[String],
    dir: &Path,
) -> Result<String, Error> {
    let per_value = repeats.max(1) as usize;
    let reports = reports(dir, sweep.runs as usize)?;
    let runs = reports.iter().filter(|(_, report)| !report.interrupted).map(|(number, report)| {
        let value = values.get(number / per_value).map_or("", String::as_str);
        Run { report, x: value.parse().ok(), label: value.to_owned(), page: own_page(*number) }
    });
    let axis = match setting(&sweep.field).as_str() {
        "arrivals.rate" => "requests/s offered".to_owned(),
        _ => sweep.field.clone(),
    };
    let runs = Runs {
        title: title(&sweep.scenario, &format!("What changes with {}", sweep.field)),
        verdict: sweep.stopped.as_ref().map_or_else(String::new, |reason| format!("UNFINISHED: {reason}")),
        by: sweep.field.clone(),
        axis,
        bounds: Vec::new(),
        table: String::new(),
        runs: runs.collect(),
    };
    Ok(runs.page())
}
