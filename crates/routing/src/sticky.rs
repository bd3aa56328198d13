//! Who stays on one version.

use sha2::{Digest, Sha256};

/// No more of a text than this is hashed, so that a huge prompt costs no more than a long one.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// Stands for a conversation or a user: requests with the same key get the same version. It is a hash that is the
/// same in every process, so that gateways agree without talking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StickyKey(u64);

impl StickyKey {
    /// The key is made of the first that is there: `session`, which the client sets for this purpose; `user`, from
    /// the request; the system message and the first user message, which stay the same through a conversation. Empty
    /// texts count as absent. Requests with nothing at all share one key.
    ///
    /// The API key is no part of it: one customer's many users would all move to a canary at once.
    pub fn from_parts(
        session: Option<&str>,
        user: Option<&str>,
        system: Option<&str>,
        first_user: Option<&str>,
    ) -> Self {
        let present = |text: Option<&'_ str>| text.is_some_and(|text| !text.is_empty());
        let (kind, parts) = if present(session) {
            ("session", [session, None])
        } else if present(user) {
            ("user", [user, None])
        } else {
            ("prompt", [system, first_user])
        };
        let mut hash = FramedHash::new(kind);
        for part in parts {
            hash.text(part.unwrap_or_default());
        }
        Self(hash.finish())
    }

    /// Tells users apart where they are counted.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// A number spread evenly over all of `u64`, independent between models and between salts.
    pub(crate) fn position(self, model: &str, salt: &str) -> u64 {
        let mut hash = FramedHash::new("version");
        hash.text(salt);
        hash.text(model);
        hash.0.update(self.0.to_le_bytes());
        hash.finish()
    }
}

/// SHA-256 over texts with their lengths, so that `["ab", "c"]` and `["a", "bc"]` differ.
struct FramedHash(Sha256);

impl FramedHash {
    fn new(kind: &str) -> Self {
        let mut hash = Self(Sha256::new());
        hash.text(kind);
        hash
    }

    fn text(&mut self, text: &str) {
        let bytes = &text.as_bytes()[..text.len().min(TEXT_BYTES_MAX)];
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> u64 {
        self.0.finalize()[..8].iter().fold(0, |value, byte| (value << 8) | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_of_the_session_else_the_user_else_the_start_of_the_conversation() {
        let key = StickyKey::from_parts;
        let (s, u, sys, first) = (Some("s"), Some("u"), Some("be kind"), Some("hello"));
        assert_eq!(key(s, u, sys, first), key(s, None, None, Some("other")));
        assert_eq!(key(None, u, sys, first), key(Some(""), u, None, None));
        assert_eq!(key(None, None, sys, first), key(None, Some(""), sys, first));
        let all = [
            key(Some("x"), None, None, None),
            key(None, Some("x"), None, None),
            key(None, None, Some("x"), None),
            key(None, None, None, Some("x")),
            key(None, None, Some("x"), Some("y")),
            key(None, None, Some("xy"), None),
            key(None, None, None, None),
        ];
        for (index, left) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(left), "key {index} is not unique");
        }
    }

    #[test]
    fn a_key_is_the_same_in_every_process_and_release() {
        let key = StickyKey::from_parts(Some("alice"), None, None, None);
        assert_eq!(key, StickyKey(1_808_550_347_854_030_182));
        assert_eq!(key.position("model", ""), 6_226_574_140_542_032_721);
    }

    #[test]
    fn a_text_that_differs_only_far_behind_costs_no_more_than_a_long_one_and_its_length_still_counts() {
        let long = "x".repeat(TEXT_BYTES_MAX * 2);
        let key = |text: &str| StickyKey::from_parts(None, None, None, Some(text));
        assert_eq!(key(&format!("{long}a")), key(&format!("{long}b")));
        assert_ne!(key(&format!("{long}a")), key(&format!("{long}ab")));
    }
}
