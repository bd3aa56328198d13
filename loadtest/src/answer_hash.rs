//! A hash of an answer's text, by which answers of different runs are compared. It is the same for a streamed and a
//! whole answer, on every machine and in every version: records keep it.

/// FNV-1a of 64 bits (Fowler, Noll and Vo) over the content, with that of a reasoning model's thoughts mixed in when
/// there are any. It guards against mistakes, not against malice.
#[derive(Clone, Copy, Debug)]
pub struct AnswerHash {
    content: u64,
    thoughts: u64,
}

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

fn fnv(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// The hash of other bytes, such as a prompt's.
pub(crate) fn of_bytes(bytes: &[u8]) -> u64 {
    fnv(OFFSET, bytes)
}

impl AnswerHash {
    /// Of nothing yet.
    pub const fn new() -> Self {
        Self { content: OFFSET, thoughts: OFFSET }
    }

    /// Adds a piece of the content.
    pub fn push_content(&mut self, text: &str) {
        self.content = fnv(self.content, text.as_bytes());
    }

    /// Adds a piece of the thoughts.
    pub fn push_thoughts(&mut self, text: &str) {
        self.thoughts = fnv(self.thoughts, text.as_bytes());
    }

    /// The hash of what was added.
    pub const fn finish(&self) -> u64 {
        self.content ^ (self.thoughts ^ OFFSET).rotate_left(32)
    }
}

impl Default for AnswerHash {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(content: &[&str], thoughts: &[&str]) -> u64 {
        let mut hash = AnswerHash::new();
        content.iter().for_each(|text| hash.push_content(text));
        thoughts.iter().for_each(|text| hash.push_thoughts(text));
        hash.finish()
    }

    #[test]
    fn it_is_fnv_1a_as_published() {
        assert_eq!(hash(&[], &[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(&["a"], &[]), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash(&["foobar"], &[]), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn it_sees_the_text_and_not_how_it_was_cut() {
        assert_eq!(hash(&["foo", "", "bar"], &[]), hash(&["foobar"], &[]));
        assert_eq!(hash(&["a"], &["b", "c"]), hash(&["a"], &["bc"]));
        assert_ne!(hash(&["a"], &["b"]), hash(&["b"], &["a"]));
        assert_ne!(hash(&["a"], &[]), hash(&["a"], &["a"]));
    }
}
