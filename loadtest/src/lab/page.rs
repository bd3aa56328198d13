//! A lab's page: one file that needs nothing from elsewhere.

use std::fmt::Write;

use super::text::{Text, html};
use super::{Findings, Table};
use crate::plot::{Axis, Kind, Look, Plot, escape};
use crate::report::html::STYLE;

/// The whole page.
pub(super) fn render(text: &Text, findings: &Findings, compared: Option<&str>) -> String {
    let title = escape(&text.title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    let _ = writeln!(page, "<h2>Question</h2>\n{}", html(&text.question));
    let _ = writeln!(page, "<h2>Prediction</h2>\n{}", html(&text.prediction));
    page.push_str("<h2>Measured on this machine</h2>\n");
    findings.tables.iter().for_each(|table| page.push_str(&table_of(table)));
    page.push_str(&plots(findings));
    for sentence in findings.sentences.iter().map(String::as_str).chain(compared) {
        let _ = writeln!(page, "<p>{}</p>", escape(sentence));
    }
    let _ = writeln!(page, "<h2>Explanation</h2>\n{}", html(&text.explanation));
    page
}

fn table_of(table: &Table) -> String {
    let mut shown = format!("<table><caption>{}</caption>\n<tr>", escape(&table.title));
    let cells = |shown: &mut String, tag: &str, cells: &[String]| {
        for cell in cells {
            let _ = write!(shown, "<{tag}>{}</{tag}>", escape(cell));
        }
        shown.push_str("</tr>\n");
    };
    cells(&mut shown, "th", &table.columns);
    for row in &table.rows {
        shown.push_str("<tr>");
        cells(&mut shown, "td", row);
    }
    shown + "</table>\n"
}

/// One plot a series.
fn plots(findings: &Findings) -> String {
    let drawn = findings.series.iter().filter_map(|series| {
        let axis = |label: &str| Axis::new(label, Kind::Linear);
        let mut plot = Plot::new(&series.title, axis(&series.x), axis(&series.y));
        let points = series.points.iter().map(|(x, y)| (*x, Some(*y)));
        plot.line(&series.y, Look::default(), points);
        let svg = plot.svg()?;
        Some(format!("<figure><figcaption>{}</figcaption>{svg}</figure>\n", escape(&series.title)))
    });
    drawn.collect()
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
            series: vec![],
        };
        let text = Text {
            title: "T".into(),
            question: "Q?".into(),
            prediction: "P.".into(),
            explanation: "E.".into(),
        };
        let page = render(&text, &findings, Some("You said 2."));
        for part in
            ["<p>Q?</p>", "<p>P.</p>", "<td>&lt;1&gt;</td>", "Rows &amp; columns", "doubled", "You said 2."]
        {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(!page.contains("http") && !page.contains("<script"), "{page}");
    }
}
