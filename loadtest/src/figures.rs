//! The names of figures: what assertions, searches and comparisons may ask a run for.

use std::future::Future;

use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::report::Report;
use crate::scenario::Scenario;

/// What a run came to, by name. A latency is meant from schedule unless the name says `sent.`.
pub trait Figures {
    /// The figure, in the unit that ends its name; none where the run has no value for it.
    fn figure(&self, name: &str) -> Option<f64>;
    /// Whether the tester kept its own schedule, so that the figures count.
    fn valid(&self) -> bool;
    /// Whether it was stopped before its end.
    fn interrupted(&self) -> bool;
}

/// Whoever runs a scenario. Searches and sweeps are written against this, and are tested with made-up ones.
pub trait Runner {
    /// What a run leaves.
    type Run: Figures;
    /// Runs to the end, or until `stop` is cancelled. `label` tells runs of one search apart, and is fit for a folder.
    ///
    /// # Errors
    /// When nothing could be measured.
    fn run(
        &mut self,
        scenario: Scenario,
        label: &str,
        stop: &CancellationToken,
    ) -> impl Future<Output = Result<Self::Run, Error>> + Send;
}

/// The label of the run `number` of a search or a sweep, counted from 0, and the folder of its report.
pub(crate) fn run_label(number: usize) -> String {
    format!("run-{number:03}")
}

/// What a comparison shows unless asked for more.
pub const HEADLINES: [&str; 9] = [
    "ttft_p50_ms",
    "ttft_p99_ms",
    "inter_token_p50_ms",
    "inter_token_p99_ms",
    "e2e_p50_ms",
    "requests_per_s",
    "output_tokens_per_s",
    "goodput",
    "error_share",
];

/// Every name there is.
pub fn all() -> Vec<String> {
    Report::figure_names()
}

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Latencies, errors and costs.
    Lower,
    /// Throughputs and goodput.
    Higher,
}

/// Which way `name` is better.
pub fn better(name: &str) -> Better {
    let lower = name.ends_with("_ms")
        || name == "error_share"
        || name.starts_with("usd_")
        || ["requests_failed", "requests_unsent", "requests_mismatched", "requests_abandoned"]
            .contains(&name);
    if lower { Better::Lower } else { Better::Higher }
}

/// Refuses a name that no run has a figure for, with the nearest one that it has.
pub fn check(name: &str) -> Result<(), String> {
    let all = all();
    if all.iter().any(|known| known == name) {
        return Ok(());
    }
    let scored = all.iter().map(|known| (strsim::jaro_winkler(name, known), known));
    let nearest = scored.max_by(|left, right| left.0.total_cmp(&right.0)).filter(|(score, _)| *score > 0.7);
    Err(match nearest {
        Some((_, nearest)) => format!("there is no figure `{name}`; did you mean `{nearest}`?"),
        None => format!("there is no figure `{name}`; ttft_p99_ms, goodput and output_tokens_per_s are some"),
    })
}

#[cfg(test)]
pub(crate) mod made_up {
    //! A run with figures of the test's own.

    use std::collections::BTreeMap;

    use super::Figures;

    #[derive(Clone, Debug)]
    pub(crate) struct MadeUp {
        pub(crate) figures: BTreeMap<String, f64>,
        pub(crate) valid: bool,
        pub(crate) interrupted: bool,
    }

    impl MadeUp {
        pub(crate) fn of(figures: &[(&str, f64)]) -> Self {
            let figures = figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            Self { figures, valid: true, interrupted: false }
        }
    }

    impl Figures for MadeUp {
        fn figure(&self, name: &str) -> Option<f64> {
            self.figures.get(name).copied()
        }

        fn valid(&self) -> bool {
            self.valid
        }

        fn interrupted(&self) -> bool {
            self.interrupted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest_right_one() {
        check("ttft_p99_ms").expect("known");
        check("sent.e2e_max_ms").expect("known");
        let refused = |name: &str| check(name).expect_err("unknown");
        assert!(refused("tfft_p99_ms").contains("did you mean `ttft_p99_ms`?"));
        assert!(refused("output_tokens_per").contains("`output_tokens_per_s`"));
        assert!(refused("zzz").contains("are some"));
    }

    #[test]
    fn headlines_are_figures_and_know_which_way_is_better() {
        for name in HEADLINES {
            check(name).expect("known");
        }
        assert_eq!(better("sent.ttft_p99_ms"), Better::Lower);
        assert_eq!(better("error_share"), Better::Lower);
        assert_eq!(better("goodput"), Better::Higher);
        assert_eq!(better("output_tokens_per_s"), Better::Higher);
    }
}
