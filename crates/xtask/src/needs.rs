//! What a machine must have beside Rust: packages of its distribution, and Python environments under `target/`.

pub(crate) mod packages;
pub(crate) mod python;
