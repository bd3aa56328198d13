//! From what was seen to a report, and from several processes' reports to one.

use super::{ErrorCount, Event, Goodput, Report, Requests, SCHEMA, Throughput, Tokens, figures, validity};
use crate::error::Error;
use crate::limits::{self, Flow, Seen};
use crate::metrics::Metrics;
use crate::prompts::PromptBasis;
use crate::record::FailureKind;
use crate::scenario::{Arrivals, Scenario, Targets};
use crate::scrape::{Reading, TargetMetrics};

/// What a report is made of.
#[derive(Clone, Debug)]
pub struct RunFacts {
    /// See [`Report::scenario`].
    pub scenario: Scenario,
    /// See [`Report::target`].
    pub target: String,
    /// See [`Report::model`].
    pub model: String,
    /// See [`Report::prompt_basis`].
    pub prompt_basis: PromptBasis,
    /// See [`Report::started_unix_s`].
    pub started_unix_s: u64,
    /// See [`Report::processes`].
    pub processes: u32,
    /// See [`Report::interrupted`].
    pub interrupted: bool,
    /// See [`Requests::abandoned`].
    pub abandoned: u64,
    /// See [`Requests::warmup`].
    pub warmup_sent: u64,
    /// See [`Requests::warmup_failed`].
    pub warmup_failed: u64,
    /// The measured run.
    pub metrics: Metrics,
    /// See [`Report::events`].
    pub events: Vec<Event>,
    /// See [`Report::target_metrics`].
    pub target_metrics: TargetMetrics,
}

impl Report {
    /// Puts a run's figures together.
    pub fn new(facts: RunFacts) -> Self {
        let (notes, metrics) = (notes(&facts), &facts.metrics);
        let invalid_reasons = validity::reasons(metrics, &facts.scenario.arrivals);
        let limits = limits::judge(&facts.target_metrics, &seen(metrics, &facts.scenario));
        let verdict = limits.first().map(|first| format!("{}: {}", first.limit.name(), first.evidence));
        let requests = requests(&facts);
        let [scheduled, sent, between_tokens, tester] = figures::of(&metrics.latencies);
        let mut report = Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_s: facts.started_unix_s,
            processes: facts.processes,
            valid: invalid_reasons.is_empty(),
            invalid_reasons,
            interrupted: facts.interrupted,
            verdict: verdict.unwrap_or_default(),
            limits,
            requests,
            rates: validity::rates(metrics),
            goodput: goodput(metrics),
            throughput: throughput(metrics),
            tokens: Tokens {
                output: metrics.counts.output_tokens,
                prompt: metrics.counts.prompt_tokens,
                prompt_cached: metrics.counts.cached_prompt_tokens,
            },
            usd_per_million_good_tokens: usd_per_million_good_tokens(metrics, facts.scenario.usd_per_hour),
            span_s: metrics.span_s(),
            scheduled,
            sent,
            between_tokens,
            tester,
            cache: metrics.counts.cache,
            errors: errors(metrics),
            notes,
            prompt_basis: facts.prompt_basis,
            events: facts.events,
            target_metrics: facts.target_metrics,
            target: facts.target,
            model: facts.model,
            scenario: facts.scenario,
            finish_reasons: facts.metrics.finish_reasons,
            timeline: facts.metrics.timeline,
            counts: facts.metrics.counts,
            spans: facts.metrics.spans,
            histograms: facts.metrics.latencies,
        };
        report.goodput.share = report.share_of_offered(report.goodput.requests);
        report
    }

    /// The report that one process would have written which had sent everything that these processes sent together.
    /// Each process' clock starts with its own run, so they must have been started together.
    ///
    /// # Errors
    /// When there are none, or they are not of the same scenario and model.
    pub fn merge(mut reports: Vec<Self>) -> Result<Self, Error> {
        let take = |report: &mut Self| Reading {
            read: std::mem::take(&mut report.target_metrics),
            processes: report.processes,
        };
        let readings = reports.iter_mut().map(take).collect();
        let mut reports = reports.into_iter();
        let first = reports.next().ok_or_else(|| Error::Merge("there are none".into()))?;
        let whole = reports.try_fold(first.into_facts(), |whole, report| whole.merge(report.into_facts()))?;
        Ok(Self::new(RunFacts { target_metrics: TargetMetrics::merge(readings), ..whole }))
    }

    fn into_facts(self) -> RunFacts {
        let failures = self.errors.into_iter().map(|error| (error.kind, (error.count, error.example)));
        RunFacts {
            target: self.target,
            model: self.model,
            prompt_basis: self.prompt_basis,
            started_unix_s: self.started_unix_s,
            processes: self.processes,
            interrupted: self.interrupted,
            abandoned: self.requests.abandoned,
            warmup_sent: self.requests.warmup,
            warmup_failed: self.requests.warmup_failed,
            metrics: Metrics {
                targets: self.scenario.targets,
                counts: self.counts,
                latencies: self.histograms,
                timeline: self.timeline,
                spans: self.spans,
                failures: failures.collect(),
                finish_reasons: self.finish_reasons,
            },
            events: self.events,
            target_metrics: self.target_metrics,
            scenario: self.scenario,
        }
    }
}

