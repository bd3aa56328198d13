//! One run a value of a field, for plots.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::compare::Sample;
use crate::error::Error;
use crate::figures::{Figures, HEADLINES, Runner, run_label};
use crate::scenario::Scenario;
use crate::search::figures_of;

/// The version of `sweep.json`.
const SCHEMA: u32 = 1;

/// Short names of settings: those of the flags that set them.
pub(crate) const SHORT: [(&str, &str); 26] = [
    ("target", "target"),
    ("model", "model"),
    ("seed", "seed"),
    ("rate", "arrivals.rate"),
    ("cv", "arrivals.cv"),
    ("users", "arrivals.users"),
    ("think-time-s", "arrivals.think_time_s"),
    ("requests", "requests"),
    ("duration-s", "duration_s"),
    ("warmup", "warmup"),
    ("prompt-tokens", "prompts.tokens"),
    ("shared-prefix-tokens", "prompts.shared_prefix_tokens"),
    ("shared-prefixes", "prompts.shared_prefixes"),
    ("repeat-prompts", "prompts.repeats.prompts"),
    ("repeat-exponent", "prompts.repeats.exponent"),
    ("max-tokens", "answers.max_tokens"),
    ("ignore-eos", "answers.ignore_eos"),
    ("temperature", "answers.temperature"),
    ("streamed", "answers.streamed"),
    ("target-ttft-ms", "targets.ttft_ms"),
    ("target-tpot-ms", "targets.tpot_ms"),
    ("target-e2e-ms", "targets.end_to_end_ms"),
    ("usd-per-hour", "usd_per_hour"),
    ("connections-max", "client.connections_max"),
    ("connect-timeout-s", "client.connect_timeout_s"),
    ("request-timeout-s", "client.request_timeout_s"),
];

/// The path of a setting that is given by its path, or by the name of a flag with or without its dashes.
pub(crate) fn setting(name: &str) -> String {
    let name = name.trim().trim_start_matches("--").replace('_', "-");
    let short = SHORT.iter().find(|(short, _)| *short == name).map(|(_, path)| (*path).to_owned());
    short.unwrap_or_else(|| name.replace('-', "_"))
}

/// The scenario with one setting changed. `field` is a short name, or the path in a scenario file such as
/// `client.connections_max`; `value` is written as in JSON, or as a bare word.
///
/// # Errors
/// When the scenario has no such field, or the field no such value.
pub fn with_field(scenario: &Scenario, field: &str, value: &str) -> Result<Scenario, Error> {
    let path = setting(field);
    let refuse =
        |problem: String| Error::Config(format!("the scenario's `{path}` cannot be {value}: {problem}"));
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    let mut document = serde_json::to_value(scenario).map_err(|error| refuse(error.to_string()))?;
    let mut place = &mut document;
    for key in path.split('.') {
        let fields = place.as_object_mut();
        let fields =
            fields.ok_or_else(|| refuse(format!("`{key}` is below something that has no fields")))?;
        if !fields.contains_key(key) {
            let known: Vec<&str> = fields.keys().map(String::as_str).collect();
            let short = SHORT.map(|(short, _)| short);
            let of_flags = || nearest(key, &short).filter(|_| !path.contains('.'));
            let nearest = nearest(key, &known).or_else(of_flags);
            let hint = nearest.map_or_else(String::new, |name| format!(", did you mean `{name}`?"));
            return Err(refuse(format!("there is no `{key}`{hint}; here are {}", known.join(", "))));
        }
        place = &mut fields[key];
    }
    *place = value;
    serde_json::from_value(document).map_err(|error| refuse(error.to_string()))
}

fn nearest<'a>(key: &str, names: &[&'a str]) -> Option<&'a str> {
    const ALIKE_MIN: f64 = 0.85;
    let scored = names.iter().map(|name| (strsim::jaro_winkler(key, name), *name));
    let best = scored.max_by(|left, right| left.0.total_cmp(&right.0));
    best.filter(|(score, _)| *score >= ALIKE_MIN).map(|(_, name)| name)
}

/// A sweep, ready to start.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// What each run does, but for the field.
    pub scenario: Scenario,
    /// The field, as [`with_field`] takes it.
    pub field: String,
    /// Its values, in the order of runs.
    pub values: Vec<String>,
    /// Runs a value.
    pub repeats: u32,
}

