//! Which versions of a model there are, and which of them are meant by `stable` and `canary`.
//!
//! A version is a file with its SHA-256, and what is known of it: size, quantization, metrics, tags. Versions of a name
//! are numbered 1, 2, 3 … and never change but for metrics and tags; aliases are names that move from one to another.
//! A rollout turns versions into traffic, and a worker serves one of them: both need the same numbers, and a file that
//! is, to the bit, the one that was registered.
//!
//! [`Registry`] speaks to one of two: a file beside the models (`embedded`), written so that a process that is killed
//! at any moment leaves the old one or the new one, and two writers lose nothing; or an MLflow server (`mlflow`), which
//! holds the models' files, too. [`Registry::fetch`] gives a path whose checksum has been verified.
//!
//! Everything blocks; asynchronous callers use a thread for it. The crate reads no environment variable but those that
//! the models' cache is found by and the HTTP client reads. It knows no engines, workers or traffic.

mod config;
mod document;
mod embedded;
mod error;
mod mlflow;
mod name;
mod reference;
mod registry;
mod version;

pub use config::Config;
pub use error::Error;
pub use name::{check_alias, check_name};
pub use reference::{DEFAULT_ALIAS, Reference, Selector};
pub use registry::{Cache, Registered, Registry};
pub use version::{NewVersion, Source, Version, utc};
