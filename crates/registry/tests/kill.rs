//! Writers that are killed at any moment, as real processes.

#![expect(clippy::expect_used, reason = "all of it is test")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use model_store::Config as Fetch;
use registry::{Cache, Config, NewVersion, Registry, Selector, Source};

/// Tells a process of this very test that it is to write, and where.
const FOLDER: &str = "TENK_REGISTRY_WRITER_FOLDER";

fn open(folder: &Path) -> Registry {
    let cache = Cache { root: folder.to_owned(), fetch: Fetch::default() };
    Registry::open_in(&Config::default(), cache).expect("opens")
}

fn next(registry: &Registry) -> u64 {
    let mut new = NewVersion::new("m", Source::Simulated);
    // So that a write takes more than one block.
    new.tags.insert("note".into(), "x".repeat(2_000));
    registry.register(&new).expect("registers").version
}

/// Not a test of its own: what a writer's process runs.
#[test]
#[ignore = "it writes until it is killed, and is started by the tests below"]
fn writer() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let registry = open(&PathBuf::from(folder));
    loop {
        let version = next(&registry);
        registry.set_alias("m", "stable", version).expect("there");
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "\nwrote {version}").and_then(|()| stdout.flush()).expect("heard");
    }
}

fn start(folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "writer", "--ignored", "--nocapture"]).env(FOLDER, folder);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts")
}

/// The last version that a killed writer said it wrote.
fn last_said(child: &mut Child) -> u64 {
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let said = lines.filter_map(|line| line.strip_prefix("wrote ")?.parse().ok());
    said.last().unwrap_or(0)
}

#[test]
fn a_writer_that_is_killed_at_any_moment_leaves_all_that_it_said_and_a_file_that_is_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..12_u64 {
        let before = open(folder.path()).versions("m").expect("whole").len() as u64;
        let mut child = start(folder.path());
        // Long enough for the first write of a process to be under way, and then anywhere.
        std::thread::park_timeout(Duration::from_millis(20 + 13 * round));
        child.kill().expect("killed");
        child.wait().expect("gone");
        let said = last_said(&mut child);
        let registry = open(folder.path());
        let versions = registry.versions("m").expect("whole");
        let now = versions.len() as u64;
        assert!(now >= said && now >= before, "said {said}, before {before}, now {now}");
        assert!(said == 0 || now <= said + 1, "a write that nobody made: {said}, {now}");
        assert!(versions.iter().all(|version| version.tags["note"].len() == 2_000));
        if now > 0 {
            let stable = registry.aliases("m").expect("whole").get("stable").copied().unwrap_or(0);
            assert!(stable >= said && stable <= now, "said {said}, stable {stable}, now {now}");
        }
        // Nothing that it left stops the next one.
        assert_eq!(next(&registry), now + 1);
    }
    let registry = open(folder.path());
    assert!(registry.get("m", &Selector::Number(12)).is_ok(), "the writers came to write");
}

#[test]
fn two_processes_that_write_at_once_lose_nothing_of_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut children = [start(folder.path()), start(folder.path())];
    std::thread::park_timeout(Duration::from_millis(400));
    for child in &mut children {
        child.kill().expect("killed");
        child.wait().expect("gone");
    }
    let mut said: Vec<u64> = Vec::new();
    for child in &mut children {
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        said.extend(lines.filter_map(|line| line.strip_prefix("wrote ")?.parse::<u64>().ok()));
    }
    let count = said.len();
    said.sort_unstable();
    said.dedup();
    assert_eq!(said.len(), count, "two were told the same number");
    let there = open(folder.path()).versions("m").expect("whole").len();
    assert!(count >= 2 && there >= count && there <= count + 2, "{count} were told, {there} are there");
}
