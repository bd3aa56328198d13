use super::*;

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn resolve_text(root: &Path, text: &str) -> Result<ResolvedModel, Error> {
    resolve(root, &ModelRef::parse(text).unwrap())
}

#[test]
fn an_absent_catalogue_model_is_not_installed_and_an_unknown_name_is_unknown() {
    let root = tempfile::tempdir().unwrap();
    let absent = resolve_text(root.path(), "smollm2-135m-instruct").unwrap_err();
    assert!(absent.to_string().contains("tenk model pull smollm2-135m-instruct"), "{absent}");
    let unknown = resolve_text(root.path(), "smollm3").unwrap_err();
    assert!(matches!(&unknown, Error::UnknownModel { known, .. } if known.contains("smollm2-135m-instruct")));
    assert!(matches!(resolve_text(root.path(), "hf:o/r"), Err(Error::NotInstalled { .. })));
}

#[test]
fn a_catalogue_file_of_another_size_does_not_count() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
    write(&file, b"GGUF and too little");
    assert!(matches!(resolve_text(root.path(), "smollm2-135m-instruct"), Err(Error::NotInstalled { .. })));
    // Sparse, so that it costs no disk.
    File::options().write(true).open(&file).unwrap().set_len(98_362_432).unwrap();
    let model = resolve_text(root.path(), "smollm2-135m-instruct").unwrap();
    assert_eq!((model.path, model.format, model.size_bytes), (file, ModelFormat::Gguf, 98_362_432));
}

#[test]
fn a_gguf_file_is_known_by_its_first_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good.gguf"), dir.path().join("bad.gguf"));
    write(&good, b"GGUF....");
    write(&bad, b"<html>");
    let model = resolve(dir.path(), &ModelRef::Path(good.clone())).unwrap();
    assert_eq!((model.name.as_str(), model.path, model.size_bytes), ("good", good, 8));
    assert!(matches!(resolve(dir.path(), &ModelRef::Path(bad)), Err(Error::NotAModel { .. })));
    let absent = resolve(dir.path(), &ModelRef::Path(dir.path().join("absent.gguf"))).unwrap_err();
    assert!(absent.to_string().contains("absent.gguf"), "{absent}");
}

#[test]
fn a_pipe_is_no_model_and_nobody_waits_for_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("model.gguf");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let refused = resolve(dir.path(), &ModelRef::Path(pipe)).unwrap_err();
    assert!(refused.to_string().contains("neither a file nor a directory"), "{refused}");
}

#[test]
fn a_directory_is_a_model_if_it_holds_exactly_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bert");
    let resolve_it = || resolve(dir.path(), &ModelRef::Path(path.clone()));
    fs::create_dir(&path).unwrap();
    assert!(matches!(resolve_it(), Err(Error::NotAModel { .. })));
    write(&path.join("config.json"), b"{}");
    write(&path.join("model.safetensors"), b"weights");
    let model = resolve_it().unwrap();
    assert_eq!((model.name.as_str(), model.format, model.size_bytes), ("bert", ModelFormat::Safetensors, 9));
    write(&path.join("model.gguf"), b"GGUF");
    assert!(resolve_it().unwrap_err().to_string().contains("several"));
}

#[test]
fn a_directory_that_the_user_put_into_the_cache_has_its_name() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("models/mine/q8.gguf");
    write(&file, b"GGUF");
    let model = resolve_text(root.path(), "mine").unwrap();
    assert_eq!((model.name.as_str(), model.path), ("mine", file));
}

fn write_hub_model(root: &Path, listed: &str) {
    let dir = root.join("models/o--r@main");
    write(&dir.join("m.gguf"), b"GGUF");
    let manifest = format!(
        r#"{{"reference":"hf:o/r","commit":"main","format":"gguf",
            "files":[{{"name":"{listed}","size_bytes":4,"sha256":""}}]}}"#
    );
    write(&dir.join(MANIFEST), manifest.as_bytes());
}

#[test]
fn a_hub_model_counts_only_with_its_manifest_and_all_its_files() {
    let root = tempfile::tempdir().unwrap();
    write_hub_model(root.path(), "m.gguf");
    let model = resolve_text(root.path(), "hf:o/r").unwrap();
    assert_eq!((model.name.as_str(), model.size_bytes), ("o/r", 4));
    assert!(resolve_text(root.path(), "hf:o/r@v2").is_err());
    fs::remove_file(root.path().join("models/o--r@main/m.gguf")).unwrap();
    assert!(matches!(resolve_text(root.path(), "hf:o/r"), Err(Error::NotInstalled { .. })));
}

#[test]
fn a_manifest_cannot_point_out_of_its_directory() {
    let root = tempfile::tempdir().unwrap();
    write_hub_model(root.path(), "../o--r@main/m.gguf");
    assert!(matches!(resolve_text(root.path(), "hf:o/r"), Err(Error::NotInstalled { .. })));
}

#[test]
fn a_list_has_the_catalogue_first_and_then_what_else_is_there() {
    let root = tempfile::tempdir().unwrap();
    let catalogue_only = list(&root.path().join("not-there-yet")).unwrap();
    assert_eq!(catalogue_only.len(), CATALOGUE.len());
    assert!(catalogue_only.iter().all(|row| row.installed.is_none() && row.size_bytes > 0));

    write_hub_model(root.path(), "m.gguf");
    write(&root.path().join("models/mine/q8.gguf"), b"GGUF");
    fs::create_dir_all(root.path().join("models/empty")).unwrap();
    let rows = list(root.path()).unwrap();
    let others: Vec<&str> = rows[CATALOGUE.len()..].iter().map(|row| row.reference.as_str()).collect();
    assert_eq!(others, ["hf:o/r", "mine"]);
    for row in &rows[CATALOGUE.len()..] {
        assert_eq!(row.size_bytes, 4);
        assert_eq!(resolve_text(root.path(), &row.reference).ok(), row.installed);
    }
}
