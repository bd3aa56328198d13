//! Guesses without a model: what follows is what followed the last time these tokens were written.
//!
//! This is prompt lookup decoding (Saxena, 2023), n-gram speculation in vLLM. Guesses are checked in one step, like a
//! chunk of a prompt, and those that turn out wrong cost their rows. So a guess is made only where it is worth its row:
//! each sequence keeps count of how often guesses came true, also of those that nobody computed.

use std::collections::HashMap;

/// How many earlier places are looked at for the longest match.
const CANDIDATES_MAX: usize = 16;
/// Longer matches are not told apart.
const MATCH_MAX: usize = 32;
/// Where a class of matches ends: short, middling and long ones come true with different chances.
const CLASS_ENDS: [usize; 2] = [6, 12];
/// How often matches of each class come true until the sequence itself has shown it, and how many trials that counts
/// for.
const CHANCE_AT_FIRST: [f64; 3] = [0.4, 0.6, 0.8];
const TRIALS_AT_FIRST: f64 = 4.0;
/// What a trial still counts for after one more; some twenty trials are remembered.
const MEMORY: f64 = 0.95;

/// One sequence's guesses. Memory is some thirty bytes a token; a new token takes one look-up at most.
#[derive(Clone, Debug)]
pub(crate) struct Drafter {
    /// Tokens that must be equal for a guess.
    ngram: usize,
    /// By an n-gram's hash, the position after its latest occurrence, and from there to those before, as in deflate.
    latest: HashMap<u64, u32>,
    earlier: Vec<Option<u32>>,
    /// Where the next guess stands, and how many tokens before it equal the sequence's last.
    source: Option<usize>,
    matched: usize,
    /// By class of match: guesses that came true, and all.
    trials: [(f64, f64); 3],
}

impl Drafter {
    /// For a sequence that begins with `tokens`.
    pub(crate) fn new(tokens: &[u32], ngram: usize) -> Self {
        let trials = CHANCE_AT_FIRST.map(|chance| (chance * TRIALS_AT_FIRST, TRIALS_AT_FIRST));
        let mut drafter =
            Self { ngram, latest: HashMap::new(), earlier: vec![None], source: None, matched: 0, trials };
        for end in 1..tokens.len() {
            drafter.index(&tokens[..end]);
        }
        drafter.find(tokens);
        drafter.index(tokens);
        drafter
    }

    /// Takes note that `tokens` has one more.
    pub(crate) fn grown(&mut self, tokens: &[u32]) {
        let came_true = self.source.is_some_and(|source| tokens.last() == Some(&tokens[source]));
        if self.source.is_some() {
            let (hits, all) = &mut self.trials[class(self.matched)];
            *hits = *hits * MEMORY + f64::from(u8::from(came_true));
            *all = *all * MEMORY + 1.0;
        }
        if came_true {
            self.source = self.source.map(|source| source + 1);
            self.matched += 1;
        } else {
            self.find(tokens);
        }
        self.index(tokens);
    }

    /// The guess that follows `tokens` and the guesses made already.
    pub(crate) fn guess(&self, tokens: &[u32], guessed: &[u32]) -> Option<u32> {
        let at = self.source? + guessed.len();
        // What repeats itself overlaps with its own guesses.
        tokens.get(at).or_else(|| guessed.get(at - tokens.len())).copied()
    }

    /// How likely guess number `at`, from 0, and all before it come true.
    pub(crate) fn chance(&self, at: usize) -> f64 {
        let one = |matched| {
            let (hits, all) = self.trials[class(matched)];
            hits / all
        };
        (self.matched..=self.matched + at).map(one).product()
    }

    /// Looks for the longest match; of equal ones, the latest.
    fn find(&mut self, tokens: &[u32]) {
        (self.source, self.matched) = (None, 0);
        let mut at = self.latest.get(&self.key(tokens)).copied();
        for _ in 0..CANDIDATES_MAX {
            let Some(end) = at else { return };
            let before = tokens[..end as usize].iter().rev();
            let equal = before.zip(tokens.iter().rev()).take(MATCH_MAX).take_while(|(a, b)| a == b).count();
            if equal >= self.ngram && equal > self.matched {
                (self.source, self.matched) = (Some(end as usize), equal);
            }
            at = self.earlier[end as usize];
        }
    }

    /// Records the n-gram at the end of `tokens`.
    fn index(&mut self, tokens: &[u32]) {
        let earlier = if tokens.len() < self.ngram {
            None
        } else {
            self.latest.insert(self.key(tokens), tokens.len() as u32)
        };
        self.earlier.push(earlier);
    }

