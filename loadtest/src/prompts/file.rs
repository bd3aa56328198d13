//! Prompts that are given: lines of JSON, or ShareGPT's list.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::asking::WARMUP_INDEX_START;
use crate::error::Error;
use crate::prompts::conversation::{answered, close, write_text};
use crate::prompts::{AnswerLengths, Question, share_gpt};

/// The prompts of a file, taken in turn, from the first again after the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptFile {
    prompts: Vec<Given>,
}

/// One prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// A request as it stands, and a cap of its own.
    Request { messages_json: Bytes, max_tokens: Option<u32> },
    /// What the user says turn by turn, each rendered with a comma after it. The first has a system prompt before it,
    /// if there is one.
    Turns(Vec<Box<[u8]>>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: Option<String>,
    messages: Option<Box<RawValue>>,
    max_tokens: Option<u32>,
}

impl PromptFile {
    /// The largest file; its texts are held in memory.
    pub const BYTES_MAX: u64 = 1 << 30;

    /// Reads a file of either form.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or has a line that is no prompt.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        if bytes > Self::BYTES_MAX {
            let max = Self::BYTES_MAX;
            return Err(Error::Config(format!(
                "{} has {bytes} bytes, but a file of prompts may have at most {max}; split it",
                path.display()
            )));
        }
        // A file that grows meanwhile is read no further.
        Self::parse(path, BufReader::new(file.take(Self::BYTES_MAX)))
    }

    /// Parses what `reader` gives; `path` is for errors.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn parse(path: &Path, mut reader: impl BufRead) -> Result<Self, Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        let wrong = |line, reason: String| Error::Line { path: path.to_owned(), line, reason };
        let blank_lines = skip_blanks(&mut reader).map_err(failed)?;
        let is_list = reader.fill_buf().map_err(failed)?.first() == Some(&b'[');
        let prompts = if is_list {
            share_gpt::parse(reader).map_err(|(line, reason)| wrong(blank_lines + line, reason))?
        } else {
            lines(reader, blank_lines, &wrong)?
        };
        if prompts.is_empty() {
            return Err(wrong(1, "the file holds no prompt; at least one was expected".into()));
        }
        Ok(Self { prompts })
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.prompts.len()
    }

    /// Whether there is none; never so for one that was parsed.
    pub const fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }

    pub(super) fn ask(&self, index: u64, turn: u32, history: &[String], answers: &AnswerLengths) -> Question {
        let index = index % WARMUP_INDEX_START;
        let sampled = answers.of(index, turn);
        match &self.prompts[(index % self.prompts.len() as u64) as usize] {
            Given::Request { messages_json, max_tokens } => Question {
                messages_json: messages_json.clone(),
                max_tokens: max_tokens.unwrap_or(sampled),
                prompt_tokens: 0,
                more_turns: false,
            },
            Given::Turns(turns) => {
                let last = (turn as usize).min(turns.len() - 1);
                let mut out = b"[".to_vec();
                for (past, said) in turns[..last].iter().enumerate() {
                    out.extend_from_slice(said);
                    if let Some(answer) = history.get(past) {
                        answered(&mut out, answer);
                    }
                }
                out.extend_from_slice(&turns[last]);
                close(&mut out);
                let more_turns = last + 1 < turns.len();
                Question { messages_json: out.into(), max_tokens: sampled, prompt_tokens: 0, more_turns }
            }
        }
    }
}

/// Goes to the first byte that is no white space and returns how many lines that took.
fn skip_blanks(reader: &mut impl BufRead) -> std::io::Result<usize> {
    let mut lines = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let blanks = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        lines += buffer[..blanks].iter().filter(|byte| **byte == b'\n').count();
        let is_all = blanks > 0 && blanks == buffer.len();
        reader.consume(blanks);
        if !is_all {
            return Ok(lines);
        }
    }
}

fn lines(
    reader: impl BufRead,
    blank_lines: usize,
    wrong: &impl Fn(usize, String) -> Error,
) -> Result<Vec<Given>, Error> {
    let mut prompts = Vec::new();
    for (index, line) in reader.lines().enumerate() {
        let number = blank_lines + index + 1;
        let line = line.map_err(|error| wrong(number, error.to_string()))?;
        if !line.trim().is_empty() {
            prompts.push(request(&line).map_err(|reason| wrong(number, reason))?);
        }
    }
    Ok(prompts)
}

fn request(line: &str) -> Result<Given, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let messages_json = match (line.prompt, line.messages) {
        (Some(prompt), None) => {
            let mut out = b"[{\"role\":\"user\",\"content\":".to_vec();
            write_text(&mut out, &prompt);
            out.extend_from_slice(b"}]");
            Bytes::from(out)
        }
        (None, Some(messages)) if messages.get().starts_with('[') => {
            Bytes::copy_from_slice(messages.get().as_bytes())
        }
        (None, Some(_)) => return Err("`messages` must be a list".into()),
        _ => return Err("either `prompt` or `messages` was expected".into()),
    };
    if line.max_tokens == Some(0) {
        return Err("`max_tokens` is 0, but must be 1 or more".into());
    }
    Ok(Given::Request { messages_json, max_tokens: line.max_tokens })
}
