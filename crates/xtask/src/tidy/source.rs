//! Rust files, parsed once, with their tests told apart.

use std::collections::BTreeSet;

use syn::spanned::Spanned;
use syn::{Attribute, Item, Meta};

use super::Problem;
use crate::workspace::TextFile;

/// A parsed Rust file.
pub(crate) struct Source {
    /// From the workspace's root.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
    /// Nothing of it is in a build that is not a test.
    pub(crate) is_test: bool,
}

impl Source {
    /// Lines without those of test modules; none for a file that is all test.
    fn product(&self) -> impl Iterator<Item = &str> {
        let tests = self.syntax.items.iter().filter(|item| is_test(attributes(item)));
        let test_lines: BTreeSet<usize> = tests
            .flat_map(|item| {
                let span = item.span();
                span.start().line..=span.end().line
            })
            .collect();
        let lines = self.text.lines().enumerate().filter(|_| !self.is_test);
        lines.filter(move |(index, _)| !test_lines.contains(&(index + 1))).map(|(_, line)| line)
    }

    /// How many there are.
    pub(crate) fn product_lines(&self) -> usize {
        self.product().count()
    }

    /// Those of them that hold code: neither blank nor only a comment.
    pub(crate) fn code_lines(&self) -> usize {
        let holds_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
        self.product().filter(holds_code).count()
    }
}

/// Parses every `.rs` file; one that does not parse is a problem of its own.
pub(crate) fn parse_all(files: &[TextFile]) -> (Vec<Source>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut sources: Vec<Source> = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        match syn::parse_file(&file.text) {
            Ok(syntax) => sources.push(Source {
                path: file.path.clone(),
                text: file.text.clone(),
                syntax,
                is_test: is_test_path(&file.path),
            }),
            Err(error) => problems.push(Problem::new(
                &file.path,
                error.span().start().line,
                format!("does not parse: {error}; mend it first"),
            )),
        }
    }
    mark_test_modules(&mut sources);
    (sources, problems)
}

/// By Rust's conventions for integration tests and ours for long unit tests.
fn is_test_path(path: &str) -> bool {
    let mut parts = path.split('/');
    parts.next_back() == Some("tests.rs") || parts.any(|folder| folder == "tests" || folder == "benches")
}

/// `#[cfg(test)] mod x;` makes `x.rs`, and all below `x/`, a test.
fn mark_test_modules(sources: &mut [Source]) {
    let modules: Vec<String> = sources
        .iter()
        .flat_map(|source| {
            let folder = module_folder(&source.path);
            source.syntax.items.iter().filter_map(move |item| match item {
                Item::Mod(module) if module.content.is_none() && is_test(&module.attrs) => {
                    Some(format!("{folder}/{}", module.ident))
                }
                _ => None,
            })
        })
        .collect();
    for source in sources {
        let is_below = |module: &String| {
            source
                .path
                .strip_prefix(module.as_str())
                .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        source.is_test |= modules.iter().any(is_below);
    }
}

/// Where the modules that a file declares live.
fn module_folder(path: &str) -> &str {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "lib.rs" | "main.rs" | "mod.rs" => folder,
        _ => path.strip_suffix(".rs").unwrap_or(path),
    }
}

/// Whether an item is there for tests only.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.segments.last().is_some_and(|last| last.ident == "test"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string().replace(' ', "");
            condition == "test" || condition.starts_with("all(test,")
        }
        _ => false,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{file, sources};

    #[test]
    fn lines_of_test_modules_and_test_helpers_do_not_count() {
        let text = "//! Doc.\n\npub fn a() {}\n\n#[cfg(test)]\nfn made_up() {}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn b() {}\n}\n";
        assert_eq!(sources(&[file("crates/a/src/lib.rs", text)])[0].product_lines(), 5);
        let text = "#[cfg(not(test))]\nfn a() {}\n";
        assert_eq!(sources(&[file("crates/a/src/lib.rs", text)])[0].product_lines(), 2);
    }

    #[test]
    fn blank_lines_and_comments_hold_no_code() {
        let text = "//! Doc.\n\n/// Doc.\npub fn a() {\n    // Why.\n    b(); // What for.\n}\n";
        assert_eq!(sources(&[file("crates/a/src/lib.rs", text)])[0].code_lines(), 3);
    }

    #[test]
    fn a_file_is_a_test_by_its_place_or_by_its_declaration() {
        let parsed = sources(&[
            file("crates/a/src/lib.rs", "mod b;\n#[cfg(test)]\nmod server;\n"),
            file("crates/a/src/b.rs", "#[cfg(all(test, unix))]\nmod deep;\n"),
            file("crates/a/src/b/deep.rs", ""),
            file("crates/a/src/b/deep/er.rs", ""),
            file("crates/a/src/b/deeper.rs", ""),
            file("crates/a/src/server.rs", ""),
            file("crates/a/src/b/tests.rs", ""),
            file("crates/a/tests/whole.rs", ""),
            file("tests/src/lib.rs", ""),
        ]);
        let product: Vec<&str> =
            parsed.iter().filter(|source| !source.is_test).map(|source| &*source.path).collect();
        assert_eq!(product, ["crates/a/src/lib.rs", "crates/a/src/b.rs", "crates/a/src/b/deeper.rs"]);
    }

    #[test]
    fn a_file_that_does_not_parse_is_named_with_its_line() {
        let (parsed, problems) = parse_all(&[file("a.rs", "fn a() {}\nfn {}\n"), file("notes.md", "fn {")]);
        assert!(parsed.is_empty());
        assert_eq!((problems.len(), problems[0].line), (1, 2));
    }
}
