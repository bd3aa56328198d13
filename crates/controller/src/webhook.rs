//! Tells each decision to whoever wants to hear it.

use std::time::Duration;

use tokio::sync::mpsc;
use ureq::Agent;

use crate::Record;

/// Decisions that wait to be told; what comes above is not, and is in the log all the same.
const QUEUE_MAX: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 3;

/// Where decisions are told. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Webhook(mpsc::Sender<String>);

impl Webhook {
    /// Starts to tell.
    pub(crate) fn start(url: String) -> Self {
        let (tell, mut told) = mpsc::channel::<String>(QUEUE_MAX);
        tokio::spawn(async move {
            while let Some(body) = told.recv().await {
                let url = url.clone();
                let _ = tokio::task::spawn_blocking(move || send(&url, &body)).await;
            }
        });
        Self(tell)
    }

    /// Tells one; never waits.
    pub(crate) fn tell(&self, record: &Record) {
        let Ok(body) = serde_json::to_string(record) else { return };
        if self.0.try_send(body).is_err() {
            tracing::warn!(seq = record.seq, "a decision is not told to the webhook, where too many wait");
        }
    }
}

fn send(url: &str, body: &str) {
    let agent: Agent =
        Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(true).build().into();
    for attempt in 1..=ATTEMPTS {
        match agent.post(url).header("content-type", "application/json").send(body) {
            Ok(_) => return,
            Err(error) if attempt == ATTEMPTS => {
                tracing::warn!(%error, "the webhook does not take a decision")
            }
            Err(_) => std::thread::sleep(Duration::from_secs(1 << attempt)),
        }
    }
}
