//! What this process takes of the machine that it may share with its target, and what all of them take together, from
//! `/proc`.

use std::collections::BTreeMap;
use std::fs;

use super::exposition::names;

/// Linux reports CPU times in hundredths of a second, whatever its own tick is, and memory in pages of 4 KiB.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: f64 = 4_096.0;

/// This process' use and, where it sees all of the machine's `cores`, the machine's.
pub(super) fn read(cores: Option<u32>) -> Option<BTreeMap<&'static str, f64>> {
    let mut read = usage(&fs::read_to_string("/proc/self/stat").ok()?)?;
    let machine = fs::read_to_string("/proc/stat").ok();
    if let Some(busy_s) = machine.and_then(|stat| busy(&stat, cores?)) {
        read.insert(names::MACHINE_CPU, busy_s);
    }
    Some(read)
}

/// The seconds in which CPUs were not idle, all of them together. A container that may use some of a machine's CPUs sees
/// all of them here, so that what is busy need not concern it: then nothing is known.
fn busy(stat: &str, cores: u32) -> Option<f64> {
    let is_cpu = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    if stat.lines().filter(is_cpu).count() != cores as usize {
        return None;
    }
    let fields: Option<Vec<f64>> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_ascii_whitespace()
        .map(|field| field.parse().ok())
        .collect();
    let fields = fields?;
    // user, nice, system, then idle and waiting for disks, then interrupts and what the host took.
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|field| fields.get(*field)).sum::<f64>();
    Some(busy / TICKS_PER_SECOND)
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

    #[test]
    fn a_machine_is_busy_when_it_is_not_idle_and_only_if_all_of_it_is_ours() {
        let stat = "cpu  100 20 30 4000 500 6 7 8 0 0\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
        assert_eq!(busy(stat, 2), Some(1.71));
        assert_eq!((busy(stat, 1), busy("", 2), busy("cpu x\n", 0)), (None, None, None));
    }
}
