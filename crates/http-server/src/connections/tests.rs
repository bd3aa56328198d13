use std::future::Future;
use std::net::SocketAddr;
use std::time::Instant;

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

/// Far more than sockets hold.
const LARGE: usize = 32 << 20;
const TIMEOUT: Duration = Duration::from_millis(300);

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<Duration>,
    closed: JoinHandle<bool>,
}

async fn serve(connections_max: usize) -> Server {
    let slow = || async {
        tokio::time::sleep(2 * TIMEOUT).await;
        "slow"
    };
    let router = Router::new()
        .route("/small", get(|| async { "small" }))
        .route("/slow", get(slow))
        .route("/large", get(|| async { vec![b'x'; LARGE] }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let closed = tokio::spawn(async move {
        let mut connections = Connections::new(router, connections_max, TIMEOUT);
        let timeout = tokio::select! {
            never = connections.accept(&listener) => match never {},
            timeout = stopped => timeout.unwrap(),
        };
        connections.close(timeout).await
    });
    Server { address, stop, closed }
}

async fn ask(server: &Server, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

/// What comes until the end, however that comes.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = patiently(stream.read_to_end(&mut bytes)).await;
    bytes
}

async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("nothing hangs")
}

#[tokio::test]
async fn a_peer_that_takes_nothing_in_loses_its_connection() {
    let server = serve(10).await;
    let mut stalled = ask(&server, "/large").await;
    let mut reader = ask(&server, "/large").await;
    let mut piece = [0; 15];
    reader.read_exact(&mut piece).await.unwrap();
    tokio::time::sleep(3 * TIMEOUT).await;
    assert!(rest(&mut stalled).await.len() < LARGE, "it was cut off");
    assert!(rest(&mut reader).await.len() < LARGE, "however much it had taken in before");
}

#[tokio::test]
async fn a_peer_that_reads_slowly_has_its_whole_answer() {
    let server = serve(10).await;
    let mut slow = ask(&server, "/large").await;
    let (mut count, mut piece) = (0, vec![0; 4 << 20]);
    while count < LARGE {
        tokio::time::sleep(TIMEOUT / 6).await;
        count += patiently(slow.read(&mut piece)).await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_peer_is_closed_but_one_that_waits_for_its_answer_is_not() {
    let server = serve(10).await;
    let started = Instant::now();
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert!(rest(&mut silent).await.is_empty());
    assert!(started.elapsed() >= TIMEOUT);
    let mut waiting = ask(&server, "/slow").await;
    assert!(rest(&mut waiting).await.ends_with(b"slow"));
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_until_one_ends() {
    let server = serve(1).await;
    let mut first = ask(&server, "/slow").await;
    let mut second = ask(&server, "/small").await;
    let mut byte = [0];
    assert!(tokio::time::timeout(TIMEOUT, second.read(&mut byte)).await.is_err(), "it waits");
    assert!(rest(&mut first).await.ends_with(b"slow"));
    assert!(rest(&mut second).await.ends_with(b"small"));
}

#[tokio::test]
async fn closing_ends_idle_connections_at_once_and_others_with_their_answer() {
    let server = serve(10).await;
    let mut busy = ask(&server, "/slow").await;
    let mut idle = ask(&server, "/small").await;
    idle.read_exact(&mut [0; 15]).await.unwrap();
    let started = Instant::now();
    server.stop.send(Duration::from_secs(20)).unwrap();
    rest(&mut idle).await;
    assert!(started.elapsed() < TIMEOUT, "{:?}", started.elapsed());
    assert!(rest(&mut busy).await.ends_with(b"slow"));
    assert!(server.closed.await.unwrap(), "all ended by themselves");
}

#[tokio::test]
async fn what_is_left_at_the_end_is_cut_off() {
    let server = serve(10).await;
    let mut busy = ask(&server, "/slow").await;
    tokio::time::sleep(TIMEOUT / 3).await;
    server.stop.send(Duration::ZERO).unwrap();
    assert!(!server.closed.await.unwrap());
    assert!(rest(&mut busy).await.is_empty());
}
