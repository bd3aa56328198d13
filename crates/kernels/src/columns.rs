//! One matrix that several threads write to, each to columns of its own.

#![expect(unsafe_code, reason = "rows are interleaved, so the threads' parts are not slices")]

use std::marker::PhantomData;

/// A matrix (rows, width) of which columns are handed out.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    start: *mut f32,
    num_rows: usize,
    width: usize,
    _matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: it only hands out parts, whose takers see to it that no element is used by two threads.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    pub(crate) fn new(matrix: &'a mut [f32], width: usize) -> Self {
        let num_rows = matrix.len().checked_div(width).unwrap_or(0);
        assert_eq!(matrix.len(), num_rows * width, "rows are whole");
        Self { start: matrix.as_mut_ptr(), num_rows, width, _matrix: PhantomData }
    }

    pub(crate) const fn width(&self) -> usize {
        self.width
    }

    /// Some columns of a row.
    ///
    /// # Safety
    /// While the slice lives, nobody else may ask for any of the same elements.
    #[expect(clippy::mut_from_ref, reason = "that is the point; the callers' duty is above")]
    #[inline(always)]
    pub(crate) unsafe fn part(&self, row: usize, column: usize, len: usize) -> &mut [f32] {
        assert!(row < self.num_rows && column + len <= self.width, "within the matrix");
        // SAFETY: within the matrix, by the assertion; alone, by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.width + column), len) }
    }
}
