//! `registry:NAME@SELECTOR`: how a version is named where a model is asked for.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::name::{check_alias, check_name};

/// The alias that is meant where none is given.
pub const DEFAULT_ALIAS: &str = "stable";

const PREFIX: &str = "registry:";

/// Which version of a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// This one, for ever.
    Number(u64),
    /// Whichever the alias names now.
    Alias(String),
}

impl FromStr for Selector {
    type Err = Error;

    /// Reads a version's number or an alias.
    fn from_str(text: &str) -> Result<Self, Error> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse().ok().filter(|number| *number > 0);
            return number.map(Self::Number).ok_or_else(|| Error::BadName {
                what: "version",
                name: text.to_owned(),
                expected: "a number from 1 on",
            });
        }
        check_alias(text)?;
        Ok(Self::Alias(text.to_owned()))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Alias(alias) => f.write_str(alias),
        }
    }
}

/// A version in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The model.
    pub name: String,
    /// Which of its versions.
    pub selector: Selector,
}

impl Reference {
    /// Whether the text is meant as a reference to the registry, well-formed or not.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(PREFIX)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let read = || {
            let rest = text.strip_prefix(PREFIX).unwrap_or_default();
            let (name, selector) = rest.split_once('@').unwrap_or((rest, DEFAULT_ALIAS));
            check_name(name)?;
            Ok(Self { name: name.to_owned(), selector: selector.parse()? })
        };
        read().map_err(|reason: Error| Error::BadReference {
            text: text.chars().take(200).collect(),
            reason: reason.to_string(),
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}@{}", self.name, self.selector)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Reference, Error> {
        text.parse()
    }

    #[test]
    fn a_reference_has_a_name_and_a_number_or_an_alias_stable_unless_given() {
        let parsed = |text| parse(text).map(|found| (found.name, found.selector)).unwrap();
        assert_eq!(parsed("registry:tiny"), ("tiny".into(), Selector::Alias("stable".into())));
        assert_eq!(parsed("registry:tiny@canary"), ("tiny".into(), Selector::Alias("canary".into())));
        assert_eq!(parsed("registry:tiny@12"), ("tiny".into(), Selector::Number(12)));
    }

    #[test]
    fn a_reference_that_could_be_read_in_two_ways_is_refused_and_the_form_is_shown() {
        for text in [
            "registry:",
            "registry:a@",
            "registry:a@0",
            "registry:a@v2",
            "registry:a@latest",
            "registry:../a",
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains("registry:NAME@"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_what_parses_the_same(text in "registry:[a-z0-9.]{1,6}(@[a-z0-9-]{1,6})?") {
            if let Ok(reference) = parse(&text) {
                prop_assert_eq!(parse(&reference.to_string()).unwrap(), reference);
            }
        }
    }
}
