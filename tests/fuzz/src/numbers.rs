//! Numbers made of bytes, for kernels.

/// As many numbers as are asked for, from few bytes.
#[derive(Debug)]
pub struct Numbers {
    bytes: Vec<u8>,
    next: usize,
}

impl Numbers {
    /// The bytes come again and again, a little different each time.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, next: 0 }
    }

    /// Multiples of 1/32 within ±4: an `f16` has each of them.
    pub fn take(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| f32::from(self.byte().cast_signed()) / 32.0).collect()
    }

    /// A number below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::from(self.byte()) % len.max(1)
    }

    fn byte(&mut self) -> u8 {
        let at = self.next;
        self.next += 1;
        match self.bytes.len() {
            0 => 0,
            len => self.bytes[at % len].wrapping_add((at / len * 31) as u8),
        }
    }
}

/// Each within `tolerance` of its own size, or of 1 where it is smaller.
pub fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let allowed = tolerance * expected.abs().max(1.0);
        assert!((f64::from(*found) - expected).abs() <= allowed, "{index}: {found} instead of {expected}");
    }
}
