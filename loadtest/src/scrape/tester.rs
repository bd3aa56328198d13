//! What this process takes of the machine that it may share with its target, from `/proc`.

use std::collections::BTreeMap;
use std::fs;

use super::exposition::names;

/// Linux reports CPU times in hundredths of a second, whatever its own tick is, and memory in pages of 4 KiB.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: f64 = 4_096.0;

pub(super) fn read() -> Option<BTreeMap<&'static str, f64>> {
    usage(&fs::read_to_string("/proc/self/stat").ok()?)
}

fn usage(stat: &str) -> Option<BTreeMap<&'static str, f64>> {
    // The command's name, in parentheses, may hold anything; the third field comes after it.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    let cpu_s = (number(14)? + number(15)?) / TICKS_PER_SECOND;
    Some(BTreeMap::from([(names::CPU, cpu_s), (names::MEMORY, number(24)? * PAGE_BYTES)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added_whatever_the_commands_name_is() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 3 0 1234 1000000 25 18446";
        let expected = [(names::CPU, 2.0), (names::MEMORY, 25.0 * 4_096.0)];
        assert_eq!(usage(stat), Some(BTreeMap::from(expected)));
        assert_eq!(usage("7 (a) S 1"), None);
    }
}