/// The runs at one value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The field's value.
    pub value: String,
    /// Runs that count.
    pub runs: u32,
    /// Runs in which the tester could not keep its schedule; they are in no figure.
    pub invalid: u32,
    /// All figures over the runs that count.
    pub figures: BTreeMap<String, Sample>,
}

/// All points, as far as the sweep came.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepReport {
    /// The version of this document.
    pub schema: u32,
    /// What each run did, but for the field and the seed.
    pub scenario: Scenario,
    /// The field.
    pub field: String,
    /// In the order of runs.
    pub points: Vec<Point>,
    /// How many runs there were, whatever came of them.
    pub runs: u32,
    /// Why it ended early; null where it did not.
    pub stopped: Option<String>,
}

impl Sweep {
    /// Runs every value. A run that fails ends the sweep with the points that it has; `on_point` gets the report after
    /// each point.
    ///
    /// # Errors
    /// When a value is refused, for all are checked before the first run, or the first run fails.
    pub async fn run<R: Runner>(
        &self,
        runner: &mut R,
        stop: &CancellationToken,
        mut on_point: impl FnMut(&SweepReport) -> Result<(), Error>,
    ) -> Result<SweepReport, Error> {
        let scenarios: Result<Vec<Scenario>, Error> =
            self.values.iter().map(|value| with_field(&self.scenario, &self.field, value)).collect();
        let mut report = SweepReport {
            schema: SCHEMA,
            scenario: self.scenario.clone(),
            field: self.field.clone(),
            points: Vec::new(),
            runs: 0,
            stopped: None,
        };
        'values: for (scenario, value) in scenarios?.into_iter().zip(&self.values) {
            let (mut runs, mut invalid) = (Vec::new(), 0);
            for _ in 0..self.repeats.max(1) {
                let seed = self.scenario.seed.wrapping_add(u64::from(report.runs));
                let run = Scenario { seed, ..scenario.clone() };
                match runner.run(run, &run_label(report.runs as usize), stop).await {
                    Ok(run) if run.interrupted() => report.stopped = Some("it was interrupted".to_owned()),
                    Ok(run) if run.valid() => runs.push(figures_of(&run)),
                    Ok(_) => invalid += 1,
                    Err(error) if report.runs == 0 => return Err(error),
                    Err(error) => report.stopped = Some(error.to_string()),
                }
                report.runs += 1;
                if report.stopped.is_some() {
                    break 'values;
                }
            }
            report.points.push(Point {
                value: value.clone(),
                runs: runs.len() as u32,
                invalid,
                figures: means(&runs),
            });
            on_point(&report)?;
        }
        on_point(&report)?;
        Ok(report)
    }
}

fn means(runs: &[BTreeMap<String, f64>]) -> BTreeMap<String, Sample> {
    let mut values: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
    for (name, value) in runs.iter().flatten() {
        values.entry(name).or_default().push(*value);
    }
    values.into_iter().filter_map(|(name, values)| Some((name.clone(), Sample::of(&values)?))).collect()
}

/// The most values beside each other: more would not fit a terminal.
const COLUMNS_MAX: usize = 6;

