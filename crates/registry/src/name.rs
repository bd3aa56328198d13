//! What names, aliases, tags and metrics may be called. Both backends take what passes here, so that a model can move
//! from one to the other.

use crate::error::Error;

const NAME_BYTES_MAX: usize = 100;
/// Tags that the MLflow backend keeps facts in.
pub(crate) const RESERVED_PREFIX: &str = "tenk.";

/// Whether a model may be called that.
///
/// # Errors
/// [`Error::BadName`] says what it may be.
pub fn check_name(name: &str) -> Result<(), Error> {
    let expected = "up to 100 letters, digits, `.`, `_` and `-`, beginning with a letter or digit";
    if is_plain(name, ".") { Ok(()) } else { Err(bad("model name", name, expected)) }
}

/// Whether an alias may be called that: nothing that could be meant as a number or as whichever version is newest.
///
/// # Errors
/// [`Error::BadName`] says what it may be.
pub fn check_alias(alias: &str) -> Result<(), Error> {
    if !is_plain(alias, "") {
        let expected =
            "up to 100 letters, digits, `_` and `-`, beginning with a letter or digit, such as `stable`";
        return Err(bad("alias", alias, expected));
    }
    let lower = alias.to_ascii_lowercase();
    let number = lower.strip_prefix('v').unwrap_or(&lower);
    if lower == "latest" || number.bytes().all(|byte| byte.is_ascii_digit()) {
        let expected = "another word, such as `stable` or `canary`: `latest` and what looks like a version's number \
                        could be mistaken for it";
        return Err(bad("alias", alias, expected));
    }
    Ok(())
}

/// Whether a tag or metric may be called that.
pub(crate) fn check_key(what: &'static str, key: &str) -> Result<(), Error> {
    if !is_plain(key, ".") {
        return Err(bad(
            what,
            key,
            "up to 100 letters, digits, `.`, `_` and `-`, beginning with a letter or digit",
        ));
    }
    if what == "tag" && key.starts_with(RESERVED_PREFIX) {
        return Err(bad(
            what,
            key,
            "a name that does not begin with `tenk.`, which is for the registry's own",
        ));
    }
    Ok(())
}

fn is_plain(text: &str, more: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-') || more.contains(c))
}

fn bad(what: &'static str, name: &str, expected: &'static str) -> Error {
    Error::BadName { what, name: name.chars().take(NAME_BYTES_MAX).collect(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_path_a_filter_or_a_url_could_misread_are_refused() {
        for name in ["smollm2-135m", "Qwen3_0.6B", "7b", "v1"] {
            check_name(name).unwrap();
        }
        for name in ["", "a/b", "..", "a b", "a'b", "-a", "é", &"a".repeat(101)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_alias_is_never_a_number_and_never_latest() {
        for alias in ["stable", "canary", "blue-2", "v1-hotfix", "vv"] {
            check_alias(alias).unwrap();
        }
        for alias in ["", "latest", "Latest", "v1", "V12", "3", "v", "a.b", "a@b"] {
            assert!(check_alias(alias).is_err(), "{alias}");
        }
    }

    #[test]
    fn the_registrys_own_tags_are_not_anybodys() {
        check_key("tag", "team").unwrap();
        assert!(check_key("tag", "tenk.checksum").unwrap_err().to_string().contains("tenk."));
        assert!(check_key("metric", "a=b").is_err());
    }
}
