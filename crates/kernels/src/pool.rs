//! A few threads that share the work of one step, piece by piece.
//!
//! A step has hundreds of short regions, some of them ten microseconds long, one after the other. So helpers look for
//! the next region for a moment before they sleep, and only for a moment: on a machine that others use too, threads
//! that spin keep off the core those that would compute. Pieces are taken one at a time, so that a thread that the
//! machine takes its core from holds up no more than the piece that it has.

#![expect(unsafe_code, reason = "work borrows from its caller, who waits for it")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::simd::Form;

/// How long a helper looks for the next region before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// How often it looks at the clock meanwhile.
const SPINS_PER_LOOK: u32 = 64;

/// Threads that help those who call. Several may call at once; helpers go to whoever came first.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    form: Form,
}

#[derive(Debug, Default)]
struct Shared {
    regions: Mutex<Regions>,
    /// Counts the regions that were opened.
    opened: AtomicU64,
    opening: Condvar,
}

#[derive(Debug, Default)]
struct Regions {
    open: Vec<Entry>,
    num_asleep: usize,
    ending: bool,
}

/// A region of a caller who is in [`Pool::run`]. It is taken out, and `inside` awaited, before that returns.
#[derive(Clone, Copy, Debug)]
struct Entry(*const Region<'static>);

// SAFETY: a region is Sync, and lives as long as its entry can be found or a helper is inside.
unsafe impl Send for Entry {}

struct Region<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    num_pieces: usize,
    next: AtomicUsize,
    /// Helpers that may touch the region.
    inside: AtomicUsize,
    panicked: AtomicBool,
    caller: Thread,
}

impl std::fmt::Debug for Region<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("num_pieces", &self.num_pieces).finish_non_exhaustive()
    }
}

impl Region<'_> {
    fn work(&self) {
        loop {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= self.num_pieces {
                return;
            }
            (self.work)(piece);
        }
    }

    fn has_more(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.num_pieces
    }
}

impl Pool {
    /// `threads` in all, the caller's own among them.
    pub fn new(threads: usize) -> Self {
        Self::with_form(threads, Form::best())
    }

    pub(crate) fn with_form(threads: usize, form: Form) -> Self {
        let shared = Arc::new(Shared::default());
        let helper = |index: usize| {
            let shared = Arc::clone(&shared);
            let thread = thread::Builder::new().name(format!("compute-{index}"));
            // A pool with fewer threads than were asked for is slower, and right all the same.
            thread.spawn(move || shared.help()).ok()
        };
        let helpers = (1..threads).filter_map(helper).collect();
        Self { shared, helpers, form }
    }

    /// How many threads compute, the caller's own among them.
    pub fn num_threads(&self) -> usize {
        self.helpers.len() + 1
    }

    pub(crate) const fn form(&self) -> Form {
        self.form
    }

    /// Calls `work` with each index below `num_pieces`, and returns when all have returned.
    ///
    /// # Panics
    /// If any of them does.
    pub fn run(&self, num_pieces: usize, work: &(dyn Fn(usize) + Sync)) {
        if num_pieces <= 1 || self.helpers.is_empty() {
            return (0..num_pieces).for_each(work);
        }
        let region = Region {
            work,
            num_pieces,
            next: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            caller: thread::current(),
        };
        let entry = Entry((&raw const region).cast());
        self.shared.open(entry);
        let result = catch_unwind(AssertUnwindSafe(|| region.work()));
        // Nobody starts another piece, whether all are done or one has panicked.
        region.next.store(num_pieces, Ordering::Relaxed);
        self.shared.close(entry);
        let mut spins = 0;
        while region.inside.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < 1000 {
                std::hint::spin_loop();
            } else {
                thread::park_timeout(Duration::from_millis(1));
            }
        }
        match result {
            Err(panic) => resume_unwind(panic),
            Ok(()) => assert!(!region.panicked.load(Ordering::Relaxed), "a helper panicked"),
        }
    }

    /// Calls `work` with each piece and its index.
    ///
    /// # Panics
    /// If any of the calls does.
    pub(crate) fn for_each<T: Send>(&self, pieces: Vec<T>, work: impl Fn(usize, T) + Sync) {
        let pieces: Vec<_> = pieces.into_iter().map(|piece| Mutex::new(Some(piece))).collect();
        self.run(pieces.len(), &|index| {
            let piece = lock(&pieces[index]).take();
            if let Some(piece) = piece {
                work(index, piece);
            }
        });
    }
}

