use proptest::prelude::*;

use super::*;

fn simulated(name: &str) -> NewVersion {
    NewVersion::new(name, Source::Simulated)
}

fn measured(checksum: Option<&str>) -> Measured {
    Measured { checksum: checksum.map(str::to_owned), size_bytes: 1 }
}

/// A registry of one name with three versions, `stable` on the second.
fn three() -> Document {
    let mut document = Document::default();
    for _ in 0..3 {
        document.register(&simulated("m"), &measured(None), 1).unwrap();
    }
    document.set_alias("m", "stable", 2).unwrap();
    document
}

fn message<T: std::fmt::Debug>(outcome: Result<T, Error>) -> String {
    outcome.unwrap_err().to_string()
}

#[test]
fn versions_are_numbered_in_each_names_own_history() {
    let mut document = three();
    let other = document.register(&simulated("n"), &measured(None), 1).unwrap();
    assert_eq!((other.version.version, other.is_new), (1, true));
    let numbers: Vec<u64> = document.versions("m").iter().map(|version| version.version).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(document.versions("absent"), []);
}

#[test]
fn a_checksum_that_is_there_gives_its_version_unchanged() {
    let mut document = Document::default();
    let first = document.register(&simulated("m"), &measured(Some("a")), 1).unwrap();
    document.register(&simulated("m"), &measured(Some("b")), 2).unwrap();
    let mut again = simulated("m");
    again.tags.insert("team".into(), "x".into());
    let again = document.register(&again, &measured(Some("a")), 3).unwrap();
    assert_eq!((again.is_new, again.version), (false, first.version));
    assert!(
        document.register(&simulated("n"), &measured(Some("a")), 3).unwrap().is_new,
        "under another name it is"
    );
}

#[test]
fn an_alias_moves_and_goes_and_names_only_what_is_there() {
    let mut document = three();
    let stable = Selector::Alias("stable".into());
    assert_eq!(document.get("m", &stable).unwrap().version, 2);
    document.set_alias("m", "stable", 3).unwrap();
    assert_eq!(document.get("m", &stable).unwrap().version, 3);
    let no = message(document.set_alias("m", "canary", 4));
    assert_eq!(no, "`m` has no version 4; it has versions 1 to 3 and the aliases stable (version 3)");
    assert!(document.remove_alias("m", "stable") && !document.remove_alias("m", "stable"));
    let no = message(document.get("m", &stable));
    assert!(
        no.contains("versions 1 to 3 and no aliases") && no.contains("tenk model alias m stable VERSION"),
        "{no}"
    );
}

#[test]
fn an_unknown_name_is_told_with_those_that_are_there() {
    let no = message(three().get("x", &Selector::Number(1)));
    assert!(
        no.contains("no model `x` is registered; known are m") && no.contains("tenk model register x"),
        "{no}"
    );
}

#[test]
fn notes_are_added_over_those_of_the_same_name_and_nothing_else_changes() {
    let mut document = three();
    let before = document.get("m", &Selector::Number(1)).unwrap();
    let note = |value| BTreeMap::from([("loss".to_owned(), value)]);
    document.annotate("m", 1, &note(2.0), &BTreeMap::new()).unwrap();
    let tags = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    let after = document.annotate("m", 1, &note(1.5), &tags).unwrap();
    assert_eq!(after, Version { metrics: note(1.5), tags, ..before });
    assert!(document.annotate("m", 9, &note(1.0), &BTreeMap::new()).is_err());
}

#[test]
fn a_file_that_is_not_ours_or_not_whole_or_not_consistent_is_refused_with_its_reason() {
    let text = three().to_text().unwrap();
    for (text, words) in [
        (String::new(), "it is empty"),
        ("{}".into(), "its `format` is not"),
        ("[1, 2]".into(), "it is no whole JSON"),
        (text.replace("\"format_version\": 1", "\"format_version\": 2"), "this tenk reads 1"),
        (text.replace("\"version\": 3", "\"version\": 4"), "has version 4 where 3 should be"),
        (text.replace("\"stable\": 2", "\"stable\": 7"), "names version 7, which is not there"),
        (text.replace("\"stable\": 2", "\"latest\": 2"), "`latest`"),
        (text.replace("size_bytes", "size"), "unknown field `size`"),
    ] {
        let reason = Document::parse(text.as_bytes()).unwrap_err();
        assert!(reason.contains(words), "{reason}");
    }
}

#[derive(Clone, Debug)]
enum Change {
    Register { name: u8, checksum: Option<u8> },
    SetAlias { name: u8, alias: u8, version: u64 },
    RemoveAlias { name: u8, alias: u8 },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..3_u8, proptest::option::of(0..4_u8))
            .prop_map(|(name, checksum)| Change::Register { name, checksum }),
        (0..3_u8, 0..3_u8, 0..6_u64).prop_map(|(name, alias, version)| Change::SetAlias {
            name,
            alias,
            version
        }),
        (0..3_u8, 0..3_u8).prop_map(|(name, alias)| Change::RemoveAlias { name, alias }),
    ]
}

proptest! {
    #[test]
    fn whatever_is_done_the_file_reads_back_the_same_and_no_version_ever_changes(
        changes in proptest::collection::vec(change(), 0..40),
    ) {
        let mut document = Document::default();
        let mut seen: BTreeMap<String, Vec<Version>> = BTreeMap::new();
        for (at, change) in changes.iter().enumerate() {
            match change {
                Change::Register { name, checksum } => {
                    let name = format!("m{name}");
                    let sum = checksum.map(|sum| sum.to_string());
                    let known = seen.entry(name.clone()).or_default();
                    let there = known.iter().any(|version| sum.is_some() && version.checksum == sum);
                    let done = document.register(&simulated(&name), &measured(sum.as_deref()), at as u64).unwrap();
                    prop_assert_eq!(done.is_new, !there);
                    if done.is_new {
                        known.push(done.version);
                    }
                }
                Change::SetAlias { name, alias, version } => {
                    let (name, alias) = (format!("m{name}"), format!("a{alias}"));
                    let is_there = (1..=document.versions(&name).len() as u64).contains(version);
                    prop_assert_eq!(document.set_alias(&name, &alias, *version).is_ok(), is_there);
                }
                Change::RemoveAlias { name, alias } => {
                    document.remove_alias(&format!("m{name}"), &format!("a{alias}"));
                }
            }
            for (name, versions) in &seen {
                prop_assert_eq!(&document.versions(name), versions);
            }
        }
        let text = document.to_text().unwrap();
        prop_assert_eq!(Document::parse(text.as_bytes()), Ok(document));
    }

    #[test]
    fn a_file_that_was_cut_short_is_never_taken_for_a_whole_one(cut in 0_usize..2_000) {
        let text = three().to_text().unwrap();
        // Without the last brace and line break it is no JSON any more.
        let cut = cut % (text.len() - 2);
        prop_assert!(Document::parse(&text.as_bytes()[..cut]).is_err());
    }
}
