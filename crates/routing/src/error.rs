//! Why a request cannot be routed, or why a table or a configuration is refused.

/// All that can go wrong in this crate. Messages are for operators: they name pools and versions, which a client
/// should not see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The table has no such model.
    #[error("model `{model}` is not in the route table; ask for one that is listed")]
    UnknownModel {
        /// The name that was asked for.
        model: String,
    },
    /// The request asked for a version that the table does not have.
    #[error("model `{model}` has no version `{version}`; leave the version out or ask for one in the table")]
    UnknownVersion {
        /// The model's name.
        model: String,
        /// The version that was asked for.
        version: String,
    },
    /// The request asked for a version that takes no new requests.
    #[error(
        "version `{version}` of model `{model}` is draining and takes no new requests; leave the version out"
    )]
    VersionDraining {
        /// The model's name.
        model: String,
        /// The version that was asked for.
        version: String,
    },
    /// None of the model's versions is active with a weight above 0.
    #[error("model `{model}` has no active version with a weight above 0; give one a weight")]
    NoActiveVersion {
        /// The model's name.
        model: String,
    },
    /// The table breaks one of its own rules.
    #[error("the route table is refused at model `{model}`: {reason}")]
    InvalidTable {
        /// The model at fault; empty where it is the table as a whole.
        model: String,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// No worker serves what is asked for, in any state.
    #[error(
        "no worker serves model `{model}` in the pool and version asked for; start one or correct the route table"
    )]
    NoWorker {
        /// The model's name.
        model: String,
    },
    /// Workers exist, but all of them are about to end.
    #[error("all workers of model `{model}` are draining; start another one")]
    AllDraining {
        /// The model's name.
        model: String,
    },
    /// All workers that could take the request have failed it already.
    #[error("all workers of model `{model}` were tried for this request; try again later")]
    AllTried {
        /// The model's name.
        model: String,
    },
    /// A setting is out of range.
    #[error("`{key}` is {value}, but must be {expected}")]
    InvalidConfig {
        /// The setting's path.
        key: &'static str,
        /// What it was set to.
        value: String,
        /// What it may be.
        expected: String,
    },
}
