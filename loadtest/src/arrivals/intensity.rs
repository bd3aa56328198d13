//! Rates that change over time, and their inverse integral: a process of gaps of mean 1, laid along the integral of a
//! rate, has that rate.

/// A rate as a function of time, in pieces that are each linear.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Intensity(Vec<Piece>);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    start_s: f64,
    duration_s: f64,
    from: f64,
    to: f64,
    /// The integral before it and with it.
    expected_before: f64,
    expected_after: f64,
}

impl Intensity {
    /// Pieces of (duration in seconds, rate at the start, rate at the end), one after the other.
    pub(super) fn new(pieces: impl IntoIterator<Item = (f64, f64, f64)>) -> Self {
        let (mut start_s, mut expected) = (0.0, 0.0);
        let piece = |(duration_s, from, to)| {
            let expected_before = expected;
            expected += duration_s * (from + to) / 2.0;
            let piece = Piece { start_s, duration_s, from, to, expected_before, expected_after: expected };
            start_s += duration_s;
            piece
        };
        Self(pieces.into_iter().map(piece).collect())
    }

    /// One rate for ever.
    pub(super) fn constant(rate: f64) -> Self {
        Self::new([(f64::INFINITY, rate, rate)])
    }

    /// When so many requests are expected; never, past the last piece.
    pub(super) fn time_s(&self, expected: f64) -> Option<f64> {
        let piece = self.0.get(self.0.partition_point(|piece| piece.expected_after <= expected))?;
        Some(piece.start_s + piece.offset_s(expected - piece.expected_before))
    }
}

impl Piece {
    /// Solves from · t + slope · t² / 2 = `expected`, in the form that loses no digits when the slope is small.
    fn offset_s(&self, expected: f64) -> f64 {
        let slope = (self.to - self.from) / self.duration_s;
        let root = (self.from * self.from + 2.0 * slope * expected).max(0.0).sqrt();
        let sum = self.from + root;
        if sum > 0.0 { (2.0 * expected / sum).min(self.duration_s) } else { 0.0 }
    }
}
