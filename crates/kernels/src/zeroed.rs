//! Zeros that take memory only where they are used.

#![expect(unsafe_code, reason = "memory of an allocator of its own")]

use std::alloc::{GlobalAlloc as _, Layout, System};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A type that zeroed memory is a value of.
///
/// # Safety
/// All bits zero must be a valid value, and nothing is done when one is dropped.
pub(crate) unsafe trait ZeroIsValid: Copy {}

// SAFETY: numbers.
unsafe impl ZeroIsValid for i8 {}
// SAFETY: numbers.
unsafe impl ZeroIsValid for u16 {}
// SAFETY: numbers.
unsafe impl ZeroIsValid for f32 {}

/// A slice that was zeros. A program's allocator may hand out again what was freed, and then has to clear all of it at
/// once; the system's maps fresh pages.
#[derive(Debug)]
pub(crate) struct Zeroed<N: ZeroIsValid> {
    start: NonNull<N>,
    layout: Layout,
    len: usize,
}

// SAFETY: it owns its memory, as a `Vec` does.
unsafe impl<N: ZeroIsValid + Send> Send for Zeroed<N> {}
// SAFETY: as above.
unsafe impl<N: ZeroIsValid + Sync> Sync for Zeroed<N> {}

impl<N: ZeroIsValid> Zeroed<N> {
    /// None where there is no such memory.
    pub(crate) fn new(len: usize) -> Option<Self> {
        let layout = Layout::array::<N>(len).ok()?;
        if layout.size() == 0 {
            return Some(Self { start: NonNull::dangling(), layout, len });
        }
        // SAFETY: the size is not zero.
        let start = unsafe { System.alloc_zeroed(layout) };
        Some(Self { start: NonNull::new(start.cast())?, layout, len })
    }
}

impl<N: ZeroIsValid> Drop for Zeroed<N> {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: it was allocated there, with this layout.
            unsafe { System.dealloc(self.start.as_ptr().cast(), self.layout) };
        }
    }
}

impl<N: ZeroIsValid> Deref for Zeroed<N> {
    type Target = [N];

    fn deref(&self) -> &[N] {
        // SAFETY: as many numbers are there, zero or written since, and they are borrowed from their owner.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<N: ZeroIsValid> DerefMut for Zeroed<N> {
    fn deref_mut(&mut self) -> &mut [N] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_zeros_that_can_be_written() {
        for len in [0, 1, 1 << 20] {
            let mut numbers = Zeroed::<f32>::new(len).expect("memory");
            assert_eq!(*numbers, vec![0.0; len]);
            numbers.fill(1.0);
            assert_eq!(*numbers, vec![1.0; len]);
        }
    }

    #[test]
    fn what_nobody_has_is_refused() {
        assert!(Zeroed::<f32>::new(usize::MAX).is_none());
        assert!(Zeroed::<f32>::new(1 << 50).is_none());
    }
}
