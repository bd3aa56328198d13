//! How much work one core of the tester does, and whether it keeps its memory, against a server in another process that
//! says the same bytes to everyone. Its figures are CPU time of the whole tester process, system time included, so
//! they hold on a machine that others use too.
//!
//!     cargo run --release -p loadtest --example efficiency [PART OF A NAME] [--json]

#![expect(clippy::print_stdout, reason = "its figures are for people")]

use std::io::BufRead;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use loadtest::LoadTest;
use loadtest::report::Report;
use loadtest::scenario::{Answers, Arrivals, Length, Prompts, Scenario};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const WHOLE_TOKENS: u32 = 16;
const STREAMED_TOKENS: u32 = 128;
/// An answer of so many tokens comes at a pace.
const PACED_TOKENS: u32 = 129;
const PACE: Duration = Duration::from_millis(20);

#[derive(Parser)]
struct Args {
    /// Measure only that whose name contains this
    only: Option<String>,
    /// Print a JSON document a line, for programs
    #[arg(long)]
    json: bool,
    /// Be the server, and measure nothing
    #[arg(long, value_name = "ADDRESS")]
    serve: Option<SocketAddr>,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let args = Args::parse();
    if let Some(address) = args.serve {
        return runtime.block_on(serve(address));
    }
    let server = Server::start()?;
    runtime.block_on(async {
        if !args.json {
            println!("{:<48}{:>10}{:>12}{:>12}{:>10}", "", "wall s", "CPU s", "per CPU s", "RSS MiB");
        }
        let poisson = |rate| Arrivals::Poisson { rate };
        let scenarios = [
            ("whole answers, 64 users, to warm up", server.whole(50_000, users(64))),
            ("whole answers, 64 users", server.whole(250_000, users(64))),
            ("whole answers, 64 users, once more", server.whole(250_000, users(64))),
            ("whole answers, 5,000/s for 20 s", server.whole(100_000, poisson(5_000.0))),
            ("whole answers, 20,000/s for 5 s", server.whole(100_000, poisson(20_000.0))),
            ("streamed answers, 64 users", server.streamed(20_000, users(64))),
            ("a token every 20 ms, 200/s for 20 s", server.paced(4_000, poisson(200.0))),
        ];
        let chosen = |what: &str| args.only.as_ref().is_none_or(|only| what.contains(only.as_str()));
        for (what, scenario) in scenarios.iter().filter(|(what, _)| chosen(what)) {
            let measured = Measured::take(what, scenario).await?;
            match args.json {
                true => println!("{}", serde_json::to_string(&measured)?),
                false => measured.print(),
            }
        }
        Ok(())
    })
}

const fn users(users: u32) -> Arrivals {
    Arrivals::ClosedLoop { users, think_time_s: 0.0 }
}

/// What a run came to.
#[derive(serde::Serialize)]
struct Measured<'a> {
    what: &'a str,
    wall_s: f64,
    cpu_s: f64,
    succeeded: u64,
    requests_per_cpu_s: f64,
    /// Of answers that were streamed.
    tokens_per_cpu_s: Option<f64>,
    resident_mib: f64,
    dispatch_delay_p50_ms: f64,
    dispatch_delay_p99_ms: f64,
    /// How many, and what the first one said.
    failed: Vec<(u64, String)>,
}

impl<'a> Measured<'a> {
    async fn take(what: &'a str, scenario: &Scenario) -> Result<Self> {
        let before_s = cpu_s()?;
        let report: Report = LoadTest::new(scenario.clone()).run(CancellationToken::new()).await?;
        let cpu_s = cpu_s()? - before_s;
        let figure = |name: &str| report.figure(name).context("no request");
        let is_streamed = scenario.answers.streamed > 0.0;
        Ok(Self {
            what,
            wall_s: report.span_s,
            cpu_s,
            succeeded: report.requests.succeeded,
            requests_per_cpu_s: report.requests.succeeded as f64 / cpu_s,
            tokens_per_cpu_s: is_streamed.then_some(report.tokens.output as f64 / cpu_s),
            resident_mib: rss_mib()?,
            dispatch_delay_p50_ms: figure("dispatch_delay_p50_ms")?,
            dispatch_delay_p99_ms: figure("dispatch_delay_p99_ms")?,
            failed: report.errors.iter().map(|error| (error.count, error.example.clone())).collect(),
        })
    }

