//! What can be wrong with a profile or a step log.

/// A profile or a log that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No shipped profile has this name.
    #[error("there is no profile `{name}`; known are {known}, and a path to a .toml file will do, too")]
    Unknown {
        /// The name asked for.
        name: String,
        /// Every name there is.
        known: String,
    },
    /// A text that is no profile.
    #[error("the profile cannot be read: {0}")]
    Syntax(String),
    /// A number that makes no sense.
    #[error("the profile's `{field}` is {value}, but must be {expected}")]
    Value {
        /// The field with its table.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A step log's line that cannot be read.
    #[error("line {line} of the step log: {reason}")]
    Log {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Too little to fit to.
    #[error(
        "the step log has {steps} steps, but a fit needs at least {needed}; log more, of several batch sizes"
    )]
    TooFewSteps {
        /// Steps in the log.
        steps: usize,
        /// The least.
        needed: usize,
    },
}
