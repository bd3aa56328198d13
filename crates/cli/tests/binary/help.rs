//! `--help` of every command.

use std::collections::BTreeMap;

use crate::harness::{run, tenk};

/// Every command, its words joined by spaces, and its help. Found by reading the help itself.
fn helps() -> BTreeMap<String, String> {
    let mut helps = BTreeMap::new();
    let mut open = vec![String::new()];
    while let Some(command) = open.pop() {
        let words = command.split_whitespace().chain(["--help"]);
        let help = run(&mut tenk(words)).succeeded();
        let listed = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
        for line in listed.lines().take_while(|line| !line.is_empty()) {
            // The lines between are what a long description goes on with.
            let name = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '));
            match name.and_then(|rest| rest.split_whitespace().next()) {
                Some("help") | None => {}
                Some(name) => open.push(format!("{command} {name}").trim().to_owned()),
            }
        }
        helps.insert(command, help);
    }
    helps
}

#[test]
fn every_commands_help_has_an_example_and_each_example_names_a_command_and_flags_that_exist() {
    let helps = helps();
    for command in
        ["", "up", "gateway", "worker", "model quantize", "key new", "config check", "loadtest run"]
    {
        assert!(helps.contains_key(command), "{command} is not among {:?}", helps.keys());
    }
    for (command, help) in &helps {
        // From a variable's assignment on, too.
        let examples: Vec<&str> = help
            .lines()
            .filter(|line| line.trim_start().starts_with("tenk ") || line.contains(" tenk config show"))
            .collect();
        assert!(!examples.is_empty(), "the help of `tenk {command}` has no example:\n{help}");
        for example in examples {
            let words = example.split_whitespace().skip_while(|word| *word != "tenk").skip(1);
            let words: Vec<&str> = words.take_while(|word| *word != ">" && *word != "the").collect();
            let named = (1..=words.len()).rev().map(|count| words[..count].join(" "));
            let named = named.clone().find(|name| helps.contains_key(name));
            let named = named.unwrap_or_else(|| panic!("`{example}` names no command"));
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                assert!(helps[&named].contains(flag), "`tenk {named}` has no {flag}: `{example}`");
            }
        }
    }
}

#[test]
fn help_says_what_a_model_is_called_and_which_variables_there_are() {
    let helps = helps();
    for role in ["up", "worker"] {
        assert!(helps[role].contains("name without .gguf"), "{}", helps[role]);
    }
    for variable in ["TENK_GATEWAY__LISTEN", "TENK_LOG", "TENK_CACHE_DIR", "HF_ENDPOINT", "HF_TOKEN"] {
        assert!(helps[""].contains(variable), "{variable}");
    }
}

#[test]
fn a_mistyped_command_is_told_with_the_nearest_one() {
    let ended = run(&mut tenk(["modl", "list"]));
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("'model'"), "{ended:?}");
}

#[test]
fn the_version_is_printed() {
    let version = run(&mut tenk(["--version"])).succeeded();
    assert_eq!(version.trim(), format!("tenk {}", env!("CARGO_PKG_VERSION")));
}
