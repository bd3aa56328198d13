//! What a pull tells whoever waits for it.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Bytes come over the network.
    Downloading,
    /// Bytes go over the network.
    Uploading,
    /// Bytes come out of a package.
    Unpacking,
    /// Bytes on disk are hashed.
    Checking,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Downloading => "downloading",
            Self::Uploading => "uploading",
            Self::Unpacking => "unpacking",
            Self::Checking => "checking",
        })
    }
}

/// One thing that happened. Between `Started` and `Finished` come any number of `Advanced` and `Note`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Work on one file begins.
    Started {
        /// What kind of work.
        phase: Phase,
        /// The file.
        what: &'a str,
        /// Its size, where it is known.
        bytes_total: Option<u64>,
    },
    /// So many bytes of the file are done. The number falls back where a download starts over.
    Advanced {
        /// Bytes done, those of earlier runs included.
        bytes_done: u64,
    },
    /// Work on the file ended, well or not; errors come from the call itself.
    Finished,
    /// A line for people: a source that is passed over, a wait, a retry.
    Note(&'a str),
}

/// Hears of every [`Event`], on the thread that pulls. A closure will do.
pub trait Progress {
    /// Takes one event; it should return at once.
    fn report(&self, event: Event<'_>);
}

impl<F: Fn(Event<'_>)> Progress for F {
    fn report(&self, event: Event<'_>) {
        self(event);
    }
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn report(&self, _event: Event<'_>) {}
}

/// Shows progress on standard error: a bar on a terminal, otherwise a plain line every few seconds.
#[derive(Debug)]
pub struct TerminalProgress(Shown);

#[derive(Debug)]
enum Shown {
    Bar(Mutex<Option<ProgressBar>>),
    Lines(LineProgress<io::Stderr>),
}

impl TerminalProgress {
    /// For this process's standard error, as it is now.
    pub fn stderr() -> Self {
        Self(if io::stderr().is_terminal() {
            Shown::Bar(Mutex::new(None))
        } else {
            Shown::Lines(LineProgress::new(io::stderr(), Duration::from_secs(5)))
        })
    }
}

impl Progress for TerminalProgress {
    fn report(&self, event: Event<'_>) {
        match &self.0 {
            Shown::Bar(bar) => report_bar(&mut lock(bar), event),
            Shown::Lines(lines) => lines.report(event),
        }
    }
}

fn report_bar(bar: &mut Option<ProgressBar>, event: Event<'_>) {
    match event {
        Event::Started { phase, what, bytes_total } => {
            let started = bytes_total.map_or_else(ProgressBar::no_length, ProgressBar::new);
            let template = if bytes_total.is_some() {
                "{msg} {wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left"
            } else {
                "{msg} {spinner} {binary_bytes}, {binary_bytes_per_sec}"
            };
            // A template that does not parse would cost the bar's looks, never the download.
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            *bar = Some(started.with_style(style).with_message(format!("{phase} {what}")));
        }
        Event::Advanced { bytes_done } => {
            if let Some(bar) = bar {
                bar.set_position(bytes_done);
            }
        }
        Event::Finished => {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
        }
        Event::Note(text) => match bar {
            Some(bar) => bar.suspend(|| write_line(&mut io::stderr(), text)),
            None => write_line(&mut io::stderr(), text),
        },
    }
}

/// Plain lines: one when a file begins, one every `interval` while it grows, and every note.
#[derive(Debug)]
struct LineProgress<W> {
    state: Mutex<LineState<W>>,
    interval: Duration,
}

#[derive(Debug)]
struct LineState<W> {
    out: W,
    heading: String,
    bytes_total: Option<u64>,
    written_at: Instant,
}

impl<W: Write> LineProgress<W> {
    fn new(out: W, interval: Duration) -> Self {
        let state = LineState { out, heading: String::new(), bytes_total: None, written_at: Instant::now() };
        Self { state: Mutex::new(state), interval }
    }

    fn report(&self, event: Event<'_>) {
        let mut state = lock(&self.state);
        let now = Instant::now();
        match event {
            Event::Started { phase, what, bytes_total } => {
                state.heading = format!("{phase} {what}");
                state.bytes_total = bytes_total;
                state.written_at = now;
                let line = match bytes_total {
                    Some(total) => format!("{} ({})", state.heading, HumanBytes(total)),
                    None => state.heading.clone(),
                };
                write_line(&mut state.out, &line);
            }
            Event::Advanced { bytes_done } => {
                if now.duration_since(state.written_at) < self.interval {
                    return;
                }
                state.written_at = now;
                let line = match state.bytes_total.filter(|total| *total > 0) {
                    Some(total) => format!(
                        "{}: {} of {} ({}%)",
                        state.heading,
                        HumanBytes(bytes_done),
                        HumanBytes(total),
                        u128::from(bytes_done) * 100 / u128::from(total)
                    ),
                    None => format!("{}: {}", state.heading, HumanBytes(bytes_done)),
                };
                write_line(&mut state.out, &line);
            }
            Event::Finished => {}
            Event::Note(text) => write_line(&mut state.out, text),
        }
    }
}

/// A reader that has gone away must not stop a download.
fn write_line(out: &mut impl Write, line: &str) {
    let _ = writeln!(out, "{line}");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(interval: Duration) -> String {
        let progress = LineProgress::new(Vec::new(), interval);
        progress.report(Event::Started {
            phase: Phase::Downloading,
            what: "tiny.gguf",
            bytes_total: Some(2048),
        });
        for bytes_done in [512, 1024, 2048] {
            progress.report(Event::Advanced { bytes_done });
        }
        progress.report(Event::Note("hub not in reach"));
        progress.report(Event::Finished);
        String::from_utf8(progress.state.into_inner().unwrap().out).unwrap()
    }

    #[test]
    fn without_a_terminal_lines_come_no_more_often_than_the_interval() {
        assert_eq!(lines(Duration::from_secs(3600)), "downloading tiny.gguf (2.00 KiB)\nhub not in reach\n");
    }

    #[test]
    fn a_line_tells_how_far_the_file_is() {
        let all = lines(Duration::ZERO);
        assert!(all.contains("downloading tiny.gguf: 1.00 KiB of 2.00 KiB (50%)\n"), "{all}");
    }

    #[test]
    fn a_bar_lives_from_start_to_finish() {
        let mut bar = None;
        report_bar(
            &mut bar,
            Event::Started { phase: Phase::Checking, what: "tiny.gguf", bytes_total: Some(10) },
        );
        report_bar(&mut bar, Event::Advanced { bytes_done: 4 });
        assert_eq!(bar.as_ref().unwrap().position(), 4);
        report_bar(&mut bar, Event::Finished);
        assert!(bar.is_none());
    }
}
