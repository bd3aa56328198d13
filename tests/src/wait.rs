//! Waiting for conditions, with a bound.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Far above what anything here takes on a busy machine, far below what a hang takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(10);

/// Asks again and again until the answer is there; after [`PATIENCE`] an error that names `what` and says why not yet.
pub async fn eventually<T, E, F>(what: &str, mut ask: impl FnMut() -> F) -> Result<T>
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let started = Instant::now();
    loop {
        match ask().await {
            Ok(found) => return Ok(found),
            Err(why) if started.elapsed() > PATIENCE => {
                bail!("{what}: not within {} s: {why:#}", PATIENCE.as_secs())
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
