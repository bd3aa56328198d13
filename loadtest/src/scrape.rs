//! The target's own metrics, read once a second beside the run, on the run's clock. A target without `/metrics` is
//! fine: its part stays empty. What is kept is bounded: a table of series, and so many moments.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

mod exposition;
mod merge;
mod tester;

pub(crate) use exposition::{names, parse};
pub(crate) use merge::Reading;

/// How often the pages are read, as long as the run is not too long for that.
const EVERY: Duration = Duration::from_secs(1);
/// The longest wait for a page.
const PAGE_TIMEOUT: Duration = Duration::from_millis(900);
/// The most that is read of a page.
const PAGE_BYTES_MAX: usize = 8 << 20;
/// The most addresses that are read.
const SOURCES_MAX: usize = 64;
/// The name under which the tester's own CPU time and memory stand.
pub const TESTER: &str = "tester";

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetMetrics {
    /// CPUs of the machine, where target and tester share it.
    pub cores: Option<u32>,
    /// When the pages were read, in seconds since the run's start.
    pub times_s: Vec<f64>,
    /// The addresses and what they said. The target is the first one; the last, `tester`, is this process, or all
    /// that sent.
    pub sources: Vec<Source>,
}

/// What one address said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// The address without `/metrics`.
    pub address: String,
    /// Series by name, under vLLM's names where a server has others. Each has a value for each time, or null where the
    /// page could not be read or lacked it. Series of one name that differ in labels are added up; shares, such as
    /// the KV cache's usage, give the largest.
    pub series: BTreeMap<String, Vec<Option<f64>>>,
    /// Why the last page that could not be read could not.
    pub error: Option<String>,
    /// In a merged report, which process read it, counted from 1 in the order in which parts were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
}

impl TargetMetrics {
    /// The most moments; then every second one is dropped, and they come half as often from there on.
    pub const TIMES_MAX: usize = 1_200;

    fn new(addresses: Vec<String>, cores: Option<u32>) -> Self {
        let sources = addresses.into_iter().map(|address| Source { address, ..Source::default() });
        Self { cores, times_s: Vec::new(), sources: sources.collect() }
    }

    /// Adds one moment; a page for each source, in their order.
    fn push(&mut self, at_s: f64, pages: Vec<Result<BTreeMap<&'static str, f64>, String>>) {
        let before = self.times_s.len();
        self.times_s.push(at_s);
        for (source, page) in self.sources.iter_mut().zip(pages) {
            match page {
                Err(error) => source.error = Some(error),
                Ok(page) => {
                    for (name, value) in page {
                        let series = source.series.entry(name.to_owned()).or_default();
                        series.resize(before, None);
                        series.push(Some(value));
                    }
                }
            }
            source.series.values_mut().for_each(|series| series.resize(before + 1, None));
        }
    }

    /// Drops every second moment when there are too many. True when it did.
    fn thin_out(&mut self) -> bool {
        if self.times_s.len() < Self::TIMES_MAX {
            return false;
        }
        self.times_s = every_second(&self.times_s);
        for series in self.sources.iter_mut().flat_map(|source| source.series.values_mut()) {
            *series = every_second(series);
        }
        true
    }

    /// The series `name` over all servers, each moment's values put together by `join`: with its times, and without the
    /// moments at which nobody had one.
    pub fn over_servers(&self, name: &str, join: fn(f64, f64) -> f64) -> Vec<(f64, f64)> {
        let of_servers = self.sources.iter().filter(|source| source.address != TESTER);
        let series: Vec<_> = of_servers.filter_map(|source| source.series.get(name)).collect();
        let at = |index: usize| {
            series.iter().filter_map(|series| series.get(index).copied().flatten()).reduce(join)
        };
        let times = self.times_s.iter().enumerate();
        times.filter_map(|(index, at_s)| at(index).map(|value| (*at_s, value))).collect()
    }

    /// The series' sum over all servers.
    pub fn sum(&self, name: &str) -> Vec<(f64, f64)> {
        self.over_servers(name, |a, b| a + b)
    }

    /// The series' largest value of any server.
    pub fn max(&self, name: &str) -> Vec<(f64, f64)> {
        self.over_servers(name, f64::max)
    }

    /// Changes a second of the counter `name`, of all servers together, at the end of each stretch. Each server's own are
    /// added up, so that one that starts anew does not disturb the others'.
    pub fn rate(&self, name: &str) -> Vec<(f64, f64)> {
        let mut sums: BTreeMap<u64, f64> = BTreeMap::new();
        for source in self.counted_once(name) {
            for (at_s, rate) in rates(&self.of(source, name)) {
                // Times are positive, so their bits are in their order.
                *sums.entry(at_s.to_bits()).or_default() += rate;
            }
        }
        sums.into_iter().map(|(at_bits, rate)| (f64::from_bits(at_bits), rate)).collect()
    }

    /// The servers whose series `name` counts. Servers of one process, as those of `tenk up` are, all tell that process'
    /// CPU time: they have started at one moment.
    fn counted_once(&self, name: &str) -> impl Iterator<Item = &Source> {
        let started = |source: &Source| {
            let at_s = source.series.get(names::STARTED)?.iter().flatten().next()?;
            Some((host(&source.address), at_s.to_bits()))
        };
        let mut seen = Vec::new();
        let of_process = name == names::CPU;
        self.sources.iter().filter(|source| source.address != TESTER).filter(move |source| {
            let Some(process) = started(source).filter(|_| of_process) else { return true };
            let is_new = !seen.contains(&process);
            seen.push(process);
            is_new
        })
    }

