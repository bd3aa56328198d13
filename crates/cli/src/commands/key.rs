//! `tenk key new`

use std::process::ExitCode;

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::print;
use crate::args::KeyCommand;

pub(super) fn run(KeyCommand::New { tenant }: &KeyCommand) -> Result<ExitCode> {
    let plain = tenant.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    ensure!(
        plain && (1..=64).contains(&tenant.len()),
        "the tenant `{tenant}` must have 1 to 64 letters, digits, '-', '_' or '.'; choose another with --tenant"
    );
    let key = random();
    // Alone on standard output, for scripts.
    print(&format!("{key}\n"))?;
    eprintln!("\nThat is the key; it is not shown again. Add this to the gateway's configuration:\n");
    eprintln!("[[gateway.keys]]\ntenant = \"{tenant}\"\nsha256 = \"{}\"", sha256_of(&key));
    Ok(ExitCode::SUCCESS)
}

/// A key that nobody has.
pub(super) fn random() -> String {
    // Two random UUIDs hold 244 random bits.
    let bytes = [Uuid::new_v4(), Uuid::new_v4()].map(Uuid::into_bytes).concat();
    format!("tenk-{}", hex::encode(bytes))
}

/// What the gateway's configuration holds of a key.
pub(super) fn sha256_of(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}
