use super::*;

fn parse(text: &str) -> Result<Config> {
    let mut places = Places::default();
    let config: Config = file::parse("tenk.toml", text, &mut places)?.try_into()?;
    Ok(Config { places, ..config })
}

fn error_of(text: &str) -> String {
    parse(text).expect_err("the text is wrong").to_string()
}

fn apply(table: &mut toml::Table, variables: &[(&str, &str)]) -> Result<Config> {
    let mut places = Places::default();
    let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    environment::apply(table, &mut places, variables)?;
    let config: Config = table.clone().try_into()?;
    Ok(Config { places, ..config })
}

#[test]
fn the_defaults_are_these() {
    let config = Config::default();
    config.validate(Role::Up).expect("the defaults are sound");
    insta::assert_snapshot!(config.show().expect("shows"));
}

#[test]
fn a_wrong_key_is_told_with_its_line_its_section_and_the_nearest_right_one() {
    for (text, message) in [
        (
            "[gateway]\nlisten = \"127.0.0.1:1\"\n\n[scheduler]\nmax_num_seq = 4\n",
            "tenk.toml:5: unknown key `max_num_seq` in [scheduler]; did you mean `max_num_seqs`?",
        ),
        ("[schedular]\n", "tenk.toml:1: unknown key `schedular`; did you mean `scheduler`?"),
        (
            "[routing.health]\nprobe_failure_max = 1\n",
            "tenk.toml:2: unknown key `probe_failure_max` in [routing.health]; did you mean `probe_failures_max`?",
        ),
        (
            "[[gateway.keys]]\ntenent = \"a\"\n",
            "tenk.toml:2: unknown key `tenent` in [[gateway.keys]]; did you mean `tenant`?",
        ),
        (
            "[gateway]\nmax_num_seqs = 4\n",
            "tenk.toml:2: unknown key `max_num_seqs` in [gateway]; it belongs in [scheduler]",
        ),
        ("[log]\nxyzzy = 1\n", "tenk.toml:2: unknown key `xyzzy` in [log]; known here are format, filter"),
    ] {
        assert_eq!(error_of(text), message);
    }
}

#[test]
fn a_wrong_type_is_told_with_its_line_in_plain_words() {
    for (text, message) in [
        (
            "[scheduler]\n\nmax_num_seqs = \"many\"\n",
            "tenk.toml:3: `scheduler.max_num_seqs` is \"many\", but must be a whole number, 0 or more",
        ),
        (
            "[scheduler]\nmax_num_seqs = -1\n",
            "tenk.toml:2: `scheduler.max_num_seqs` is -1, but must be a whole number, 0 or more",
        ),
        (
            "[response_cache]\nredis_failures_max = 99999999999\n",
            "tenk.toml:2: `response_cache.redis_failures_max` is 99999999999, but must be a whole number from 0 to \
             4294967295",
        ),
        (
            "[response_cache]\nenabled = \"yes\"\n",
            "tenk.toml:2: `response_cache.enabled` is \"yes\", but must be true or false",
        ),
        ("[model]\nname = 3\n", "tenk.toml:2: `model.name` is 3, but must be text in quotes"),
        (
            "[gateway]\nlisten = \"here\"\n",
            "tenk.toml:2: `gateway.listen` is \"here\", but must be an address and port in quotes, such as \
             \"127.0.0.1:8080\"",
        ),
        (
            "[gateway]\nlisten = 80\n",
            "tenk.toml:2: `gateway.listen` is 80, but must be an address and port in quotes, such as \
             \"127.0.0.1:8080\"",
        ),
        (
            "[gateway]\nworkers = \"http://a:1\"\n",
            "tenk.toml:2: `gateway.workers` is \"http://a:1\", but must be a list, such as [\"…\", \"…\"]",
        ),
        (
            "[gateway.keys]\ntenant = \"a\"\n",
            "tenk.toml:1: `gateway.keys` is a section, but must be a list of sections, [[gateway.keys]]",
        ),
        ("gateway = 3\n", "tenk.toml:1: `gateway` is 3, but must be a section, [gateway]"),
        ("[[gateway.keys]]\ntenant = \"a\"\n", "tenk.toml:1: `gateway.keys` lacks `sha256`; add it"),
        (
            "[routing]\npolicy = \"prefix_afinity\"\n",
            "tenk.toml:2: `routing.policy` is `prefix_afinity`, but must be one of `least_load`, `round_robin`, \
             `power_of_two`, `prefix_affinity`; did you mean `prefix_affinity`?",
        ),
        ("[log]\nfilter = \"a\"\nfilter = \"b\"\n", "tenk.toml:3: `filter` is there twice; keep one"),
        ("[scheduler\n", "tenk.toml:1: unclosed table, expected `]`"),
    ] {
        assert_eq!(error_of(text), message);
    }
    assert!(!error_of("[worker]\napi_key = 12345\n").contains("12345"), "a secret is not repeated");
}

