//! The gateway beside nginx as a proxy and vLLM's router, in front of an upstream that costs next to nothing.
//!
//! The upstream is nginx too: it answers every chat with the same bytes. Authentication, limits, metrics and tracing are
//! on in the gateway; like its peers it logs warnings alone. What its cache answers is measured apart, in front of a
//! worker whose version is known.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::load::{Wrk, wrk, wrk_script};
use super::server::{Server, free_address, work_folder};
use super::{Bench, Figure, Required, median};
use crate::needs::{packages, python};

const SECONDS: u32 = 5;
const CHAT: &str = "/v1/chat/completions";

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    packages::install_missing(packages::OF_BARS, bench.unattended)?;
    let work = work_folder(&bench.target)?;
    let key = Key::new(bench)?;
    let (upstream, proxy) = (free_address()?, free_address()?);
    let _upstream = nginx(&work, "upstream", upstream, &upstream_routes())?;
    let proxy = nginx(&work, "proxy", proxy, &proxy_routes(upstream))?;
    let gateway = start_gateway(bench, &work, "gateway", &format!("http://{upstream}"), &key)?;
    let router = start_router(bench, &work, upstream)?;
    let worker = start_worker(bench, &work)?;
    let caching = start_gateway(bench, &work, "caching", &worker.url(), &key)?;

    let sampled = script(&work, "sampled", "foreign", 1, &key)?;
    let greedy = script(&work, "greedy", "smollm2-135m-instruct", 0, &key)?;
    wrk(&format!("{}{CHAT}", caching.url()), 1, 1, &greedy).context("the first answer, to be cached")?;

    let direct_url = format!("http://{upstream}");
    let sides = [
        Side { name: "nginx proxy", url: proxy.url(), server: Some(&proxy), script: &sampled },
        Side { name: "vLLM's router", url: router.url(), server: Some(&router), script: &sampled },
        Side { name: "gateway", url: gateway.url(), server: Some(&gateway), script: &sampled },
        Side { name: "gateway's cache", url: caching.url(), server: Some(&caching), script: &greedy },
        Side { name: "upstream alone", url: direct_url, server: None, script: &sampled },
    ];
    let mut runs: Vec<Runs> = sides.iter().map(|_| Runs::default()).collect();
    for _ in 0..bench.pairs {
        for (side, runs) in sides.iter().zip(&mut runs) {
            runs.add(side)?;
        }
    }
    let medians: Vec<Medians> = runs.iter().map(Runs::medians).collect();
    let [nginx, router, gateway, cache, alone] = medians.as_slice() else {
        anyhow::bail!("a side is missing")
    };
    Ok([rates(nginx, router, gateway, cache), costs(nginx, router, gateway, cache, alone)].concat())
}

struct Side<'a> {
    name: &'static str,
    url: String,
    server: Option<&'a Server>,
    script: &'a Path,
}

#[derive(Default)]
struct Runs {
    requests_per_s: Vec<f64>,
    cpu_us: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
}

