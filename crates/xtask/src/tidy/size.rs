//! Sizes: long files and functions usually hold two things, and the whole must stay readable in a weekend.

use std::collections::BTreeMap;

use anyhow::Result;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::source::{Source, is_test};
use super::{Problem, RATCHET};

/// Lines of a file, without its tests.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function, from its signature to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of code of the serving path, without tests, comments and blank lines.
pub(crate) const SERVING_LINES_MAX: usize = 14_999;
/// The crates that a request passes through. Kernels are arithmetic, read apart from it.
const SERVING: &[&str] =
    &["protocol", "scheduler", "engine", "http-server", "worker", "routing", "response-cache", "gateway"];

/// What is too large today and may only shrink.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ratchet {
    file: Vec<FileEntry>,
    function: Vec<FunctionEntry>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    path: String,
    lines: usize,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct FunctionEntry {
    path: String,
    name: String,
    lines: usize,
}

impl Ratchet {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }
}

/// Lines of code of the crates that a request passes through, in the order of their names.
pub(crate) fn serving_lines(sources: &[Source]) -> BTreeMap<&str, usize> {
    let mut lines = BTreeMap::new();
    for source in sources {
        let folder = source.path.strip_prefix("crates/").and_then(|rest| rest.split_once('/'));
        if let Some((name, _)) = folder.filter(|(name, _)| SERVING.contains(name)) {
            *lines.entry(name).or_default() += source.code_lines();
        }
    }
    lines
}

/// A size, and the line where the thing begins.
type Sizes = BTreeMap<(String, Option<String>), (usize, usize)>;

/// Everything above its limit that the ratchet does not know with just this size, and what the ratchet knows in vain.
pub(crate) fn check(sources: &[Source], ratchet: &Ratchet) -> Vec<Problem> {
    let mut known: BTreeMap<(String, Option<String>), usize> = BTreeMap::new();
    known.extend(ratchet.file.iter().map(|entry| ((entry.path.clone(), None), entry.lines)));
    known.extend(
        ratchet.function.iter().map(|entry| ((entry.path.clone(), Some(entry.name.clone())), entry.lines)),
    );

    let mut problems = Vec::new();
    for ((path, function), (lines, line)) in too_large(sources) {
        let what = match &function {
            None => format!("{lines} lines without tests, more than {FILE_LINES_MAX}"),
            Some(name) => format!("`{name}` has {lines} lines, more than {FUNCTION_LINES_MAX}"),
        };
        let advice = match known.remove(&(path.clone(), function)) {
            Some(allowed) if allowed == lines => continue,
            Some(allowed) if allowed > lines => {
                format!("lower its entry in {RATCHET} from {allowed} to {lines}")
            }
            Some(allowed) => format!("it was allowed {allowed}, make it smaller again"),
            None => "look for the two things in it and part them".to_owned(),
        };
        problems.push(Problem::new(path, line, format!("{what}; {advice}")));
    }
    problems.extend(known.into_keys().map(|(path, function)| {
        let what = function.map_or(path.clone(), |name| format!("`{name}` in {path}"));
        Problem::new(RATCHET, 1, format!("{what} is gone or small enough; take its entry out"))
    }));
    let serving: usize = serving_lines(sources).values().sum();
    if serving > SERVING_LINES_MAX {
        let what = format!("the serving path has {serving} lines of code, more than {SERVING_LINES_MAX}");
        problems.push(Problem::new("crates", 1, format!("{what}; say the same in fewer")));
    }
    problems
}

fn too_large(sources: &[Source]) -> Sizes {
    let mut found = Sizes::new();
    for source in sources.iter().filter(|source| !source.is_test) {
        let lines = source.product_lines();
        if lines > FILE_LINES_MAX {
            found.insert((source.path.clone(), None), (lines, 1));
        }
        let mut functions = Functions::default();
        functions.visit_file(&source.syntax);
        for (name, line, lines) in functions.found {
            if lines > FUNCTION_LINES_MAX {
                let largest = found.entry((source.path.clone(), Some(name))).or_insert((lines, line));
                *largest = (*largest).max((lines, line));
            }
        }
    }
    found
}

/// Collects name, first line and length of every function that is not a test.
#[derive(Default)]
struct Functions {
    /// The type or trait around the function.
    owner: Option<String>,
    found: Vec<(String, usize, usize)>,
}

impl Functions {
    fn measure(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let name = match &self.owner {
            Some(owner) => format!("{owner}::{}", signature.ident),
            None => signature.ident.to_string(),
        };
        let first = signature.span().start().line;
        self.found.push((name, first, body.span().end().line + 1 - first));
    }

    fn within(&mut self, owner: Option<String>, walk: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.owner, owner);
        walk(self);
        self.owner = outer;
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if !is_test(&function.attrs) {
            self.measure(&function.sig, &function.block);
            self.within(None, |this| visit::visit_item_fn(this, function));
        }
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        if is_test(&block.attrs) {
            return;
        }
        let owner = match &*block.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        self.within(owner, |this| visit::visit_item_impl(this, block));
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            self.measure(&function.sig, &function.block);
            self.within(None, |this| visit::visit_impl_item_fn(this, function));
        }
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.within(Some(item.ident.to_string()), |this| visit::visit_item_trait(this, item));
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.measure(&function.sig, body);
        }
        self.within(None, |this| visit::visit_trait_item_fn(this, function));
    }
}

#[cfg(test)]
mod tests;
