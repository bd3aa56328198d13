//! `tenk config` and where settings come from.

use crate::harness::{run, tenk, text};

#[test]
fn a_shown_configuration_given_back_is_shown_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tenk.toml");
    let shown = |change: &str| {
        let mut command = tenk(["config", "show"]);
        let command = command.env("TENK_SCHEDULER__MAX_NUM_SEQS", "7").env("TENK_LOG", "warn");
        run(command.env("TENK_GATEWAY__WORKERS", change)).succeeded()
    };
    let first = shown("[\"http://127.0.0.1:1\"]");
    assert!(first.contains("max_num_seqs = 7") && first.contains("filter = \"warn\""), "{first}");
    std::fs::write(&path, &first).expect("written");
    let again = run(&mut tenk(["config", "show", "--config", text(&path)])).succeeded();
    assert_eq!(again, first);
    assert_eq!(
        run(&mut tenk(["config", "check", "--config", text(&path)])).succeeded(),
        "the configuration is sound\n"
    );
}

#[test]
fn secrets_are_not_shown_and_a_number_can_be_one() {
    let mut command = tenk(["config", "show"]);
    let command = command.env("TENK_WORKER__API_KEY", "1234567890123456");
    let shown = run(command.env("TENK_RESPONSE_CACHE__REDIS_URL", "redis://me:hidden@127.0.0.1")).succeeded();
    assert!(shown.contains("\n# api_key = \"***\"\n"), "{shown}");
    assert!(shown.contains("\n# redis_url = \"redis://***@127.0.0.1\"\n"), "{shown}");
    assert!(!shown.contains("123456789") && !shown.contains("hidden"), "{shown}");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tenk.toml");
    std::fs::write(&path, &shown).expect("written");
    run(&mut tenk(["config", "check", "--config", text(&path)])).succeeded();
    std::fs::write(&path, shown.replace("# ", "")).expect("written");
    let ended = run(&mut tenk(["config", "check", "--config", text(&path)]));
    let refused = ended.refused();
    assert!(refused.contains("holds ***") && refused.contains("leave the key out"), "{refused}");
}

#[test]
fn a_wrong_file_is_refused_with_its_line_and_what_to_write_instead() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tenk.toml");
    let path = text(&path);
    for (toml, sentence) in [
        (
            "[scheduler]\n\nmax_num_seq = 4\n",
            ":3: unknown key `max_num_seq` in [scheduler]; did you mean `max_num_seqs`?",
        ),
        (
            "[gateway]\nlisten = 80\n",
            ":2: `gateway.listen` is 80, but must be an address and port in quotes, such as",
        ),
        (
            "[gateway]\nqueue_timeout_ms = 0\n",
            ":2: `gateway.queue_timeout_ms` is 0, but must be between 1 and",
        ),
    ] {
        std::fs::write(path, toml).expect("written");
        for args in [&["config", "check"][..], &["up"], &["gateway"], &["model", "list"]] {
            let ended = run(tenk(args).args(["--config", path]));
            // What is well-formed but out of range is no matter of those that do not use it.
            if args == ["model", "list"] && sentence.contains("between") {
                ended.succeeded();
                continue;
            }
            let refused = ended.refused();
            assert!(refused.starts_with(&format!("{path}{sentence}")), "{refused}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason_and_the_flag() {
    let folder = tempfile::tempdir().expect("a folder");
    let absent = folder.path().join("absent.toml");
    let binary = folder.path().join("binary.toml");
    let vast = folder.path().join("vast.toml");
    std::fs::write(&binary, [0xff, 0xfe]).expect("written");
    std::fs::write(&vast, vec![b'#'; 2 << 20]).expect("written");
    for (path, reason) in [
        (absent.as_path(), "No such file"),
        (folder.path(), "directory"),
        (&binary, "UTF-8"),
        (&vast, "above"),
    ] {
        let ended = run(&mut tenk(["config", "check", "--config", text(path)]));
        let refused = ended.refused();
        assert!(refused.starts_with(text(path)) && refused.ends_with("correct --config"), "{refused}");
        assert!(refused.contains(reason), "{refused}");
    }
}

#[test]
fn a_wrong_variable_is_refused_with_its_name() {
    for (name, value, sentence) in [
        (
            "TENK_SCHEDULER__MAX_NUM_SEQ",
            "4",
            "unknown key `max_num_seq` in [scheduler]; did you mean `max_num_seqs`?",
        ),
        ("TENK_SCHEDULAR__MAX_NUM_SEQS", "4", "unknown key `schedular`; did you mean `scheduler`?"),
        (
            "TENK_SCHEDULER__MAX_NUM_SEQS",
            "many",
            "`scheduler.max_num_seqs` is many, but must be a whole number",
        ),
        (
            "TENK_SCHEDULER__MAX_NUM_SEQS",
            "0",
            "`scheduler.max_num_seqs` is 0, but must be between 1 and 4096",
        ),
        ("TENK_LOG", "tenk=loud", "log filter `tenk=loud` is not valid"),
        ("HF_ENDPOINT", "mirror", "`model.fetch.hub_endpoint`"),
    ] {
        let ended = run(tenk(["config", "check"]).env(name, value));
        let refused = ended.refused();
        assert!(refused.starts_with(&format!("{name}: {sentence}")), "{refused}");
    }
    run(tenk(["config", "check"]).env("TENK_SOMETHING", "else").env("TENK_LOG", "")).succeeded();
}

#[test]
fn what_is_checked_is_what_the_role_needs() {
    let check = |role: &str| {
        run(tenk(["config", "check", "--role", role]).env("TENK_WORKER__LISTEN", "0.0.0.0:8081"))
    };
    assert!(check("worker").refused().contains("worker.api_key"));
    check("up").succeeded();
    check("gateway").succeeded();
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = tenk(["config", "show"]);
    let output = command.stdout(writer).output().expect("runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
