//! What each id stands for.

/// The bytes of every token in one allocation, and which tokens are special.
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    /// Where each token's bytes end; they start where the one before ends.
    ends: Vec<u32>,
    special: Vec<bool>,
    longest: usize,
}

impl Vocabulary {
    pub(super) fn with_capacity(tokens: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(tokens * 8),
            ends: Vec::with_capacity(tokens),
            special: Vec::with_capacity(tokens),
            longest: 0,
        }
    }

    /// Gives the next id to a token; no bytes for an id that nothing is assigned to.
    pub(super) fn push(&mut self, bytes: &[u8], special: bool) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len() as u32);
        self.special.push(special);
        self.longest = self.longest.max(bytes.len());
    }

    /// Bytes of the longest token.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)? as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] as usize };
        (start < end).then(|| &self.bytes[start..end])
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }
}
