use super::*;

fn error_of(text: &str) -> String {
    file::parse("tenk.toml", text).expect_err("the text is wrong").to_string()
}

fn apply(table: &mut toml::Table, variables: &[(&str, &str)]) -> Result<Config> {
    environment::apply(table, variables.iter().map(|(name, value)| ((*name).into(), (*value).into())))?;
    Ok(table.clone().try_into()?)
}

#[test]
fn the_defaults_are_these() {
    let config = Config::default();
    config.validate(Role::Up).expect("the defaults are sound");
    insta::assert_snapshot!(config.show().expect("shows"));
}

#[test]
fn a_wrong_key_is_told_with_its_line_and_the_nearest_right_one() {
    let message = error_of("[gateway]\nlisten = \"127.0.0.1:1\"\n\n[scheduler]\nmax_num_seq = 4\n");
    assert_eq!(message, "tenk.toml:5: unknown key `max_num_seq`; did you mean `max_num_seqs`?");
    let message = error_of("[schedular]\n");
    assert_eq!(message, "tenk.toml:1: unknown key `schedular`; did you mean `scheduler`?");
    assert!(error_of("[log]\nxyzzy = 1\n").contains("known here are"));
}

#[test]
fn a_wrong_type_and_broken_toml_are_told_with_their_line() {
    assert!(error_of("[scheduler]\n\nmax_num_seqs = \"many\"\n").starts_with("tenk.toml:3: invalid type"));
    assert!(error_of("[scheduler\n").starts_with("tenk.toml:1: "));
}

#[test]
fn variables_win_over_the_file_and_take_any_type() {
    let mut table = file::parse("f", "[scheduler]\nmax_num_seqs = 4\nblock_size = 8\n").expect("sound");
    let variables = [
        ("TENK_SCHEDULER__MAX_NUM_SEQS", "7"),
        ("TENK_GATEWAY__LISTEN", "127.0.0.1:99"),
        ("TENK_GATEWAY__WORKERS", "[\"http://a:1\"]"),
        ("TENK_MODEL__NAME", "12"),
        ("TENK_LOG", "debug"),
        ("PATH", "/bin"),
    ];
    let config = apply(&mut table, &variables).expect("sound");
    assert_eq!((config.scheduler.max_num_seqs, config.scheduler.block_size), (7, 8));
    assert_eq!(config.gateway.listen.port(), 99);
    assert_eq!(config.gateway.workers, ["http://a:1"]);
    assert_eq!(config.model.name, "12", "a number can be a name");
}

#[test]
fn a_wrong_variable_is_told_with_its_name() {
    let message =
        |name, value| apply(&mut toml::Table::new(), &[(name, value)]).expect_err("wrong").to_string();
    assert_eq!(
        message("TENK_SCHEDULER__MAX_NUM_SEQ", "1"),
        "TENK_SCHEDULER__MAX_NUM_SEQ: unknown key `max_num_seq`; did you mean `max_num_seqs`?"
    );
    assert!(message("TENK_SCHEDULAR__X", "1").contains("did you mean `scheduler`?"));
    let many = message("TENK_SCHEDULER__MAX_NUM_SEQS", "many");
    assert!(many.starts_with("TENK_SCHEDULER__MAX_NUM_SEQS: invalid type"), "{many}");
}

#[test]
fn secrets_are_not_shown() {
    let mut config = Config::default();
    config.gateway.worker_api_key = Some("secret-of-gateway".into());
    config.gateway.salt_secret = Some("secret-of-salt".into());
    config.worker.api_key = Some("secret-of-worker".into());
    let shown = config.show().expect("shows");
    assert!(!shown.contains("secret-of") && shown.contains("salt_secret = \"***\""));
}

#[test]
fn a_section_that_makes_no_sense_is_refused_by_its_owner_where_its_role_runs() {
    let refused = |role, change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        config.validate(role).err().map(|error| format!("{error:#}")).unwrap_or_default()
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
