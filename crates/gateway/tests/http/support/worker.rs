//! A worker that does what the test says, down to the bytes on its socket.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::{LoadReport, ModelCard, ModelList};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::{chunks, completion, within};

/// Holds a worker back until the test lets it go on. Clones are one gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets `count` pass.
    pub(crate) fn open(&self, count: usize) {
        self.0.add_permits(count);
    }

    /// Lets all pass from now on.
    pub(crate) fn open_for_all(&self) {
        self.0.add_permits(1 << 20);
    }

    async fn pass(&self) {
        self.0.acquire().await.expect("never closed").forget();
    }
}

/// What a worker does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// One body of its length.
    Body { status: u16, headers: Vec<(&'static str, &'static str)>, body: String },
    /// Events, each after it passed the gate, where there is one.
    Stream { events: Vec<String>, gate: Option<Gate>, end: End },
    /// Anything, and the connection's end.
    Raw(String),
    /// No answer ever.
    Hang,
    /// The same once the gate was passed.
    After(Gate, Box<Self>),
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should.
    Done,
    /// The connection breaks.
    BreakOff,
    /// Properly, but without the mark.
    NoMark,
    /// With the mark, but the body goes on for ever.
    DoneAndHold,
    /// It does not: the worker falls silent.
    Silence,
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl Into<String>) -> Self {
        Self::Body { status, headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn completion(text: &str) -> Self {
        Self::json(200, completion(text))
    }

    pub(crate) fn stream(texts: &[&str]) -> Self {
        Self::Stream { events: chunks(texts), gate: None, end: End::Done }
    }

    pub(crate) fn gated_stream(texts: &[&str], gate: &Gate) -> Self {
        Self::Stream { events: chunks(texts), gate: Some(gate.clone()), end: End::Done }
    }

    /// The first events of a stream and then this end.
    pub(crate) fn cut_stream(texts: &[&str], events: usize, end: End) -> Self {
        Self::Stream { events: chunks(texts).into_iter().take(events).collect(), gate: None, end }
    }

    pub(crate) fn hang_up() -> Self {
        Self::Raw(String::new())
    }

    pub(crate) fn after(self, gate: &Gate) -> Self {
        Self::After(gate.clone(), Box::new(self))
    }
}

/// A request as the worker got it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) bytes: Vec<u8>,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("the gateway sends JSON")
    }
}

#[derive(Debug)]
struct Script {
    reply: Mutex<Reply>,
    next: Mutex<VecDeque<Reply>>,
    /// None for a server that is not ours.
    report: Mutex<Option<LoadReport>>,
    seen: Mutex<Vec<Seen>>,
    probe_headers: Mutex<BTreeMap<String, String>>,
    /// It says nothing more, to anyone, and closes nothing.
    silent: AtomicBool,
    asked: watch::Sender<usize>,
    cancelled: watch::Sender<usize>,
    /// Connections that brought requests other than probes.
    connections: AtomicUsize,
}

/// One worker; its server ends with it.
#[derive(Debug)]
pub(crate) struct Worker {
    address: SocketAddr,
    script: Arc<Script>,
    server: JoinSet<()>,
}

impl Worker {
    /// One of ours that serves version `v1` of model `m`.
    pub(crate) async fn ours(reply: Reply) -> Self {
        Self::of_version("v1", reply).await
    }

    pub(crate) async fn of_version(version: &str, reply: Reply) -> Self {
        let report = LoadReport {
            model: "m".into(),
            version: version.into(),
            ready: true,
            max_num_seqs: 8,
            max_model_len: 2048,
            ..LoadReport::default()
        };
        Self::start(Some(report), reply).await
    }

    /// Any server of OpenAI's API, with model `m`.
    pub(crate) async fn foreign(reply: Reply) -> Self {
        Self::start(None, reply).await
    }

