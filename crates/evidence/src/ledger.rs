//! Who has given which sample already.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use crate::{Evidence, Latency, LatencyKey, Rate, Stratum, VersionEvidence};

/// One attempt at a worker, as it ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The user or conversation, as a hash that is the same for all of its requests.
    pub user: u64,
    /// Whether the attempt failed; then nothing else counts.
    pub failed: bool,
    /// Whether the worker had no place for it; then nothing else counts either.
    pub refused: bool,
    /// Whether the answer's end came; where the client left before, nothing is known of the next two.
    pub whole: bool,
    /// Whether the answer ended at its length, or without a reason.
    pub truncated: bool,
    /// Whether it has no text.
    pub empty: bool,
    /// Prompt tokens that were not in the prefix cache.
    pub uncached_tokens: u64,
    /// Seconds to the first token, of a stream, or until the client waited for it no longer.
    pub time_to_first_token_s: Option<f64>,
    /// Mean seconds between tokens, of a stream.
    pub inter_token_s: Option<f64>,
    /// Seconds to the last byte, or until the client waited for it no longer.
    pub end_to_end_s: Option<f64>,
}

impl Seen {
    const fn was_answered(&self) -> bool {
        !self.failed && !self.refused
    }
}

/// Evidence under way, together with who contributed what: a user counts once a version.
#[derive(Debug)]
pub struct Ledger {
    step: String,
    versions: BTreeMap<String, Page>,
    users_max: usize,
}

/// What is known of one version.
#[derive(Debug, Default)]
struct Page {
    seen: VersionEvidence,
    /// Bits as [`bit_of_latency`] and [`bit_of_rate`] have them.
    users: HashMap<u64, u16>,
}

const SEEN: u16 = 1;
const FAILED: u16 = 2;

const fn bit_of_latency(latency: Latency) -> u16 {
    4 << latency as u16
}

const fn bit_of_rate(rate: Rate) -> u16 {
    32 << rate as u16
}

impl Ledger {
    /// Nothing seen yet of a step. At most `users_max` users of a version are told apart; what later ones do is not
    /// counted, for a step that has heard so many has heard enough.
    pub fn new(step: impl Into<String>, users_max: usize) -> Self {
        Self { step: step.into(), versions: BTreeMap::new(), users_max }
    }

    /// The step that is looked at.
    pub fn step(&self) -> &str {
        &self.step
    }

    /// All that was seen so far.
    pub fn evidence(&self) -> Evidence {
        let versions = self.versions.iter().map(|(version, page)| (version.clone(), page.seen.clone()));
        Evidence { step: self.step.clone(), versions: versions.collect() }
    }

    /// An attempt at a version begins.
    pub fn begin(&mut self, version: &str) {
        if let Some(page) = self.page(version) {
            page.seen.requests += 1;
        }
    }

    /// It has ended.
    pub fn record(&mut self, version: &str, seen: &Seen) {
        let users_max = self.users_max;
        if let Some(page) = self.page(version) {
            page.record(seen, users_max);
        }
    }

    /// A version's page; only a new one's name is copied.
    fn page(&mut self, version: &str) -> Option<&mut Page> {
        if !self.versions.contains_key(version) {
            self.versions.insert(version.to_owned(), Page::default());
        }
        self.versions.get_mut(version)
    }
}

impl Page {
    fn record(&mut self, seen: &Seen, users_max: usize) {
        self.seen.failed += u64::from(seen.failed);
        let full = self.users.len() >= users_max;
        let given = match self.users.entry(seen.user) {
            Entry::Vacant(_) if full => return,
            entry => entry.or_default(),
        };
        self.seen.users += u64::from(*given & SEEN == 0);
        *given |= SEEN;
        self.seen.failed_users += u64::from(seen.failed && *given & FAILED == 0);
        *given |= if seen.failed { FAILED } else { 0 };
        self.seen.count_rates(seen, given);
        self.seen.count_latencies(seen, given);
    }
}

impl VersionEvidence {
    fn count_rates(&mut self, seen: &Seen, given: &mut u16) {
        let whole = seen.whole && seen.was_answered();
        for (rate, is_known, happened) in [
            (Rate::Error, !seen.refused, seen.failed),
            (Rate::Refused, !seen.failed, seen.refused),
            (Rate::Truncated, whole, seen.truncated),
            (Rate::Empty, whole, seen.empty),
        ] {
            if is_known && *given & bit_of_rate(rate) == 0 {
                *given |= bit_of_rate(rate);
                let count = self.rates.entry(rate).or_default();
                count.trials += 1;
                count.events += u64::from(happened);
            }
        }
    }

    fn count_latencies(&mut self, seen: &Seen, given: &mut u16) {
        for (latency, seconds) in [
            (Latency::TimeToFirstToken, seen.time_to_first_token_s),
            (Latency::InterToken, seen.inter_token_s),
            (Latency::EndToEnd, seen.end_to_end_s),
        ] {
            let Some(seconds) =
                seconds.filter(|_| seen.was_answered() && *given & bit_of_latency(latency) == 0)
            else {
                continue;
            };
            *given |= bit_of_latency(latency);
            let stratum = match latency {
                Latency::TimeToFirstToken | Latency::EndToEnd => {
                    Stratum::of_uncached_tokens(seen.uncached_tokens)
                }
                Latency::InterToken => Stratum::default(),
            };
            let key = LatencyKey { latency, stratum };
            self.latencies.entry(key).or_default().add(seconds);
        }
    }
}
