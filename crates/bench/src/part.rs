//! The parts of a measurement.

use std::fmt;
use std::str::FromStr;

/// One part. The first two are measured in this process, the others over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Prefill and decode in this process, beside the machine's peaks.
    Roofline,
    /// Time to first token of a long prompt.
    Prefill,
    /// Tokens a second while some streams are being answered.
    Decode,
    /// Eight clients, prompts and answers together.
    Http,
    /// Decode while another process keeps a core busy.
    Contended,
    /// A prefix that was seen before, beside one that was not.
    Prefix,
    /// Resident memory.
    Memory,
    /// From starting the process to being ready.
    Start,
}

impl Part {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Self; 8] = [
        Self::Roofline,
        Self::Prefill,
        Self::Decode,
        Self::Http,
        Self::Contended,
        Self::Prefix,
        Self::Memory,
        Self::Start,
    ];

    /// What it is asked for by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Roofline => "roofline",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Http => "http",
            Self::Contended => "contended",
            Self::Prefix => "prefix",
            Self::Memory => "memory",
            Self::Start => "start",
        }
    }

    /// Whether servers are started for it.
    pub const fn is_over_http(self) -> bool {
        !matches!(self, Self::Roofline)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|part| part.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|part| part.name()).collect();
            format!("there is no such part; known are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_found_by_its_name_and_no_other() {
        for part in Part::ALL {
            assert_eq!(part.name().parse(), Ok(part));
        }
        assert!("speed".parse::<Part>().expect_err("unknown").contains("roofline, prefill"));
    }
}