impl fmt::Display for SweepReport {
    /// A column a value, with the headline figures that any point has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |name: &&str| self.points.iter().any(|point| point.figures.contains_key(*name));
        let figures: Vec<&str> = HEADLINES.into_iter().filter(has).collect();
        let head =
            figures.iter().chain([&self.field.as_str()]).map(|name| name.chars().count()).max().unwrap_or(0);
        for (at, points) in self.points.chunks(COLUMNS_MAX).enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            let row = |f: &mut fmt::Formatter<'_>, name: &str, cell: &dyn Fn(&Point) -> String| {
                write!(f, "{name:<head$}")?;
                points.iter().try_for_each(|point| {
                    let cells = [cell(point), point.value.clone()].map(|cell| cell.chars().count());
                    let width = cells.into_iter().max().unwrap_or(0).max(18);
                    write!(f, "  {:>width$}", cell(point))
                })?;
                writeln!(f)
            };
            row(f, &self.field, &|point| point.value.clone())?;
            if points.iter().any(|point| point.runs != 1) {
                row(f, "runs", &|point| point.runs.to_string())?;
            }
            if points.iter().any(|point| point.invalid > 0) {
                row(f, "invalid", &|point| point.invalid.to_string())?;
            }
            for name in &figures {
                row(f, name, &|point| point.figures.get(*name).map_or("-".to_owned(), ToString::to_string))?;
            }
        }
        if self.points.iter().any(|point| point.runs > 1) {
            writeln!(f, "\n  ± is a 95% interval of the mean over a value's runs, from Student's t")?;
        }
        match &self.stopped {
            Some(reason) => writeln!(f, "\nUNFINISHED: {reason}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::made_up::MadeUp;
    use crate::scenario::{Arrivals, Length, Prompts};

    /// Answers with twice the users as throughput, and stops at eight.
    struct Doubling {
        seeds: Vec<u64>,
    }

    impl Runner for Doubling {
        type Run = MadeUp;

        async fn run(
            &mut self,
            scenario: Scenario,
            _label: &str,
            _stop: &CancellationToken,
        ) -> Result<MadeUp, Error> {
            self.seeds.push(scenario.seed);
            let Arrivals::ClosedLoop { users, .. } = scenario.arrivals else { panic!("a closed loop") };
            if users == 8 {
                return Err(Error::Broken("the target is gone".into()));
            }
            let run =
                MadeUp::of(&[("output_tokens_per_s", f64::from(2 * users + self.seeds.len() as u32 % 2))]);
            Ok(MadeUp { valid: users != 4, ..run })
        }
    }

    fn sweep(values: &[&str]) -> Sweep {
        Sweep {
            scenario: Scenario::default(),
            field: "users".into(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            repeats: 2,
        }
    }

    #[tokio::test]
    async fn every_value_is_run_and_its_runs_are_averaged() {
        let mut target = Doubling { seeds: Vec::new() };
        let sweep = sweep(&["1", "4", "2"]);
        let report = sweep.run(&mut target, &CancellationToken::new(), |_| Ok(())).await.expect("a report");
        let points: Vec<(&str, u32, u32)> =
            report.points.iter().map(|point| (point.value.as_str(), point.runs, point.invalid)).collect();
        assert_eq!(points, [("1", 2, 0), ("4", 0, 2), ("2", 2, 0)]);
        assert!((report.points[0].figures["output_tokens_per_s"].mean - 2.5).abs() < 1e-9);
        assert_eq!(target.seeds, [0, 1, 2, 3, 4, 5]);
        let table = report.to_string();
        let expected = "users                                 1                   4                   2\n\
                        runs                                  2                   0                   2\n\
                        invalid                               0                   2                   0\n\
                        output_tokens_per_s         2.5 ± 6.353                   -         4.5 ± 6.353\n";
        assert!(table.starts_with(expected), "{table}");
        assert_eq!(report.runs, 6);
    }

    #[tokio::test]
    async fn a_run_that_fails_ends_the_sweep_with_the_points_so_far() {
        let mut target = Doubling { seeds: Vec::new() };
        let sweep = sweep(&["1", "8", "2"]);
        let report = sweep.run(&mut target, &CancellationToken::new(), |_| Ok(())).await.expect("a report");
        assert_eq!(report.points.len(), 1);
        assert!(report.to_string().contains("the target is gone"), "{report}");
    }

    #[tokio::test]
    async fn a_wrong_value_is_refused_before_the_first_run() {
        let mut target = Doubling { seeds: Vec::new() };
        let refused = sweep(&["1", "many"]).run(&mut target, &CancellationToken::new(), |_| Ok(())).await;
        assert!(refused.expect_err("refused").to_string().contains("`arrivals.users` cannot be many"));
        assert_eq!(target.seeds, [0_u64; 0]);
    }

    #[test]
    fn any_field_of_a_scenario_can_be_set_by_its_path() {
        let base = Scenario::default();
        let prompts = with_field(&base, "prompt-tokens", "77").expect("a field").prompts;
        assert!(matches!(prompts, Prompts::Synthetic { tokens: Length::Fixed(77), .. }));
        let client = with_field(&base, "client.connections_max", "5").expect("a field").client;
        assert_eq!(client.connections_max, 5);
        assert_eq!(with_field(&base, "model", "x").expect("a field").model.as_deref(), Some("x"));
        let refused =
            with_field(&base, "arrivals.rate", "5").expect_err("a closed loop has none").to_string();
        assert!(refused.contains("there is no `rate`; here are kind"), "{refused}");
    }
}
