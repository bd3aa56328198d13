//! Figures by name: what an assertion, a comparison or a search asks a report for.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::Report;
use crate::metrics::Latencies;

/// Figures by name; null where there was nothing to measure.
pub type Figures = BTreeMap<String, Option<f64>>;

/// A figure and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// As in [`Report::figure`]; for a distribution, without statistic and unit.
    pub name: &'static str,
    /// For people.
    pub meaning: &'static str,
}

/// Distributions that exist from schedule and from sending.
pub(super) const ANCHORED: [Definition; 2] = [
    Definition {
        name: "ttft",
        meaning: "time to first token: first text of the answer − scheduled (or sent)",
    },
    Definition {
        name: "e2e", meaning: "end-to-end latency: last text of the answer − scheduled (or sent)"
    },
];
/// Distributions of times between tokens.
pub(super) const BETWEEN_TOKENS: [Definition; 3] = [
    Definition {
        name: "tpot",
        meaning: "time per output token, one value a request: (end-to-end − TTFT) / (output tokens − 1)",
    },
    Definition {
        name: "inter_token",
        meaning: "gaps between tokens, one value a gap: the gap before a chunk of n tokens is n gaps of an n-th",
    },
    Definition { name: "inter_chunk", meaning: "gaps between chunks: what a reader sees as a stall" },
];
/// The tester's own.
pub(super) const TESTER: [Definition; 1] =
    [Definition { name: "dispatch_delay", meaning: "the tester's own lateness: sent − scheduled" }];

const STATISTICS: [&str; 7] = ["count", "max_ms", "mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms"];

type Single = (Definition, fn(&Report) -> Option<f64>);

const fn single(name: &'static str, meaning: &'static str, value: fn(&Report) -> Option<f64>) -> Single {
    (Definition { name, meaning }, value)
}

