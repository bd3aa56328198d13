use super::*;

/// The settings of a file `tenk.toml` and these variables.
pub(super) fn read(text: &str, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let mut tree = file::parse("tenk.toml", text)?;
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    environment::apply(&mut tree, variables);
    Ok(Settings { config: read::read(&tree)?, tree })
}

fn refusal(text: &str) -> String {
    match read(text, &[]) {
        Ok(settings) => settings.validate().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_defaults_are_these_and_valid() {
    let settings = read("", &[]).unwrap();
    settings.validate().unwrap();
    assert_eq!(settings.config, Config::default());
    insta::assert_snapshot!(settings.show().unwrap());
}

#[test]
fn what_is_shown_can_be_read_again() {
    let text = "[gateway]\nlisten = \"127.0.0.1:1\"\n[[gateway.keys]]\ntenant = \"a\"\nsha256 = \"00\"\n\
                [routing.health]\nprobe_failures_max = 7\n";
    let settings = read(text, &[]).unwrap();
    let again = read(&settings.show().unwrap(), &[]).unwrap();
    assert_eq!(again.config, settings.config);
    assert_ne!(again.config, Config::default());
}

#[test]
fn a_wrong_key_is_refused_with_its_line_and_the_nearest_right_one() {
    assert_eq!(
        refusal("# bounds\n[scheduler]\nmax_num_seq = 4\n"),
        "tenk.toml:3: unknown key `max_num_seq` in [scheduler]; did you mean `max_num_seqs`?"
    );
    assert_eq!(
        refusal("[routing.health]\nprobe_failure_max = 4\n"),
        "tenk.toml:2: unknown key `probe_failure_max` in [routing.health]; did you mean `probe_failures_max`?"
    );
    assert_eq!(refusal("\n[gatway]\n"), "tenk.toml:2: unknown section [gatway]; did you mean [gateway]?");
    assert_eq!(
        refusal("[[gateway.keys]]\ntenant = \"a\"\nsha265 = \"\"\n"),
        "tenk.toml:3: unknown key `sha265` in [gateway.keys]; did you mean `sha256`?"
    );
}

#[test]
fn a_key_like_no_other_is_refused_with_all_keys() {
    let message = refusal("[log]\nzzz = 1\n");
    assert_eq!(message, "tenk.toml:2: unknown key `zzz` in [log]; its keys are format, filter");
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_line_and_what_was_expected() {
    for (text, expected) in [
        (
            "[scheduler]\nmax_num_seqs = \"many\"\n",
            "tenk.toml:2: `scheduler.max_num_seqs`: expected a whole number from 0, found string \"many\"",
        ),
        (
            "[scheduler]\nmax_num_seqs = -1\n",
            "tenk.toml:2: `scheduler.max_num_seqs`: expected a whole number from 0, found integer `-1`",
        ),
        (
            "[response_cache]\n\nenabled = 1\n",
            "tenk.toml:3: `response_cache.enabled`: expected true or false, found integer `1`",
        ),
        ("worker = 3\n", "tenk.toml:1: `worker`: expected a section, found integer `3`"),
        (
            "[gateway]\nworkers = [\n  \"http://a\",\n  5,\n]\n",
            "tenk.toml:4: `gateway.workers`: expected a string, found integer `5`",
        ),
        (
            "[routing]\npolicy = \"round_robbin\"\n",
            "tenk.toml:2: `routing.policy`: unknown value `round_robbin`; did you mean `round_robin`?",
        ),
        ("[[gateway.keys]]\ntenant = \"a\"\n", "tenk.toml:1: `gateway.keys`: the key `sha256` is missing"),
    ] {
        assert_eq!(refusal(text), expected);
    }
}

#[test]
fn a_value_out_of_bounds_is_refused_with_its_section_and_line() {
    for (text, start) in [
        ("[scheduler]\nmax_num_seqs = 0\n", "tenk.toml:2: [scheduler] `max_num_seqs` is 0, but must be"),
        ("[gateway]\nattempts_max = 99\n", "tenk.toml:2: `gateway.attempts_max` is 99, but must be"),
        ("[engine]\nkv_cache_tokens = 1\n", "tenk.toml:2: `engine.kv_cache_tokens` is 1, but must be"),
        (
            "[routing.health]\nprobe_failures_max = 0\n",
            "tenk.toml:2: [routing] `health.probe_failures_max` is 0, but must be",
        ),
        ("[response_cache]\nttl_s = 0\n", "tenk.toml:2: [response_cache] `ttl_s` is 0, but must be"),
        ("[worker]\ndrain_timeout_s = 4000\n", "tenk.toml:2: `worker.drain_timeout_s` must be"),
        ("[model_store]\nretries_max = 101\n", "tenk.toml:2: [model_store] "),
        ("[model]\nname = \"\"\n", "tenk.toml:2: `model.name` is empty"),
        ("[log]\nfilter = \"a=loud\"\n", "[log] log filter `a=loud` is not valid"),
    ] {
        let message = refusal(text);
        assert!(message.starts_with(start), "{message}");
    }
}

#[test]
fn a_role_checks_only_the_sections_that_it_uses() {
    let settings = read("[gateway]\nlisten = \"0.0.0.0:80\"\n", &[]).unwrap();
    assert!(settings.validate_sections(&["worker", "engine"]).is_ok());
    let message = settings.validate_sections(&["gateway"]).unwrap_err().to_string();
    assert!(message.starts_with("tenk.toml:2: `gateway.listen` is 0.0.0.0:80"), "{message}");
}

#[test]
fn flags_win_over_variables_and_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tenk.toml");
    std::fs::write(&path, "[gateway]\nlisten = \"127.0.0.1:1\"\nworkers = [\"http://a\"]\n").unwrap();
    let environment = [("TENK_GATEWAY__LISTEN".to_owned(), "127.0.0.1:2".to_owned())];
    let flags = vec![
        Flag {
            name: "--listen",
            path: ["gateway", "listen"],
            values: FlagValues::One("127.0.0.1:3".to_owned()),
        },
        Flag {
            name: "--worker",
            path: ["gateway", "workers"],
            values: FlagValues::Many(vec!["http://b".to_owned()]),
        },
    ];
    let settings = Settings::load(Some(&path), environment.clone(), flags).unwrap();
    assert_eq!(settings.config.gateway.listen.port(), 3);
    assert_eq!(settings.config.gateway.workers, ["http://b"]);
    let settings = Settings::load(Some(&path), environment, Vec::new()).unwrap();
    assert_eq!(settings.config.gateway.listen.port(), 2);
    let settings = Settings::load(Some(&path), [], Vec::new()).unwrap();
    assert_eq!(settings.config.gateway.listen.port(), 1);
}

#[test]
fn a_setting_is_shown_with_its_origin_and_secrets_are_not_shown() {
    let text = "[gateway]\nsalt_secret = \"pepper\"\n\n[routing.health]\nprobe_failures_max = 7\n";
    let variables = [
        ("TENK_WORKER__API_KEY", "a-long-secret-of-workers"),
        ("TENK_RESPONSE_CACHE__REDIS_URL", "redis://me:pa55@127.0.0.1"),
        ("TENK_LOG", "debug"),
    ];
    let shown = read(text, &variables).unwrap().show().unwrap();
    for line in [
        "salt_secret = \"***\"  # tenk.toml:2",
        "probe_failures_max = 7  # tenk.toml:5",
        "api_key = \"***\"  # TENK_WORKER__API_KEY",
        "filter = \"debug\"  # TENK_LOG",
        "redis_url = \"redis://***@127.0.0.1\"  # TENK_RESPONSE_CACHE__REDIS_URL",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is missing from\n{shown}");
    }
    assert!(!shown.contains("pepper") && !shown.contains("pa55") && !shown.contains("a-long-secret"));
}
