//! Ctrl-C: once ends a run early and reports it, twice ends the program.

use std::io;

use tokio_util::sync::CancellationToken;

/// The status that shells report for an interrupt.
pub(super) const INTERRUPTED: u8 = 130;

/// A token that the first Ctrl-C cancels; the second one ends the program, whatever keeps it.
pub(super) fn stop_at_interrupt() -> CancellationToken {
    let stop = CancellationToken::new();
    let heeded = stop.clone();
    tokio::spawn(async move { heed(tokio::signal::ctrl_c, &heeded, leave).await });
    stop
}

async fn heed<F>(interrupt: impl Fn() -> F, stop: &CancellationToken, leave: impl FnOnce())
where
    F: Future<Output = io::Result<()>>,
{
    if interrupt().await.is_err() {
        return;
    }
    stop.cancel();
    tell("interrupted: what was measured until now is reported; Ctrl-C once more ends at once");
    if interrupt().await.is_ok() {
        leave();
    }
}

fn leave() {
    tell("interrupted again: ended without a report");
    std::process::exit(INTERRUPTED.into());
}

#[expect(clippy::print_stderr, reason = "whoever pressed Ctrl-C wants to know that it was heard")]
pub(super) fn tell(what: &str) {
    eprintln!("tenk: {what}");
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What so many interrupts come to: whether the run is stopped, and whether the program ends.
    async fn heeded(interrupts: u32) -> (bool, bool) {
        let (left, has_left) = (Cell::new(interrupts), Cell::new(false));
        let interrupt = || async {
            match left.get().checked_sub(1) {
                Some(fewer) => left.set(fewer),
                None => std::future::pending().await,
            }
            Ok(())
        };
        let stop = CancellationToken::new();
        tokio::select! {
            biased;
            () = heed(interrupt, &stop, || has_left.set(true)) => {}
            () = tokio::task::yield_now() => {}
        }
        (stop.is_cancelled(), has_left.get())
    }

    #[tokio::test]
    async fn one_interrupt_stops_the_run_and_a_second_one_ends_the_program() {
        assert_eq!(heeded(0).await, (false, false));
        assert_eq!(heeded(1).await, (true, false));
        assert_eq!(heeded(2).await, (true, true));
    }
}
