//! The bench that labs work at: servers, load, and a look at their metrics.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio_util::sync::CancellationToken;

use super::child::Server;
use super::say;
use crate::error::Error;
use crate::figures::{Figures, Runner};
use crate::report::Report;
use crate::runner::Driver;
use crate::scenario::Scenario;

/// The most that is read of a page of metrics.
const METRICS_BYTES_MAX: usize = 4 << 20;
/// How often a gauge is looked at while a load runs.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Everything that a lab may use.
#[derive(Debug)]
pub(super) struct Bench {
    program: PathBuf,
    model: String,
    dir: PathBuf,
    stop: CancellationToken,
    driver: Driver,
    http: Client<HttpConnector, Empty<Bytes>>,
}

impl Bench {
    /// A bench that keeps its files in `dir`, which is made if absent.
    pub(super) fn new(
        program: PathBuf,
        model: String,
        dir: PathBuf,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        std::fs::create_dir_all(&dir).map_err(|source| Error::File { path: dir.clone(), source })?;
        let driver = Driver { report_dir: Some(dir.clone()), ..Driver::default() };
        let http = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { program, model, dir, stop, driver, http })
    }

    /// Where the lab may write.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts a worker with settings of its own.
    pub(super) async fn worker(&self, env: &[(&str, String)]) -> Result<Server, Error> {
        say(&format!("… a worker loads {}", self.model));
        self.start(&["worker", "--model", &self.model], env).await
    }

    /// Starts a gateway in front of a worker.
    pub(super) async fn gateway(&self, worker: &Server, env: &[(&str, String)]) -> Result<Server, Error> {
        let gateway = self.start(&["gateway", "--worker", &worker.address], env).await?;
        // It lists the worker's models once it has seen it.
        let ready = format!("{}/health/ready", gateway.address);
        for _ in 0..100 {
            if self.get(&ready).await.is_ok() {
                return Ok(gateway);
            }
            let pause = tokio::time::sleep(WATCH_INTERVAL);
            self.stop.run_until_cancelled(pause).await.ok_or(Error::Interrupted)?;
        }
        Err(Error::Unreachable { address: ready, reason: "it does not become ready".into() })
    }

    async fn start(&self, args: &[&str], env: &[(&str, String)]) -> Result<Server, Error> {
        let args: Vec<String> =
            args.iter().chain(&["--listen", "127.0.0.1:0"]).map(|arg| (*arg).to_owned()).collect();
        Server::start(&self.program, &args, env, &self.stop).await
    }

    /// Loads a server, and keeps the run's report in a folder called `label`.
    ///
    /// # Errors
    /// When requests failed: a lab's figures are of what it meant to measure, or there are none.
    pub(super) async fn load(&mut self, scenario: Scenario, label: &str) -> Result<Report, Error> {
        say(&format!("… {}", scenario.question));
        let report = self.driver.run(scenario, label, &self.stop).await?;
        if report.interrupted() {
            return Err(Error::Interrupted);
        }
        if let Some(error) = report.errors.first() {
            return Err(Error::Broken(format!(
                "{} requests failed, such as: {}",
                report.requests.failed, error.example
            )));
        }
        Ok(report)
    }

    /// Loads a server and gives the highest value of one of its gauges meanwhile, too.
    pub(super) async fn load_watching(
        &mut self,
        scenario: Scenario,
        label: &str,
        gauge: &str,
    ) -> Result<(Report, f64), Error> {
        let (http, server) = (self.http.clone(), scenario.target.clone());
        let mut highest = 0.0_f64;
        let watching = async {
            loop {
                if let Ok(text) = get(&http, &format!("{server}/metrics")).await {
                    highest = highest.max(sum(&text, gauge, ""));
                }
                tokio::time::sleep(WATCH_INTERVAL).await;
            }
        };
        let report = tokio::select! {
            report = self.load(scenario, label) => report?,
            () = watching => return Err(Error::Broken("the metrics are no longer watched".into())),
        };
        Ok((report, highest))
    }

    /// The sum of a metric's series whose labels hold `labels`, as the server has it now.
    pub(super) async fn metric(&self, server: &Server, name: &str, labels: &str) -> Result<f64, Error> {
        Ok(sum(&self.get(&format!("{}/metrics", server.address)).await?, name, labels))
    }

    async fn get(&self, address: &str) -> Result<String, Error> {
        get(&self.http, address).await
    }
}

async fn get(http: &Client<HttpConnector, Empty<Bytes>>, address: &str) -> Result<String, Error> {
    let unreachable = |reason: String| Error::Unreachable { address: address.to_owned(), reason };
    let uri = address.parse().map_err(|_| unreachable("it is no address".into()))?;
    let response = http.get(uri).await.map_err(|error| unreachable(error.to_string()))?;
    if !response.status().is_success() {
        return Err(unreachable(format!("status {}", response.status().as_u16())));
    }
    let body = Limited::new(response.into_body(), METRICS_BYTES_MAX).collect().await;
    let body = body.map_err(|error| unreachable(error.to_string()))?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Adds up the samples called `name` in a page of metrics; 0 where there are none.
fn sum(text: &str, name: &str, labels: &str) -> f64 {
    let sample = |line: &str| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
        let (found, value) = rest.rsplit_once(' ')?;
        if found.contains(labels) { value.parse::<f64>().ok() } else { None }
    };
    text.lines().filter_map(sample).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_name_are_added_up_by_label() {
        let text = "# HELP hits x\nhits{result=\"a\"} 2\nhits{result=\"b\"} 3.5\nhits_total 9\nother 1\n";
        assert_eq!(
            [sum(text, "hits", ""), sum(text, "hits", "\"b\""), sum(text, "none", "")],
            [5.5, 3.5, 0.0]
        );
        assert_eq!(sum(text, "hits_total", ""), 9.0);
    }
}
