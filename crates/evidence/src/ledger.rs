//! Who has given which sample already.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::{Evidence, Latency, LatencyKey, Rate, Stratum, VersionEvidence};

/// One attempt at a worker, as it ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The user or conversation, as a hash that is the same for all of its requests.
    pub user: u64,
    /// The worker, by its bounded name.
    pub replica: Arc<str>,
    /// Whether the attempt failed; then nothing else counts.
    pub failed: bool,
    /// Whether the answer ended at its length, or without a reason.
    pub truncated: bool,
    /// Whether it has no text.
    pub empty: bool,
    /// Prompt tokens that were not in the prefix cache.
    pub uncached_tokens: u64,
    /// Seconds to the first token, of a stream.
    pub time_to_first_token_s: Option<f64>,
    /// Mean seconds between tokens, of a stream.
    pub inter_token_s: Option<f64>,
    /// Seconds to the last byte.
    pub end_to_end_s: Option<f64>,
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
    users: HashMap<u64, u8>,
}

const SEEN: u8 = 1;

const fn bit_of_latency(latency: Latency) -> u8 {
    2 << latency as u8
}

const fn bit_of_rate(rate: Rate) -> u8 {
    16 << rate as u8
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

    /// Takes an attempt at a version in.
    pub fn record(&mut self, version: &str, seen: &Seen) {
        if !self.versions.contains_key(version) {
            self.versions.insert(version.to_owned(), Page::default());
        }
        if let Some(page) = self.versions.get_mut(version) {
            page.record(seen, self.users_max);
        }
    }
}

impl Page {
    fn record(&mut self, seen: &Seen, users_max: usize) {
        let full = self.users.len() >= users_max;
        let given = match self.users.entry(seen.user) {
            Entry::Vacant(_) if full => return,
            entry => entry.or_default(),
        };
        self.seen.requests += 1;
        self.seen.users += u64::from(*given & SEEN == 0);
        *given |= SEEN;
        self.seen.count_rates(seen, given);
        self.seen.count_latencies(seen, given);
    }
}

impl VersionEvidence {
    fn count_rates(&mut self, seen: &Seen, given: &mut u8) {
        for (rate, happened) in
            [(Rate::Error, seen.failed), (Rate::Truncated, seen.truncated), (Rate::Empty, seen.empty)]
        {
            if *given & bit_of_rate(rate) != 0 || (seen.failed && rate != Rate::Error) {
                continue;
            }
            let count = self.rates.entry(rate).or_default();
            count.trials += 1;
            count.events += u64::from(happened);
            *given |= if happened { bit_of_rate(rate) } else { 0 };
        }
    }

    fn count_latencies(&mut self, seen: &Seen, given: &mut u8) {
        for (latency, seconds) in [
            (Latency::TimeToFirstToken, seen.time_to_first_token_s),
            (Latency::InterToken, seen.inter_token_s),
            (Latency::EndToEnd, seen.end_to_end_s),
        ] {
            let Some(seconds) = seconds.filter(|_| !seen.failed && *given & bit_of_latency(latency) == 0)
            else {
                continue;
            };
            *given |= bit_of_latency(latency);
            let stratum = match latency {
                Latency::TimeToFirstToken => Stratum::of_uncached_tokens(seen.uncached_tokens),
                Latency::InterToken | Latency::EndToEnd => Stratum::default(),
            };
            let key = LatencyKey { latency, stratum, replica: Arc::clone(&seen.replica) };
            self.latencies.entry(key).or_default().add(seconds);
        }
    }
}
