//! The settings of routing, with their defaults.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::{Policy, RouteError};

/// How workers are chosen, watched and tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How a worker is picked: `prefix_affinity`, `least_load`, `power_of_two` or `round_robin`.
    pub policy: Policy,
    /// For `prefix_affinity`: how strongly load repels, from 0.1. A prompt that one worker has wholly cached still
    /// goes elsewhere when that worker has `(mean load + load_slack) / load_weight` requests more than the idlest.
    pub load_weight: f64,
    /// For `prefix_affinity`: requests by which workers may differ at little load before their load tells much.
    pub load_slack: u32,
    /// The most prefixes that the gateway remembers, about 100 bytes each.
    pub prefix_entries_max: u32,
    /// The most prefixes that are read from one load report.
    pub hot_prefixes_max: u32,
    /// Time from the end of one probe of a worker to the start of its next.
    pub probe_interval_ms: u64,
    /// A probe without an answer after this time has failed.
    pub probe_timeout_ms: u64,
    /// When a worker is taken out and when it comes back.
    pub health: HealthConfig,
    /// How many retries are allowed.
    pub retry_budget: RetryBudgetConfig,
}

/// When a worker is taken out and when it comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// This many probes fail in a row, with no request answered in between, and the worker is out.
    pub probe_failures_max: u32,
    /// This many probes succeed in a row, and it may come back.
    pub probe_successes_min: u32,
    /// This many requests fail in a row by a server error or a broken connection, and the worker is out. A refused
    /// connection takes it out at once.
    pub request_failures_max: u32,
    /// How long it stays out at least, the first time.
    pub ejection_base_ms: u64,
    /// Each further time doubles that, up to this.
    pub ejection_max_ms: u64,
    /// After this time in good health its former failures are forgiven.
    pub forgive_after_ms: u64,
}

/// How many retries are allowed, so that a failure of many workers does not become a storm on the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryBudgetConfig {
    /// Retries that the requests of the last `window_ms` allow, as a percentage of them.
    pub retry_percent: u32,
    /// How long a request allows its share of a retry.
    pub window_ms: u64,
    /// Retries that are allowed each second however few requests come …
    pub min_retries_per_s: u32,
    /// … and how many of these may come at once after a quiet time. It covers all requests that one killed worker
    /// had in flight.
    pub burst_retries: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            load_weight: 2.0,
            load_slack: 8,
            prefix_entries_max: 100_000,
            hot_prefixes_max: 1_024,
            probe_interval_ms: 1_000,
            probe_timeout_ms: 2_000,
            health: HealthConfig::default(),
            retry_budget: RetryBudgetConfig::default(),
        }
    }
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            probe_failures_max: 3,
            probe_successes_min: 1,
            request_failures_max: 5,
            ejection_base_ms: 1_000,
            ejection_max_ms: 60_000,
            forgive_after_ms: 60_000,
        }
    }
}

impl Default for RetryBudgetConfig {
    fn default() -> Self {
        Self { retry_percent: 20, window_ms: 10_000, min_retries_per_s: 10, burst_retries: 64 }
    }
}

const HOUR_MS: u64 = 3_600_000;

impl Config {
    /// Checks all settings; an error names the first that is out of range.
    pub fn validate(&self) -> Result<(), RouteError> {
        within("load_weight", self.load_weight, 0.1..=100.0)?;
        within("load_slack", self.load_slack, 1..=10_000)?;
        within("prefix_entries_max", self.prefix_entries_max, 1..=10_000_000)?;
        within("hot_prefixes_max", self.hot_prefixes_max, 0..=self.prefix_entries_max)?;
        within("probe_interval_ms", self.probe_interval_ms, 10..=HOUR_MS)?;
        within("probe_timeout_ms", self.probe_timeout_ms, 10..=HOUR_MS)?;
        self.health.validate()?;
        self.retry_budget.validate()
    }
}

