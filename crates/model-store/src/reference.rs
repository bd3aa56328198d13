//! How a model is named.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::catalogue;
use crate::error::Error;

const DEFAULT_REVISION: &str = "main";

/// What a user may write where a model is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ModelRef {
    /// A name: the catalogue's, or that of a directory which the user put into the cache.
    Name(String),
    /// A repository on the Hugging Face hub.
    Hub(HubRef),
    /// A `.gguf` file or a model directory.
    Path(PathBuf),
}

/// A repository on the Hugging Face hub, `hf:OWNER/REPO[/FILE.gguf][@REVISION]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HubRef {
    /// The user or organisation.
    pub owner: String,
    /// The repository's name.
    pub repo: String,
    /// The one GGUF file that is wanted, as a path inside the repository.
    pub file: Option<String>,
    /// A branch, tag or commit; `main` unless given.
    pub revision: String,
}

impl HubRef {
    /// `OWNER/REPO`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.repo)
    }
}

impl ModelRef {
    /// Reads a reference. A catalogue name wins over a file of that name in the current directory (write `./NAME` for
    /// the file); otherwise, what holds a separator, ends in `.gguf` or exists is a path.
    ///
    /// # Errors
    /// [`Error::BadReference`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |reason| {
            Err(Error::BadReference {
                text: text.chars().take(200).collect(),
                reason,
                known: catalogue::names(),
            })
        };
        if let Some(repository) = text.strip_prefix("hf:") {
            return match parse_hub(repository) {
                Ok(hub) => Ok(Self::Hub(hub)),
                Err(reason) => refuse(reason),
            };
        }
        if text.is_empty() {
            return refuse("it is empty");
        }
        if catalogue::find(text).is_some() {
            return Ok(Self::Name(text.to_owned()));
        }
        let is_path = text.contains(['/', std::path::MAIN_SEPARATOR])
            || text.ends_with(".gguf")
            || Path::new(text).exists();
        if is_path {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        if !is_plain(text) {
            return refuse(
                "a name holds letters, digits, `.`, `_` and `-`, and begins with a letter or digit",
            );
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl FromStr for ModelRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Hub(hub) => hub.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Display for HubRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}/{}", self.owner, self.repo)?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        if self.revision != DEFAULT_REVISION {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

fn parse_hub(text: &str) -> Result<HubRef, &'static str> {
    let (path, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
    let mut parts = path.splitn(3, '/');
    let (owner, repo, file) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next());
    // `--` is the hub's own escape for `/` in directory names, as it is ours, so no repository has it.
    if !is_plain(owner) || !is_plain(repo) || owner.contains("--") || repo.contains("--") {
        return Err("after `hf:` comes OWNER/REPO");
    }
    if !revision.split('/').all(is_plain) {
        return Err("the revision after `@` is no branch, tag or commit");
    }
    if let Some(file) = file
        && (!is_safe_file_name(file) || !file.ends_with(".gguf"))
    {
        return Err("the file after OWNER/REPO must be one .gguf file inside the repository");
    }
    Ok(HubRef {
        owner: owner.to_owned(),
        repo: repo.to_owned(),
        file: file.map(str::to_owned),
        revision: revision.to_owned(),
    })
}

/// Whether `text` can be a directory's name as it stands, on any platform and without surprises.
pub(crate) fn is_plain(text: &str) -> bool {
    text.len() <= 200
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Whether a file name that a server gave stays inside the directory that it is joined to: relative, without `..`,
/// hidden or empty segments, drive letters, backslashes or control characters.
pub(crate) fn is_safe_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 500
        && !name.chars().any(|c| c.is_control() || matches!(c, '\\' | ':'))
        && name.split('/').all(|segment| !segment.is_empty() && !segment.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hub(text: &str) -> HubRef {
        match ModelRef::parse(text).unwrap() {
            ModelRef::Hub(hub) => hub,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_catalogue_name_is_a_name() {
        assert_eq!(
            ModelRef::parse("smollm2-135m-instruct").unwrap(),
            ModelRef::Name("smollm2-135m-instruct".into())
        );
    }

    #[test]
    fn a_separator_or_a_gguf_ending_or_an_existing_entry_makes_a_path() {
        for text in ["models/tiny", "./smollm2-135m-instruct", "/srv/model.gguf", "absent.gguf", "src"] {
            assert_eq!(ModelRef::parse(text).unwrap(), ModelRef::Path(text.into()), "{text}");
        }
    }

    #[test]
    fn a_hub_reference_has_owner_repo_and_maybe_a_file_and_a_revision() {
        let plain = hub("hf:owner/repo");
        assert_eq!(
            (plain.repository().as_str(), plain.file, plain.revision.as_str()),
            ("owner/repo", None, "main")
        );
        let full = hub("hf:owner/repo-GGUF/sub/model.Q8_0.gguf@v1.0");
        assert_eq!(full.file.as_deref(), Some("sub/model.Q8_0.gguf"));
        assert_eq!(full.revision, "v1.0");
        assert_eq!(hub("hf:o/r@refs/pr/1").revision, "refs/pr/1");
    }

    #[test]
    fn a_hub_reference_that_could_leave_the_cache_is_refused() {
        for text in [
            "hf:",
            "hf:owner",
            "hf:../repo",
            "hf:owner/..",
            "hf:o/r/../../x.gguf",
            "hf:o/r//etc/x.gguf",
            "hf:o/r/model.bin",
            "hf:o/r@../main",
            "hf:o/r@",
            "hf:a--b/c",
            "hf:o/r/.hidden.gguf",
        ] {
            assert!(ModelRef::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refusal_says_what_may_be_written() {
        let message = ModelRef::parse("two words").unwrap_err().to_string();
        assert!(message.contains("smollm2-135m-instruct") && message.contains("hf:OWNER/REPO"), "{message}");
    }

    proptest! {
        #[test]
        fn what_parses_as_a_hub_reference_prints_as_one_that_parses_the_same(
            owner in "[a-zA-Z][a-zA-Z0-9_]{0,8}",
            repo in "[a-zA-Z0-9][a-zA-Z0-9._]{0,8}",
            file in proptest::option::of("[a-z]{1,8}(/[a-z]{1,8})?\\.gguf"),
            revision in "[a-z0-9]{1,8}",
        ) {
            let reference = ModelRef::Hub(HubRef { owner, repo, file, revision });
            prop_assert_eq!(ModelRef::parse(&reference.to_string()).unwrap(), reference);
        }

        #[test]
        fn a_safe_file_name_never_leaves_its_directory(name in "[a-z./\\\\:]{0,12}") {
            if is_safe_file_name(&name) {
                let plain = Path::new(&name).components().all(|c| matches!(c, std::path::Component::Normal(_)));
                prop_assert!(plain, "{}", name);
            }
        }
    }
}
