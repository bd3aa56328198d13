//! How many tokens each chunk brought.

use crate::record::{Chunk, TokenBasis, Usage};

/// A chunk before its tokens are settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextChunk {
    pub(super) at_us: u64,
    pub(super) text_bytes: usize,
    pub(super) tokens: Option<u32>,
}

/// Gives every chunk its tokens. `textless_tokens` came after the last text, such as the one that ended the answer.
pub(super) fn settle(
    chunks: Vec<TextChunk>,
    textless_tokens: u32,
    usage: Option<Usage>,
) -> (Vec<Chunk>, TokenBasis) {
    let all_known = !chunks.is_empty() && chunks.iter().all(|chunk| chunk.tokens.is_some());
    let settled = |tokens: &mut dyn FnMut(&TextChunk) -> u32| {
        chunks.iter().map(|chunk| Chunk { at_us: chunk.at_us, tokens: tokens(chunk) }).collect::<Vec<Chunk>>()
    };
    match usage {
        _ if all_known => {
            let mut settled = settled(&mut |chunk| chunk.tokens.unwrap_or(0));
            if let Some(last) = settled.last_mut() {
                last.tokens += textless_tokens;
            }
            (settled, TokenBasis::PerChunk)
        }
        Some(usage) => {
            let mut spread =
                Spread::new(usage.completion_tokens, chunks.iter().map(|chunk| chunk.text_bytes));
            (settled(&mut |chunk| spread.next(chunk.text_bytes)), TokenBasis::Usage)
        }
        None => (settled(&mut |_| 1), TokenBasis::Assumed),
    }
}

/// Spreads tokens over chunks: one each as far as they go, the rest by length of text. Rounding leaves what is over to
/// later chunks, where the token that ended the answer, which has no text, belongs.
pub(super) struct Spread {
    ones: u32,
    rest: u64,
    rest_given: u64,
    bytes_seen: u64,
    all_bytes: u64,
}

impl Spread {
    pub(super) fn new(total: u32, text_bytes: impl ExactSizeIterator<Item = usize>) -> Self {
        let rest = u64::from(total).saturating_sub(text_bytes.len() as u64);
        let all_bytes = text_bytes.sum::<usize>().max(1) as u64;
        Self { ones: total, rest, rest_given: 0, bytes_seen: 0, all_bytes }
    }

    /// The next chunk's.
    pub(super) fn next(&mut self, text_bytes: usize) -> u32 {
        self.bytes_seen += text_bytes as u64;
        let rest_due = self.rest * self.bytes_seen / self.all_bytes;
        let more = rest_due - std::mem::replace(&mut self.rest_given, rest_due);
        let one = self.ones.min(1);
        self.ones -= one;
        one + u32::try_from(more).unwrap_or(u32::MAX)
    }
}
