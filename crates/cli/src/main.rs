//! The `tenk` binary: reads the configuration and composes the parts. It has no logic of its own.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where a person is spoken to")]

mod args;
mod commands;
mod config;
mod models;
mod shutdown;

use std::process::ExitCode;

use clap::Parser;

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

/// The chain of causes as one sentence, leaving out a cause whose text its parent repeats.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}
