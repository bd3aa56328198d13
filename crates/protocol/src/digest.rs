//! Prefix digests: what two requests share at their start, told without a tokenizer.
//!
//! The gateway must know which worker has already seen the start of a prompt, but only a worker has the tokenizer.
//! So both hash the request's own text: each full block of [`PREFIX_BLOCK_BYTES`] bytes, chained to the one before
//! and salted by tenant. Two requests share a digest exactly if they share everything up to that block's end.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Message, Prompt};

/// One block is about 64 tokens of English.
pub const PREFIX_BLOCK_BYTES: usize = 256;

/// No more blocks than this are hashed: 16 KiB of text tell conversations apart.
const BLOCKS_MAX: usize = 64;

/// The hash of everything up to the end of one block. Written as hexadecimal, since JSON numbers end at 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PrefixDigest(pub u64);

impl From<PrefixDigest> for String {
    fn from(digest: PrefixDigest) -> Self {
        format!("{:016x}", digest.0)
    }
}

impl TryFrom<String> for PrefixDigest {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self)
    }
}

/// Digests of the full blocks of `pieces` (roles and texts of messages, or a prompt), shortest prefix first.
/// Pieces are separated, so that `["ab", "c"]` and `["a", "bc"]` differ.
pub fn prefix_digests<'a>(salt: &str, pieces: impl IntoIterator<Item = &'a str>) -> Vec<PrefixDigest> {
    let mut chain = Sha256::new_with_prefix(salt.as_bytes());
    let mut digests = Vec::new();
    let mut block_fill = 0;
    for piece in pieces {
        for mut bytes in [piece.as_bytes(), &[0xff]] {
            while !bytes.is_empty() {
                let take = bytes.len().min(PREFIX_BLOCK_BYTES - block_fill);
                chain.update(&bytes[..take]);
                bytes = &bytes[take..];
                block_fill += take;
                if block_fill == PREFIX_BLOCK_BYTES {
                    block_fill = 0;
                    digests.push(head_of(chain.clone()));
                    if digests.len() == BLOCKS_MAX {
                        return digests;
                    }
                }
            }
        }
    }
    digests
}

/// Digests of a conversation.
pub fn chat_digests(salt: &str, messages: &[Message]) -> Vec<PrefixDigest> {
    let texts: Vec<(&str, String)> =
        messages.iter().map(|message| (message.role.as_str(), message.text())).collect();
    prefix_digests(salt, texts.iter().flat_map(|(role, text)| [*role, text.as_str()]))
}

/// Digests of a completion's prompt; of several, the first. Prompts of token ids have none.
pub fn prompt_digests(salt: &str, prompt: &Prompt) -> Vec<PrefixDigest> {
    match prompt {
        Prompt::Text(text) => prefix_digests(salt, [text.as_str()]),
        Prompt::Texts(texts) => prefix_digests(salt, texts.iter().take(1).map(String::as_str)),
        Prompt::Ids(_) | Prompt::IdLists(_) => Vec::new(),
    }
}

fn head_of(chain: Sha256) -> PrefixDigest {
    let hash = chain.finalize();
    PrefixDigest(hash[..8].iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shared(left: &[PrefixDigest], right: &[PrefixDigest]) -> usize {
        left.iter().zip(right).take_while(|(left, right)| left == right).count()
    }

    proptest! {
        #[test]
        fn requests_share_exactly_the_blocks_of_their_common_start(
            start in "[a-z]{0,2000}", left in "[a-m]{1,600}", right in "[n-z]{1,600}",
        ) {
            let (left, right) = (format!("{start}{left}"), format!("{start}{right}"));
            let (left, right) = (prefix_digests("", [left.as_str()]), prefix_digests("", [right.as_str()]));
            prop_assert_eq!(shared(&left, &right), start.len() / PREFIX_BLOCK_BYTES);
        }
    }

    #[test]
    fn tenants_and_piece_boundaries_tell_prefixes_apart() {
        let text = "x".repeat(600);
        assert_eq!(prefix_digests("", [text.as_str()]).len(), 2);
        assert_eq!(shared(&prefix_digests("a", [text.as_str()]), &prefix_digests("b", [text.as_str()])), 0);
        assert_eq!(
            shared(
                &prefix_digests("", [&text[..100], &text[100..]]),
                &prefix_digests("", [&text[..101], &text[101..]])
            ),
            0
        );
    }

    #[test]
    fn a_digest_survives_json() {
        let digest = PrefixDigest(u64::MAX - 1);
        let text = serde_json::to_string(&digest).expect("serializes");
        assert_eq!(text, r#""fffffffffffffffe""#);
        assert_eq!(serde_json::from_str::<PrefixDigest>(&text).expect("parses"), digest);
    }
}
