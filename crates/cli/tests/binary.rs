//! The binary as a person meets it.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::process::{Command, Output};

fn tenk(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tenk")).args(args).output().expect("it starts")
}

#[test]
fn the_configuration_that_it_shows_is_one_that_it_reads() {
    let shown = tenk(&["config", "show"]);
    assert!(shown.status.success());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tenk.toml");
    std::fs::write(&path, &shown.stdout).expect("writes");
    let again = tenk(&["config", "show", "--config", path.to_str().expect("plain")]);
    assert_eq!(shown.stdout, again.stdout);
}

#[test]
fn a_new_key_is_alone_on_standard_output_and_its_hash_beside_it() {
    let made = tenk(&["key", "new", "--tenant", "a"]);
    let key = String::from_utf8(made.stdout).expect("text");
    let said = String::from_utf8(made.stderr).expect("text");
    assert!(key.starts_with("tenk-") && key.lines().count() == 1, "{key}");
    assert!(said.contains("[[gateway.keys]]") && said.contains("tenant = \"a\""), "{said}");
}
