use super::*;
use crate::tidy::{file, sources};
use crate::workspace::TextFile;

/// A function of `lines` lines.
fn function(name: &str, lines: usize) -> String {
    format!("fn {name}() {{\n{}}}\n", "    call();\n".repeat(lines - 2))
}

fn problems(files: &[TextFile], ratchet: &str) -> Vec<String> {
    let ratchet = Ratchet::parse(ratchet).expect("a good ratchet");
    check(&sources(files), &ratchet).iter().map(ToString::to_string).collect()
}

#[test]
fn a_function_is_measured_from_its_signature_to_its_brace_and_named_with_its_type() {
    let just = format!("/// Doc.\n#[inline]\n{}", function("just", FUNCTION_LINES_MAX));
    let over =
        format!("struct S;\nimpl S {{\n    /// Doc.\n{}}}\n", function("over", FUNCTION_LINES_MAX + 1));
    assert_eq!(problems(&[file("crates/a/src/just.rs", &just)], ""), Vec::<String>::new());
    assert_eq!(
        problems(&[file("crates/a/src/over.rs", &over)], ""),
        [
            "crates/a/src/over.rs:4: `S::over` has 71 lines, more than 70; look for the two things in it and part them"
        ]
    );
}

#[test]
fn long_tests_are_nobodys_business() {
    let long = function("long", 600);
    let inside = format!("#[cfg(test)]\nmod tests {{\n#[test]\n{long}}}\n#[cfg(test)]\nmod helper;\n");
    let files = [
        file("crates/a/src/lib.rs", &inside),
        file("crates/a/src/helper.rs", &long),
        file("crates/a/tests/whole.rs", &long),
    ];
    assert_eq!(problems(&files, ""), Vec::<String>::new());
}

#[test]
fn a_file_is_measured_without_its_tests() {
    let lines =
        |count: usize| format!("{}#[cfg(test)]\nmod tests {{\n\n\n}}\n", "// A line.\n".repeat(count));
    assert_eq!(problems(&[file("crates/a/src/lib.rs", &lines(500))], ""), Vec::<String>::new());
    assert_eq!(
        problems(&[file("crates/a/src/lib.rs", &lines(501))], ""),
        [
            "crates/a/src/lib.rs:1: 501 lines without tests, more than 500; look for the two things in it and part them"
        ]
    );
}

#[test]
fn the_ratchet_turns_one_way() {
    let entry = |lines: usize| {
        format!("[[function]]\npath = \"crates/a/src/lib.rs\"\nname = \"long\"\nlines = {lines}\n")
    };
    let now = |lines: usize| [file("crates/a/src/lib.rs", &function("long", lines))];
    assert_eq!(problems(&now(80), &entry(80)), Vec::<String>::new());
    assert!(problems(&now(81), &entry(80))[0].ends_with("it was allowed 80, make it smaller again"));
    assert!(problems(&now(79), &entry(80))[0].contains("lower its entry"));
    assert_eq!(
        problems(&now(70), &entry(80)),
        [format!("{RATCHET}:1: `long` in crates/a/src/lib.rs is gone or small enough; take its entry out")]
    );
}

#[test]
fn a_wrong_key_in_the_ratchet_is_refused() {
    assert!(Ratchet::parse("[[file]]\npath = \"a\"\nline = 1\n").is_err());
}

#[test]
fn only_crates_on_the_serving_path_count_towards_its_limit() {
    let text = "const A: () = ();\n".repeat(400);
    let files: Vec<TextFile> = (0..38)
        .map(|index| file(&format!("crates/gateway/src/f{index}.rs"), &text))
        .chain([file("crates/xtask/src/lib.rs", &text), file("crates/gateway/tests/t.rs", &text)])
        .collect();
    assert_eq!(serving_lines(&sources(&files)), BTreeMap::from([("gateway", 38 * 400)]));
    assert!(problems(&files, "")[0].starts_with("crates:1: the serving path has 15200 lines"));
    assert_eq!(problems(&files[1..], ""), Vec::<String>::new());
}
