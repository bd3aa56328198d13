//! What several processes read of the same servers, as one. Each read at moments of its own, and nothing is made up in
//! between: a value goes to the nearest moment that is kept.

use std::collections::BTreeMap;

use super::{EVERY, Source, TESTER, TargetMetrics, names};

/// What one process read, or what a merged report has of several.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) read: TargetMetrics,
    pub(crate) processes: u32,
}

type Series = Vec<Option<f64>>;

impl TargetMetrics {
    /// Joins the readings of one run. Of a server that several read, the fullest reading is kept, the first of equals, and
    /// the source says whose it is. What testers took of their machine is added up where all of them tell it.
    pub(crate) fn merge(mut readings: Vec<Reading>) -> Self {
        if readings.len() == 1 {
            return readings.pop().map(|only| only.read).unwrap_or_default();
        }
        let moments = Moments::of(&readings);
        let cores = readings.iter().find_map(|reading| reading.read.cores);
        let (mut kept, mut testers) = (Vec::<(usize, Source)>::new(), Vec::new());
        let mut processes_before = 0;
        for Reading { read, processes } in readings {
            for mut source in read.sources {
                let fullness = source.series.values().flatten().flatten().count();
                source.series.values_mut().for_each(|series| *series = moments.lay(&read.times_s, series));
                if source.address == TESTER {
                    testers.push(source.series);
                    continue;
                }
                source.process = Some(processes_before + source.process.unwrap_or(1));
                match kept.iter_mut().find(|(_, kept)| kept.address == source.address) {
                    None => kept.push((fullness, source)),
                    Some(fuller) if fuller.0 < fullness => *fuller = (fullness, source),
                    Some(_) => {}
                }
            }
            processes_before += processes;
        }
        let mut sources: Vec<Source> = kept.into_iter().map(|(_, source)| source).collect();
        if !testers.is_empty() {
            let series = added_up(&testers);
            sources.push(Source { address: TESTER.to_owned(), series, ..Source::default() });
        }
        Self { cores, times_s: moments.times_s, sources }
    }

    /// Whose reading of which servers a merged report has, for its notes.
    pub(crate) fn kept_readings(&self) -> Option<String> {
        let mut by_process: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for source in &self.sources {
            if let Some(process) = source.process {
                by_process.entry(process).or_default().push(&source.address);
            }
        }
        let kept: Vec<String> = by_process
            .iter()
            .map(|(process, addresses)| format!("process {process}'s reading of {}", addresses.join(", ")))
            .collect();
        (!kept.is_empty()).then(|| {
            format!("several processes read the servers' metrics; kept is the fullest: {}", kept.join("; "))
        })
    }
}

/// The moments to which readings are brought.
struct Moments {
    /// Ascending.
    times_s: Vec<f64>,
    /// How far a value may be from its moment.
    reach_s: f64,
}

impl Moments {
    /// Those of the reading that has most, and where it has none, others'.
    fn of(readings: &[Reading]) -> Self {
        let all = || readings.iter().map(|reading| &reading.read.times_s);
        let most = all().map(Vec::len).max().unwrap_or(0);
        let mut times_s = all().find(|times_s| times_s.len() == most).cloned().unwrap_or_default();
        times_s.sort_unstable_by(f64::total_cmp);
        times_s.dedup();
        let spacing_s = match (times_s.first(), times_s.last()) {
            (Some(first), Some(last)) if last > first => (last - first) / (times_s.len() - 1) as f64,
            _ => EVERY.as_secs_f64(),
        };
        let mut moments = Self { times_s, reach_s: spacing_s / 2.0 };
        for at_s in all().flatten() {
            if moments.nearest(*at_s).is_none() && moments.times_s.len() < TargetMetrics::TIMES_MAX {
                let place = moments.times_s.partition_point(|time_s| time_s < at_s);
                moments.times_s.insert(place, *at_s);
            }
        }
        moments
    }

    /// The place of the moment nearest to a time, if one is within reach.
    fn nearest(&self, at_s: f64) -> Option<usize> {
        let after = self.times_s.partition_point(|time_s| *time_s < at_s);
        let distance = |place: &usize| self.times_s.get(*place).map(|time_s| (time_s - at_s).abs());
        [after.checked_sub(1), Some(after)]
            .into_iter()
            .flatten()
            .filter(|place| distance(place).is_some_and(|distance_s| distance_s <= self.reach_s))
            .min_by(|a, b| distance(a).partial_cmp(&distance(b)).unwrap_or(std::cmp::Ordering::Equal))
    }

