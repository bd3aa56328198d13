//! What is to be rolled out, from a file and flags.

use anyhow::{Context, Result, bail};
use rollout::{QualitySpec, Spec, Step, Strategy};

use crate::args::{StartArgs, StrategyKind};
use crate::config::Config;
use crate::registered;

/// The rollout that is asked for, checked. Blocks, as it may ask the registry.
pub(super) fn spec(args: StartArgs) -> Result<Spec> {
    let mut spec = match &args.file {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            // Every JSON text is YAML as well.
            serde_saphyr::from_str(&text).with_context(|| format!("{} is no rollout", path.display()))?
        }
        None => Spec::new("", ""),
    };
    spec.model = args.model.clone().unwrap_or(spec.model);
    spec.to = args.to.clone().unwrap_or(spec.to);
    spec.strategy = strategy(&args, spec.strategy)?;
    spec.judge.margin = args.margin.unwrap_or(spec.judge.margin);
    // A tolerance above the margin makes no sense, and who lowers the margin means both.
    let tolerance = args.tolerance.unwrap_or(spec.judge.tolerance);
    spec.judge.tolerance =
        if args.tolerance.is_none() { tolerance.min(spec.judge.margin) } else { tolerance };
    if args.quality {
        spec.judge.quality.get_or_insert_with(QualitySpec::default);
    }
    spec.to = number(&args, &spec)?;
    spec.validate()?;
    Ok(spec)
}

fn strategy(args: &StartArgs, given: Strategy) -> Result<Strategy> {
    let (duration_s, percent) = (args.duration_s, args.percent);
    let mut strategy = match (args.strategy, given) {
        (Some(StrategyKind::Canary), given @ Strategy::Canary { .. }) | (None, given) => given,
        (Some(StrategyKind::Canary), _) => Strategy::default(),
        (Some(StrategyKind::BlueGreen), _) => Strategy::BlueGreen { keep_s: 600 },
        (Some(StrategyKind::Shadow), _) => Strategy::Shadow { percent: 10.0, duration_s: 600 },
        (Some(StrategyKind::Ab), _) => Strategy::Ab { percent: 50.0, duration_s: 600 },
    };
    let of_canary = !args.steps.is_empty()
        || args.step_s.is_some()
        || args.step_max_s.is_some()
        || args.users_min.is_some();
    match &mut strategy {
        Strategy::Canary { steps } => {
            if args.keep_s.is_some() || duration_s.is_some() || percent.is_some() {
                bail!(
                    "a canary has --steps, --step-s, --step-max-s and --users-min; choose another --strategy for the rest"
                );
            }
            if !args.steps.is_empty() {
                *steps =
                    args.steps.iter().map(|percent| Step { percent: *percent, ..Step::default() }).collect();
            }
            for step in steps {
                step.time_min_s = args.step_s.unwrap_or(step.time_min_s);
                step.time_max_s = args.step_max_s.unwrap_or(step.time_max_s).max(step.time_min_s);
                step.users_min = args.users_min.unwrap_or(step.users_min);
            }
        }
        _ if of_canary => bail!("--steps, --step-s, --step-max-s and --users-min are for --strategy canary"),
        Strategy::BlueGreen { keep_s } => {
            if duration_s.is_some() || percent.is_some() {
                bail!("blue-green has --keep-s; --percent and --duration-s are for shadow and ab");
            }
            *keep_s = args.keep_s.unwrap_or(*keep_s);
        }
        Strategy::Shadow { percent: share, duration_s: lasts_s }
        | Strategy::Ab { percent: share, duration_s: lasts_s } => {
            if args.keep_s.is_some() {
                bail!("--keep-s is for --strategy blue-green");
            }
            *share = percent.unwrap_or(*share);
            *lasts_s = duration_s.unwrap_or(*lasts_s);
        }
    }
    Ok(strategy)
}

