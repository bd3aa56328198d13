//! A place for everything: what stands at the top, which folders and crates the architecture explains, where `unsafe`
//! may be.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};

use super::Problem;
use super::source::Source;
use crate::workspace::TextFile;

const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// Everything that may stand at the top level.
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".dockerignore",
    ".gitattributes",
    ".gitignore",
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "clippy.toml",
    "crates",
    "dashboards",
    "deny.toml",
    "deploy",
    "loadtest",
    "rustfmt.toml",
    "tests",
];

/// Where `unsafe` may be, by path.
const UNSAFE_ALLOWED: &[&str] = &["crates/kernels/src/"];

/// What the check looks at.
pub(crate) struct Rooms<'a> {
    /// Name and folder of each crate.
    pub(crate) crates: Vec<(String, String)>,
    pub(crate) top_level: BTreeSet<String>,
    /// The text that must name them.
    pub(crate) architecture: Option<&'a str>,
}

/// The first part of each file's path.
pub(crate) fn top_level(files: &[TextFile]) -> BTreeSet<String> {
    files.iter().filter_map(|file| file.path.split('/').next()).map(str::to_owned).collect()
}

/// Compares the top level with its list, and crates and folders with the text that explains them.
pub(crate) fn check(rooms: &Rooms<'_>) -> Vec<Problem> {
    let strangers = rooms.top_level.iter().filter(|name| !TOP_LEVEL.contains(&name.as_str()));
    let mut problems: Vec<Problem> = strangers
        .map(|name| {
            let file = file!().strip_prefix("crates/").unwrap_or(file!());
            Problem::new(
                name,
                1,
                format!("stands at the top level; move it into a folder, or allow it in {file}"),
            )
        })
        .collect();
    let Some(text) = rooms.architecture else {
        problems.push(Problem::new(
            ARCHITECTURE,
            1,
            "is missing; write down what each crate and folder is for",
        ));
        return problems;
    };
    let is_named = |names: &[&str]| names.iter().any(|name| text.contains(&format!("`{name}`")));
    for (name, path) in &rooms.crates {
        if !is_named(&[name, path, &format!("{path}/")]) {
            problems.push(Problem::new(
                ARCHITECTURE,
                1,
                format!("does not say what the crate `{name}` is for; add it"),
            ));
        }
    }
    // A name without a dot in it is a folder: every file of ours at the top has an ending or is a licence.
    let folders = rooms.top_level.iter().filter(|name| !name.contains('.') && !name.starts_with("LICENSE"));
    for folder in folders {
        if !is_named(&[folder, &format!("{folder}/")]) {
            problems.push(Problem::new(
                ARCHITECTURE,
                1,
                format!("does not say what `{folder}/` holds; add it"),
            ));
        }
    }
    problems
}

/// Every `unsafe` outside the allowed places, in tests and macros too.
pub(crate) fn check_unsafe(sources: &[Source]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for source in sources {
        if UNSAFE_ALLOWED.iter().any(|allowed| source.path.starts_with(allowed)) {
            continue;
        }
        let mut lines = BTreeSet::new();
        // The file was parsed once, so its tokens are sound.
        find_unsafe(source.text.parse().unwrap_or_default(), &mut lines);
        problems.extend(lines.into_iter().map(|line| {
            Problem::new(
                &source.path,
                line,
                "`unsafe` is not allowed here; use what is safe, or a crate that has it",
            )
        }));
    }
    problems
}

fn find_unsafe(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
    for token in tokens {
        match token {
            TokenTree::Ident(word) if word == "unsafe" => {
                lines.insert(word.span().start().line);
            }
            TokenTree::Group(group) => find_unsafe(group.stream(), lines),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{file, sources};

    fn rooms<'a>(top_level: &[&str], architecture: Option<&'a str>) -> Rooms<'a> {
        Rooms {
            crates: vec![("gateway".into(), "crates/gateway".into()), ("loadtest".into(), "loadtest".into())],
            top_level: top_level.iter().map(|name| (*name).to_owned()).collect(),
            architecture,
        }
    }

    fn problems(rooms: &Rooms<'_>) -> Vec<String> {
        check(rooms).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn crates_and_folders_must_be_named_in_the_architecture() {
        let top = ["Cargo.toml", "LICENSE-MIT", "crates", "loadtest", ".ci"];
        let whole = "`crates/` holds `gateway`; `loadtest` breaks it";
        assert_eq!(problems(&rooms(&top, Some(whole))), Vec::<String>::new());
        assert_eq!(
            problems(&rooms(&top, Some("`crates/` holds the gateway"))),
            [
                "ARCHITECTURE.md:1: does not say what the crate `gateway` is for; add it",
                "ARCHITECTURE.md:1: does not say what the crate `loadtest` is for; add it",
                "ARCHITECTURE.md:1: does not say what `loadtest/` holds; add it",
            ]
        );
        assert_eq!(problems(&rooms(&top, None)).len(), 1);
    }

    #[test]
    fn a_stranger_at_the_top_level_is_turned_away() {
        let found = problems(&rooms(&["crates", "notes.txt"], Some("`crates` `gateway` `loadtest`")));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("notes.txt:1: stands at the top level;"), "{found:?}");
    }

    #[test]
    fn the_top_level_is_the_first_part_of_each_path() {
        let files = [file("crates/a/src/lib.rs", ""), file("crates/b/src/lib.rs", ""), file("README.md", "")];
        assert_eq!(Vec::from_iter(top_level(&files)), ["README.md", "crates"]);
    }

    #[test]
    fn unsafe_is_found_in_blocks_functions_attributes_and_macros_but_not_in_words_about_it() {
        let text = "#![deny(unsafe_code)]\n// unsafe\nfn a() {\n    let b = \"unsafe\";\n    unsafe { c(b) }\n}\n\
                    unsafe fn c() {}\nmacro_rules! d { () => { unsafe { c() } } }\n#[unsafe(no_mangle)]\nfn e() {}\n";
        let files = [
            file("crates/a/src/lib.rs", text),
            file("crates/kernels/src/avx.rs", text),
            file("tests/a.rs", text),
        ];
        let at: Vec<(String, usize)> =
            check_unsafe(&sources(&files)).into_iter().map(|problem| (problem.path, problem.line)).collect();
        let lines = [5, 7, 8, 9];
        let expected =
            ["crates/a/src/lib.rs", "tests/a.rs"].map(|path| lines.map(|line| (path.to_owned(), line)));
        assert_eq!(at, expected.concat());
    }
}
