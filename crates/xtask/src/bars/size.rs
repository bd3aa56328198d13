//! How much there is to read.

use anyhow::Result;

use super::{Bench, Figure, Required};
use crate::{tidy, workspace};

pub(super) fn measure(_bench: &Bench) -> Result<Vec<Figure>> {
    let lines = tidy::serving_lines(&workspace::text_files(&workspace::root())?);
    let bound = Required::AtMost(tidy::SERVING_LINES_MAX as f64);
    Ok(vec![Figure::new("serving path, without tests", lines as f64, "lines").required(bound)])
}
