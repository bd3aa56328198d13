//! What the reader expects: whoever has guessed remembers what came.

use std::io::IsTerminal;

use tokio_util::sync::CancellationToken;

use super::say;
use super::table::brief;
use crate::error::Error;

/// A number, if the reader gave one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Prediction(pub(super) Option<f64>);

impl Prediction {
    /// Takes the number that was given, or asks for one where someone is there to answer.
    pub(super) async fn take(given: Option<f64>, yes: bool, stop: &CancellationToken) -> Result<Self, Error> {
        if given.is_some() || yes || !std::io::stdin().is_terminal() {
            return Ok(Self(given));
        }
        say("Your number, or Enter to go on without:");
        let asked = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = stop.run_until_cancelled(asked).await.ok_or(Error::Interrupted)?;
        let line = line.map_err(|error| Error::Broken(error.to_string()))?.unwrap_or_default();
        Ok(Self(number(&line)))
    }

    /// The prediction beside what was measured.
    pub(super) fn compare(self, measured: f64) -> Option<String> {
        let predicted = self.0?;
        let (low, high) = if predicted < measured { (predicted, measured) } else { (measured, predicted) };
        let judged = if low > 0.0 && high / low <= 1.25 {
            "close".to_owned()
        } else if low > 0.0 {
            format!("off by a factor of {}", brief(high / low))
        } else {
            "far off".to_owned()
        };
        Some(format!("You said {}, it is {}: {judged}.", brief(predicted), brief(measured)))
    }
}

/// The first number in what was typed, whatever unit follows it.
fn number(line: &str) -> Option<f64> {
    let text = line.trim().trim_end_matches(|c: char| !c.is_ascii_digit());
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_is_read_with_or_without_a_unit() {
        let read = ["8\n", " 2.5x\n", "30 %\n", "\n", "no idea\n"].map(number);
        assert_eq!(read, [Some(8.0), Some(2.5), Some(30.0), None, None]);
    }

    #[test]
    fn a_prediction_is_held_against_what_came() {
        let compare = |predicted: f64, measured: f64| Prediction(Some(predicted)).compare(measured);
        assert_eq!(compare(10.0, 9.0).as_deref(), Some("You said 10, it is 9: close."));
        assert_eq!(compare(32.0, 8.0).as_deref(), Some("You said 32, it is 8: off by a factor of 4."));
        assert_eq!(compare(5.0, 0.0).as_deref(), Some("You said 5, it is 0: far off."));
        assert_eq!(Prediction(None).compare(1.0), None);
    }
}