impl Shared {
    fn open(&self, entry: Entry) {
        let mut regions = lock(&self.regions);
        regions.open.push(entry);
        let any_asleep = regions.num_asleep > 0;
        drop(regions);
        self.opened.fetch_add(1, Ordering::Release);
        if any_asleep {
            self.opening.notify_all();
        }
    }

    fn close(&self, entry: Entry) {
        lock(&self.regions).open.retain(|other| !std::ptr::eq(other.0, entry.0));
    }

    /// A helper's life.
    fn help(&self) {
        while let Some(Entry(region)) = self.next_region() {
            // SAFETY: `next_region` found it open and counted this thread as inside, under the lock. Its caller takes
            // it out under the lock, and then waits until nobody is inside.
            let region = unsafe { &*region };
            let caller = region.caller.clone();
            if catch_unwind(AssertUnwindSafe(|| region.work())).is_err() {
                region.panicked.store(true, Ordering::Relaxed);
            }
            region.inside.fetch_sub(1, Ordering::Release);
            caller.unpark();
        }
    }

    /// Waits for a region with pieces left, and enters it.
    fn next_region(&self) -> Option<Entry> {
        let since = Instant::now();
        let mut regions = lock(&self.regions);
        loop {
            if regions.ending {
                return None;
            }
            if let Some(entry) = regions.enter() {
                return Some(entry);
            }
            if since.elapsed() < SPIN {
                let seen = self.opened.load(Ordering::Acquire);
                drop(regions);
                self.spin(seen, since);
                regions = lock(&self.regions);
            } else {
                regions.num_asleep += 1;
                regions = self.opening.wait(regions).unwrap_or_else(PoisonError::into_inner);
                regions.num_asleep -= 1;
            }
        }
    }

    fn spin(&self, seen: u64, since: Instant) {
        while since.elapsed() < SPIN {
            for _ in 0..SPINS_PER_LOOK {
                if self.opened.load(Ordering::Acquire) != seen {
                    return;
                }
                std::hint::spin_loop();
            }
        }
    }
}

impl Regions {
    fn enter(&self) -> Option<Entry> {
        self.open.iter().copied().find(|Entry(region)| {
            // SAFETY: entries are taken out before their regions end, under the lock that is held here.
            let region = unsafe { &**region };
            let has_more = region.has_more();
            if has_more {
                region.inside.fetch_add(1, Ordering::Relaxed);
            }
            has_more
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.regions).ending = true;
        self.shared.opening.notify_all();
        for helper in self.helpers.drain(..) {
            // Helpers catch panics, so there is nothing to hear of.
            let _ = helper.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_and_before_the_call_returns() {
        let pool = Pool::new(4);
        for num_pieces in (0..200).chain([10_000]) {
            let counts: Vec<AtomicUsize> = (0..num_pieces).map(|_| AtomicUsize::new(0)).collect();
            pool.run(num_pieces, &|index| {
                counts[index].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{num_pieces}");
        }
    }

    #[test]
    fn several_may_call_at_once_and_one_may_call_within_a_piece() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(7, &|_| {
                            pool.run(3, &|_| {
                                total.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 3 * 200 * 7 * 3);
    }

    #[test]
    fn helpers_that_sleep_are_woken() {
        let pool = Pool::new(2);
        let helped = AtomicBool::new(false);
        let caller = thread::current().id();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !helped.load(Ordering::Relaxed) && Instant::now() < deadline {
            thread::park_timeout(4 * SPIN);
            pool.run(2, &|_| {
                if thread::current().id() != caller {
                    helped.store(true, Ordering::Relaxed);
                }
                thread::park_timeout(4 * SPIN);
            });
        }
        assert!(helped.into_inner());
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3);
        for index in [0, 5, 63] {
            let run = || pool.run(64, &|piece| assert!(piece != index, "piece {piece}"));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        }
        pool.run(64, &|_| {});
    }
}
