//! A server whose times are known, to measure load testers by: it answers each chat with so many tokens, each at the
//! moment that its flags say, and now and then it can stall. Moments are counted from the request and not from the
//! token before, so that what is late once adds nothing to what follows. Each connection has a thread of its own, for
//! a thread wakes within a tenth of a millisecond, where a runtime's timers are good to a whole one.
//!
//!     cargo run --release -p loadtest --example scripted_target -- --listen 127.0.0.1:9000 --ttft-ms 200

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};

const MODEL: &str = "scripted";
/// One token to a tokenizer that divides at blanks.
const TOKEN: &str = " word";
const BODY_BYTES_MAX: usize = 1 << 20;
const EVENT_STREAM: &str = "content-type: text/event-stream\r\ntransfer-encoding: chunked";

#[derive(Clone, Debug, Parser)]
struct Script {
    #[arg(long)]
    listen: SocketAddr,
    /// From the request to the first token; a chunk with only a role comes at once
    #[arg(long, default_value_t = 200)]
    ttft_ms: u64,
    /// From one token to the next
    #[arg(long, default_value_t = 20)]
    inter_token_ms: u64,
    /// Of each answer
    #[arg(long, default_value_t = 32)]
    tokens: u32,
    /// In each stretch of so many seconds …
    #[arg(long, default_value_t = 10)]
    stall_every: u64,
    /// … the last so many seconds bring no byte to anybody
    #[arg(long, default_value_t = 0)]
    stall_for: u64,
}

impl Script {
    /// When the n-th token of a request that came at `asked` is sent; both since the start.
    fn sent_at(&self, asked: Duration, nth: u32) -> Duration {
        let since_asked = self.ttft_ms + self.inter_token_ms * u64::from(nth);
        self.after_stall(asked + Duration::from_millis(since_asked))
    }

    /// Then, or when the stall is over that there is then.
    fn after_stall(&self, at: Duration) -> Duration {
        let every_ns = Duration::from_secs(self.stall_every).as_nanos();
        let stall_ns = Duration::from_secs(self.stall_for).as_nanos();
        let into_ns = at.as_nanos() % every_ns;
        let wait_ns = if into_ns >= every_ns - stall_ns { every_ns - into_ns } else { 0 };
        at + Duration::from_nanos(u64::try_from(wait_ns).unwrap_or(0))
    }
}

fn main() -> Result<()> {
    let script = Script::parse();
    ensure!(script.stall_every > script.stall_for, "--stall-every must be longer than --stall-for");
    let listener = TcpListener::bind(script.listen)?;
    let started = Instant::now();
    for stream in listener.incoming() {
        let (stream, script) = (stream?, script.clone());
        // A client that leaves ends its connection's thread, and nothing else.
        std::thread::spawn(move || Connection::new(stream, script, started)?.serve());
    }
    Ok(())
}

struct Connection {
    script: Script,
    started: Instant,
    from: BufReader<TcpStream>,
    to: TcpStream,
}

