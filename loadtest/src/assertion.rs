//! What a run must meet, as `ttft_p99_ms < 500` says it, so that its exit status is fit for continuous integration.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::figures::{self, Figures};

/// A figure, an operator and a number. A latency is meant from schedule unless its name says `sent.`.
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    /// The figure.
    pub figure: String,
    /// How it must stand to the number.
    pub operator: Operator,
    /// The number, in the figure's unit.
    pub number: f64,
}

/// How a figure must stand to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `==`
    Equal,
}

impl Operator {
    /// The longer ones first, for `<=` starts like `<`.
    const ALL: [(&str, Self); 5] = [
        ("<=", Self::LessOrEqual),
        (">=", Self::GreaterOrEqual),
        ("==", Self::Equal),
        ("<", Self::Less),
        (">", Self::Greater),
    ];

    /// Whether it holds. For NaN none does.
    #[expect(clippy::float_cmp, reason = "`==` is what was asked for; shares of 0 and 1 are exact")]
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Equal => left == right,
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.iter().find(|(_, operator)| operator == self);
        f.write_str(found.map_or("", |(text, _)| text))
    }
}

impl FromStr for Assertion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |problem: String| format!("`{text}` {problem}, such as 'ttft_p99_ms < 500'");
        let at = text.find(['<', '>', '=']).ok_or_else(|| {
            refuse("has no operator; a figure, one of < <= > >= == and a number were expected".into())
        })?;
        let (figure, rest) = text.split_at(at);
        let figure = figure.trim();
        let found = Operator::ALL.iter().find(|(sign, _)| rest.starts_with(sign));
        let (sign, operator) =
            found.ok_or_else(|| refuse("has no operator that is known; write one of < <= > >= ==".into()))?;
        let number = rest[sign.len()..].trim();
        let number = number.parse::<f64>().ok().filter(|number| number.is_finite());
        let number = number
            .ok_or_else(|| refuse("does not end in a number; one without a unit was expected".into()))?;
        figures::check(figure).map_err(|problem| format!("`{text}`: {problem}"))?;
        Ok(Self { figure: figure.to_owned(), operator: *operator, number })
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.figure, self.operator, self.number)
    }
}

/// One assertion and what the run had for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// The assertion, as text.
    pub assertion: String,
    /// The run's figure; null where it has none.
    pub found: Option<f64>,
    /// Whether it was met; a figure that the run does not have meets nothing.
    pub met: bool,
}

impl Assertion {
    /// Holds it against a run.
    pub fn check(&self, run: &impl Figures) -> Checked {
        let found = run.figure(&self.figure);
        let met = found.is_some_and(|found| self.operator.holds(found, self.number));
        Checked { assertion: self.to_string(), found, met }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.met { "met   " } else { "MISSED" };
        write!(f, "{verdict}  {}", self.assertion)?;
        match self.found {
            Some(found) => write!(f, ": it is {}", rounded(found)),
            None => write!(f, ": the run has no such figure"),
        }
    }
}

/// What a run came to against all of its assertions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    /// Whether all were met by a run that counts.
    pub met: bool,
    /// Why the run does not count, whatever its figures.
    pub void: Option<&'static str>,
    /// Each of them.
    pub checked: Vec<Checked>,
}

impl Judgement {
    /// Judges a run. One that is invalid, or was stopped, meets nothing.
    pub fn of(assertions: &[Assertion], run: &impl Figures) -> Self {
        let checked: Vec<Checked> = assertions.iter().map(|assertion| assertion.check(run)).collect();
        let void = match (run.valid(), run.interrupted()) {
            (false, _) => Some("the run is INVALID: the tester could not keep its schedule"),
            (true, true) => Some("the run was stopped before its end"),
            (true, false) => None,
        };
        Self { met: void.is_none() && checked.iter().all(|checked| checked.met), void, checked }
    }

    /// The exit status: 0 where all is met, 1 where not. Misuse, which clap finds, is 2.
    pub const fn exit_code(&self) -> u8 {
        if self.met { 0 } else { 1 }
    }
}

