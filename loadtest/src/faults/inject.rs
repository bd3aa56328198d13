//! Tells a simulated worker to have a fault.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::error::Error;
use crate::record::{Failure, FailureKind};

/// Where simulated workers take faults.
const PATH: &str = "/admin/faults";
/// The longest wait for a worker, which may hang because it was told to.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is read of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The address that a worker takes faults at.
pub(super) fn address(worker: &str) -> Result<Uri, Error> {
    let refuse = |problem: &str| Error::Config(format!("the fault's worker `{worker}` {problem}"));
    let base = worker.trim_end_matches('/');
    let uri: Uri = format!("{base}{PATH}")
        .parse()
        .map_err(|_| refuse("is no address; http://HOST:PORT was expected"))?;
    if uri.scheme_str() != Some("http") {
        return Err(refuse("does not start with http://; http://HOST:PORT was expected"));
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !is_loopback {
        return Err(refuse("is not on this machine; faults are injected on loopback addresses only"));
    }
    Ok(uri)
}

#[derive(Clone, Debug)]
pub(super) struct Injector {
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Injector {
    pub(super) fn new() -> Self {
        Self { http: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http() }
    }

    /// Posts one fault; an error says why the worker did not take it.
    pub(super) async fn post(&self, worker: &str, fault: &Value) -> Result<(), String> {
        let request = Request::post(address(worker).map_err(|error| error.to_string())?)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(fault.to_string())))
            .map_err(|error| error.to_string())?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| error.to_string())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            if status.is_success() {
                return Ok(());
            }
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let said = String::from_utf8_lossy(&body).into_owned();
            Err(Failure::new(FailureKind::Http(status.as_u16()), format!("{}: {said}", status.as_u16()))
                .example)
        };
        let timed_out = |_| Err(format!("no answer within {} s", TIMEOUT.as_secs()));
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(timed_out)
    }
}
