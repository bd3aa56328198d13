//! What a gateway counts about one model version: the evidence that rollouts and dashboards compare by.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::{Histogram, IntCounter, Registry};

use super::labels::{CODES, Endpoint, code_index};
use crate::TelemetryError;
use crate::catalogue::gateway as specs;
use crate::series::{detached, register, unregister};

/// One model version's series.
#[derive(Debug)]
pub struct VersionSeries {
    registry: Registry,
    model: String,
    version: String,
    /// By endpoint and status; made at the first such answer, so that the page shows only what has happened.
    requests: [[OnceLock<IntCounter>; CODES.len()]; Endpoint::COUNT],
    /// Takes the counts of a series that is not shown.
    spare: IntCounter,
    retired: AtomicBool,
    /// Seconds from arrival to the last byte.
    pub request_duration: Histogram,
    /// Seconds from arrival to the first token.
    pub time_to_first_token: Histogram,
    /// Seconds between two tokens of one streamed answer.
    pub inter_token_latency: Histogram,
    /// Tokens of answered requests' prompts.
    pub prompt_tokens: IntCounter,
    /// Tokens of answers.
    pub completion_tokens: IntCounter,
}

impl VersionSeries {
    /// Made, but on no page until [`Self::show`].
    pub(super) fn detached(registry: &Registry, model: &str, version: &str) -> Result<Self, TelemetryError> {
        let labels = &[model, version];
        Ok(Self {
            registry: registry.clone(),
            model: model.to_owned(),
            version: version.to_owned(),
            requests: Default::default(),
            spare: detached(&specs::REQUESTS, &[model, version, "", ""])?,
            retired: AtomicBool::new(false),
            request_duration: detached(&specs::REQUEST_DURATION, labels)?,
            time_to_first_token: detached(&specs::TIME_TO_FIRST_TOKEN, labels)?,
            inter_token_latency: detached(&specs::INTER_TOKEN_LATENCY, labels)?,
            prompt_tokens: detached(&specs::TOKENS, &[model, version, "prompt"])?,
            completion_tokens: detached(&specs::TOKENS, &[model, version, "completion"])?,
        })
    }

    /// The counter of answers at `endpoint` with HTTP status `code`; a status that a gateway does not send counts
    /// as `other`. Without locks or allocation after the first call.
    pub fn requests(&self, endpoint: Endpoint, code: u16) -> &IntCounter {
        let code = code_index(code);
        self.requests[endpoint as usize][code].get_or_init(|| {
            if self.retired.load(Ordering::Relaxed) {
                return self.spare.clone();
            }
            let values = [self.model.as_str(), &self.version, endpoint.as_str(), CODES[code].1];
            register(&self.registry, &specs::REQUESTS, &values).unwrap_or_else(|error| {
                tracing::error!(%error, "a request counter is not shown");
                self.spare.clone()
            })
        })
    }

    /// Showing what is shown already changes nothing.
    pub(super) fn show(&self) {
        for histogram in [&self.request_duration, &self.time_to_first_token, &self.inter_token_latency] {
            let _ = self.registry.register(Box::new(histogram.clone()));
        }
        for counter in [&self.prompt_tokens, &self.completion_tokens] {
            let _ = self.registry.register(Box::new(counter.clone()));
        }
    }

    /// Takes the version off the page for good; later updates go nowhere.
    pub(super) fn hide(&self) {
        self.retired.store(true, Ordering::Relaxed);
        for histogram in [&self.request_duration, &self.time_to_first_token, &self.inter_token_latency] {
            unregister(&self.registry, histogram.clone());
        }
        for counter in [&self.prompt_tokens, &self.completion_tokens] {
            unregister(&self.registry, counter.clone());
        }
        for counter in self.requests.iter().flatten().filter_map(OnceLock::get) {
            unregister(&self.registry, counter.clone());
        }
    }
}
