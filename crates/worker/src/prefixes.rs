//! The prefixes that this worker has seen most recently, for the gateway's balancer.

use std::collections::{BTreeMap, HashMap};

use protocol::PrefixDigest;

/// A bounded set in order of last use.
#[derive(Debug)]
pub(crate) struct HotPrefixes {
    max: usize,
    used: u64,
    by_digest: HashMap<PrefixDigest, u64>,
    by_use: BTreeMap<u64, PrefixDigest>,
}

impl HotPrefixes {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, used: 0, by_digest: HashMap::new(), by_use: BTreeMap::new() }
    }

    /// Marks prefixes as used now. The longest is marked first, so that a start outlives what follows it.
    pub(crate) fn touch(&mut self, digests: &[PrefixDigest]) {
        for digest in digests.iter().rev() {
            self.used += 1;
            if let Some(before) = self.by_digest.insert(*digest, self.used) {
                self.by_use.remove(&before);
            }
            self.by_use.insert(self.used, *digest);
        }
        while self.by_use.len() > self.max {
            if let Some((_, oldest)) = self.by_use.pop_first() {
                self.by_digest.remove(&oldest);
            }
        }
    }

    /// Newest first.
    pub(crate) fn list(&self) -> Vec<PrefixDigest> {
        self.by_use.values().rev().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_a_start_outlives_its_end() {
        let mut prefixes = HotPrefixes::new(3);
        prefixes.touch(&[PrefixDigest(1), PrefixDigest(2)]);
        prefixes.touch(&[PrefixDigest(1), PrefixDigest(3), PrefixDigest(4)]);
        assert_eq!(prefixes.list(), [PrefixDigest(1), PrefixDigest(3), PrefixDigest(4)]);
        prefixes.touch(&[PrefixDigest(5)]);
        assert_eq!(prefixes.list(), [PrefixDigest(5), PrefixDigest(1), PrefixDigest(3)]);
    }
}
