//! The `tenk` binary: reads the configuration and composes the parts. It has no logic of its own.

#![expect(clippy::print_stderr, reason = "this is where a person is spoken to")]

mod args;
mod commands;
mod config;
mod models;
mod open_files;
mod registered;
mod served;
mod shutdown;
mod simulated;
mod tokenizer;
mod voice;
mod workers;

use std::process::ExitCode;

use clap::Parser;

/// A request allocates some hundred times; this takes a third of the instructions that the system's allocator does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let result =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from);
    let result = result.and_then(|runtime| {
        let result = runtime.block_on(commands::run(args));
        // A model that is still being loaded must not hold up the end.
        runtime.shutdown_background();
        result
    });
    result.unwrap_or_else(|error| {
        eprintln!("tenk: {}", one_line(&error));
        ExitCode::FAILURE
    })
}

/// The chain of causes as one line, leaving out a cause whose text its parent repeats.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(|cause| without_backtrace(&cause.to_string())) {
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}

/// candle writes its backtrace into its messages where RUST_BACKTRACE is set.
fn without_backtrace(message: &str) -> String {
    let is_frame = |line: &str| {
        let line = line.trim_start();
        let digits = line.trim_start_matches(|digit: char| digit.is_ascii_digit());
        line.starts_with("at ") || (digits.len() < line.len() && digits.starts_with(": "))
    };
    let mut text = String::new();
    for (index, line) in message.lines().enumerate() {
        match line {
            line if index == 0 => text.push_str(line.trim()),
            line if line.starts_with(' ') && is_frame(line) => {}
            // What came after the last frame goes on where the first line stopped.
            line if line.starts_with(';') => text.push_str(line.trim_end()),
            line if line.trim().is_empty() => {}
            line => {
                text.push(' ');
                text.push_str(line.trim());
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_without_what_is_said_twice() {
        let error = anyhow::anyhow!("the disk is full").context("a: the disk is full").context("b");
        assert_eq!(one_line(&error), "b: a: the disk is full");
    }

    #[test]
    fn a_backtrace_inside_a_message_is_left_out() {
        let message = "cannot read x: bad magic\n   0: candle::bt\n  12: main\n             at /src/main.rs:1:2\n\
            ; expected a .gguf file";
        assert_eq!(without_backtrace(message), "cannot read x: bad magic; expected a .gguf file");
        assert_eq!(without_backtrace("one\n  two 3: x\n"), "one two 3: x");
    }
}
