//! What the fuzz targets share.

pub mod front;
pub mod json;
pub mod model;
pub mod numbers;
pub mod vocabulary;
