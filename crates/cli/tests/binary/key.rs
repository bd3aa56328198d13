//! `tenk key new`

use sha2::{Digest, Sha256};

use crate::harness::{run, tenk, text};

#[test]
fn the_key_stands_alone_on_standard_output_and_what_it_prints_for_the_file_lets_it_in() {
    let ended = run(&mut tenk(["key", "new", "--tenant", "alice"]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let key = ended.stdout.strip_suffix('\n').expect("one line");
    let random = key.strip_prefix("tenk-").expect("says whose it is");
    assert!(random.len() == 64 && random.bytes().all(|digit| digit.is_ascii_hexdigit()), "{key}");
    let sha256 = hex::encode(Sha256::digest(key));
    assert!(ended.stderr.contains(&format!("sha256 = \"{sha256}\"")), "{ended:?}");
    assert!(!ended.stderr.contains(random), "the key is in what goes into the file: {ended:?}");

    let (_, snippet) = ended.stderr.split_once("[[gateway.keys]]").expect("a section for the file");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, format!("[gateway]\nlisten = \"0.0.0.0:8080\"\n[[gateway.keys]]{snippet}"))
        .expect("written");
    run(&mut tenk(["config", "check", "--role", "gateway", "--config", text(&path)])).succeeded();

    let other = run(&mut tenk(["key", "new", "--tenant", "alice"])).succeeded();
    assert_ne!(other, ended.stdout);
}

#[test]
fn a_name_that_is_no_tenants_is_refused() {
    for tenant in ["", "a b", "a\"b", &"a".repeat(65)] {
        let ended = run(&mut tenk(["key", "new", "--tenant", tenant]));
        assert!(ended.refused().contains("1 to 64 letters"), "{ended:?}");
    }
}
