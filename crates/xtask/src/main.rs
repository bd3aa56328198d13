//! The developer's commands, run as `cargo xtask …`: everything that continuous integration does, on any machine.
//!
//! It is a program and not a pile of scripts so that its checks have tests of their own. It must not know the crates
//! that it checks: it reads their sources and starts their binaries, and links none of them.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

mod bars;
mod cuda;
mod fuzz;
mod needs;
mod sanitize;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The developer's commands", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the tests need, build, and run all tests.
    Test(test::Args),
    /// Check what compilers do not: dependency arrows, sizes, texts, and that every folder is documented.
    Tidy,
    /// Feed every parser of strangers' bytes with made-up ones, and kernels with made-up shapes, for some seconds each.
    Fuzz(fuzz::Args),
    /// Run the tests of the crate with `unsafe` under AddressSanitizer.
    Sanitize,
    /// Check that the binary compiles for NVIDIA GPUs; makes a CUDA toolkit under target/ where there is none.
    Cuda(cuda::Args),
    /// Measure the bars that a release must clear, and print the table.
    Bars(bars::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Test(args) => test::run(&args),
        Command::Tidy => tidy::run(),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Sanitize => sanitize::run(),
        Command::Cuda(args) => cuda::run(&args),
        Command::Bars(args) => bars::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
