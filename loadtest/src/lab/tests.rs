use std::path::Path;

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Tenk {
    #[command(subcommand)]
    command: LabCommand,
}

#[test]
fn every_lab_has_all_sections_and_can_be_named() {
    for lab in Lab::value_variants() {
        let text = lab.text();
        for section in [&text.title, &text.question, &text.prediction, &text.explanation] {
            assert!(!section.is_empty(), "{lab:?}: {text:?}");
        }
        let parsed =
            Tenk::try_parse_from(["lab", "run", &lab.name(), "--yes", "--predict", "3"]).expect("a lab");
        assert!(
            matches!(parsed.command, LabCommand::Run(args) if args.lab == *lab && args.predict == Some(3.0))
        );
    }
}

#[test]
fn every_file_that_a_lab_points_to_is_there() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for lab in Lab::value_variants() {
        let explanation = lab.text().explanation;
        let named: Vec<&str> = explanation
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| name.ends_with(".rs") || name.ends_with(".md"))
            .collect();
        assert!(named.len() >= 3, "{lab:?} points into the code: {named:?}");
        for name in named {
            assert!(repository.join(name).is_file(), "{lab:?} points to {name}, which is not there");
        }
    }
}