struct Medians {
    requests_per_s: f64,
    cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Runs {
    /// Throughput over 64 connections, then latency over one.
    fn add(&mut self, side: &Side<'_>) -> Result<()> {
        let url = format!("{}{CHAT}", side.url);
        let before_us = side.server.map_or(Ok(0.0), Server::cpu_us)?;
        let busy = wrk(&url, 64, SECONDS, side.script).with_context(|| side.name)?;
        let after_us = side.server.map_or(Ok(0.0), Server::cpu_us)?;
        let Wrk { p50_us, p99_us, .. } = wrk(&url, 1, SECONDS, side.script).with_context(|| side.name)?;
        self.requests_per_s.push(busy.requests_per_s);
        self.cpu_us.push((after_us - before_us) / busy.requests);
        self.p50_us.push(p50_us);
        self.p99_us.push(p99_us);
        Ok(())
    }

    fn medians(&self) -> Medians {
        Medians {
            requests_per_s: median(self.requests_per_s.clone()),
            cpu_us: median(self.cpu_us.clone()),
            p50_us: median(self.p50_us.clone()),
            p99_us: median(self.p99_us.clone()),
        }
    }
}

fn rates(nginx: &Medians, router: &Medians, gateway: &Medians, cache: &Medians) -> Vec<Figure> {
    let rate = |name: &str, side: &Medians| Figure::new(name, side.requests_per_s, "requests/s");
    let ratio = |name: &str, side: &Medians, peer: &Medians, unit| {
        Figure::new(name, side.requests_per_s / peer.requests_per_s, unit)
    };
    vec![
        rate("nginx proxy, 64 connections", nginx),
        rate("vLLM's router, 64 connections", router),
        rate("gateway, 64 connections", gateway),
        ratio("gateway, ratio", gateway, nginx, "× nginx").required(Required::AtLeast(0.6)),
        ratio("gateway, ratio", gateway, router, "× vLLM's router").required(Required::AtLeast(1.3)),
        rate("gateway's cache, 64 connections", cache).required(Required::AtLeast(10_000.0)),
        ratio("gateway's cache, ratio", cache, nginx, "× nginx").required(Required::AtLeast(1.5)),
    ]
}

/// Processor time a request at the highest rate, and what a hop adds to one request at a time.
fn costs(
    nginx: &Medians,
    router: &Medians,
    gateway: &Medians,
    cache: &Medians,
    alone: &Medians,
) -> Vec<Figure> {
    let cpu = |name: &str, side: &Medians| {
        Figure::new(format!("{name}, processor time"), side.cpu_us, "µs/request")
    };
    let added = |name: &str, side: &Medians| {
        [
            Figure::new(format!("{name} adds, p50"), side.p50_us - alone.p50_us, "µs"),
            Figure::new(format!("{name} adds, p99"), side.p99_us - alone.p99_us, "µs"),
        ]
    };
    let hops = [("nginx proxy", nginx), ("vLLM's router", router), ("gateway", gateway)];
    let mut costs: Vec<Figure> = hops.iter().map(|(name, side)| cpu(name, side)).collect();
    costs.push(cpu("gateway's cache", cache));
    costs.extend(hops.iter().flat_map(|(name, side)| added(name, side)));
    costs
}

/// An API key and its line in the configuration.
struct Key {
    key: String,
    toml: String,
}

impl Key {
    fn new(bench: &Bench) -> Result<Self> {
        let output = Command::new(&bench.tenk).args(["key", "new", "--tenant", "bars"]).output()?;
        ensure!(output.status.success(), "no key could be made");
        let said = String::from_utf8(output.stderr)?;
        let toml = said.find("[[gateway.keys]]").map(|at| said[at..].to_owned());
        Ok(Self {
            key: String::from_utf8(output.stdout)?.trim().to_owned(),
            toml: toml.context("`tenk key new` printed no configuration")?,
        })
    }
}

fn start_gateway(bench: &Bench, work: &Path, name: &str, worker: &str, key: &Key) -> Result<Server> {
    let configuration = work.join(format!("{name}.toml"));
    std::fs::write(&configuration, format!("[log]\nfilter = \"warn\"\n\n{}", key.toml))?;
    let address = free_address()?;
    let mut command = Command::new(&bench.tenk);
    command.args(["gateway", "--listen", &address.to_string(), "--worker", worker]);
    command.arg("--config").arg(&configuration);
    Server::start(command, address, &work.join(format!("{name}.log")))?.ready("/health/ready")
}

/// As it comes, but for its log: one worker, round robin.
fn start_router(bench: &Bench, work: &Path, upstream: SocketAddr) -> Result<Server> {
    let python = python::environment(&bench.target, python::OF_GATEWAY_BARS)?;
    let (address, metrics) = (free_address()?, free_address()?);
    let mut command = Command::new(python.with_file_name("vllm-router"));
    command.args(["--host", "127.0.0.1", "--port", &address.port().to_string()]);
    command.args(["--worker-urls", &format!("http://{upstream}"), "--policy", "round_robin"]);
    command.args(["--log-level", "warning", "--prometheus-port", &metrics.port().to_string()]);
    Server::start(command, address, &work.join("router.log"))?.ready("/health")
}

fn start_worker(bench: &Bench, work: &Path) -> Result<Server> {
    let address = free_address()?;
    let mut command = Command::new(&bench.tenk);
    command.args(["worker", "--model", "smollm2-135m-instruct", "--listen", &address.to_string()]);
    Server::start(command, address, &work.join("cached-worker.log"))
}

fn script(work: &Path, name: &str, model: &str, temperature: u32, key: &Key) -> Result<PathBuf> {
    let body = format!(
        r#"{{"model":"{model}","temperature":{temperature},"max_tokens":16,"messages":[{{"role":"user","content":"What is the capital of France?"}}]}}"#
    );
    let path = work.join(format!("{name}.lua"));
    std::fs::write(&path, wrk_script(&body, &key.key))?;
    Ok(path)
}

fn nginx(work: &Path, name: &str, address: SocketAddr, routes: &str) -> Result<Server> {
    let folder = work.join(name);
    std::fs::create_dir_all(&folder)?;
    let configuration = folder.join("nginx.conf");
    let folder_text = folder.display();
    let text = format!(
        "worker_processes 1;\npid {folder_text}/nginx.pid;\nerror_log {folder_text}/error.log;\nevents {{ worker_connections 1024; }}\n\
         http {{\naccess_log off;\nclient_body_temp_path {folder_text}/body;\nproxy_temp_path {folder_text}/proxy;\n\
         fastcgi_temp_path {folder_text}/fastcgi;\nuwsgi_temp_path {folder_text}/uwsgi;\nscgi_temp_path {folder_text}/scgi;\n\
         keepalive_requests 1000000000;\n{routes}\n}}\n"
    )
    .replace("@LISTEN@", &address.to_string());
    std::fs::write(&configuration, text)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&folder).arg("-c").arg(&configuration).args(["-g", "daemon off;"]);
    Server::start(command, address, &folder.join("nginx.log"))
}

/// Bytes that a server of OpenAI's API could have sent.
fn upstream_routes() -> String {
    let models = r#"{"object":"list","data":[{"id":"foreign","object":"model","created":1,"owned_by":"x"}]}"#;
    let answer = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"foreign","choices":[{"index":0,"message":{"role":"assistant","content":"The capital of France is Paris."},"finish_reason":"stop"}],"usage":{"prompt_tokens":16,"completion_tokens":8,"total_tokens":24}}"#;
    format!(
        "server {{ listen @LISTEN@; default_type application/json;\n\
         location = /v1/models {{ return 200 '{models}'; }}\n\
         location = {CHAT} {{ return 200 '{answer}'; }}\n\
         location = /health {{ return 200 'ok'; }}\n\
         location / {{ return 404; }} }}"
    )
}

fn proxy_routes(upstream: SocketAddr) -> String {
    format!(
        "upstream one {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}\n\
         server {{ listen @LISTEN@; location / {{ proxy_pass http://one; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; }} }}"
    )
}