#[test]
fn variables_win_over_the_file_and_take_any_type() {
    let text = "[scheduler]\nmax_num_seqs = 4\nblock_size = 8\n";
    let mut table = file::parse("f", text, &mut Places::default()).expect("sound");
    let variables = [
        ("TENK_SCHEDULER__MAX_NUM_SEQS", "7"),
        ("TENK_GATEWAY__LISTEN", "127.0.0.1:99"),
        ("TENK_GATEWAY__WORKERS", "[\"http://a:1\"]"),
        ("TENK_MODEL__NAME", "12"),
        ("TENK_WORKER__API_KEY", "1234567890123456"),
        ("TENK_GATEWAY__SALT_SECRET", "0x10"),
        ("TENK_LOG", "debug"),
        ("PATH", "/bin"),
    ];
    let config = apply(&mut table, &variables).expect("sound");
    assert_eq!((config.scheduler.max_num_seqs, config.scheduler.block_size), (7, 8));
    assert_eq!(config.gateway.listen.port(), 99);
    assert_eq!(config.gateway.workers, ["http://a:1"]);
    assert_eq!(config.model.name, "12", "a number can be a name");
    assert_eq!(config.worker.api_key.as_deref(), Some("1234567890123456"), "or a secret");
    assert_eq!(config.gateway.salt_secret.as_deref(), Some("0x10"), "to the letter");
}

#[test]
fn a_wrong_variable_is_told_with_its_name() {
    let message =
        |name, value| apply(&mut toml::Table::new(), &[(name, value)]).expect_err("wrong").to_string();
    for (name, value, words) in [
        (
            "TENK_SCHEDULER__MAX_NUM_SEQ",
            "1",
            "unknown key `max_num_seq` in [scheduler]; did you mean `max_num_seqs`?",
        ),
        ("TENK_SCHEDULAR__X", "1", "unknown key `schedular`; did you mean `scheduler`?"),
        (
            "TENK_SCHEDULER__MAX_NUM_SEQS",
            "many",
            "`scheduler.max_num_seqs` is many, but must be a whole number, 0 or more",
        ),
        (
            "TENK_SCHEDULER__MAX_NUM_SEQS",
            "",
            "`scheduler.max_num_seqs` is empty, but must be a whole number, 0 or more",
        ),
        (
            "TENK_GATEWAY__WORKERS",
            "http://a:1",
            "`gateway.workers` is http://a:1, but must be a list, such as [\"…\", \"…\"]",
        ),
        (
            "TENK_GATEWAY__KEYS__SHA256",
            "1",
            "`gateway.keys` is a section, but must be a list of sections, [[gateway.keys]]",
        ),
        ("TENK_GATEWAY__KEYS", "[{tenant = \"a\"}]", "`gateway.keys` lacks `sha256`; add it"),
    ] {
        assert_eq!(message(name, value), format!("{name}: {words}"));
    }
}

#[test]
fn what_a_part_refuses_is_told_with_the_settings_full_name_and_its_place() {
    let refused = |config: Result<Config>| {
        let config = config.expect("well-formed");
        config.validate(Role::Up).expect_err("out of range").to_string()
    };
    for (text, message) in [
        (
            "[gateway]\n\nin_flight_max = 0\n",
            "tenk.toml:3: `gateway.in_flight_max` is 0, but must be between 1 and 1048576",
        ),
        (
            "[scheduler]\nmax_num_seqs = 0\n",
            "tenk.toml:2: `scheduler.max_num_seqs` is 0, but must be between 1 and 4096",
        ),
        (
            "[routing.health]\nprobe_failures_max = 0\n",
            "tenk.toml:2: `routing.health.probe_failures_max` is 0, but must be from 1 to 1000",
        ),
        (
            "[response_cache]\nttl_s = 0\n",
            "tenk.toml:2: `response_cache.ttl_s` is 0, but must be between 1 and 2592000",
        ),
        (
            "[engine]\nkv_cache_tokens = 16\n[scheduler]\nblock_size = 32\n",
            "tenk.toml:2: `engine.kv_cache_tokens` is 16, but must hold a block, `scheduler.block_size` (32)",
        ),
    ] {
        assert_eq!(refused(parse(text)), message);
    }
    for (text, start) in [
        ("[log]\nfilter = \"a=b\"\n", "tenk.toml:2: log filter `a=b` is not valid"),
        ("[model.fetch]\nhub_endpoint = \"x\"\n", "tenk.toml:2: `model.fetch.hub_endpoint` "),
        ("[gateway]\nworker_api_key = \"short\"\n", "tenk.toml:2: `gateway.worker_api_key` must have 16"),
        ("[worker]\nidle_timeout_s = 0\n", "tenk.toml:2: `worker.idle_timeout_s` must be between"),
        ("[model]\nserved_name = \" \"\n", "tenk.toml:2: `model.served_name` must have a character"),
        ("[model]\nserved_name = \"a\\u0007b\"\n", "tenk.toml:2: `model.served_name` must have"),
        ("[model]\nserved_name = \"\"\n", "tenk.toml:2: `model.served_name` must have a character"),
        ("[gateway]\nworkers = [\"http://a:b@h\"]\n", "tenk.toml:2: `gateway.workers` must hold no user"),
    ] {
        let message = refused(parse(text));
        assert!(message.starts_with(start), "{message}");
    }
    let variable = apply(&mut toml::Table::new(), &[("TENK_ROUTING__LOAD_SLACK", "0")]);
    assert!(refused(variable).starts_with("TENK_ROUTING__LOAD_SLACK: `routing.load_slack` is 0"));
}

