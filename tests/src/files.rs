//! Models, interpreters and files of the repository.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tiny_model::Shape;

/// The repository's root.
pub fn repository() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.parent().unwrap_or(folder).to_owned()
}

/// A small model that speaks English, for tests where language matters.
#[derive(Debug)]
pub struct RealModel;

impl RealModel {
    /// What requests call it.
    pub const NAME: &'static str = "smollm2-135m-instruct";

    /// `TENK_TEST_MODEL`, else where `tenk model pull` puts it.
    pub fn path() -> Result<PathBuf> {
        let path = match std::env::var_os("TENK_TEST_MODEL") {
            Some(path) => PathBuf::from(path),
            None => {
                let home = std::env::var_os("HOME").context("HOME is not set; set TENK_TEST_MODEL")?;
                Path::new(&home)
                    .join(".cache/tenk/models")
                    .join(Self::NAME)
                    .join("SmolLM2-135M-Instruct.Q4_1.gguf")
            }
        };
        ensure!(
            path.is_file(),
            "{} is not there; run `tenk model pull {}`, or set TENK_TEST_MODEL to a .gguf file of that model",
            path.display(),
            Self::NAME
        );
        Ok(path)
    }
}

/// A model that answers nonsense at once, in a folder of its own that goes with it.
#[derive(Debug)]
pub struct TinyModel {
    folder: TempDir,
}

impl TinyModel {
    /// What requests call it: its file's name.
    pub const NAME: &'static str = "tiny";

    /// The smallest.
    pub fn new() -> Result<Self> {
        Self::of(&Shape::default())
    }

    /// Another one of the same shape.
    pub fn other(seed: u64) -> Result<Self> {
        Self::of(&Shape { seed, ..Shape::default() })
    }

    /// One that takes milliseconds a token, so that there is time to break things while it answers.
    pub fn slow() -> Result<Self> {
        Self::of(&Shape { num_layers: 16, hidden_size: 384, ..Shape::default() })
    }

    fn of(shape: &Shape) -> Result<Self> {
        let model = Self { folder: tempfile::tempdir()? };
        tiny_model::write(&model.path(), shape).context("cannot write the tiny model")?;
        Ok(model)
    }

    /// The `.gguf` file.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("tiny.gguf")
    }
}

/// The interpreter that has OpenAI's client: `TENK_TEST_PYTHON`, else that of the environment under `target/`.
pub fn python() -> Result<PathBuf> {
    let python = match std::env::var_os("TENK_TEST_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => target()?.join("test-venv/bin/python"),
    };
    ensure!(python.is_file(), "{} is not there; `cargo xtask test` makes it", python.display());
    Ok(python)
}

/// The `tenk` binary: `TENK_BIN`, else the one that was built beside this test.
pub(crate) fn tenk() -> Result<PathBuf> {
    let binary = match std::env::var_os("TENK_BIN") {
        Some(path) => PathBuf::from(path),
        None => profile_folder()?.join("tenk"),
    };
    ensure!(binary.is_file(), "{} is not there; `cargo xtask test` builds it", binary.display());
    Ok(binary)
}

/// `target/debug` and the like, two above the test's own file.
fn profile_folder() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent);
    Ok(folder.context("the test's file is not in a target folder; set TENK_BIN")?.to_owned())
}

fn target() -> Result<PathBuf> {
    let profile = profile_folder()?;
    Ok(profile
        .parent()
        .context("the test's file is not in a target folder; set TENK_TEST_PYTHON")?
        .to_owned())
}
