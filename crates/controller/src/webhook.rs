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
                for attempt in 1..=ATTEMPTS {
                    let (url, body) = (url.clone(), body.clone());
                    match tokio::task::spawn_blocking(move || send(&url, &body)).await {
                        Ok(Err(error)) if attempt < ATTEMPTS => {
                            tracing::debug!(error, "the webhook is tried again");
                            tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
                        }
                        Ok(Err(error)) => tracing::warn!(error, "the webhook does not take a decision"),
                        _ => break,
                    }
                }
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

fn send(url: &str, body: &str) -> Result<(), String> {
    let agent: Agent = Agent::config_builder().timeout_global(Some(TIMEOUT)).build().into();
    let sent = agent.post(url).header("content-type", "application/json").send(body);
    sent.map(drop).map_err(|error| error.to_string())
}
