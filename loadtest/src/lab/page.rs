//! A lab's page: one file that needs nothing from elsewhere.

use std::fmt::Write;

use super::table::brief;
use super::text::{Text, html};
use super::{Bars, Checkout, Findings, Table};
use crate::plot::escape;
use crate::report::html::STYLE;

/// The whole page; files that it names are links into `checkout`.
pub(super) fn render(
    text: &Text,
    findings: &Findings,
    compared: Option<&str>,
    checkout: Option<&Checkout>,
) -> String {
    let title = escape(&text.title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    let _ = writeln!(page, "<h2>Question</h2>\n{}", html(&text.question, checkout));
    let _ = writeln!(page, "<h2>Prediction</h2>\n{}", html(&text.prediction, checkout));
    page.push_str("<h2>Measured on this machine</h2>\n");
    findings.tables.iter().for_each(|table| page.push_str(&table_of(table)));
    let plots: String = findings.bars.iter().map(plot).collect();
    let _ = writeln!(page, "<div class=\"plots\">\n{plots}</div>");
    for sentence in findings.sentences.iter().map(String::as_str).chain(compared) {
        let _ = writeln!(page, "<p>{}</p>", escape(sentence));
    }
    let _ = writeln!(page, "<h2>Explanation</h2>\n{}", html(&text.explanation, checkout));
    page
}

fn table_of(table: &Table) -> String {
    let mut shown = format!("<h3>{}</h3>\n<div class=\"scroll\"><table>\n<tr>", escape(&table.title));
    let cells = |shown: &mut String, tag: &str, cells: &[String]| {
        for (at, cell) in cells.iter().enumerate() {
            let class = if at == 0 { " class=\"text\"" } else { "" };
            let _ = write!(shown, "<{tag}{class}>{}</{tag}>", escape(cell));
        }
        shown.push_str("</tr>\n");
    };
    cells(&mut shown, "th", &table.columns);
    for row in &table.rows {
        shown.push_str("<tr>");
        cells(&mut shown, "td", row);
    }
    shown + "</table></div>\n"
}

/// Bars below each other, each with its value at its end.
fn plot(bars: &Bars) -> String {
    const WIDTH: f64 = 640.0;
    const ROW: f64 = 28.0;
    // Room for the labels before the bars, and for a value behind the longest one.
    const LEFT: f64 = 150.0;
    const RIGHT: f64 = 70.0;
    let title = format!("{}, {}", bars.title, bars.unit);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"{}\">\n",
        ROW * bars.bars.len() as f64 + 8.0,
        escape(&title)
    );
    for (at, (label, value)) in bars.bars.iter().enumerate() {
        let top = ROW * at as f64 + 8.0;
        let length = (WIDTH - LEFT - RIGHT) * bars.share(*value);
        let _ = writeln!(
            svg,
            "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <rect class=\"bar\" x=\"{LEFT:.1}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"18\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 8.0,
            top + 13.5,
            escape(label),
            LEFT + length + 6.0,
            top + 13.5,
            brief(*value)
        );
    }
    format!("<figure><h3>{}</h3>\n{svg}</svg></figure>\n", escape(&title))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_all_of_the_lab_and_loads_nothing() {
        let mut table = Table::new("Rows & columns", &["a", "b"]);
        table.row(["<1>".into(), "2".into()]);
        let findings = Findings {
            measured: 2.0,
            sentences: vec!["It doubled.".into()],
            tables: vec![table],
            bars: vec![Bars::new("T & U", "ms", [("cold".to_owned(), 4.0), ("warm".to_owned(), 1.0)])],
        };
        let text = Text {
            title: "T".into(),
            question: "Q?".into(),
            prediction: "P.".into(),
            explanation: "E.".into(),
        };
        let page = render(&text, &findings, Some("You said 2."), None);
        for part in [
            "<p>Q?</p>",
            "<p>P.</p>",
            "<td class=\"text\">&lt;1&gt;</td>",
            "Rows &amp; columns",
            "doubled",
            "You said 2.",
            "T &amp; U, ms",
            "width=\"420.0\"",
            "width=\"105.0\"",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(!page.contains("http") && !page.contains("<script"), "{page}");
    }
}
