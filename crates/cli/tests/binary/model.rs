//! `tenk model`

use crate::harness::{run, tenk, text, tiny_model};

#[test]
fn a_models_shape_is_printed_for_people_and_as_json() {
    let (_folder, path) = tiny_model();
    let table = run(&mut tenk(["model", "inspect", text(&path)])).succeeded();
    for row in
        ["model                  tiny", "architecture           llama", "layers                 2, 64 wide"]
    {
        assert!(table.contains(row), "{table}");
    }
    let json = run(&mut tenk(["model", "inspect", "--json", text(&path)])).succeeded();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["architecture"], &json["num_layers"]), (&"llama".into(), &2.into()));
}

#[test]
fn a_quantized_model_is_of_that_type_and_replaces_nothing_unasked() {
    let (folder, path) = tiny_model();
    let output = folder.path().join("tiny.q8_0.gguf");
    let quantize = |more: &[&str]| {
        run(tenk(["model", "quantize", text(&path), text(&output), "--to", "q8_0"]).args(more))
    };
    let ended = quantize(&[]);
    assert_eq!(ended.stderr, "", "no progress where nobody looks");
    assert!(ended.succeeded().contains(" → "));
    let table = run(&mut tenk(["model", "inspect", text(&output)])).succeeded();
    assert!(table.contains("mostly q8_0"), "{table}");
    assert!(quantize(&[]).refused().contains("--force"));
    quantize(&["--force"]).succeeded();
    let wrong = run(&mut tenk(["model", "quantize", text(&path), "x.gguf", "--to", "q9"]));
    assert!(wrong.refused().contains("expected one of") && wrong.refused().contains("q8_0"), "{wrong:?}");
}

#[test]
fn a_file_that_is_no_whole_model_is_refused_in_one_line_even_with_backtraces_on() {
    let (folder, path) = tiny_model();
    let whole = std::fs::read(&path).expect("readable");
    let noise = [b'x'; 100];
    for (name, bytes, word) in [
        ("noise.gguf", &noise[..], "GGUF"),
        ("head.gguf", &whole[..100], "cut short"),
        ("half.gguf", &whole[..whole.len() / 2], "cut short"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        let output = folder.path().join("output.gguf");
        let inspected = run(tenk(["model", "inspect", text(&path)]).env("RUST_BACKTRACE", "1"));
        let refused = inspected.refused();
        assert!(refused.contains(name) && refused.contains(word), "{refused}");
        assert_eq!(inspected.stderr.lines().count(), 1, "{inspected:?}");
        let quantized = ["model", "quantize", text(&path), text(&output), "--to", "q8_0"];
        let quantized = run(tenk(quantized).env("RUST_BACKTRACE", "1"));
        quantized.refused();
        assert_eq!(quantized.stderr.lines().count(), 1, "{quantized:?}");
        assert!(!output.exists());
    }
}

#[test]
fn an_unknown_architecture_is_told_with_the_known_ones() {
    let (folder, path) = tiny_model();
    let mut bytes = std::fs::read(&path).expect("readable");
    let places: Vec<usize> =
        (0..bytes.len() - 5).filter(|index| &bytes[*index..*index + 5] == b"llama").collect();
    for place in places {
        bytes[place..place + 5].copy_from_slice(b"gnome");
    }
    let path = folder.path().join("gnome.gguf");
    std::fs::write(&path, bytes).expect("written");
    for args in [
        &["model", "inspect", text(&path)][..],
        &["worker", "--listen", "127.0.0.1:0", "--model", text(&path)],
    ] {
        let ended = run(&mut tenk(args));
        let refused = ended.refused();
        assert!(refused.contains("`gnome`") && refused.contains("llama, mistral, qwen2, qwen3"), "{refused}");
    }
}

#[test]
fn an_unknown_name_is_told_with_the_nearest_and_a_strange_one_with_all() {
    let roles =
        [&["model", "inspect"][..], &["model", "pull"], &["worker", "--listen", "127.0.0.1:0", "--model"]];
    for args in roles {
        let ended = run(tenk(args).arg("smollm2-135m-instuct"));
        assert!(ended.refused().contains("did you mean `smollm2-135m-instruct`?"), "{ended:?}");
        let ended = run(tenk(args).arg("xyzzy"));
        assert!(ended.refused().contains("known are smollm2-135m-instruct"), "{ended:?}");
        let ended = run(tenk(args).arg("two words"));
        assert!(ended.refused().contains("hf:OWNER/REPO"), "{ended:?}");
    }
    let ended = run(&mut tenk(["model", "inspect", "smollm2-135m-instruct"]));
    assert!(ended.refused().contains("`tenk model pull smollm2-135m-instruct`"), "{ended:?}");
}

#[test]
fn a_model_put_into_the_cache_is_listed_and_found_by_its_folders_name() {
    let cache = tempfile::tempdir().expect("a folder");
    let mine = cache.path().join("models").join("mine");
    std::fs::create_dir_all(&mine).expect("created");
    tiny_model::write(&mine.join("any.gguf"), &tiny_model::Shape::default()).expect("a model");
    let in_cache = |args: &[&str]| run(tenk(args).env("TENK_CACHE_DIR", cache.path())).succeeded();
    let list = in_cache(&["model", "list"]);
    let row = |name: &str| list.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(row("mine").contains(" yes") && row("smollm2-135m-instruct").contains(" no "), "{list}");
    assert!(list.contains(text(cache.path())), "{list}");
    assert!(in_cache(&["model", "inspect", "mine"]).contains("model                  mine"));
    assert_eq!(in_cache(&["model", "pull", "mine"]).trim(), text(&mine.join("any.gguf")));
}
