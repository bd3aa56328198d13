//! Which workers have likely cached the start of a prompt.
//!
//! Likely, not surely: a worker evicts without telling. The gateway learns from its own choices at once and from the
//! workers' load reports a little later, which also carry what other gateways sent there.

use std::collections::HashMap;

use protocol::PrefixDigest;

use crate::{Config, WorkerId};

/// A worker more would add little: a prefix that hot is found on all of them soon.
const HOLDERS_MAX: usize = 4;

/// No slot.
const NONE: u32 = u32::MAX;

/// A map from digest to the workers that have likely seen it, least recently used digests dropped first. All memory
/// is taken at the start: about 100 bytes a digest.
#[derive(Debug)]
pub struct PrefixIndex {
    entries_max: usize,
    hot_prefixes_max: usize,
    /// Where each digest's slot is.
    places: HashMap<PrefixDigest, u32>,
    slots: Vec<Slot>,
    newest: u32,
    oldest: u32,
}

/// One digest, linked to those used just before and after it.
#[derive(Debug)]
struct Slot {
    digest: PrefixDigest,
    holders: Holders,
    newer: u32,
    older: u32,
}

/// The workers that hold a prefix, the last seen first.
#[derive(Clone, Copy, Debug, Default)]
struct Holders {
    ids: [WorkerId; HOLDERS_MAX],
    count: u8,
}

impl Holders {
    fn as_slice(&self) -> &[WorkerId] {
        &self.ids[..usize::from(self.count)]
    }

    /// Puts the worker first, in place of the one seen longest ago where there is no more room.
    fn put(&mut self, worker: WorkerId) {
        let place = match self.as_slice().iter().position(|holder| *holder == worker) {
            Some(place) => place,
            None => {
                self.count = (self.count + 1).min(HOLDERS_MAX as u8);
                usize::from(self.count) - 1
            }
        };
        self.ids[..=place].rotate_right(1);
        self.ids[0] = worker;
    }

    fn remove(&mut self, worker: WorkerId) {
        if let Some(place) = self.as_slice().iter().position(|holder| *holder == worker) {
            self.ids[place..usize::from(self.count)].rotate_left(1);
            self.count -= 1;
        }
    }
}

impl PrefixIndex {
    /// An empty index with the bounds of a validated configuration.
    pub fn new(config: &Config) -> Self {
        let entries_max = config.prefix_entries_max as usize;
        assert!(
            (1..NONE as usize).contains(&entries_max),
            "a validated configuration has from 1 to 10,000,000"
        );
        Self {
            entries_max,
            hot_prefixes_max: config.hot_prefixes_max as usize,
            // A hash table less than half full clears removed places instead of growing.
            places: HashMap::with_capacity(2 * entries_max + 2),
            slots: Vec::with_capacity(entries_max),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// Notes that `worker` was sent a prompt with these digests, shortest prefix first.
    pub fn record(&mut self, worker: WorkerId, digests: &[PrefixDigest]) {
        // The shortest prefix is used last, as the newest: a long one is of no use without it and goes first.
        for digest in digests.iter().rev() {
            self.hold(worker, *digest);
        }
    }

    /// Notes what `worker` says it has cached, newest first. What it leaves out may still be there, since its list is
    /// bounded. No more than `hot_prefixes_max` are read, so that no report can push out all the others'.
    pub fn merge_hot(&mut self, worker: WorkerId, digests: &[PrefixDigest]) {
        for digest in digests.iter().take(self.hot_prefixes_max).rev() {
            self.hold(worker, *digest);
        }
    }

    /// Drops a worker that has gone or lost its cache. It reads the whole index, a millisecond or less at the
    /// default size; digests that no worker holds any more are left to age out.
    pub fn forget(&mut self, worker: WorkerId) {
        for slot in &mut self.slots {
            slot.holders.remove(worker);
        }
    }

    /// How many blocks of the prompt's start `worker` has likely cached, 0 to `digests.len()`. A digest stands for
    /// all that comes before it, so the longest known one decides, even where shorter ones were dropped.
    pub fn matched(&self, worker: WorkerId, digests: &[PrefixDigest]) -> usize {
        digests
            .iter()
            .rposition(|digest| self.holders(*digest).contains(&worker))
            .map_or(0, |index| index + 1)
    }

    /// [`Self::matched`] for all workers where it is above 0, most blocks first.
    pub(crate) fn matches(&self, digests: &[PrefixDigest]) -> Vec<(WorkerId, usize)> {
        let mut matches: Vec<(WorkerId, usize)> = Vec::new();
        for (index, digest) in digests.iter().enumerate().rev() {
            for holder in self.holders(*digest) {
                if !matches.iter().any(|(worker, _)| worker == holder) {
                    matches.push((*holder, index + 1));
                }
            }
        }
        matches
    }

    /// Digests in the index.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing is known yet.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn holders(&self, digest: PrefixDigest) -> &[WorkerId] {
        self.places.get(&digest).map_or(&[], |slot| self.slots[*slot as usize].holders.as_slice())
    }

    fn hold(&mut self, worker: WorkerId, digest: PrefixDigest) {
        let slot = match self.places.get(&digest) {
            Some(slot) => {
                let slot = *slot;
                self.unlink(slot);
                slot
            }
            None => self.make_room(digest),
        };
        self.link_newest(slot);
        self.slots[slot as usize].holders.put(worker);
    }

    /// An unlinked slot for a new digest: a fresh one, or the oldest one's.
    fn make_room(&mut self, digest: PrefixDigest) -> u32 {
        let fresh = Slot { digest, holders: Holders::default(), newer: NONE, older: NONE };
        let slot = if self.slots.len() < self.entries_max {
            self.slots.push(fresh);
            (self.slots.len() - 1) as u32
        } else {
            let slot = self.oldest;
            self.unlink(slot);
            self.places.remove(&self.slots[slot as usize].digest);
            self.slots[slot as usize] = fresh;
            slot
        };
        self.places.insert(digest, slot);
        slot
    }

    fn link_newest(&mut self, slot: u32) {
        let second = std::mem::replace(&mut self.newest, slot);
        self.slots[slot as usize].older = second;
        self.slots[slot as usize].newer = NONE;
        if second == NONE {
            self.oldest = slot;
        } else {
            self.slots[second as usize].newer = slot;
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Slot { newer, older, .. } = self.slots[slot as usize];
        if newer == NONE {
            self.newest = older;
        } else {
            self.slots[newer as usize].older = older;
        }
        if older == NONE {
            self.oldest = newer;
        } else {
            self.slots[older as usize].newer = newer;
        }
    }
}

#[cfg(test)]
mod tests;
