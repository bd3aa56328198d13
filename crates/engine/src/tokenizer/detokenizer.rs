//! Token ids to text as they come.

use super::Tokenizer;

/// Turns a stream of ids into a stream of text, where a character may take several tokens.
///
/// All that it returned, joined, is what [`Tokenizer::decode`] gives for the whole list.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    /// The start of a character whose other bytes are still to come; three bytes at most between calls.
    pending: Vec<u8>,
    skip_special: bool,
}

impl Default for Detokenizer {
    fn default() -> Self {
        Self::new(true)
    }
}

impl Detokenizer {
    /// An empty stream that leaves control tokens out, or shows them as text.
    pub fn new(skip_special: bool) -> Self {
        Self { pending: Vec::new(), skip_special }
    }

    /// The text that `id` makes certain: whole characters only, and empty while one is incomplete.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if self.skip_special && tokenizer.is_special(id) {
            return String::new();
        }
        self.pending.extend_from_slice(tokenizer.token_bytes(id).unwrap_or_default());
        self.take_certain()
    }

    /// What is left at the end: U+FFFD for a character that was never completed.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }

    fn take_certain(&mut self) -> String {
        let mut text = String::new();
        let mut position = 0;
        loop {
            let rest = &self.pending[position..];
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    position = self.pending.len();
                    break;
                }
                Err(error) => {
                    let (valid, _) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    position += error.valid_up_to();
                    let Some(invalid) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    position += invalid;
                }
            }
        }
        self.pending.drain(..position);
        text
    }
}
