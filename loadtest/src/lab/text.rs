//! A lab's text: a Markdown file beside its code, in sections of fixed names.

use std::fmt::Write;

use super::Checkout;
use crate::plot::escape;

/// The sections that every lab has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) title: String,
    pub(super) question: String,
    pub(super) prediction: String,
    pub(super) explanation: String,
}

impl Text {
    /// The files that its explanation points to.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.explanation.split('`').skip(1).step_by(2).filter(|code| is_file(code))
    }

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

/// HTML of the Markdown that labs use: paragraphs, lists and `code`. Code that is the path of a file is a link to it where
/// there is a checkout.
pub(super) fn html(markdown: &str, checkout: Option<&Checkout>) -> String {
    let mut html = String::new();
    for block in markdown.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        if block.starts_with("- ") {
            let items = format!("\n{block}");
            html.push_str("<ul>");
            for item in items.split("\n- ").skip(1) {
                let _ = write!(html, "<li>{}</li>", inline(item, checkout));
            }
            html.push_str("</ul>\n");
        } else {
            let _ = writeln!(html, "<p>{}</p>", inline(block, checkout));
        }
    }
    html
}

fn inline(text: &str, checkout: Option<&Checkout>) -> String {
    let mut html = String::new();
    for (at, part) in text.split('`').enumerate() {
        let link = checkout.filter(|_| at % 2 == 1 && is_file(part)).map(|checkout| checkout.url(part));
        let _ = match (at % 2, link) {
            (0, _) => write!(html, "{}", escape(part)),
            (_, None) => write!(html, "<code>{}</code>", escape(part)),
            (_, Some(url)) => write!(html, "<a href=\"{url}\"><code>{}</code></a>", escape(part)),
        };
    }
    html
}

/// Whether a piece of code is the path of a file of the repository.
fn is_file(code: &str) -> bool {
    [".rs", ".md"].iter().any(|end| code.ends_with(end)) && !code.contains(char::is_whitespace)
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
        let shown = html("A `x<y` and [step] <b>.\n\n- one\n  `a.rs`\n- two\n", None);
        assert_eq!(
            shown,
            "<p>A <code>x&lt;y</code> and [step] &lt;b&gt;.</p>\n\
             <ul><li>one\n  <code>a.rs</code></li><li>two</li></ul>\n"
        );
    }

    #[test]
    fn a_file_is_a_link_into_the_checkout_and_other_code_is_not() {
        let shown = html("In `crates/a.rs`, not `max_num_seqs`.", Some(&Checkout::at("/my work/100%")));
        assert_eq!(
            shown,
            "<p>In <a href=\"file:///my%20work/100%25/crates/a.rs\"><code>crates/a.rs</code></a>, not \
             <code>max_num_seqs</code>.</p>\n"
        );
    }
}