    fn print(&self) {
        let Self { what, wall_s, cpu_s, requests_per_cpu_s, resident_mib, .. } = self;
        println!("{what:<48}{wall_s:>10.2}{cpu_s:>12.2}{requests_per_cpu_s:>12.0}{resident_mib:>10.1}");
        if let Some(tokens_per_cpu_s) = self.tokens_per_cpu_s {
            println!("{:<48}{tokens_per_cpu_s:>34.0}", "  tokens");
        }
        for (count, example) in &self.failed {
            println!("{:<48}{count}: {example}", "  failed");
        }
        let (p50_ms, p99_ms) = (self.dispatch_delay_p50_ms, self.dispatch_delay_p99_ms);
        println!("{:<48}{p50_ms:>10.3} ms p50 {p99_ms:>10.3} ms p99", "  dispatch delay");
    }
}

/// CPU time of this process.
fn cpu_s() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
}

fn rss_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(kib.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// The server's process; it ends with this.
struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--serve", "127.0.0.1:0"]);
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        let stdout = process.stdout.take().context("no output")?;
        std::io::BufReader::new(stdout).read_line(&mut address)?;
        Ok(Self { process, address: address.trim().to_owned() })
    }

    fn scenario(&self, requests: u64, arrivals: Arrivals) -> Scenario {
        let tokens = Length::Fixed(32);
        Scenario {
            target: self.address.clone(),
            model: Some("canned".into()),
            arrivals,
            requests: Some(requests),
            prompts: Prompts::Synthetic {
                tokens,
                shared_prefix_tokens: 0,
                shared_prefixes: 1,
                repeats: None,
            },
            ..Scenario::default()
        }
    }

    fn answers(&self, requests: u64, arrivals: Arrivals, max_tokens: u32, streamed: f64) -> Scenario {
        let answers = Answers { max_tokens: Length::Fixed(max_tokens), streamed, ..Answers::default() };
        Scenario { answers, ..self.scenario(requests, arrivals) }
    }

    fn whole(&self, requests: u64, arrivals: Arrivals) -> Scenario {
        self.answers(requests, arrivals, WHOLE_TOKENS, 0.0)
    }

    fn streamed(&self, requests: u64, arrivals: Arrivals) -> Scenario {
        self.answers(requests, arrivals, STREAMED_TOKENS, 1.0)
    }

    fn paced(&self, requests: u64, arrivals: Arrivals) -> Scenario {
        self.answers(requests, arrivals, PACED_TOKENS, 1.0)
    }
}

/// What the server says, ready to be written.
struct Canned {
    missing: &'static [u8],
    whole: Vec<u8>,
    stream: Vec<Vec<u8>>,
}

impl Canned {
    fn new() -> Self {
        let text = " word".repeat(WHOLE_TOKENS as usize);
        let body = format!(
            r#"{{"id":"chatcmpl-0","object":"chat.completion","created":1,"model":"canned","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"logprobs":null,"finish_reason":"length"}}],"usage":{{"prompt_tokens":32,"completion_tokens":{WHOLE_TOKENS},"total_tokens":48}}}}"#
        );
        let length = body.len();
        let whole = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = |data: &str| format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8).into_bytes();
        let event = |choices: &str, usage: &str| {
            chunk(&format!(
                r#"{{"id":"chatcmpl-0","object":"chat.completion.chunk","created":1,"model":"canned","choices":[{choices}],"usage":{usage}}}"#
            ))
        };
        let text = r#"{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}"#;
        let mut stream = vec![head.as_bytes().to_vec()];
        stream.extend((0..STREAMED_TOKENS).map(|_| event(text, "null")));
        let end = r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}"#;
        let usage =
            format!(r#"{{"prompt_tokens":32,"completion_tokens":{STREAMED_TOKENS},"total_tokens":160}}"#);
        stream.push([event(end, "null"), event("", &usage), chunk("[DONE]"), b"0\r\n\r\n".to_vec()].concat());
        Self { missing: b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", whole: whole.into(), stream }
    }
}

async fn serve(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    let canned: &'static Canned = Box::leak(Box::new(Canned::new()));
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(answer(stream, canned));
    }
}

/// Answers one request after the other until the client leaves.
async fn answer(mut stream: TcpStream, canned: &Canned) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::with_capacity(16 << 10);
    loop {
        request.clear();
        while !is_whole(&request) {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        if !request.starts_with(b"POST /v1/chat/completions") {
            stream.write_all(canned.missing).await?;
        } else if contains(&request, b"\"stream\":false") {
            stream.write_all(&canned.whole).await?;
        } else {
            let is_paced = contains(&request, format!("\"max_tokens\":{PACED_TOKENS}").as_bytes());
            for piece in &canned.stream {
                stream.write_all(piece).await?;
                // Each token is a write of its own, after one of every other stream.
                match is_paced {
                    true => tokio::time::sleep(PACE).await,
                    false => tokio::task::yield_now().await,
                }
            }
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn is_whole(request: &[u8]) -> bool {
    let Some(head) = request.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&request[..head]);
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    request.len() >= head + 4 + length.and_then(|length| length.parse::<usize>().ok()).unwrap_or(0)
}
