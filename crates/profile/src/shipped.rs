//! The profiles that come with the crate.

use crate::{Profile, ProfileError};

/// The profile that is taken where none is named.
pub const DEFAULT_NAME: &str = "h100-llama-8b";

const TEXTS: &[(&str, &str)] = &[
    ("h100-llama-8b", include_str!("../profiles/h100-llama-8b.toml")),
    ("a100-llama-8b", include_str!("../profiles/a100-llama-8b.toml")),
    ("l40s-llama-8b", include_str!("../profiles/l40s-llama-8b.toml")),
    ("h100x2-llama-70b", include_str!("../profiles/h100x2-llama-70b.toml")),
    ("cpu-smollm2-135m", include_str!("../profiles/cpu-smollm2-135m.toml")),
];

/// The names of all shipped profiles.
pub fn shipped_names() -> impl Iterator<Item = &'static str> {
    TEXTS.iter().map(|(name, _)| *name)
}

/// The shipped profile of this name.
pub fn shipped(name: &str) -> Result<Profile, ProfileError> {
    let text = TEXTS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    let text = text.ok_or_else(|| ProfileError::Unknown {
        name: name.to_owned(),
        known: shipped_names().collect::<Vec<_>>().join(", "),
    })?;
    Profile::parse(text)
}