    /// Unequal n-grams may share one: whoever finds a place compares the tokens.
    fn key(&self, tokens: &[u32]) -> u64 {
        let start = tokens.len().saturating_sub(self.ngram);
        let add = |sum: u64, token: &u32| (sum ^ u64::from(*token)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        tokens[start..].iter().fold(0, |sum, token| add(sum, token).rotate_left(29))
    }
}

fn class(matched: usize) -> usize {
    CLASS_ENDS.iter().filter(|end| matched >= **end).count()
}

/// What a step yields for its time, as far as it is planned.
///
/// A step of n rows takes 1 + (n - 1) · c, as many times as long as one of a single row. One more row is worth its
/// time if it brings more tokens for it than the step does without: with many sequences few guesses are. Chunks of
/// prompts don't count, since their time is to be spent in this step or another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepYield {
    tokens: f64,
    time: f64,
    row_time: f64,
}

impl StepYield {
    /// A step in which so many tokens are sampled, a row each.
    pub(crate) fn new(num_sampled: usize, row_cost_percent: u32) -> Self {
        let (tokens, row_time) = (num_sampled as f64, f64::from(row_cost_percent) / 100.0);
        Self { tokens, time: 1.0 + row_time * (tokens - 1.0), row_time }
    }

    /// Adds a row that brings a token with this chance, if it is worth its time.
    pub(crate) fn take(&mut self, chance: f64) -> bool {
        let is_worth = chance * self.time > self.tokens * self.row_time;
        if is_worth {
            self.tokens += chance;
            self.time += self.row_time;
        }
        is_worth
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_guess_follows_the_longest_match_that_has_not_failed_yet(
            tokens in prop::collection::vec(0_u32..3, 2..60), prompt_len in 1_usize..30, ngram in 1_usize..4,
        ) {
            let prompt_len = prompt_len.min(tokens.len());
            let mut drafter = Drafter::new(&tokens[..prompt_len], ngram);
            let mut followed = None;
            for len in prompt_len..=tokens.len() {
                let known = &tokens[..len];
                if len > prompt_len {
                    drafter.grown(known);
                }
                // What came true is followed on; else the longest match is looked for, if sixteen places can have it.
                let equal = |end: usize| (1..=end).take_while(|back| tokens[end - back] == tokens[len - back]).count();
                followed = followed.filter(|end| tokens[*end] == tokens[len - 1]).map(|end| end + 1);
                let places: Vec<usize> = (ngram..len).rev().filter(|end| equal(*end) >= ngram).take(16).collect();
                let longest = || places.iter().copied().rev().max_by_key(|end| equal(*end).min(MATCH_MAX));
                followed = followed.or_else(longest);
                prop_assert_eq!(drafter.guess(known, &[]), followed.map(|end| tokens[end]));
            }
        }
    }

    #[test]
    fn a_text_that_repeats_itself_is_guessed_beyond_its_end() {
        let drafter = Drafter::new(&[7, 8, 9, 7, 8, 9, 7], 2);
        let mut guessed = Vec::new();
        while guessed.len() < 7 {
            guessed.push(drafter.guess(&[7, 8, 9, 7, 8, 9, 7], &guessed).expect("it goes on"));
        }
        assert_eq!(guessed, [8, 9, 7, 8, 9, 7, 8]);
        assert_eq!(Drafter::new(&[1, 2, 3, 4], 2).guess(&[1, 2, 3, 4], &[]), None);
        assert_eq!(Drafter::new(&[1], 2).guess(&[1], &[]), None);
    }

    #[test]
    fn chances_follow_what_came_true_whether_it_was_computed_or_not() {
        let mut tokens: Vec<u32> = (0..70).collect();
        let mut drafter = Drafter::new(&tokens, 2);
        let mut chances = Vec::new();
        // Copies three tokens, then leaves the source, over and over.
        for round in 0..20 {
            let at = 3 * round;
            for token in [at, at + 1, at + 2, 100 + round] {
                tokens.push(token);
                drafter.grown(&tokens);
                chances.extend((token == at + 1).then(|| drafter.chance(0)));
            }
        }
        let (first, last) = (chances[0], chances[chances.len() - 1]);
        assert!((0.35..0.45).contains(&first), "{first}");
        assert!((0.45..0.60).contains(&last), "one of two short matches goes on: {last}");
        for token in 40..70 {
            tokens.push(token);
            drafter.grown(&tokens);
        }
        assert!(drafter.chance(0) > 0.9 && drafter.chance(5) < drafter.chance(0));
    }

    #[test]
    fn a_row_is_taken_if_it_brings_more_for_its_time_than_the_step_without_it() {
        let takes = |num_sampled, percent, chance| StepYield::new(num_sampled, percent).take(chance);
        // Alone, a row of a third of the time needs a chance of a third.
        assert!(takes(1, 33, 0.34) && !takes(1, 33, 0.32));
        // Eight rows take 3.31 times as long, so eight tokens cost 0.41 each.
        assert!(takes(8, 33, 0.80) && !takes(8, 33, 0.79));
        assert!(takes(8, 0, 0.01), "what costs nothing is always worth it");
        let mut alone = StepYield::new(1, 36);
        let taken = (1..).take_while(|at| alone.take(0.9_f64.powi(*at))).count();
        assert_eq!(taken, 4, "each row raises what the next one must bring");
    }
}
