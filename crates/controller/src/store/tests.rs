use std::io::Write;

use rollout::{Phase, Rollout, Spec};

use super::*;
use crate::Action;

fn record(seq: u64, epoch: u64) -> Record {
    let rollout = Rollout::new("chat-1", Spec::new("chat", "2"), "1", 0).at(Phase::Step { index: 0 }, seq);
    Record {
        seq,
        epoch,
        at_ms: 5,
        action: Action::Stepped,
        model: "chat".into(),
        reason: "it is warm: 5% of the users go to 2".into(),
        stable: "1".into(),
        rollout: Some(rollout),
        assessment: None,
    }
}

fn file(folder: &tempfile::TempDir) -> Store {
    Store::File(FileStore::new(folder.path().join("controller")))
}

#[tokio::test]
async fn one_decides_the_other_waits_and_goes_on_where_the_first_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, mut second) = (file(&folder), file(&folder));
    assert_eq!(first.take(0).await.unwrap().unwrap().epoch, 1);
    assert!(second.take(0).await.unwrap().is_none());
    first.append(&record(1, 1)).await.unwrap();
    first.checkpoint("seen".into()).await.unwrap();
    drop(first);
    let taken = second.take(0).await.unwrap().unwrap();
    assert_eq!(
        (taken.epoch, taken.records, taken.checkpoint.as_deref()),
        (2, vec![record(1, 1)], Some("seen"))
    );
    assert!(matches!(second.append(&record(2, 1)).await, Err(ControllerError::Fenced)));
    second.append(&record(2, 2)).await.unwrap();
    assert_eq!(second.history(|_| true, 1).await.unwrap(), [record(2, 2)]);
}

#[tokio::test]
async fn a_record_that_its_writer_died_in_was_never_decided() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("controller/rollouts.jsonl");
    for torn in ["{", "{\"seq\":2,\"reason\":\"\u{fc}", &serde_json::to_string(&record(2, 1)).unwrap()] {
        let mut store = file(&folder);
        let epoch = store.take(0).await.unwrap().unwrap().epoch;
        let before = store.history(|_| true, 10).await.unwrap();
        store.append(&record(before.len() as u64 + 1, epoch)).await.unwrap();
        drop(store);
        // Cut inside a character where there is one.
        let bytes = &torn.as_bytes()[..torn.len() - usize::from(torn.ends_with('\u{fc}'))];
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(bytes).unwrap();
        let mut store = file(&folder);
        let taken = store.take(0).await.unwrap().unwrap();
        assert_eq!(taken.records.len(), before.len() + 1, "{torn}");
        store.append(&record(taken.records.len() as u64 + 1, taken.epoch)).await.unwrap();
        assert_eq!(store.history(|_| true, 10).await.unwrap().len(), before.len() + 2);
    }
}

#[tokio::test]
async fn a_line_that_is_no_record_is_named_and_nothing_is_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("controller/rollouts.jsonl");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "hello\n").unwrap();
    let error = file(&folder).take(0).await.unwrap_err().to_string();
    assert!(error.contains("rollouts.jsonl: line 1 is no record"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "hello\n");
}

#[tokio::test]
async fn an_epoch_is_above_those_that_gateways_know_though_the_log_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(file(&folder).take(7).await.unwrap().unwrap().epoch, 8);
}
