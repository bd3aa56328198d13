//! Blocks of keys and values: who holds them, which are free, and which free ones still hold a known prefix.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::BlockHash;

/// Names a block of the KV-cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockId(pub u32);

const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Block {
    ref_count: u32,
    hash: Option<BlockHash>,
    /// Neighbours in the free list, meaningful while `ref_count` is 0.
    previous: u32,
    next: u32,
}

/// A fixed number of blocks.
///
/// A block that nobody holds is in the free list, which is ordered by when it was given up: the front is taken next.
/// It keeps its content and its hash until it is taken, so a later sequence with the same prefix finds it there.
/// Every operation is O(1).
#[derive(Clone, Debug)]
pub struct BlockPool {
    blocks: Vec<Block>,
    index: HashMap<BlockHash, BlockId>,
    head: u32,
    tail: u32,
    num_free: usize,
}

impl BlockPool {
    /// `num_blocks` free blocks.
    pub fn new(num_blocks: usize) -> Self {
        assert!(num_blocks < NONE as usize, "too many blocks");
        let empty = Block { ref_count: 0, hash: None, previous: NONE, next: NONE };
        let mut pool = Self {
            blocks: vec![empty; num_blocks],
            index: HashMap::new(),
            head: NONE,
            tail: NONE,
            num_free: 0,
        };
        for id in 0..num_blocks as u32 {
            pool.push_back(id);
        }
        pool
    }

    /// Blocks in all.
    pub fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that nobody holds.
    pub fn num_free(&self) -> usize {
        self.num_free
    }

    /// Whether nobody holds this block.
    pub fn is_free(&self, id: BlockId) -> bool {
        self.block(id).ref_count == 0
    }

    /// The block that holds this content, if it is still there.
    pub fn find(&self, hash: &BlockHash) -> Option<BlockId> {
        self.index.get(hash).copied()
    }

    /// Takes the block that was given up longest ago and forgets its content; `None` if all are held.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let id = BlockId((self.head != NONE).then_some(self.head)?);
        self.unlink(id.0);
        if let Some(hash) = self.block(id).hash {
            self.index.remove(&hash);
        }
        let block = &mut self.blocks[id.0 as usize];
        block.hash = None;
        block.ref_count = 1;
        Some(id)
    }

    /// Adds a holder to a block that [`Self::find`] returned.
    pub fn share(&mut self, id: BlockId) {
        assert!(self.block(id).hash.is_some(), "only a block with known content can be shared");
        if self.is_free(id) {
            self.unlink(id.0);
        }
        self.blocks[id.0 as usize].ref_count += 1;
    }

    /// Gives up one holder's claim. A block without known content is of no use to anyone and is taken next.
    pub fn release(&mut self, id: BlockId) {
        let block = &mut self.blocks[id.0 as usize];
        assert!(block.ref_count > 0, "block {} is released more often than it was taken", id.0);
        block.ref_count -= 1;
        if block.ref_count == 0 {
            if block.hash.is_some() { self.push_back(id.0) } else { self.push_front(id.0) }
        }
    }

    /// Records that a held block now holds this content. The first block with a content keeps its place in the index.
    pub fn index(&mut self, id: BlockId, hash: BlockHash) {
        assert!(self.block(id).ref_count > 0, "only a held block can be written to");
        if let std::collections::hash_map::Entry::Vacant(entry) = self.index.entry(hash) {
            entry.insert(id);
            self.blocks[id.0 as usize].hash = Some(hash);
        }
    }

    fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id.0 as usize]
    }

    fn push_back(&mut self, id: u32) {
        let tail = self.tail;
        self.link(id, tail, NONE);
    }

    fn push_front(&mut self, id: u32) {
        let head = self.head;
        self.link(id, NONE, head);
    }

    fn link(&mut self, id: u32, previous: u32, next: u32) {
        let block = &mut self.blocks[id as usize];
        (block.previous, block.next) = (previous, next);
        *self.next_of(previous) = id;
        *self.previous_of(next) = id;
        self.num_free += 1;
    }

    fn unlink(&mut self, id: u32) {
        let Block { previous, next, .. } = self.blocks[id as usize];
        *self.next_of(previous) = next;
        *self.previous_of(next) = previous;
        self.num_free -= 1;
    }

    fn next_of(&mut self, id: u32) -> &mut u32 {
        if id == NONE { &mut self.head } else { &mut self.blocks[id as usize].next }
    }

    fn previous_of(&mut self, id: u32) -> &mut u32 {
        if id == NONE { &mut self.tail } else { &mut self.blocks[id as usize].previous }
    }
}

#[cfg(test)]
impl BlockPool {
    /// Checks the pool against a count of each block's holders.
    pub(crate) fn check(&self, holders: &HashMap<BlockId, u32>) {
        let mut free = Vec::new();
        let mut at = self.head;
        while at != NONE {
            free.push(at);
            at = self.blocks[at as usize].next;
        }
        assert_eq!(free.len(), self.num_free, "the free list has as many blocks as it says");
        for (id, block) in self.blocks.iter().enumerate() {
            let id = BlockId(id as u32);
            let held = holders.get(&id).copied().unwrap_or(0);
            assert_eq!(block.ref_count, held, "block {} is held by as many sequences as it counts", id.0);
            assert_eq!(free.contains(&id.0), held == 0, "block {} is free exactly if nobody holds it", id.0);
            if let Some(hash) = block.hash {
                assert_eq!(self.find(&hash), Some(id), "the index finds each block with known content");
            }
        }
        assert_eq!(self.index.len(), self.blocks.iter().filter(|block| block.hash.is_some()).count());
    }
}
