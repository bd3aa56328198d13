//! `tenk loadtest scenarios`.

use std::fmt::Write;

use crate::error::Error;
use crate::scenario::Scenario;

/// A line for each scenario that is part of this program: its name, and the question that it answers.
///
/// # Errors
/// When one of them is wrong, which tests rule out.
pub(super) fn list_scenarios() -> Result<String, Error> {
    let width = Scenario::shipped_names().map(str::len).max().unwrap_or(0);
    let mut lines = String::new();
    for name in Scenario::shipped_names() {
        let question = Scenario::shipped(name)?.question;
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{name:width$}  {question}");
    }
    lines.push_str("\nRun one with: tenk loadtest run NAME --target URL\n");
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scenario_is_listed_with_its_question() {
        let lines = list_scenarios().expect("sound");
        assert!(lines.contains("\nsmoke          Does the server answer at all"), "{lines}");
        assert_eq!(lines.lines().count(), Scenario::shipped_names().count() + 2);
    }
}
