//! Connections that a server closes unannounced.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// What it does with the requests of one connection, in turn; after the last it closes.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Answer,
    /// Reads the request and closes.
    Close,
    /// Closes within the answer's head.
    CloseWithin,
}

fn answer() -> Vec<u8> {
    let body = json!({"choices": [{"message": {}, "finish_reason": "stop"}]}).to_string();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into()
}

struct Closing {
    address: String,
    task: JoinHandle<()>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Closing {
    async fn start(script: &'static [Does]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(follow(script, stream));
            }
        });
        Self { address, task }
    }

    fn scenario(&self) -> Scenario {
        Scenario {
            target: self.address.clone(),
            model: Some("m".into()),
            arrivals: users(1),
            requests: Some(6),
            answers: Answers { streamed: 0.0, ..Answers::default() },
            // A file's prompts need no question about their length.
            prompts: Prompts::File {
                path: concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/prompt.jsonl").into(),
            },
            ..Scenario::default()
        }
    }
}

async fn follow(script: &[Does], mut stream: TcpStream) {
    for does in script {
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            if stream.read_buf(&mut request).await.expect("readable") == 0 {
                return;
            }
        }
        match does {
            Does::Answer => stream.write_all(&answer()).await.expect("writable"),
            Does::CloseWithin => {
                stream.write_all(&answer()[..20]).await.expect("writable");
                return;
            }
            Does::Close => return,
        }
    }
}

/// How many succeeded and failed, the kinds of failure, and which records were sent twice.
async fn outcome(script: &'static [Does], keep_alive: bool) -> (u64, Vec<String>, Vec<bool>) {
    let server = Closing::start(script).await;
    let dir = tempfile::tempdir().expect("a folder");
    let client = ClientSettings { keep_alive, ..ClientSettings::default() };
    let scenario = Scenario { client, ..server.scenario() };
    let test = LoadTest { report_dir: Some(dir.path().to_owned()), ..load_test(scenario) };
    let report = test.run(CancellationToken::new()).await.expect("a report");
    let kinds = report.errors.iter().map(|error| error.kind.clone()).collect();
    let resent = lines(dir.path()).iter().map(|record| record["resent"] == true).collect();
    (report.requests.succeeded, kinds, resent)
}

#[tokio::test]
async fn a_request_that_met_a_closed_connection_is_sent_once_more_and_says_so() {
    let (succeeded, kinds, resent) = outcome(&[Does::Answer, Does::Close], true).await;
    assert_eq!((succeeded, kinds), (6, Vec::new()));
    assert_eq!(resent, [false, true, true, true, true, true]);
}

#[tokio::test]
async fn a_new_connection_that_is_closed_is_a_failure() {
    let (succeeded, kinds, resent) = outcome(&[Does::Close], true).await;
    assert_eq!((succeeded, kinds), (0, vec!["disconnected".to_owned()]));
    assert!(!resent.contains(&true));
}

#[tokio::test]
async fn a_connection_that_breaks_within_an_answer_is_a_failure_though_it_was_used_before() {
    let (succeeded, kinds, resent) = outcome(&[Does::Answer, Does::CloseWithin], true).await;
    assert_eq!((succeeded, kinds), (3, vec!["disconnected".to_owned()]));
    assert!(!resent.contains(&true));
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_fails_nothing() {
    let (succeeded, kinds, _) = outcome(&[Does::Answer], true).await;
    assert_eq!((succeeded, kinds), (6, Vec::new()));
}

#[tokio::test]
async fn without_keep_alive_no_connection_is_used_twice() {
    let (succeeded, kinds, resent) = outcome(&[Does::Answer, Does::Close], false).await;
    assert_eq!((succeeded, kinds), (6, Vec::new()));
    assert!(!resent.contains(&true));
}
