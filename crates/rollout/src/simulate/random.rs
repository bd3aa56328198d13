//! Numbers that look random and are functions of a seed.

use std::f64::consts::TAU;

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads a number over all of `u64`, one-to-one.
pub(super) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// A sequence of its own for each seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(mix(seed.wrapping_add(GOLDEN_GAMMA)))
    }

    /// All bits alike.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN_GAMMA);
        mix(self.0)
    }

    /// Uniform in [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Two independent numbers of mean 0 and variance 1 (Box and Muller).
    pub(super) fn normals(&mut self) -> (f64, f64) {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let (sin, cos) = (TAU * self.unit()).sin_cos();
        (radius * cos, radius * sin)
    }

    /// One number of mean 0 and variance 1.
    pub(super) fn normal(&mut self) -> f64 {
        self.normals().0
    }

    /// How many events there are in a time in which there are `mean` on average: as many as waits fit into it.
    pub(super) fn poisson(&mut self, mean: f64) -> u64 {
        let mut waited = 0.0;
        let mut events = 0;
        loop {
            waited -= (1.0 - self.unit()).ln();
            if waited > mean {
                return events;
            }
            events += 1;
        }
    }
}

/// An autoregressive process of first order, one step a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wander {
    /// Where it is, around 0.
    pub(super) value: f64,
    kept: f64,
    sigma: f64,
}

impl Wander {
    /// One of a standard deviation, whose autocorrelation falls to 1/e in `lasts_s` seconds.
    pub(super) fn new(sigma: f64, lasts_s: f64, random: &mut Random) -> Self {
        Self { value: sigma * random.normal(), kept: (-1.0 / lasts_s).exp(), sigma }
    }

    /// Goes on by a second.
    pub(super) fn step(&mut self, random: &mut Random) {
        let fresh = self.sigma * (1.0 - self.kept * self.kept).sqrt();
        self.value = self.kept * self.value + fresh * random.normal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_variances_are_what_they_are_said_to_be() {
        let mut random = Random::new(1);
        let count = 20_000;
        let normals: Vec<f64> = (0..count).map(|_| random.normal()).collect();
        let mean = normals.iter().sum::<f64>() / f64::from(count);
        let variance = normals.iter().map(|x| x * x).sum::<f64>() / f64::from(count);
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
        let events: u64 = (0..2_000).map(|_| random.poisson(50.0)).sum();
        assert!((events as f64 / 2_000.0 - 50.0).abs() < 0.7, "{events}");
    }

    #[test]
    fn seeds_that_are_neighbours_have_nothing_to_do_with_each_other() {
        assert_ne!(Random::new(1).bits() >> 32, Random::new(2).bits() >> 32);
        assert_eq!(Random::new(1).bits(), Random::new(1).bits());
    }
}