    fn of(&self, source: &Source, name: &str) -> Vec<(f64, f64)> {
        let pairs = self.times_s.iter().zip(source.series.get(name).into_iter().flatten());
        pairs.filter_map(|(at_s, value)| value.map(|value| (*at_s, value))).collect()
    }

    /// The series of this process.
    pub fn of_tester(&self, name: &str) -> Vec<(f64, f64)> {
        let tester = self.sources.iter().find(|source| source.address == TESTER);
        tester.map_or_else(Vec::new, |tester| self.of(tester, name))
    }

    /// By how much the counter `name` grew over the run, all servers together. None where no server has it.
    pub fn growth(&self, name: &str) -> Option<f64> {
        let of_servers = self.sources.iter().filter(|source| source.address != TESTER);
        let series = of_servers.map(|source| self.of(source, name)).filter(|series| !series.is_empty());
        let growth = |series: Vec<(f64, f64)>| -> f64 {
            series.windows(2).map(|pair| grown(pair[0].1, pair[1].1)).sum()
        };
        series.map(growth).reduce(|a, b| a + b)
    }
}

fn every_second<T: Clone>(values: &[T]) -> Vec<T> {
    values.iter().step_by(2).cloned().collect()
}

/// Changes a second of a counter, at the end of each stretch; a restart, which makes it smaller, counts from 0.
pub(crate) fn rates(counter: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let rate = |pair: &[(f64, f64)]| {
        let ((from_s, before), (to_s, after)) = (pair[0], pair[1]);
        (to_s > from_s).then(|| (to_s, grown(before, after) / (to_s - from_s)))
    };
    counter.windows(2).filter_map(rate).collect()
}

const fn grown(before: f64, after: f64) -> f64 {
    if after >= before { after - before } else { after }
}

/// Reads pages until it is told to stop.
#[derive(Debug)]
pub(crate) struct Scraper {
    stop: CancellationToken,
    task: JoinHandle<TargetMetrics>,
}

impl Scraper {
    /// Starts reading `target` and `others`, addresses without `/metrics`, beginning when `clock` does, whose times they get.
    pub(crate) fn start(target: &str, others: &[String], clock: Clock) -> Self {
        let stop = CancellationToken::new();
        let mut addresses = vec![target.to_owned()];
        for other in others.iter().map(|address| address.trim_end_matches('/')) {
            if !addresses.iter().any(|address| address == other) {
                addresses.push(other.to_owned());
            }
        }
        addresses.truncate(SOURCES_MAX);
        let task = tokio::spawn(scrape(addresses, clock, stop.clone()));
        Self { stop, task }
    }

    /// Stops, and gives back what was read; nothing if the reader broke down.
    pub(crate) async fn finish(self) -> TargetMetrics {
        self.stop.cancel();
        self.task.await.unwrap_or_default()
    }
}

async fn scrape(mut addresses: Vec<String>, clock: Clock, stop: CancellationToken) -> TargetMetrics {
    let reader = Reader::new(&addresses);
    let cores = addresses.first().filter(|target| is_loopback(target)).and_then(|_| cores());
    addresses.push(TESTER.to_owned());
    let mut read = TargetMetrics::new(addresses, cores);
    let mut every = EVERY;
    // Until then the clock stands still.
    let mut ticks = tokio::time::interval_at(clock.started_at().max(tokio::time::Instant::now()), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        if stop.run_until_cancelled(ticks.tick()).await.is_none() {
            return read;
        }
        let at_s = clock.now_us() as f64 / 1e6;
        // At this moment, and not when the last page has come: that of a server that stands still never does.
        let own = tester::read(cores).ok_or_else(|| "only Linux tells".to_owned());
        let Some(mut pages) = stop.run_until_cancelled(reader.read()).await else { return read };
        pages.push(own);
        read.push(at_s, pages);
        if read.thin_out() {
            every *= 2;
            ticks = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        }
    }
}

fn cores() -> Option<u32> {
    std::thread::available_parallelism().ok().and_then(|cores| u32::try_from(cores.get()).ok())
}

fn host(address: &str) -> Option<String> {
    address.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned))
}

fn is_loopback(address: &str) -> bool {
    host(address).is_some_and(|host| {
        host == "localhost"
            || host == "[::1]"
            || host.parse::<std::net::Ipv4Addr>().is_ok_and(|host| host.is_loopback())
    })
}

struct Reader {
    http: hyper_util::client::legacy::Client<HttpConnector, Empty<Bytes>>,
    pages: Vec<Result<Uri, String>>,
}

impl Reader {
    fn new(addresses: &[String]) -> Self {
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        let page = |address: &String| {
            format!("{address}/metrics").parse().map_err(|_| format!("{address} is no address"))
        };
        Self { http, pages: addresses.iter().map(page).collect() }
    }

    async fn read(&self) -> Vec<Result<BTreeMap<&'static str, f64>, String>> {
        join_all(self.pages.iter().map(|page| async move {
            let page = page.as_ref().map_err(Clone::clone)?;
            let text = tokio::time::timeout(PAGE_TIMEOUT, self.fetch(page));
            text.await.map_err(|_| "no answer within 0.9 s".to_owned())?.map(|text| parse(&text))
        }))
        .await
    }

    async fn fetch(&self, page: &Uri) -> Result<String, String> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = page.clone();
        let response = self.http.request(request).await.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), PAGE_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        String::from_utf8(body.into()).map_err(|_| "the page is no text".to_owned())
    }
}

#[cfg(test)]
mod tests;
