//! Conversations of made-up questions and real answers.

use crate::prompts::text::{ID_WORDS, WORD_BYTES, Writer};
use crate::prompts::{AnswerLengths, Question, TokensPerWord};
use crate::random::{Purpose, draw, seed_for};
use crate::scenario::Length;

/// About how many bytes of an answer are a token; it is only used to say how long a prompt is.
const ANSWER_BYTES_PER_TOKEN: usize = 4;

/// The system prompt that all conversations start with; none if it has no tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct System {
    pub(super) tokens: u32,
}

/// Makes the turns of conversations.
#[derive(Debug)]
pub(super) struct Conversations {
    seed: u64,
    words: TokensPerWord,
    tokens: Length,
    turns: u32,
    system: System,
    answers: AnswerLengths,
    /// `[` and the system prompt.
    opening: Box<[u8]>,
}

impl Conversations {
    pub(super) fn new(
        seed: u64,
        words: TokensPerWord,
        tokens: Length,
        turns: u32,
        system: System,
        answers: AnswerLengths,
    ) -> Self {
        let mut opening = b"[".to_vec();
        let system_words = words.words(system.tokens);
        if system_words > 0 {
            opening.extend_from_slice(b"{\"role\":\"system\",\"content\":");
            let start = opening.len();
            Writer::new(&mut opening).own(seed_for(seed, Purpose::Prefix), 0, system_words);
            opening[start] = b'"';
            opening.extend_from_slice(b"\"},");
        }
        Self { seed, words, tokens, turns, system, answers, opening: opening.into() }
    }

    pub(super) fn ask(&self, index: u64, turn: u32, history: &[String]) -> Question {
        let answers_bytes: usize = history.iter().map(String::len).sum();
        let turns = turn as usize + 1;
        let per_turn = (self.words.words(self.tokens.most()) as usize).min(4_096) * WORD_BYTES + 80;
        let mut out = Vec::with_capacity(self.opening.len() + turns * per_turn + answers_bytes);
        out.extend_from_slice(&self.opening);
        let mut tokens = self.system.tokens;
        for past in 0..turn {
            tokens = tokens.saturating_add(self.question(&mut out, index, past));
            if let Some(answer) = history.get(past as usize) {
                answered(&mut out, answer);
                tokens = tokens.saturating_add((answer.len() / ANSWER_BYTES_PER_TOKEN) as u32);
            }
        }
        tokens = tokens.saturating_add(self.question(&mut out, index, turn));
        close(&mut out);
        Question {
            messages_json: out.into(),
            max_tokens: self.answers.of(index, turn),
            prompt_tokens: tokens,
            more_turns: turn.saturating_add(1) < self.turns,
        }
    }

    /// Writes a turn of the user and returns its tokens.
    fn question(&self, out: &mut Vec<u8>, index: u64, turn: u32) -> u32 {
        let of_turn = |purpose| draw(seed_for(self.seed, purpose), u64::from(turn));
        let tokens = self.tokens.sample(of_turn(Purpose::PromptTokens), index).max(ID_WORDS as u32);
        out.extend_from_slice(b"{\"role\":\"user\",\"content\":");
        let start = out.len();
        Writer::new(out).own(of_turn(Purpose::Words), index, self.words.words(tokens).max(ID_WORDS));
        out[start] = b'"';
        out.extend_from_slice(b"\"},");
        tokens
    }
}

/// Writes an answer as the turn of the assistant that it was.
pub(super) fn answered(out: &mut Vec<u8>, answer: &str) {
    out.extend_from_slice(b"{\"role\":\"assistant\",\"content\":");
    write_text(out, answer);
    out.extend_from_slice(b"},");
}

/// Ends a list whose messages have a comma each.
pub(super) fn close(out: &mut [u8]) {
    if let Some(last) = out.last_mut() {
        *last = b']';
    }
}

/// Writes text as a JSON string.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, text).is_err() {
        // A vector takes every byte, so this is never needed.
        out.truncate(start);
        out.extend_from_slice(b"\"\"");
    }
}
