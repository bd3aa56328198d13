use std::sync::Barrier;

use super::*;
use crate::version::Source;

fn registry(folder: &Path) -> Embedded {
    Embedded::new(folder.join("registry.json"), 30)
}

fn register(registry: &Embedded) -> Result<Registered, Error> {
    registry.register(&NewVersion::new("m", Source::Simulated), &Measured { checksum: None, size_bytes: 0 })
}

#[test]
fn a_registry_that_is_not_there_is_empty_and_the_first_change_makes_it() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry(&dir.path().join("a/b"));
    assert_eq!(registry.names().unwrap(), [""; 0]);
    assert!(!registry.path().exists(), "reading makes nothing");
    register(&registry).unwrap();
    assert_eq!(registry.names().unwrap(), ["m"]);
    let text = fs::read_to_string(registry.path()).unwrap();
    assert!(text.lines().count() > 10 && text.contains("\"version\": 1"), "for people, too: {text}");
}

#[test]
fn a_change_that_is_refused_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry(dir.path());
    assert!(registry.set_alias("m", "stable", 1).is_err());
    assert!(!registry.remove_alias("m", "stable").unwrap());
    assert!(!registry.path().exists());
}

#[test]
fn a_torn_or_foreign_file_is_refused_in_a_sentence_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry(dir.path());
    register(&registry).unwrap();
    let whole = fs::read(registry.path()).unwrap();
    for bytes in [&whole[..whole.len() / 2], b"", b"{\"my\": \"notes\"}", b"\x00\xff"] {
        fs::write(registry.path(), bytes).unwrap();
        for outcome in [registry.names().map(drop), register(&registry).map(drop)] {
            let message = outcome.unwrap_err().to_string();
            assert!(
                message.contains("registry.json is no registry") && message.contains("left as it is"),
                "{message}"
            );
        }
        assert_eq!(fs::read(registry.path()).unwrap(), bytes);
    }
}

#[test]
fn what_a_killed_writer_left_behind_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry(dir.path());
    fs::write(dir.path().join(".registry.json.new"), "half").unwrap();
    register(&registry).unwrap();
    assert_eq!(registry.versions("m").unwrap().len(), 1);
}

#[test]
fn writers_that_race_lose_nothing_and_readers_see_whole_files_all_the_while() {
    let dir = tempfile::tempdir().unwrap();
    let barrier = Barrier::new(3);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let registry = registry(dir.path());
                barrier.wait();
                for _ in 0..50 {
                    register(&registry).unwrap();
                }
            });
        }
        let registry = registry(dir.path());
        barrier.wait();
        let mut seen = 0;
        while seen < 100 {
            let now = registry.versions("m").unwrap().len();
            assert!(now >= seen, "a version was lost");
            seen = now;
        }
    });
    let numbers: Vec<u64> =
        registry(dir.path()).versions("m").unwrap().iter().map(|version| version.version).collect();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
}

#[test]
fn who_waits_too_long_for_another_writer_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let held = registry(dir.path()).lock().unwrap();
    let impatient = Embedded::new(dir.path().join("registry.json"), 0);
    assert!(matches!(register(&impatient), Err(Error::Locked { timeout_s: 0, .. })));
    drop(held);
    register(&impatient).unwrap();
}
