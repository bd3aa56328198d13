use proptest::prelude::*;

use super::*;

fn index(entries_max: u32) -> PrefixIndex {
    PrefixIndex::new(&Config { prefix_entries_max: entries_max, hot_prefixes_max: 3, ..Config::default() })
}

fn digests(numbers: impl IntoIterator<Item = u64>) -> Vec<PrefixDigest> {
    numbers.into_iter().map(PrefixDigest).collect()
}

/// The same, as slowly and plainly as can be: digests with their holders, both newest first.
#[derive(Default)]
struct Plain(Vec<(PrefixDigest, Vec<WorkerId>)>);

impl Plain {
    fn hold(&mut self, worker: WorkerId, digest: PrefixDigest, entries_max: usize) {
        let place = self.0.iter().position(|(known, _)| *known == digest);
        let mut entry = place.map_or_else(|| (digest, Vec::new()), |place| self.0.remove(place));
        entry.1.retain(|holder| *holder != worker);
        entry.1.insert(0, worker);
        entry.1.truncate(4);
        self.0.insert(0, entry);
        self.0.truncate(entries_max);
    }

    fn matched(&self, worker: WorkerId, digests: &[PrefixDigest]) -> usize {
        let holds =
            |digest| self.0.iter().any(|(known, holders)| *known == digest && holders.contains(&worker));
        (0..=digests.len()).rev().find(|length| *length == 0 || holds(digests[length - 1])).unwrap_or(0)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Record(u32, Vec<u64>),
    MergeHot(u32, Vec<u64>),
    Forget(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let numbers = || prop::collection::vec(0..12_u64, 0..6);
    prop_oneof![
        4 => (0..7_u32, numbers()).prop_map(|(worker, numbers)| Step::Record(worker, numbers)),
        2 => (0..7_u32, numbers()).prop_map(|(worker, numbers)| Step::MergeHot(worker, numbers)),
        1 => (0..7_u32).prop_map(Step::Forget),
    ]
}

proptest! {
    #[test]
    fn the_index_agrees_with_a_plain_list_and_never_exceeds_its_bounds(
        steps in prop::collection::vec(step(), 1..60), asked in prop::collection::vec(0..12_u64, 0..6),
    ) {
        let (mut index, mut plain) = (index(8), Plain::default());
        let asked = digests(asked);
        for step in steps {
            match step {
                Step::Record(worker, numbers) => {
                    let digests = digests(numbers);
                    index.record(WorkerId(worker), &digests);
                    digests.iter().rev().for_each(|digest| plain.hold(WorkerId(worker), *digest, 8));
                }
                Step::MergeHot(worker, numbers) => {
                    let digests = digests(numbers);
                    index.merge_hot(WorkerId(worker), &digests);
                    digests.iter().take(3).rev().for_each(|digest| plain.hold(WorkerId(worker), *digest, 8));
                }
                Step::Forget(worker) => {
                    index.forget(WorkerId(worker));
                    plain.0.iter_mut().for_each(|(_, holders)| holders.retain(|holder| *holder != WorkerId(worker)));
                }
            }
            prop_assert!(index.len() <= 8 && index.len() == plain.0.len());
            let matches = index.matches(&asked);
            for worker in (0..7).map(WorkerId) {
                let matched = index.matched(worker, &asked);
                prop_assert_eq!(matched, plain.matched(worker, &asked));
                let listed = matches.iter().find(|(holder, _)| *holder == worker).map_or(0, |(_, matched)| *matched);
                prop_assert_eq!(matched, listed);
            }
        }
    }
}

#[test]
fn memory_is_taken_at_the_start_and_does_not_grow_however_many_prompts_and_workers_come() {
    for (entries_max, prompts) in [(100_000, 4_000), (1_000, 8_000)] {
        let mut index = index(entries_max);
        let (slots_at_start, places_at_start) = (index.slots.capacity(), index.places.capacity());
        // A place in the standard table takes a byte of control more, and an eighth of the places stays free.
        let place_bytes = size_of::<(PrefixDigest, u32)>() + 1;
        let bytes = slots_at_start * size_of::<Slot>() + places_at_start * 8 / 7 * place_bytes;
        assert!(bytes < entries_max as usize * 120, "{entries_max} entries take {bytes} bytes");
        for prompt in 0..prompts {
            index.record(WorkerId(prompt as u32), &digests((0..64).map(|block| prompt * 64 + block)));
            assert!(index.places.capacity() <= places_at_start && index.slots.capacity() == slots_at_start);
        }
        assert_eq!(index.len(), entries_max as usize);
    }
}

#[test]
fn a_hot_prefix_names_no_more_than_four_workers_and_these_are_the_last_seen() {
    let mut index = index(8);
    for worker in 0..6 {
        index.record(WorkerId(worker), &digests([1]));
    }
    let holders: Vec<u32> = index.matches(&digests([1])).iter().map(|(worker, _)| worker.0).collect();
    assert_eq!(holders, [5, 4, 3, 2]);
}

#[test]
fn the_longest_known_prefix_counts_even_where_shorter_ones_name_other_workers() {
    let mut index = index(8);
    index.record(WorkerId(0), &digests([1, 2, 3]));
    for worker in 1..5 {
        index.record(WorkerId(worker), &digests([1]));
    }
    assert_eq!(index.matched(WorkerId(0), &digests([1])), 0);
    assert_eq!(index.matched(WorkerId(0), &digests([1, 2, 3, 4])), 3);
}

#[test]
fn the_end_of_a_prompt_is_dropped_before_its_start() {
    let mut index = index(3);
    index.record(WorkerId(0), &digests([1, 2, 3]));
    index.record(WorkerId(1), &digests([9]));
    assert_eq!(index.matched(WorkerId(0), &digests([1, 2, 3])), 2);
}