impl fmt::Display for Judgement {
    /// A line each, and one more if the run does not count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for checked in &self.checked {
            writeln!(f, "{checked}")?;
        }
        if let Some(void) = self.void {
            writeln!(f, "MISSED  {void}")?;
        }
        Ok(())
    }
}

/// Four significant digits and no more places than needed, for people.
pub(crate) fn rounded(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let digits_before = value.abs().log10().floor() as i32 + 1;
    let places = usize::try_from(4 - digits_before).unwrap_or(0).min(9);
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::made_up::MadeUp;

    fn parse(text: &str) -> Result<Assertion, String> {
        text.parse()
    }

    #[test]
    fn every_operator_is_read_with_and_without_blanks() {
        for (sign, operator) in Operator::ALL {
            for text in [format!("goodput{sign}0.5"), format!(" goodput  {sign} 0.5 ")] {
                let expected = Assertion { figure: "goodput".into(), operator, number: 0.5 };
                assert_eq!(parse(&text), Ok(expected), "{text}");
            }
        }
        assert_eq!(parse("goodput>=1e-1").expect("a number").to_string(), "goodput >= 0.1");
    }

    #[test]
    fn what_is_no_assertion_is_refused_with_what_to_write() {
        let refused = |text: &str| parse(text).expect_err("refused");
        assert!(refused("ttft_p99_ms").contains("no operator"));
        assert!(refused("ttft_p99_ms = 5").contains("no operator that is known"));
        assert!(refused("ttft_p99_ms < 500ms").contains("without a unit"));
        assert!(refused("ttft_p99_ms < nan").contains("number"));
        assert!(refused("tftt_p99_ms < 500").contains("did you mean `ttft_p99_ms`?"));
    }

    #[test]
    fn the_operators_hold_at_and_beside_the_number() {
        let at = |sign: &str, value: f64| {
            let run = MadeUp::of(&[("goodput", value)]);
            parse(&format!("goodput {sign} 2")).expect("sound").check(&run).met
        };
        let table = [("<", [true, false, false]), ("<=", [true, true, false]), ("==", [false, true, false])];
        for (sign, expected) in table {
            assert_eq!([at(sign, 1.0), at(sign, 2.0), at(sign, 3.0)], expected, "{sign}");
        }
        assert_eq!([at(">", 1.0), at(">", 2.0), at(">", 3.0)], [false, false, true]);
        assert_eq!([at(">=", 1.0), at(">=", 2.0), at(">=", 3.0)], [false, true, true]);
        assert!(!at("<", f64::NAN) && !at(">=", f64::NAN));
    }

    #[test]
    fn a_missed_assertion_is_told_with_both_numbers() {
        let assertions =
            [parse("ttft_p99_ms < 500").expect("sound"), parse("goodput >= 0.99").expect("sound")];
        let run = MadeUp::of(&[("ttft_p99_ms", 612.3456), ("goodput", 1.0)]);
        let judgement = Judgement::of(&assertions, &run);
        assert_eq!(
            judgement.to_string(),
            "MISSED  ttft_p99_ms < 500: it is 612.3\nmet     goodput >= 0.99: it is 1\n"
        );
        assert_eq!(judgement.exit_code(), 1);
        assert_eq!(Judgement::of(&assertions[1..], &run).exit_code(), 0);
    }

    #[test]
    fn a_run_that_does_not_count_meets_nothing() {
        let assertions = [parse("goodput >= 0.99").expect("sound")];
        let run = MadeUp::of(&[("goodput", 1.0)]);
        let invalid = Judgement::of(&assertions, &MadeUp { valid: false, ..run.clone() });
        assert!(!invalid.met && invalid.to_string().contains("INVALID"));
        let stopped = Judgement::of(&assertions, &MadeUp { interrupted: true, ..run });
        assert!(!stopped.met && stopped.to_string().contains("stopped"));
        let absent = Judgement::of(&assertions, &MadeUp::of(&[]));
        assert!(!absent.met && absent.to_string().contains("no such figure"));
    }

    #[test]
    fn numbers_for_people_have_four_digits() {
        let shown = [0.0, 1.0, 0.012_345, 1234.5678, 98_765.4, 99.999].map(rounded);
        assert_eq!(shown, ["0", "1", "0.01235", "1235", "98765", "100"]);
    }
}
