//! What the tests share: a scripted worker, a gateway with its client, and words to ask and answer with.

mod front;
mod words;
mod worker;

use std::time::Duration;

pub(crate) use front::{Front, Got};
pub(crate) use words::{ask, chunks, completion, error_json, streamed, texts, with};
pub(crate) use worker::{End, Gate, Reply, Worker};

/// Far above what anything here takes, far below a hung test run.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for something that must come.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Asks again and again until the answer is yes.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
