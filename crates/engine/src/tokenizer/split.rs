//! Cutting text into words by regular expression, in linear time.
//!
//! Published patterns end in `\s+(?!\S)|\s+`: a run of white space leaves its last character to the word that
//! follows. That look-ahead is all that keeps them from an automaton, so it is taken off the pattern and done by
//! hand: a run found by the last alternative gives its last character back, unless the text ends there.

use regex_automata::Input;
use regex_automata::meta::Regex;

use super::TokenizerError;

pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK_V3: [&str; 3] = [
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];

/// The cutting rules behind some values of `tokenizer.ggml.pre`, and what else they imply.
pub(super) struct PreTokenizer {
    names: &'static [&'static str],
    /// Applied one after another, each to the pieces that the one before left.
    pub(super) patterns: &'static [&'static str],
    /// A word that is a token whole is taken whole, even where merges would not lead there.
    pub(super) ignore_merges: bool,
    /// Documents start with the beginning-of-sequence token unless the file says otherwise.
    pub(super) add_bos: bool,
}

const fn rules(names: &'static [&'static str], patterns: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer { names, patterns, ignore_merges: false, add_bos: false }
}

pub(super) const PRE_TOKENIZERS: [PreTokenizer; 9] = [
    rules(&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    rules(&["gpt-2", "phi-2", "mpt", "olmo", "jais"], &[GPT2]),
    rules(&["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"], &[r"\p{N}", GPT2]),
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    rules(&["dbrx", "smaug-bpe"], &[LLAMA3]),
    rules(&["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"], &[QWEN2]),
    rules(&["deepseek-v3"], &DEEPSEEK_V3),
    PreTokenizer { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true },
    rules(&["gpt-4o"], &[GPT4O]),
];

/// The rules that `tokenizer.ggml.pre` names.
pub(super) fn pre_tokenizer(name: &str) -> Result<&'static PreTokenizer, TokenizerError> {
    PRE_TOKENIZERS.iter().find(|rules| rules.names.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|rules| rules.names.iter().copied()).collect();
        TokenizerError::UnknownPreTokenizer { name: name.to_owned(), known: known.join(", ") }
    })
}

/// Patterns applied one after another; what a pattern doesn't match stays a piece too.
#[derive(Debug)]
pub(super) struct Splitter {
    stages: Vec<Regex>,
}

/// The pattern of a stage, `\s+` on its own, whose matches give their last character back.
const YIELDING: usize = 1;

impl Splitter {
    pub(super) fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, TokenizerError> {
        let stages = patterns.iter().map(|pattern| stage(pattern.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { stages })
    }

    /// Calls `each` with the pieces of `text` in order. Together they are `text`; none is empty.
    pub(super) fn each<'t, E>(
        &self,
        text: &'t str,
        each: &mut dyn FnMut(&'t str) -> Result<(), E>,
    ) -> Result<(), E> {
        split(&self.stages, text, each)
    }
}

fn stage(pattern: &str) -> Result<Regex, TokenizerError> {
    let refuse = |reason: &str| TokenizerError::Unsupported(format!("split pattern `{pattern}` ({reason})"));
    if has_possessive_quantifier(pattern) {
        return Err(refuse("it has a possessive quantifier"));
    }
    let linear = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)"].iter().find_map(|tail| pattern.strip_suffix(tail));
    let regex = match linear {
        Some(words) => Regex::new_many(&[words, r"\s+"]),
        None => Regex::new(pattern),
    };
    let regex = regex.map_err(|error| refuse(&error.to_string()))?;
    if regex.is_match("") {
        return Err(refuse("it matches nothing"));
    }
    Ok(regex)
}

/// Whether `x?+`, `x*+`, `x++` or `x{1,3}+` occurs, which the automaton would read as a repetition of `x?`.
fn has_possessive_quantifier(pattern: &str) -> bool {
    let (mut escaped, mut in_class, mut after_quantifier) = (false, false, false);
    let mut previous = '\0';
    for character in pattern.chars() {
        let literal = escaped || (in_class && character != ']');
        if !literal && after_quantifier && character == '+' {
            return true;
        }
        // The brace of `\p{L}` closes no quantifier; that of `{1,3}` follows a digit or a comma.
        let closes_count = character == '}' && (previous.is_ascii_digit() || previous == ',');
        after_quantifier = !literal && (matches!(character, '?' | '*' | '+') || closes_count);
        in_class = if escaped { in_class } else { (in_class || character == '[') && character != ']' };
        escaped = character == '\\' && !escaped;
        previous = character;
    }
    false
}

fn split<'t, E>(
    stages: &[Regex],
    text: &'t str,
    each: &mut dyn FnMut(&'t str) -> Result<(), E>,
) -> Result<(), E> {
    let Some((stage, later)) = stages.split_first() else {
        return each(text);
    };
    let mut position = 0;
    while let Some(found) = stage.find(Input::new(text).span(position..text.len())) {
        if found.is_empty() {
            break;
        }
        if position < found.start() {
            split(later, &text[position..found.start()], each)?;
        }
        let mut end = found.end();
        if found.pattern().as_usize() == YIELDING && end < text.len() {
            let last = text[found.range()].chars().next_back().map_or(0, char::len_utf8);
            if last < found.len() {
                end -= last;
            }
        }
        split(later, &text[found.start()..end], each)?;
        position = end;
    }
    if position < text.len() { split(later, &text[position..], each) } else { Ok(()) }
}