impl HealthConfig {
    fn validate(&self) -> Result<(), RouteError> {
        within("health.probe_failures_max", self.probe_failures_max, 1..=1_000)?;
        within("health.probe_successes_min", self.probe_successes_min, 1..=1_000)?;
        within("health.request_failures_max", self.request_failures_max, 1..=100_000)?;
        within("health.ejection_max_ms", self.ejection_max_ms, 1..=HOUR_MS)?;
        within("health.ejection_base_ms", self.ejection_base_ms, 1..=self.ejection_max_ms)?;
        within("health.forgive_after_ms", self.forgive_after_ms, 0..=24 * HOUR_MS)
    }
}

impl RetryBudgetConfig {
    fn validate(&self) -> Result<(), RouteError> {
        within("retry_budget.retry_percent", self.retry_percent, 0..=100)?;
        within("retry_budget.window_ms", self.window_ms, 100..=HOUR_MS)?;
        within("retry_budget.min_retries_per_s", self.min_retries_per_s, 0..=100_000)?;
        within("retry_budget.burst_retries", self.burst_retries, 0..=100_000)
    }
}

fn within<T: PartialOrd + Display>(
    key: &'static str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), RouteError> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = format!("from {} to {}", range.start(), range.end());
    Err(RouteError::InvalidConfig { key, value: value.to_string(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_these_and_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
        insta::assert_json_snapshot!(Config::default(), @r#"
        {
          "policy": "prefix_affinity",
          "load_weight": 2.0,
          "load_slack": 8,
          "prefix_entries_max": 100000,
          "hot_prefixes_max": 1024,
          "probe_interval_ms": 1000,
          "probe_timeout_ms": 2000,
          "health": {
            "probe_failures_max": 3,
            "probe_successes_min": 1,
            "request_failures_max": 5,
            "ejection_base_ms": 1000,
            "ejection_max_ms": 60000,
            "forgive_after_ms": 60000
          },
          "retry_budget": {
            "retry_percent": 20,
            "window_ms": 10000,
            "min_retries_per_s": 10,
            "burst_retries": 64
          }
        }
        "#);
    }

    #[test]
    fn a_setting_out_of_range_is_named_with_its_range() {
        let message = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate().expect_err("out of range").to_string()
        };
        assert_eq!(
            message(|config| config.load_weight = 0.0),
            "`load_weight` is 0, but must be from 0.1 to 100"
        );
        assert!(message(|config| config.load_weight = f64::NAN).contains("NaN"));
        assert!(message(|config| config.load_slack = 0).contains("`load_slack`"));
        assert!(message(|config| config.prefix_entries_max = 0).contains("`prefix_entries_max`"));
        assert!(message(|config| config.hot_prefixes_max = 100_001).contains("from 0 to 100000"));
        assert!(message(|config| config.probe_interval_ms = 0).contains("`probe_interval_ms`"));
        assert!(
            message(|config| config.health.ejection_base_ms = 60_001).contains("`health.ejection_base_ms`")
        );
        assert!(
            message(|config| config.health.probe_failures_max = 0).contains("`health.probe_failures_max`")
        );
        assert!(
            message(|config| config.retry_budget.retry_percent = 101)
                .contains("`retry_budget.retry_percent`")
        );
        assert!(message(|config| config.retry_budget.window_ms = 0).contains("`retry_budget.window_ms`"));
    }

    #[test]
    fn a_part_of_the_settings_leaves_the_rest_at_their_defaults_and_a_wrong_key_is_refused() {
        let text = r#"{"policy":"least_load","health":{"probe_failures_max":7}}"#;
        let config: Config = serde_json::from_str(text).expect("parses");
        let health = HealthConfig { probe_failures_max: 7, ..HealthConfig::default() };
        assert_eq!(config, Config { policy: Policy::LeastLoad, health, ..Config::default() });
        for wrong in
            [r#"{"polcy":"least_load"}"#, r#"{"retry_budget":{"percent":1}}"#, r#"{"policy":"fastest"}"#]
        {
            assert!(serde_json::from_str::<Config>(wrong).is_err(), "{wrong} was accepted");
        }
    }
}