    /// A series, each value at its nearest moment; of several that come to one, the last.
    fn lay(&self, times_s: &[f64], series: &[Option<f64>]) -> Series {
        let mut laid = vec![None; self.times_s.len()];
        for (at_s, value) in times_s.iter().zip(series) {
            if let (Some(place), Some(_)) = (self.nearest(*at_s), value) {
                laid[place] = *value;
            }
        }
        laid
    }
}

/// Each series' sum over the testers that have it. The machine they share is one, and the first tells of it.
fn added_up(testers: &[BTreeMap<String, Series>]) -> BTreeMap<String, Series> {
    let mut sums: BTreeMap<String, Series> = BTreeMap::new();
    for (name, series) in testers.iter().flatten() {
        match sums.get_mut(name) {
            None => drop(sums.insert(name.clone(), series.clone())),
            Some(_) if name == names::MACHINE_CPU => {}
            Some(sum) => {
                for (sum, value) in sum.iter_mut().zip(series) {
                    *sum = sum.zip(*value).map(|(sum, value)| sum + value);
                }
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(address: &str, series: &[(&str, Series)]) -> Source {
        let series = series.iter().map(|(name, values)| ((*name).to_owned(), values.clone()));
        Source { address: address.into(), series: series.collect(), ..Source::default() }
    }

    fn reading(times_s: &[f64], sources: Vec<Source>) -> Reading {
        Reading { read: TargetMetrics { cores: None, times_s: times_s.to_vec(), sources }, processes: 1 }
    }

    fn values<const N: usize>(values: [f64; N]) -> Series {
        values.map(Some).to_vec()
    }

    #[test]
    fn the_fullest_reading_of_each_server_is_kept_and_it_is_told_whose_that_is() {
        let mut thin = values([1.0, 2.0, 3.0]);
        thin[1] = None;
        let a = |series: &Series| source("http://a", &[(names::RUNNING, series.clone())]);
        let b = |series: &Series| source("http://b", &[(names::RUNNING, series.clone())]);
        let one = reading(&[0.0, 1.0, 2.0], vec![a(&thin), b(&values([4.0, 5.0, 6.0]))]);
        let two =
            reading(&[0.3, 1.3, 2.3], vec![a(&values([7.0, 8.0, 9.0])), b(&values([10.0, 11.0, 12.0]))]);
        let merged = TargetMetrics::merge(vec![one.clone(), two]);
        assert_eq!(merged.times_s, [0.0, 1.0, 2.0]);
        assert_eq!(merged.sources[0].series[names::RUNNING], values([7.0, 8.0, 9.0]));
        assert_eq!(merged.sources[1].series[names::RUNNING], values([4.0, 5.0, 6.0]));
        assert_eq!([merged.sources[0].process, merged.sources[1].process], [Some(2), Some(1)]);
        assert_eq!(
            merged.kept_readings().expect("two"),
            "several processes read the servers' metrics; kept is the fullest: process 1's reading of http://b; process \
             2's reading of http://a"
        );

        let again = TargetMetrics::merge(vec![one.clone(), Reading { read: merged, processes: 2 }]);
        assert_eq!(again.sources[0].process, Some(3), "the second process of what was merged before");
        assert_eq!(TargetMetrics::merge(vec![one.clone()]), one.read);
    }

    #[test]
    fn what_only_one_process_could_read_is_there_at_its_moments() {
        let gone = Source { error: Some("refused".into()), ..source("http://a", &[]) };
        let one =
            reading(&[0.0, 1.0], vec![gone, source("http://b", &[(names::WAITING, values([1.0, 2.0]))])]);
        let late =
            reading(&[1.1, 2.1, 3.1], vec![source("http://a", &[(names::WAITING, values([5.0, 6.0, 7.0]))])]);
        let merged = TargetMetrics::merge(vec![one, late]);
        assert_eq!(merged.times_s, [0.0, 1.1, 2.1, 3.1]);
        assert_eq!(merged.sources[0].series[names::WAITING], [None, Some(5.0), Some(6.0), Some(7.0)]);
        assert_eq!((merged.sources[0].process, &merged.sources[0].error), (Some(2), &None));
        assert_eq!(merged.sources[1].series[names::WAITING], [Some(1.0), Some(2.0), None, None]);
    }

    #[test]
    fn moments_that_are_one_take_the_last_value() {
        let of = |series: Series| vec![source("http://a", &[(names::RUNNING, series)])];
        let one = reading(&[0.0, 0.0, 1.0], of(values([1.0, 2.0, 3.0])));
        let merged = TargetMetrics::merge(vec![one, reading(&[0.0], of(values([9.0])))]);
        assert_eq!(merged.times_s, [0.0, 1.0]);
        assert_eq!(merged.sources[0].series[names::RUNNING], values([2.0, 3.0]));
    }

    #[test]
    fn testers_add_up_and_their_machine_does_not() {
        let tester = |cpu: Series, machine: Series| {
            vec![source(TESTER, &[(names::CPU, cpu), (names::MACHINE_CPU, machine)])]
        };
        let one = reading(&[0.0, 1.0, 2.0], tester(values([1.0, 2.0, 3.0]), values([50.0, 51.0, 52.0])));
        let two = reading(&[0.1, 1.1], tester(values([10.0, 20.0]), values([50.0, 51.0])));
        let merged = TargetMetrics::merge(vec![one, two]);
        let [tester] = &merged.sources[..] else { panic!("one tester: {merged:?}") };
        assert_eq!(tester.series[names::CPU], [Some(11.0), Some(22.0), None]);
        assert_eq!(tester.series[names::MACHINE_CPU], values([50.0, 51.0, 52.0]));
        assert_eq!((tester.process, merged.kept_readings()), (None, None));
    }

    /// A reading a second, or nearly, of two servers, some of whose pages could not be read. No value is there twice.
    fn a_reading(process: usize) -> impl Strategy<Value = Reading> {
        let moment = (-0.2..0.2_f64, any::<bool>(), any::<bool>());
        (0.0..3.0_f64, prop::collection::vec(moment, 0..30)).prop_map(move |(start_s, moments)| {
            let times_s: Vec<f64> =
                (0_u32..).zip(&moments).map(|(at, m)| start_s + f64::from(at) + m.0).collect();
            let unique = |at: usize, server: usize| (process * 1_000 + at * 2 + server) as f64;
            let series = |server: usize, reads: fn(&(f64, bool, bool)) -> bool| -> Series {
                moments.iter().enumerate().map(|(at, m)| reads(m).then(|| unique(at, server))).collect()
            };
            let a = source("http://a", &[(names::RUNNING, series(0, |m| m.1))]);
            let b = source("http://b", &[(names::RUNNING, series(1, |m| m.2))]);
            reading(&times_s, vec![a, b])
        })
    }

    proptest! {
        #[test]
        fn each_value_was_read_near_its_moment_by_the_process_that_is_named(
            readings in (a_reading(1), a_reading(2), a_reading(3)),
        ) {
            let readings = vec![readings.0, readings.1, readings.2];
            let reach_s = Moments::of(&readings).reach_s;
            let merged = TargetMetrics::merge(readings.clone());
            prop_assert!(merged.times_s.is_sorted());
            let count = |source: &Source| source.series.values().flatten().flatten().count();
            for (place, source) in merged.sources.iter().enumerate() {
                let by = &readings[source.process.expect("whose") as usize - 1].read;
                let most = readings.iter().map(|reading| count(&reading.read.sources[place])).max();
                prop_assert_eq!(Some(count(&by.sources[place])), most);
                let series = &source.series[names::RUNNING];
                prop_assert_eq!(series.len(), merged.times_s.len());
                for (at_s, value) in merged.times_s.iter().zip(series).filter(|(_, value)| value.is_some()) {
                    let place = by.sources[place].series[names::RUNNING].iter().position(|read| read == value);
                    let read_at_s = by.times_s[place.expect("read")];
                    prop_assert!((read_at_s - at_s).abs() <= reach_s, "{} at {}", read_at_s, at_s);
                }
            }
        }
    }
}
