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
fn every_file_that_a_lab_points_to_is_there_and_is_a_link_in_a_checkout() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    for lab in Lab::value_variants() {
        let text = lab.text();
        let checkout = Checkout::around(&text).expect("tests run in a checkout");
        let page = text::html(&text.explanation, Some(&checkout));
        assert!(text.files().count() >= 3, "{lab:?} points into the code");
        for file in text.files() {
            assert!(repository.join(file).is_file(), "{lab:?} points to {file}, which is not there");
            let url = format!("file://{}/{file}", repository.display());
            assert!(page.contains(&format!("<a href=\"{url}\"")), "{url} in {page}");
        }
    }
}

#[test]
fn every_section_that_a_lab_points_to_is_there() {
    let architecture = include_str!("../../../ARCHITECTURE.md");
    for lab in Lab::value_variants() {
        let explanation = lab.text().explanation.split_whitespace().collect::<Vec<_>>().join(" ");
        for (named, after) in explanation.split('"').skip(1).zip(explanation.split('"').skip(2)).step_by(2) {
            assert!(after.starts_with(" in `ARCHITECTURE.md`"), "{lab:?} quotes {named}");
            let heads = [format!("**{named}.**"), format!("## {named}")];
            assert!(heads.iter().any(|head| architecture.contains(head)), "{lab:?}: there is no {named}");
        }
    }
}
