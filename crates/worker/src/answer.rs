//! One answer on its way out of the engine, and what is measured of it.

use std::time::Instant;

use engine::{Ended, Event};
use telemetry::WorkerMetrics;
use tokio::sync::mpsc;

/// An engine request's events, measured as they pass by the times that the engine put on them: how soon somebody
/// reads them is no matter of the engine's. Dropping it cancels the request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) index: u32,
    events: mpsc::Receiver<Event>,
    meter: Meter,
}

impl Answer {
    pub(crate) fn new(
        index: u32,
        events: mpsc::Receiver<Event>,
        arrived: Instant,
        metrics: WorkerMetrics,
    ) -> Self {
        Self { index, events, meter: Meter { arrived, last_token: None, ended: false, metrics } }
    }

    /// The next event. An engine that vanishes without a last word counts as failed.
    pub(crate) async fn next(&mut self) -> Event {
        let event = self.events.recv().await.unwrap_or(Event::Failed(engine::Failure::Engine));
        self.meter.see(&event);
        event
    }
}

#[derive(Debug)]
struct Meter {
    arrived: Instant,
    last_token: Option<Instant>,
    ended: bool,
    metrics: WorkerMetrics,
}

impl Meter {
    fn see(&mut self, event: &Event) {
        match event {
            Event::PromptLogprobs(_) => {}
            Event::Token(token) => {
                let metrics = &self.metrics;
                let (latency, since) = match self.last_token.replace(token.at) {
                    None => (&metrics.time_to_first_token, self.arrived),
                    Some(last) => (&metrics.inter_token_latency, last),
                };
                latency.observe(token.at.saturating_duration_since(since).as_secs_f64());
            }
            Event::Ended(ended) => self.end(ended),
            Event::Failed(_) => {
                self.ended = true;
                self.metrics.request_success("error").inc();
            }
        }
    }

    fn end(&mut self, ended: &Ended) {
        self.ended = true;
        let metrics = &self.metrics;
        metrics.request_success(ended.reason.as_str()).inc();
        metrics.request_prompt_tokens.observe(ended.prompt_tokens as f64);
        metrics.request_generation_tokens.observe(ended.completion_tokens as f64);
        metrics.e2e_request_latency.observe(ended.at.saturating_duration_since(self.arrived).as_secs_f64());
        metrics.request_queue_time.observe(ended.timings.queued.as_secs_f64());
        metrics.request_prefill_time.observe(ended.timings.prefill.as_secs_f64());
        metrics.request_decode_time.observe(ended.timings.decode.as_secs_f64());
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.request_success("abort").inc();
        }
    }
}