#[test]
fn what_a_flag_changed_is_not_blamed_on_the_file() {
    let config = parse("[gateway]\nlisten = \"127.0.0.1:1\"\nin_flight_max = 4\n").expect("sound");
    let config = config.with_flags(|config| config.gateway.listen = ([0, 0, 0, 0], 1).into()).expect("shows");
    assert!(config.is_given("gateway.in_flight_max") && !config.is_given("gateway.listen"));
    let message = config.validate(Role::Up).expect_err("there are no keys").to_string();
    assert!(message.starts_with("`gateway.listen` is 0.0.0.0:1"), "{message}");
}

#[test]
fn secrets_are_not_shown() {
    let mut config = Config::default();
    config.gateway.worker_api_key = Some("secret-of-gateway".into());
    config.gateway.salt_secret = Some("secret-of-salt".into());
    config.worker.api_key = Some("secret-of-worker".into());
    let shown = config.show().expect("shows");
    assert!(!shown.contains("secret-of"), "{shown}");
    for key in ["worker_api_key", "salt_secret", "api_key"] {
        assert!(shown.lines().any(|line| line == format!("# {key} = \"***\"")), "{shown}");
    }
    let worker = format!("{:?}", config.worker);
    assert!(!worker.contains("secret-of") && worker.contains("api_key: Some(\"***\")"), "{worker}");
}

#[test]
fn a_mask_is_not_taken_for_a_secret_and_a_salt_that_can_be_guessed_is_refused() {
    let refused = |text: &str, role| {
        let config = parse(text).expect("well-formed");
        config.validate(role).err().map(|error| error.to_string()).unwrap_or_default()
    };
    for (text, setting) in [
        ("[gateway]\nsalt_secret = \"***\"\n", "gateway.salt_secret"),
        ("[gateway]\nworker_api_key = \"***\"\n", "gateway.worker_api_key"),
        ("[worker]\napi_key = \"***\"\n", "worker.api_key"),
        ("[response_cache]\nredis_url = \"redis://***@127.0.0.1:6379\"\n", "response_cache.redis_url"),
        ("[response_cache]\nredis_url = \"redis://me:***@127.0.0.1:6379\"\n", "response_cache.redis_url"),
    ] {
        for role in [Role::Up, Role::Gateway, Role::Worker] {
            let message = refused(text, role);
            assert!(message.starts_with(&format!("tenk.toml:2: `{setting}` holds ***")), "{message}");
        }
    }
    let salt = |secret: &str| format!("[gateway]\nsalt_secret = \"{secret}\"\n");
    let short = refused(&salt("0123456789abcde"), Role::Up);
    assert!(short.starts_with("tenk.toml:2: `gateway.salt_secret` has 15 characters"), "{short}");
    assert!(!short.contains("0123456789"), "a secret is not repeated: {short}");
    assert_eq!(refused(&salt("0123456789abcdef"), Role::Up), "");
    assert_eq!(refused("[response_cache]\nredis_url = \"redis://me:a***b@127.0.0.1:6379\"\n", Role::Up), "");
}

#[test]
fn a_section_that_makes_no_sense_is_refused_by_its_owner_where_its_role_runs() {
    let refused = |role, change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        config.validate(role).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let open_gateway: fn(&mut Config) = |config| config.gateway.listen = ([0, 0, 0, 0], 1).into();
    let open_worker: fn(&mut Config) = |config| config.worker.listen = ([0, 0, 0, 0], 1).into();
    assert!(refused(Role::Up, open_gateway).contains("tenk key new"));
    assert!(refused(Role::Gateway, open_gateway).contains("tenk key new"));
    assert_eq!(refused(Role::Worker, open_gateway), "");
    assert!(refused(Role::Worker, open_worker).contains("worker.api_key"));
    assert_eq!(refused(Role::Up, open_worker), "");
    assert!(refused(Role::Worker, |config| config.scheduler.max_num_seqs = 0).contains("max_num_seqs"));
    assert!(refused(Role::Up, |config| config.engine.kv_cache_tokens = 1).contains("kv_cache_tokens"));
}

#[test]
fn the_sections_are_all_there() {
    let config = toml::Value::try_from(Config::default()).expect("serializes");
    let mut sections: Vec<&str> = config.as_table().expect("a table").keys().map(String::as_str).collect();
    let mut known = SECTIONS.to_vec();
    sections.sort_unstable();
    known.sort_unstable();
    assert_eq!(sections, known);
}
