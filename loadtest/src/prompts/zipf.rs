//! Which of a number of prompts comes next.

use crate::error::Error;
use crate::random::unit;
use crate::scenario::Zipf;

/// Ranks in proportion to rank^-exponent, by inversion of a table of their sums: one draw gives one rank, whatever
/// came before, so that ranks too are functions of an index.
#[derive(Clone, Debug)]
pub(crate) struct Ranks {
    /// The share of the first n ranks, for each n from 1. The last is 1.
    cumulative: Vec<f64>,
}

impl Ranks {
    /// The most prompts: their table has 8 bytes for each.
    pub(crate) const PROMPTS_MAX: u64 = 1_000_000;

    pub(crate) fn new(zipf: Zipf) -> Result<Self, Error> {
        let prompts = zipf.prompts.min(Self::PROMPTS_MAX);
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=prompts)
            .map(|rank| {
                sum += (rank as f64).powf(-zipf.exponent);
                sum
            })
            .collect();
        if cumulative.is_empty() || !sum.is_finite() {
            return Err(Error::Config(format!(
                "`prompts.repeats` of {} prompts with exponent {} cannot be drawn from",
                zipf.prompts, zipf.exponent
            )));
        }
        cumulative.iter_mut().for_each(|share| *share /= sum);
        Ok(Self { cumulative })
    }

    /// The rank that 64 random bits mean, from 0.
    pub(crate) fn rank(&self, bits: u64) -> u64 {
        let share = unit(bits);
        let rank = self.cumulative.partition_point(|up_to| *up_to <= share);
        // Rounding may leave the last sum a hair below 1.
        rank.min(self.cumulative.len() - 1) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::draw;

    fn counts(prompts: u64, exponent: f64, draws: u64) -> Vec<f64> {
        let ranks = Ranks::new(Zipf { prompts, exponent }).expect("a law");
        let mut counts = vec![0.0; prompts as usize];
        for index in 0..draws {
            counts[ranks.rank(draw(11, index)) as usize] += 1.0;
        }
        counts
    }

    #[test]
    fn frequencies_follow_the_law() {
        const DRAWS: u64 = 200_000;
        for exponent in [0.0, 0.7, 1.0, 1.3, 2.0] {
            let counts = counts(100, exponent, DRAWS);
            let law: Vec<f64> = (1..=100).map(|rank| f64::from(rank).powf(-exponent)).collect();
            let all: f64 = law.iter().sum();
            let chi_square: f64 = counts
                .iter()
                .zip(&law)
                .map(|(count, weight)| {
                    let expected = weight / all * DRAWS as f64;
                    (count - expected).powi(2) / expected
                })
                .sum();
            // 99 degrees of freedom: mean 99, standard deviation 14.1. One in a hundred thousand is above 170.
            assert!((45.0..170.0).contains(&chi_square), "exponent {exponent}: {chi_square}");
        }
    }

    #[test]
    fn a_million_prompts_can_be_drawn_from_and_every_rank_is_one_of_them() {
        let ranks = Ranks::new(Zipf { prompts: Ranks::PROMPTS_MAX, exponent: 1.0 }).expect("a law");
        assert_eq!(ranks.rank(0), 0);
        assert_eq!(ranks.rank(u64::MAX), Ranks::PROMPTS_MAX - 1);
    }

    #[test]
    fn one_prompt_comes_always() {
        assert_eq!(counts(1, 1.0, 50), [50.0]);
    }
}
