//! Where the code lies that a lab explains. The repository has no public address that a page could point to, but who runs
//! a lab has mostly built it from a checkout on the same machine.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::text::Text;

/// A folder with the repository's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The checkout around the current folder, or else around this program; none where no folder above them has every
    /// file that the text points to, so that no link is dead.
    pub(super) fn around(text: &Text) -> Option<Self> {
        let program = std::env::current_exe().ok();
        [std::env::current_dir().ok(), program]
            .into_iter()
            .flatten()
            .find_map(|place| Self::above(&place, text))
    }

    /// The nearest folder at or above `place` that has the files.
    fn above(place: &Path, text: &Text) -> Option<Self> {
        let has_all = |folder: &&Path| text.files().all(|file| folder.join(file).is_file());
        place.ancestors().find(has_all).map(|root| Self { root: root.to_owned() })
    }

    #[cfg(test)]
    pub(super) fn at(root: &str) -> Self {
        Self { root: root.into() }
    }

    /// The address of a file in it. It is absolute, so that the page may be moved.
    pub(super) fn url(&self, file: &str) -> String {
        let mut url = "file://".to_owned();
        for byte in self.root.join(file).as_os_str().as_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                    url.push(char::from(*byte))
                }
                // A String takes everything.
                _ => drop(write!(url, "%{byte:02X}")),
            }
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_is_the_nearest_folder_above_that_has_every_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = Text { explanation: "See `a/b.rs` and `C.md`.".into(), ..Text::default() };
        let below = folder.path().join("a/deep/er");
        std::fs::create_dir_all(&below).expect("made");
        std::fs::write(folder.path().join("a/b.rs"), "").expect("written");
        assert_eq!(Checkout::above(&below, &text), None, "a file is missing");
        std::fs::write(folder.path().join("C.md"), "").expect("written");
        let found = Checkout::above(&below, &text);
        assert_eq!(found, Some(Checkout { root: folder.path().to_owned() }));
    }
}
