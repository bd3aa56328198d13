//! A web server of the tests' own, which misbehaves as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// One request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Path and query.
    pub(crate) path: String,
    /// The first byte asked for, where a range was asked for.
    pub(crate) range_start: Option<usize>,
    pub(crate) authorization: Option<String>,
    /// How many requests came before it.
    pub(crate) nth: usize,
}

/// How to answer one request.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    content_length: usize,
    /// Keeps the connection open after the body, until the client goes.
    stalls: bool,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), content_length: 0, stalls: false }
    }

    /// The whole of `body`, whatever range was asked for.
    pub(crate) fn whole(body: &[u8]) -> Self {
        Self { body: body.to_vec(), content_length: body.len(), ..Self::status(200) }
    }

    /// What was asked for of `body`.
    pub(crate) fn ranged(body: &[u8], seen: &Seen) -> Self {
        match seen.range_start {
            None => Self::whole(body),
            Some(start) if start >= body.len() => Self::status(416),
            Some(start) => Self {
                status: 206,
                headers: vec![(
                    "content-range".into(),
                    format!("bytes {start}-{}/{}", body.len() - 1, body.len()),
                )],
                ..Self::whole(&body[start..])
            },
        }
    }

    pub(crate) fn redirect(to: &str) -> Self {
        Self { headers: vec![("location".into(), to.to_owned())], ..Self::status(302) }
    }

    /// Announces all, but breaks off after `bytes`.
    pub(crate) fn broken_after(mut self, bytes: usize) -> Self {
        self.body.truncate(bytes);
        self
    }

    /// Announces all, sends `bytes`, and then nothing more while the client waits.
    pub(crate) fn stalling_after(self, bytes: usize) -> Self {
        Self { stalls: true, ..self.broken_after(bytes) }
    }
}

/// The server; it ends with its handle.
pub(crate) struct TestServer {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Seen>>>,
    accepting: Option<JoinHandle<()>>,
}

impl TestServer {
    pub(crate) fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, log, answer) = (Arc::clone(&stopping), Arc::clone(&seen), Arc::new(answer));
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || serve(stream.unwrap(), &log, &*answer));
            }
        });
        Self { address, stopping, seen, accepting: Some(accepting) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Seen>>, answer: &dyn Fn(&Seen) -> Reply) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or("").to_owned();
    let (mut range_start, mut authorization) = (None, None);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                range_start = Some(value.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
            }
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let seen = {
        let mut log = log.lock().unwrap();
        let seen = Seen { path, range_start, authorization, nth: log.len() };
        log.push(seen.clone());
        seen
    };
    let reply = answer(&seen);
    let mut head = format!(
        "HTTP/1.1 {} X\r\ncontent-length: {}\r\nconnection: close\r\n",
        reply.status, reply.content_length
    );
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    // The client may be gone, which is its right.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&reply.body));
    if reply.stalls {
        let _ = stream.read_to_end(&mut Vec::new());
    }
}