impl RunFacts {
    fn merge(mut self, other: Self) -> Result<Self, Error> {
        if self.model != other.model {
            return Err(Error::Merge(format!("one is of model {}, one of {}", self.model, other.model)));
        }
        if let Some(difference) = self.scenario.differences(&other.scenario).first() {
            return Err(Error::Merge(format!("their scenarios differ: {difference}")));
        }
        self.metrics.merge(&other.metrics)?;
        self.started_unix_s = self.started_unix_s.min(other.started_unix_s);
        self.processes += other.processes;
        self.interrupted |= other.interrupted;
        self.abandoned += other.abandoned;
        self.warmup_sent += other.warmup_sent;
        self.warmup_failed += other.warmup_failed;
        for event in other.events {
            if !self.events.contains(&event) {
                self.events.push(event);
            }
        }
        self.events.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        Ok(self)
    }
}

fn requests(facts: &RunFacts) -> Requests {
    let counts = &facts.metrics.counts;
    let sent = counts.succeeded + counts.failed + facts.abandoned;
    Requests {
        offered: sent + counts.unsent,
        sent,
        succeeded: counts.succeeded,
        failed: counts.failed,
        unsent: counts.unsent,
        abandoned: facts.abandoned,
        mismatched: failures(&facts.metrics, FailureKind::Mismatch),
        resent: counts.resent,
        warmup: facts.warmup_sent,
        warmup_failed: facts.warmup_failed,
    }
}

fn failures(metrics: &Metrics, kind: FailureKind) -> u64 {
    metrics.failures.get(&kind.to_string()).map_or(0, |(count, _)| *count)
}

/// But for the share, which is of the requests that were offered.
fn goodput(metrics: &Metrics) -> Goodput {
    Goodput {
        requests: metrics.counts.good,
        share: None,
        per_s: metrics.per_second(metrics.counts.good),
        output_tokens: metrics.counts.good_output_tokens,
    }
}

fn throughput(metrics: &Metrics) -> Throughput {
    Throughput {
        requests_per_s: metrics.per_second(metrics.counts.succeeded),
        output_tokens_per_s: metrics.per_second(metrics.counts.output_tokens),
        prompt_tokens_per_s: metrics.per_second(metrics.counts.prompt_tokens),
    }
}

fn usd_per_million_good_tokens(metrics: &Metrics, usd_per_hour: Option<f64>) -> Option<f64> {
    let tokens = metrics.counts.good_output_tokens;
    let usd = usd_per_hour? * metrics.span_s() / 3_600.0;
    (tokens > 0).then(|| usd / tokens as f64 * 1e6)
}

fn errors(metrics: &Metrics) -> Vec<ErrorCount> {
    let kinds = metrics.failures.iter();
    let mut errors: Vec<ErrorCount> = kinds
        .map(|(kind, (count, example))| ErrorCount {
            kind: kind.clone(),
            count: *count,
            example: example.clone(),
        })
        .collect();
    errors.sort_by_key(|error| std::cmp::Reverse(error.count));
    errors
}

