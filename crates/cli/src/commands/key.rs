//! `tenk key`: API keys, of which the gateway only ever holds hashes.

use std::process::ExitCode;

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::args::KeyCommand;

const KEY_BYTES: usize = 32;
const TENANT_CHARACTERS_MAX: usize = 64;

pub(super) fn run(command: KeyCommand) -> anyhow::Result<ExitCode> {
    let KeyCommand::New { tenant } = command;
    anyhow::ensure!(
        !tenant.is_empty() && tenant.len() <= TENANT_CHARACTERS_MAX,
        "--tenant must have 1 to {TENANT_CHARACTERS_MAX} characters"
    );
    let mut random = [0; KEY_BYTES];
    getrandom::fill(&mut random).context("the system gives no random bytes")?;
    let key = format!("tenk-{}", hex::encode(random));
    println!("{key}");
    eprintln!(
        "\nThis is the key of {tenant}. It is shown once and kept nowhere; clients send it as\n\n  \
         authorization: Bearer KEY\n\nAdd this to the configuration file, which holds its hash alone:\n"
    );
    print!("{}", snippet(&tenant, &key));
    Ok(ExitCode::SUCCESS)
}

/// What the gateway needs to know of a key.
fn snippet(tenant: &str, key: &str) -> String {
    let tenant = toml::Value::String(tenant.to_owned());
    format!("[[gateway.keys]]\ntenant = {tenant}\nsha256 = \"{}\"\n", hex::encode(Sha256::digest(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snippet_is_toml_whatever_the_tenants_name() {
        let text = snippet("a \"quoted\"\nname", "abc");
        let table: toml::Table = toml::from_str(&text).unwrap();
        let key = &table["gateway"]["keys"][0];
        assert_eq!(key["tenant"].as_str(), Some("a \"quoted\"\nname"));
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(key["sha256"].as_str(), Some(sha256));
    }
}
