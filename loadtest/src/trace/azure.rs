//! Azure's CSV of 2023 and 2024: `TIMESTAMP,ContextTokens,GeneratedTokens`.

use crate::trace::TraceRequest;

const EXAMPLE: &str = "2023-11-16 18:15:46.6805900";

/// Where a header says that values stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    timestamp: usize,
    prompt_tokens: usize,
    max_tokens: usize,
}

impl Columns {
    pub(super) fn of(header: &str) -> Result<Self, String> {
        let names: Vec<&str> = header.split(',').map(str::trim).collect();
        let column = |name: &str| {
            names.iter().position(|found| found.eq_ignore_ascii_case(name)).ok_or_else(|| {
                format!(
                    "the header lacks `{name}`; TIMESTAMP,ContextTokens,GeneratedTokens was expected, or lines of JSON"
                )
            })
        };
        Ok(Self {
            timestamp: column("TIMESTAMP")?,
            prompt_tokens: column("ContextTokens")?,
            max_tokens: column("GeneratedTokens")?,
        })
    }

    pub(super) fn request(&self, line: &str) -> Result<TraceRequest, String> {
        let values: Vec<&str> = line.split(',').map(str::trim).collect();
        let value = |column: usize, name: &str| {
            values.get(column).copied().ok_or_else(|| format!("the line ends before its `{name}`"))
        };
        let tokens = |column, name| {
            let text = value(column, name)?;
            text.parse::<u32>().map_err(|_| format!("`{name}` is `{text}`, but must be a whole number"))
        };
        let timestamp = value(self.timestamp, "TIMESTAMP")?;
        let at_us = unix_us(timestamp)
            .ok_or_else(|| format!("`TIMESTAMP` is `{timestamp}`, but must be like `{EXAMPLE}`"))?;
        Ok(TraceRequest {
            at_us,
            prompt_tokens: Some(tokens(self.prompt_tokens, "ContextTokens")?),
            // A server refuses to answer with nothing.
            max_tokens: Some(tokens(self.max_tokens, "GeneratedTokens")?.max(1)),
            blocks: Vec::new(),
        })
    }
}

/// Microseconds since 1970 of a date and time, with any number of decimals, in UTC or said to be.
fn unix_us(text: &str) -> Option<u64> {
    let text = text.strip_suffix("+00:00").or_else(|| text.strip_suffix('Z')).unwrap_or(text);
    let (date, time) = text.split_once([' ', 'T'])?;
    let [year, month, day] = three(date, '-')?;
    let (time, decimals) = time.split_once('.').unwrap_or((time, ""));
    let [hour, minute, second] = three(time, ':')?;
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let micros = decimals.bytes().chain(std::iter::repeat(b'0')).take(6);
    let micros = micros.fold(0, |micros, digit| 10 * micros + u64::from(digit - b'0'));
    let seconds = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1_000_000 + micros)
}

fn three(text: &str, separator: char) -> Option<[u64; 3]> {
    let number = |part: &str| {
        let is_number = !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
        if is_number { part.parse().ok() } else { None }
    };
    let mut parts = text.split(separator).map(number);
    let all = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(all)
}

/// By the Gregorian calendar, with years that start in March so that a leap day ends one.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let year = if month > 2 { year } else { year - 1 };
    let month_from_march = (month + 9) % 12;
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719,468 days lie between the first of March of the year 0 and the start of 1970.
    year * 365 + leap_days + (153 * month_from_march + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_since_1970() {
        for (text, us) in [
            ("1970-01-01 00:00:00", 0),
            ("1970-03-01 00:00:00", 59 * 86_400_000_000),
            ("2000-02-29T12:00:00.5Z", 951_825_600_500_000),
            ("2023-11-16 18:15:46.6805900", 1_700_158_546_680_590),
            ("2024-05-10 00:00:00.009930+00:00", 1_715_299_200_009_930),
        ] {
            assert_eq!(unix_us(text), Some(us), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in
            ["", "2023-11-16", "2023-13-01 00:00:00", "2023-11-16 24:00:00", "2023-11-16 1:2", "a-b-c d:e:f"]
        {
            assert_eq!(unix_us(text), None, "{text}");
        }
        assert_eq!(unix_us("2023-11-16 18:15:46.12x"), None);
        assert_eq!(unix_us("2023-11-16 18:15:+6"), None);
    }
}