fn seen(metrics: &Metrics, scenario: &Scenario) -> Seen {
    let (ttft, counts) = (&metrics.latencies.sent_ttft, &metrics.counts);
    let offered = counts.succeeded + counts.failed + counts.unsent;
    let has_targets = scenario.targets != Targets::default();
    Seen {
        ttft_mean_ms: (!ttft.is_empty()).then(|| ttft.mean() / 1e3),
        sent: counts.succeeded + counts.failed,
        broken: failures(metrics, FailureKind::Connect) + failures(metrics, FailureKind::Disconnected),
        good_share: (has_targets && offered > 0).then(|| counts.good as f64 / offered as f64),
        flow: flow(metrics, &scenario.arrivals),
    }
}

/// What came and went in the second half of the time in which requests became due.
fn flow(metrics: &Metrics, arrivals: &Arrivals) -> Option<Flow> {
    let span = metrics.spans.due.filter(|_| !matches!(arrivals, Arrivals::ClosedLoop { .. }))?;
    let (half_s, end_s) = ((span.first_us + span.last_us) / 2_000_000, span.last_us / 1_000_000);
    let late = metrics.timeline.moments().filter(|moment| (half_s..=end_s).contains(&moment.at_s));
    let (due, ended) = late.fold((0, 0), |(due, ended), moment| {
        (due + moment.bucket.offered, ended + moment.bucket.completed + moment.bucket.failed)
    });
    let e2e_p50_s = metrics.latencies.sent_e2e.value_at_quantile(0.5) as f64 / 1e6;
    Some(Flow { due, ended, sending_s: span.seconds(), e2e_p50_s })
}

/// The fewest failures at the end that say something of the target, and not of a request.
const GONE_FAILURES_MIN: u64 = 5;

/// Whether nothing succeeded any more from some moment on.
fn gone(metrics: &Metrics) -> Option<String> {
    let moments = || metrics.timeline.moments();
    let last_s = moments().filter(|moment| moment.bucket.completed > 0).last()?.at_s;
    let failed: u64 =
        moments().filter(|moment| moment.at_s > last_s).map(|moment| moment.bucket.failed).sum();
    (failed >= GONE_FAILURES_MIN).then(|| {
        format!("the last request that succeeded ended in second {last_s}; {failed} that ended later failed: the target broke down then, or went away")
    })
}

fn notes(facts: &RunFacts) -> Vec<String> {
    let (scenario, counts) = (&facts.scenario, &facts.metrics.counts);
    let requests = counts.succeeded + counts.failed;
    let mut notes = Vec::from_iter(gone(&facts.metrics));
    match facts.prompt_basis {
        PromptBasis::Estimated => notes.push(
            "the target offers no /tokenize: the length of prompts is an estimate, and usage says what they had; --tokenizer \
             counts".into(),
        ),
        PromptBasis::File { prompts } if (prompts as u64) < requests => notes.push(format!(
            "{prompts} prompts for {requests} requests: prompts were repeated, and caches may have answered"
        )),
        _ => {}
    }
    let mut count = |count: u64, what: &str| {
        if count > 0 {
            notes.push(format!("{count} {what}"));
        }
    };
    if scenario.answers.ignore_eos {
        count(counts.short, "answers are shorter than max-tokens although ignore-eos was set");
    }
    count(counts.empty, "answers have no token");
    count(counts.without_usage, "answers came without usage");
    count(counts.with_assumed_tokens, "streams did not say their tokens: one a chunk is assumed");
    count(counts.resent, "requests were sent once more, for the server had closed an idle connection");
    count(facts.warmup_failed, "warm-up requests failed");
    count(facts.abandoned, "requests were in flight when the run was interrupted and are in no figure");
    let unread = facts.events.iter().filter(|event| event.error.is_some()).count() as u64;
    count(unread, "of the faults could not be done; see events");
    notes.extend(facts.target_metrics.kept_readings());
    notes.extend(limits::disturbance(&facts.target_metrics));
    notes
}