impl Connection {
    fn new(stream: TcpStream, script: Script, started: Instant) -> Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { script, started, from: BufReader::new(stream.try_clone()?), to: stream })
    }

    /// Answers one request after the other until the client leaves.
    fn serve(mut self) -> Result<()> {
        while let Some((line, body)) = self.request()? {
            let asked = self.started.elapsed();
            self.wait_until(self.script.after_stall(asked));
            match line.as_str() {
                "GET /v1/models" => {
                    self.whole(200, &json!({"object": "list", "data": [{"id": MODEL, "object": "model"}]}))
                }
                "POST /v1/chat/completions" => {
                    let body: Value = serde_json::from_slice(&body)?;
                    match body["stream"] == true {
                        true => self.stream(asked, &body),
                        false => self.wait_and_tell_all(asked, &body),
                    }
                }
                _ => self.whole(404, &json!({"error": {"message": "no such path"}})),
            }?;
        }
        Ok(())
    }

    /// The next request's method with its path, and its body.
    fn request(&mut self) -> Result<Option<(String, Vec<u8>)>> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if self.from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_ascii_lowercase()),
            }
        }
        let length = head.iter().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(Ok(0), |length| length.trim().parse())?;
        ensure!(length <= BODY_BYTES_MAX, "a body of {length} bytes");
        let mut body = vec![0; length];
        self.from.read_exact(&mut body)?;
        let mut words = head.first().context("an empty head")?.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Ok(Some((format!("{} {path}", method.to_ascii_uppercase()), body)))
    }

    fn stream(&mut self, asked: Duration, body: &Value) -> Result<()> {
        let with_usage = body["stream_options"]["include_usage"] == true;
        let head = format!("HTTP/1.1 200 OK\r\n{EVENT_STREAM}\r\n\r\n");
        let role = json!({"role": "assistant", "content": ""});
        self.send(&[head.into(), event(&choice(&role, &Value::Null))])?;
        let token = event(&choice(&json!({"content": TOKEN}), &Value::Null));
        for nth in 0..self.script.tokens {
            self.wait_until(self.script.sent_at(asked, nth));
            self.send(std::slice::from_ref(&token))?;
        }
        let mut end = vec![event(&choice(&json!({}), &json!("length")))];
        if with_usage {
            end.push(event(&document("chat.completion.chunk", &json!([]), &self.usage(body))));
        }
        end.extend([chunk("data: [DONE]\n\n"), b"0\r\n\r\n".to_vec()]);
        self.send(&end)
    }

    /// An answer that is not streamed comes when its last token would.
    fn wait_and_tell_all(&mut self, asked: Duration, body: &Value) -> Result<()> {
        self.wait_until(self.script.sent_at(asked, self.script.tokens.saturating_sub(1)));
        let text = TOKEN.repeat(self.script.tokens as usize);
        let message = json!({"role": "assistant", "content": text});
        let choices = json!([{"index": 0, "message": message, "finish_reason": "length"}]);
        self.whole(200, &document("chat.completion", &choices, &self.usage(body)))
    }

    fn usage(&self, body: &Value) -> Value {
        let words =
            |message: &Value| message["content"].as_str().map_or(0, |text| text.split_whitespace().count());
        let prompt: usize =
            body["messages"].as_array().map_or(0, |messages| messages.iter().map(words).sum());
        let answer = self.script.tokens as usize;
        json!({"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer})
    }

    fn whole(&mut self, status: u16, body: &Value) -> Result<()> {
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}",
            body.len()
        );
        self.send(&[format!("{head}\r\n\r\n{body}").into()])
    }

    /// In one write.
    fn send(&mut self, pieces: &[Vec<u8>]) -> Result<()> {
        Ok(self.to.write_all(&pieces.concat())?)
    }

    fn wait_until(&self, at: Duration) {
        while let Some(left) = at.checked_sub(self.started.elapsed()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
    }
}

fn choice(delta: &Value, finish_reason: &Value) -> Value {
    let choices = json!([{"index": 0, "delta": delta, "finish_reason": finish_reason}]);
    document("chat.completion.chunk", &choices, &Value::Null)
}

fn document(object: &str, choices: &Value, usage: &Value) -> Value {
    json!({"id": "chatcmpl-0", "object": object, "created": 1, "model": MODEL, "choices": choices, "usage": usage})
}

fn event(document: &Value) -> Vec<u8> {
    chunk(&format!("data: {document}\n\n"))
}

/// As a body's piece on the wire.
fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(line: &str) -> Script {
        let words = ["scripted_target", "--listen", "127.0.0.1:0"];
        Script::try_parse_from(words.into_iter().chain(line.split_whitespace())).expect("a good line")
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn tokens_are_due_from_the_request_on_and_not_from_each_other() {
        let script = script("--ttft-ms 100 --inter-token-ms 10");
        assert_eq!([0, 1, 31].map(|nth| script.sent_at(ms(5), nth)), [ms(105), ms(115), ms(415)]);
    }

    #[test]
    fn nothing_is_sent_in_a_stall_and_all_that_was_due_is_sent_after_it() {
        let script = script("--ttft-ms 100 --inter-token-ms 600 --stall-every 10 --stall-for 1");
        assert_eq!(
            [ms(8_999), ms(9_000), ms(9_999)].map(|at| script.after_stall(at)),
            [ms(8_999), ms(10_000), ms(10_000)]
        );
        assert_eq!(script.after_stall(ms(10_000)), ms(10_000));
        assert_eq!([0, 1, 2].map(|nth| script.sent_at(ms(8_800), nth)), [ms(8_900), ms(10_000), ms(10_100)]);
    }
}
