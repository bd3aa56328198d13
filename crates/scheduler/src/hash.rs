//! The name of a block's content: everything from the sequence's start to the block's end.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A chained hash. Two full blocks have the same hash only if their tokens, all tokens before them and the tenant's
/// salt are the same: it is 128 bits of SHA-256, so that a client who picks tokens cannot make two prefixes collide
/// and read another's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockHash([u8; 16]);

impl BlockHash {
    /// The chain's start for a tenant; the empty salt is a tenant like any other.
    pub fn root(salt: &str) -> Self {
        Self::of(Sha256::new_with_prefix(salt.as_bytes()))
    }

    /// The hash of the block that follows this one and holds `tokens`.
    #[must_use]
    pub fn next(&self, tokens: &[u32]) -> Self {
        let mut hasher = Sha256::new_with_prefix(self.0);
        for token in tokens {
            hasher.update(token.to_le_bytes());
        }
        Self::of(hasher)
    }

    fn of(hasher: Sha256) -> Self {
        let digest = hasher.finalize();
        let mut head = [0; 16];
        head.copy_from_slice(&digest[..16]);
        Self(head)
    }
}