/// Figures that are one number each.
pub(super) const SINGLES: &[Single] = &[
    single("goodput", "share of requests offered that met all targets", |report| report.goodput.share),
    single("goodput_per_s", "requests that met all targets, a second of the span", |report| {
        Some(report.goodput.per_s)
    }),
    single("requests_per_s", "requests that succeeded, a second of the span", |report| {
        Some(report.throughput.requests_per_s)
    }),
    single("output_tokens_per_s", "tokens of answers that succeeded, a second of the span", |report| {
        Some(report.throughput.output_tokens_per_s)
    }),
    single("prompt_tokens_per_s", "tokens of their prompts, a second of the span", |report| {
        Some(report.throughput.prompt_tokens_per_s)
    }),
    single("offered_per_s", "requests due, a second from the first to the last", |report| {
        report.rates.offered_per_s
    }),
    single("achieved_per_s", "requests sent, a second from the first to the last", |report| {
        report.rates.achieved_per_s
    }),
    single("error_share", "share of requests offered that failed or were never sent", |report| {
        report.share_of_offered(report.requests.failed + report.requests.unsent)
    }),
    single("requests_offered", "requests due", |report| Some(report.requests.offered as f64)),
    single("requests_sent", "requests sent", |report| Some(report.requests.sent as f64)),
    single("requests_succeeded", "requests that succeeded", |report| Some(report.requests.succeeded as f64)),
    single("requests_failed", "requests that were sent and failed", |report| {
        Some(report.requests.failed as f64)
    }),
    single("requests_unsent", "requests due and never sent", |report| Some(report.requests.unsent as f64)),
    single("requests_mismatched", "answers that were not the reference run's", |report| {
        Some(report.requests.mismatched as f64)
    }),
    single("output_tokens", "tokens of answers that succeeded", |report| Some(report.tokens.output as f64)),
    single("prompt_tokens", "tokens of their prompts", |report| Some(report.tokens.prompt as f64)),
    single("prefix_cached_share", "share of prompt tokens that a prefix cache had", |report| {
        share(report.tokens.prompt_cached, report.tokens.prompt)
    }),
    single("cache_hit_share", "share of answers from a response cache, of those that say so", |report| {
        share(report.cache.hit + report.cache.coalesced, report.cache.known())
    }),
    single("usd_per_million_good_tokens", "US dollars for a million tokens of good requests", |report| {
        report.usd_per_million_good_tokens
    }),
    single("span_s", "first sending to last end, in seconds", |report| Some(report.span_s)),
];

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Report {
    /// The figure `name`: `ttft_p99_ms` and `scheduled.ttft_p99_ms`, which are the same, `sent.ttft_p99_ms`,
    /// `inter_token_p50_ms`, `goodput`, and so on. None when there is no such figure, or nothing was measured; whether a
    /// name exists says [`Self::figure_names`].
    pub fn figure(&self, name: &str) -> Option<f64> {
        if let Some((_, value)) = SINGLES.iter().find(|(definition, _)| definition.name == name) {
            return value(self);
        }
        let unprefixed = [&self.scheduled, &self.between_tokens, &self.tester];
        let found = match name.split_once('.') {
            Some(("scheduled", name)) => self.scheduled.get(name),
            Some(("sent", name)) => self.sent.get(name),
            Some(("between_tokens", name)) => self.between_tokens.get(name),
            Some(("tester", name)) => self.tester.get(name),
            Some(_) => None,
            None => unprefixed.iter().find_map(|figures| figures.get(name)),
        };
        found.copied().flatten()
    }

    /// Every name that [`Self::figure`] knows.
    pub fn figure_names() -> Vec<String> {
        let mut names: Vec<String> =
            SINGLES.iter().map(|(definition, _)| definition.name.to_owned()).collect();
        let groups: [(&str, &[Definition]); 4] = [
            ("scheduled", &ANCHORED),
            ("sent", &ANCHORED),
            ("between_tokens", &BETWEEN_TOKENS),
            ("tester", &TESTER),
        ];
        for (group, definitions) in groups {
            for (definition, statistic) in
                definitions.iter().flat_map(|definition| STATISTICS.map(|statistic| (definition, statistic)))
            {
                let name = format!("{}_{statistic}", definition.name);
                names.push(format!("{group}.{name}"));
                if group != "sent" {
                    names.push(name);
                }
            }
        }
        names
    }

    pub(super) fn share_of_offered(&self, count: u64) -> Option<f64> {
        share(count, self.requests.offered - self.requests.abandoned)
    }
}

/// The latencies by their anchor: scheduled, sent, between tokens, the tester's.
pub(super) fn of(latencies: &Latencies) -> [Figures; 4] {
    let groups: [&[(&Definition, &Histogram<u64>)]; 4] = [
        &[(&ANCHORED[0], &latencies.scheduled_ttft), (&ANCHORED[1], &latencies.scheduled_e2e)],
        &[(&ANCHORED[0], &latencies.sent_ttft), (&ANCHORED[1], &latencies.sent_e2e)],
        &[
            (&BETWEEN_TOKENS[0], &latencies.tpot),
            (&BETWEEN_TOKENS[1], &latencies.inter_token),
            (&BETWEEN_TOKENS[2], &latencies.inter_chunk),
        ],
        &[(&TESTER[0], &latencies.dispatch_delay)],
    ];
    groups.map(|group| {
        group.iter().flat_map(|(definition, histogram)| summary(definition.name, histogram)).collect()
    })
}

fn summary(name: &str, histogram: &Histogram<u64>) -> Vec<(String, Option<f64>)> {
    let quantile = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
    let values = [
        histogram.len() as f64,
        histogram.max() as f64 / 1e3,
        histogram.mean() / 1e3,
        quantile(0.5),
        quantile(0.9),
        quantile(0.95),
        quantile(0.99),
    ];
    let named = STATISTICS.iter().zip(values).map(|(statistic, value)| {
        let measured = *statistic == "count" || !histogram.is_empty();
        (format!("{name}_{statistic}"), measured.then_some(value))
    });
    named.collect()
}
