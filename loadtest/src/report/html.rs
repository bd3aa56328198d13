//! One page that holds everything: no script, and nothing that is fetched from elsewhere.

use std::fmt::Write;

use super::{Report, describe};
use crate::plot::{Plot, escape};

mod comparison;
mod plots;
mod runs;
mod tables;

pub(crate) use comparison::comparison;
pub(crate) use runs::{Run, Runs};

/// The look of every page.
pub(crate) const STYLE: &str = include_str!("html/style.css");

/// A page of one run: its figures, what happened when, how latencies are distributed. Of several runs, such as those of
/// a search: how they compare.
pub fn page(reports: &[Report]) -> String {
    let (title, body) = match reports {
        [] => ("no run".to_owned(), "<h1>No run</h1>\n".to_owned()),
        [report] => (title(report), one(report)),
        several => return Runs::by_load(several).page(),
    };
    document(&title, &body)
}

/// A page around its body.
pub(crate) fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n{body}</body>\n</html>\n",
        escape(title)
    )
}

fn title(report: &Report) -> String {
    let question = report.scenario.question.trim();
    if question.is_empty() { format!("Load test of {}", report.target) } else { question.to_owned() }
}

fn one(report: &Report) -> String {
    let mut page = head(report);
    page += &warnings(report);
    add(
        &mut page,
        format_args!("<p class=\"verdict\"><b>What limits the target:</b> {}</p>\n", escape(&report.verdict)),
    );
    page += &tables::tiles(report);
    let marks: Vec<f64> = report.events.iter().map(|event| event.at_s).collect();
    let mut over_time = plots::over_time(report);
    over_time.iter_mut().for_each(|figure| figure.plot.marks.clone_from(&marks));
    page += &tables::events(report);
    page += &figures("What happened when", &over_time);
    page += &figures("How latencies are distributed", &plots::distributions(report));
    page += &tables::figures(report);
    page += &tables::counts(report);
    let scenario = serde_json::to_string_pretty(&report.scenario).unwrap_or_default();
    add(
        &mut page,
        format_args!(
            "<details><summary>The scenario in full</summary>\n<pre>{}</pre></details>\n",
            escape(&scenario)
        ),
    );
    page
}

fn head(report: &Report) -> String {
    let mut page = format!("<h1>{}</h1>\n", escape(&title(report)));
    let processes =
        if report.processes > 1 { format!(", {} processes", report.processes) } else { String::new() };
    add(
        &mut page,
        format_args!(
            "<p class=\"soft\">{} · model {} · {} · tenk {}{processes}</p>\n",
            escape(&report.target),
            escape(&report.model),
            date(report.started_unix_s),
            escape(&report.version)
        ),
    );
    add(
        &mut page,
        format_args!(
            "<p class=\"soft\">Load: {} · prompts: {} · answers: {} · targets: {} · seed {}</p>\n",
            escape(&describe::load(&report.scenario)),
            escape(&describe::prompts(report)),
            escape(&describe::answers(&report.scenario.answers)),
            escape(&describe::targets(&report.scenario.targets)),
            report.scenario.seed
        ),
    );
    page
}

/// What a reader must not overlook.
fn warnings(report: &Report) -> String {
    let mut page = String::new();
    if !report.valid {
        let reasons: String =
            report.invalid_reasons.iter().map(|reason| format!("<li>{}</li>", escape(reason))).collect();
        add(&mut page, format_args!("<div class=\"banner\"><b>INVALID</b><ul>{reasons}</ul></div>\n"));
    }
    if report.interrupted {
        add(
            &mut page,
            format_args!(
                "<div class=\"banner\"><b>INTERRUPTED</b><p>{} requests in flight were abandoned; the rest was \
                 measured.</p></div>\n",
                report.requests.abandoned
            ),
        );
    }
    page
}

/// A plot with what a reader should know of it.
pub(super) struct Figure {
    pub(super) plot: Plot,
    pub(super) caption: String,
}

impl Figure {
    pub(super) fn new(plot: Plot, caption: &str) -> Self {
        Self { plot, caption: caption.to_owned() }
    }
}

/// A section of plots; those with nothing to draw are left out, and the section with them.
fn figures(title: &str, figures: &[Figure]) -> String {
    let drawn: String = figures.iter().filter_map(figure).collect();
    if drawn.is_empty() {
        String::new()
    } else {
        format!("<h2>{title}</h2>\n<div class=\"plots\">\n{drawn}</div>\n")
    }
}

fn figure(figure: &Figure) -> Option<String> {
    let (plot, svg) = (&figure.plot, figure.plot.svg()?);
    let mut legend: String = plot
        .lines
        .iter()
        .filter(|line| !line.name.is_empty())
        .map(|line| {
            let dashed = if line.look.dashed { " dashed" } else { "" };
            format!("<li><i class=\"c{}{dashed}\"></i>{}</li>", line.look.colour, escape(&line.name))
        })
        .collect();
    if plot.dots.iter().any(|dot| dot.hollow) {
        legend += "<li><i class=\"hollow c5\"></i>a run that is invalid</li>";
    }
    Some(format!(
        "<figure><h3>{}</h3>\n<ul class=\"legend\">{legend}</ul>\n{svg}\n<figcaption>{}</figcaption></figure>\n",
        escape(&plot.title),
        escape(&figure.caption)
    ))
}

/// Seconds since 1970 as a date in UTC, by Howard Hinnant's civil-from-days.
fn date(unix_s: u64) -> String {
    let days = unix_s / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (unix_s / 3_600 % 24, unix_s / 60 % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// A sentence whose settings are in backquotes.
fn with_code(sentence: &str) -> String {
    let mut html = String::new();
    for (at, part) in sentence.split('`').enumerate() {
        let part = escape(part);
        html += &if at % 2 == 1 { format!("<code>{part}</code>") } else { part };
    }
    html
}

fn add(to: &mut String, text: std::fmt::Arguments<'_>) {
    // A String takes everything.
    let _ = to.write_fmt(text);
}

#[cfg(test)]
mod tests;