/// The version's number, where an alias of the registry is given.
fn number(args: &StartArgs, spec: &Spec) -> Result<String> {
    if spec.to.is_empty() || spec.to.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(spec.to.clone());
    }
    let config = Config::load(args.reach.config.config.as_deref())?;
    let registry = registered::open(&config)?;
    let found = registered::version_of(&registry, &spec.model, &spec.to);
    let found = found.with_context(|| format!("cannot find out which version `{}` is", spec.to))?;
    // Workers that do not come from the registry have versions by other names.
    Ok(found.unwrap_or_else(|| spec.to.clone()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command, RolloutCommand};

    fn parsed(flags: &str) -> Result<Spec> {
        let args = Args::parse_from(["tenk", "rollout", "start"].into_iter().chain(flags.split(' ')));
        let Command::Rollout(RolloutCommand::Start(args)) = args.command else { panic!("{args:?}") };
        spec(*args)
    }

    #[test]
    fn flags_make_a_rollout() {
        assert_eq!(parsed("chat --to 2").unwrap(), Spec::new("chat", "2"));
        let spec =
            parsed("chat --to 2 --steps 25,100 --step-s 5 --users-min 9 --margin 0.5 --quality").unwrap();
        let step = |percent| Step { percent, time_min_s: 5, users_min: 9, ..Step::default() };
        assert_eq!(spec.strategy, Strategy::Canary { steps: vec![step(25.0), step(100.0)] });
        assert_eq!((spec.judge.margin, spec.judge.quality), (0.5, Some(QualitySpec::default())));
        let shadow = parsed("chat --to 2 --strategy shadow --percent 3").unwrap().strategy;
        assert_eq!(shadow, Strategy::Shadow { percent: 3.0, duration_s: 600 });
    }

    #[test]
    fn flags_of_another_strategy_and_values_out_of_range_are_refused() {
        let message = |flags: &str| parsed(flags).unwrap_err().to_string();
        assert!(message("chat --to 2 --keep-s 5").contains("choose another --strategy"));
        assert!(message("chat --to 2 --strategy ab --steps 5,100").contains("are for --strategy canary"));
        assert!(message("chat --to 2 --steps 5,50").contains("must end with a step of 100 percent"));
    }

    #[test]
    fn a_file_is_yaml_or_json_and_flags_go_over_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rollout.yaml");
        let yaml = "model: chat\nto: \"2\"\nstrategy:\n  kind: blue_green\n  keep_s: 30\njudge:\n  error_guard: 0.5\n";
        std::fs::write(&path, yaml).unwrap();
        let spec = parsed(&format!("--file {} --to 3", path.display())).unwrap();
        assert_eq!((spec.to.as_str(), &spec.strategy), ("3", &Strategy::BlueGreen { keep_s: 30 }));
        std::fs::write(&path, "{\"model\": \"chat\", \"to\": \"2\", \"drain_s\": 7}").unwrap();
        assert_eq!(parsed(&format!("--file {}", path.display())).unwrap().drain_s, 7);
        std::fs::write(&path, "model: chat\nto: \"2\"\nstep: 3\n").unwrap();
        assert!(format!("{:#}", parsed(&format!("--file {}", path.display())).unwrap_err()).contains("step"));
    }

    #[test]
    fn a_word_is_a_versions_name_only_where_the_registry_can_say_that_it_is_no_alias() {
        let folder = tempfile::tempdir().unwrap();
        let (config, registry) = (folder.path().join("tenk.toml"), folder.path().join("registry.json"));
        std::fs::write(&config, format!("[registry]\npath = {registry:?}\n")).unwrap();
        let flags = format!("chat --to canary --config {}", config.display());
        assert_eq!(parsed(&flags).unwrap().to, "canary");
        std::fs::write(&registry, "no registry").unwrap();
        let message = format!("{:#}", parsed(&flags).unwrap_err());
        assert!(message.contains("cannot find out which version `canary` is"), "{message}");
    }

    #[test]
    fn the_example_has_the_defaults_that_it_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/rollout.yaml");
        let mut expected = Spec::new("chat", "2");
        expected.judge.quality = Some(QualitySpec::default());
        assert_eq!(parsed(&format!("--file {path}")).unwrap(), expected);
    }
}
