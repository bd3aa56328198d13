//! A lab's text: a Markdown file beside its code, in sections of fixed names.

use crate::plot::escape;
use std::fmt::Write;

/// The sections that every lab has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) title: String,
    pub(super) question: String,
    pub(super) prediction: String,
    pub(super) explanation: String,
}

impl Text {
    /// Takes the sections apart; one that is missing is empty, which a test refuses.
    pub(super) fn parse(markdown: &str) -> Self {
        let mut text = Self::default();
        let mut sections = markdown.split("\n## ");
        text.title = sections.next().unwrap_or_default().trim().trim_start_matches("# ").to_owned();
        for section in sections {
            let (name, body) = section.split_once('\n').unwrap_or((section, ""));
            let body = body.trim();
            // Paragraphs of the terminal are one line.
            let one_line = || body.split_whitespace().collect::<Vec<_>>().join(" ");
            match name.trim() {
                "Question" => text.question = one_line(),
                "Prediction" => text.prediction = one_line(),
                "Explanation" => text.explanation = body.to_owned(),
                _ => {}
            }
        }
        text
    }
}

/// HTML of the Markdown that labs use: paragraphs, lists, `code` and links.
pub(super) fn html(markdown: &str) -> String {
    let mut html = String::new();
    for block in markdown.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        if block.starts_with("- ") {
            let items = format!("\n{block}");
            html.push_str("<ul>");
            for item in items.split("\n- ").skip(1) {
                let _ = write!(html, "<li>{}</li>", inline(item));
            }
            html.push_str("</ul>\n");
        } else {
            let _ = writeln!(html, "<p>{}</p>", inline(block));
        }
    }
    html
}

fn inline(text: &str) -> String {
    let mut html = String::new();
    for (at, part) in text.split('`').enumerate() {
        if at % 2 == 1 {
            let _ = write!(html, "<code>{}</code>", escape(part));
        } else {
            html.push_str(&links(part));
        }
    }
    html
}

fn links(text: &str) -> String {
    let found = text.split_once('[').and_then(|(before, rest)| {
        let (name, rest) = rest.split_once("](")?;
        let (to, after) = rest.split_once(')')?;
        Some((before, name, to, after))
    });
    match found {
        None => escape(text),
        Some((before, name, to, after)) => {
            format!("{}<a href=\"{}\">{}</a>{}", escape(before), escape(to), escape(name), links(after))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_found_by_name() {
        let text = Text::parse(
            "# A lab\n\n## Question\n\nWhy\nso?\n\n## Prediction\nOne.\n\n## Explanation\n\nA.\n\nB.\n",
        );
        let expected = Text {
            title: "A lab".into(),
            question: "Why so?".into(),
            prediction: "One.".into(),
            explanation: "A.\n\nB.".into(),
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn markdown_becomes_html_and_nothing_in_it_is_taken_for_a_tag() {
        let shown = html("A `x<y` and [step](crates/a.rs) <b>.\n\n- one\n  more\n- two\n");
        assert_eq!(
            shown,
            "<p>A <code>x&lt;y</code> and <a href=\"crates/a.rs\">step</a> &lt;b&gt;.</p>\n\
             <ul><li>one\n  more</li><li>two</li></ul>\n"
        );
    }
}