    async fn start(report: Option<LoadReport>, reply: Reply) -> Self {
        let script = Arc::new(Script {
            reply: Mutex::new(reply),
            next: Mutex::default(),
            report: Mutex::new(report),
            seen: Mutex::default(),
            probe_headers: Mutex::default(),
            silent: AtomicBool::new(false),
            asked: watch::Sender::new(0),
            cancelled: watch::Sender::new(0),
            connections: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::clone(&script)));
        Self { address, script, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it answers from now on.
    pub(crate) fn reply(&self, reply: Reply) {
        *lock(&self.script.reply) = reply;
    }

    /// What it answers to the next request alone.
    pub(crate) fn reply_once(&self, reply: Reply) {
        lock(&self.script.next).push_back(reply);
    }

    pub(crate) fn report(&self, change: impl FnOnce(&mut LoadReport)) {
        change(lock(&self.script.report).as_mut().expect("one of ours"));
    }

    /// The requests that it got, probes apart.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.script.seen).clone()
    }

    /// The headers of the latest probe.
    pub(crate) fn probe_headers(&self) -> BTreeMap<String, String> {
        lock(&self.script.probe_headers).clone()
    }

    pub(crate) fn count(&self) -> usize {
        *self.script.asked.borrow()
    }

    pub(crate) fn connections(&self) -> usize {
        self.script.connections.load(Ordering::Relaxed)
    }

    /// Until it got this many requests.
    pub(crate) async fn asked(&self, count: usize) {
        let mut asked = self.script.asked.subscribe();
        within("a request at the worker", asked.wait_for(|asked| *asked >= count)).await.expect("alive");
    }

    /// Until this many requests were taken back.
    pub(crate) async fn cancelled(&self, count: usize) {
        let mut cancelled = self.script.cancelled.subscribe();
        within("a cancelled request", cancelled.wait_for(|cancelled| *cancelled >= count))
            .await
            .expect("alive");
    }

    pub(crate) fn cancellations(&self) -> usize {
        *self.script.cancelled.borrow()
    }

    /// Falls silent with its connections open, as a machine does that lost its network.
    pub(crate) fn fall_silent(&self) {
        self.reply(Reply::Hang);
        self.script.silent.store(true, Ordering::Relaxed);
    }

    /// Dies at once, with all of its connections.
    pub(crate) async fn kill(&mut self) {
        self.server.shutdown().await;
    }

    /// Comes back at its old address.
    pub(crate) async fn revive(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("its port is still free");
        self.server.spawn(serve(listener, Arc::clone(&self.script)));
    }
}

async fn serve(listener: TcpListener, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a listening socket accepts");
        let script = Arc::clone(&script);
        connections.spawn(async move {
            let _gone = converse(stream, &script).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Why a conversation ends.
struct Gone;

impl From<std::io::Error> for Gone {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

async fn converse(mut stream: TcpStream, script: &Script) -> Result<(), Gone> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.split();
    let mut counted = false;
    loop {
        let seen = read_request(&mut reader).await?;
        if script.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if let Some(body) = probe(&seen, script) {
            let (status, body) = body.map_or((404, String::from("{}")), |body| (200, body));
            write_body(&mut writer, status, &[], &body).await?;
            continue;
        }
        if !std::mem::replace(&mut counted, true) {
            script.connections.fetch_add(1, Ordering::Relaxed);
        }
        lock(&script.seen).push(seen);
        let reply = lock(&script.next).pop_front().unwrap_or_else(|| lock(&script.reply).clone());
        script.asked.send_modify(|asked| *asked += 1);
        let replied = tokio::select! {
            biased;
            replied = write_reply(&mut writer, reply) => replied,
            // The gateway sends nothing before it has its answer, so this is its leaving.
            _ = reader.read_u8() => Err(Gone),
        };
        match replied {
            Ok(Then::Next) => {}
            Ok(Then::HangUp) => return Ok(()),
            Err(gone) => {
                script.cancelled.send_modify(|cancelled| *cancelled += 1);
                return Err(gone);
            }
        }
    }
}

async fn read_request(reader: &mut ReadHalf<'_>) -> Result<Seen, Gone> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(reader.read_u8().await?);
    }
    let head = String::from_utf8(head).expect("an ASCII head");
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a request line").to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().expect("a number"));
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).await?;
    Ok(Seen { path, headers, bytes })
}

/// The answer to a probe; none for any other request, and within, none where there is nothing.
fn probe(seen: &Seen, script: &Script) -> Option<Option<String>> {
    let body = match seen.path.as_str() {
        "/internal/load" => lock(&script.report).as_ref().map(serde_json::to_string),
        "/v1/models" => Some(serde_json::to_string(&ModelList::new(vec![ModelCard::new("m", 1, None)]))),
        _ => return None,
    };
    lock(&script.probe_headers).clone_from(&seen.headers);
    Some(body.map(|body| body.expect("serializes")))
}

enum Then {
    Next,
    HangUp,
}

async fn write_reply(writer: &mut WriteHalf<'_>, reply: Reply) -> Result<Then, Gone> {
    match reply {
        Reply::Body { status, headers, body } => {
            write_body(writer, status, &headers, &body).await?;
            Ok(Then::Next)
        }
        Reply::Stream { events, gate, end } => write_stream(writer, &events, gate, end).await,
        Reply::Raw(bytes) => {
            writer.write_all(bytes.as_bytes()).await?;
            Ok(Then::HangUp)
        }
        Reply::Hang => std::future::pending().await,
        Reply::After(gate, reply) => {
            gate.pass().await;
            Box::pin(write_reply(writer, *reply)).await
        }
    }
}

async fn write_body(
    writer: &mut WriteHalf<'_>,
    status: u16,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<(), Gone> {
    let mut text = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    text.push_str("\r\n");
    text.push_str(body);
    writer.write_all(text.as_bytes()).await?;
    Ok(())
}

async fn write_stream(
    writer: &mut WriteHalf<'_>,
    events: &[String],
    gate: Option<Gate>,
    end: End,
) -> Result<Then, Gone> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    writer.write_all(head.as_bytes()).await?;
    for event in events {
        if let Some(gate) = &gate {
            gate.pass().await;
        }
        write_chunk(writer, &protocol::sse::event(event)).await?;
    }
    match end {
        End::Done | End::DoneAndHold => write_chunk(writer, "data: [DONE]\n\n").await?,
        End::BreakOff => return Ok(Then::HangUp),
        End::NoMark => {}
        End::Silence => std::future::pending().await,
    }
    if end == End::DoneAndHold {
        std::future::pending::<()>().await;
    }
    writer.write_all(b"0\r\n\r\n").await?;
    Ok(Then::Next)
}

async fn write_chunk(writer: &mut WriteHalf<'_>, data: &str) -> Result<(), Gone> {
    writer.write_all(format!("{:x}\r\n{data}\r\n", data.len()).as_bytes()).await?;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
