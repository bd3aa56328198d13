//! A tokenizer of the user's own, to say how long prompts are.
//!
//! This crate links none, for one brings some fifty crates along: the program around it hands in how to open a file.

use std::path::Path;

use crate::error::Error;
use crate::scenario::Scenario;

/// How many tokens a text has, or why that cannot be said.
pub type CountTokens = Box<dyn Fn(&str) -> Result<u64, String> + Send + Sync>;

/// Opens a tokenizer.json, the folder of one, or a GGUF file; this blocks. A refusal is a sentence that names the file,
/// and says what is wrong with it and what to give instead.
pub type OpenTokenizer = fn(&Path) -> Result<CountTokens, String>;

/// The tokenizer that the scenario names, if it names one.
pub(crate) fn given(scenario: &Scenario, open: Option<OpenTokenizer>) -> Result<Option<CountTokens>, Error> {
    let Some(path) = &scenario.tokenizer else { return Ok(None) };
    let open = open.ok_or_else(|| {
        Error::Config(format!(
            "the tokenizer {} cannot be opened: this program links none; leave `tokenizer` out",
            path.display()
        ))
    })?;
    open(path).map(Some).map_err(Error::Config)
}
