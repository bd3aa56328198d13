//! The least of a function of a few numbers, found the same way each time.

/// Points a dimension and round.
const POINTS: usize = 5;
/// How much narrower each round is.
const SHRINK: f64 = 0.75;
const ROUNDS: usize = 70;

/// Where `cost` is least within `bounds`: a grid over all of them, then a narrower one around its best point, and so
/// on. It takes no derivative, since a roofline has a kink where its least often lies.
pub(crate) fn minimize<const N: usize>(bounds: [(f64, f64); N], cost: impl Fn(&[f64; N]) -> f64) -> [f64; N] {
    let mut best = bounds.map(|(low, high)| f64::midpoint(low, high));
    let mut least = cost(&best);
    let mut radius = bounds.map(|(low, high)| (high - low) / 2.0);
    for _ in 0..ROUNDS {
        let center = best;
        for index in 0..POINTS.pow(N as u32) {
            let mut rest = index;
            let mut point = center;
            for dimension in 0..N {
                let offset = (rest % POINTS) as f64 / (POINTS - 1) as f64 * 2.0 - 1.0;
                let (low, high) = bounds[dimension];
                point[dimension] = (center[dimension] + offset * radius[dimension]).clamp(low, high);
                rest /= POINTS;
            }
            let found = cost(&point);
            if found < least {
                (best, least) = (point, found);
            }
        }
        radius = radius.map(|radius| radius * SHRINK);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kinked_valley_is_followed_to_its_bottom() {
        let cost = |[x, y]: &[f64; 2]| (x - 3.0 * y).abs().max((x + y - 8.0).abs()) + 0.1 * (y - 2.0).abs();
        let [x, y] = minimize([(-20.0, 20.0), (-20.0, 20.0)], cost);
        assert!((x - 6.0).abs() < 1e-3 && (y - 2.0).abs() < 1e-3, "{x} {y}");
    }

    #[test]
    fn the_least_may_lie_on_the_edge() {
        assert_eq!(minimize([(1.0, 4.0)], |[x]| *x)[0].to_bits(), 1.0_f64.to_bits());
    }
}
