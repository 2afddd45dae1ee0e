//! One HTTP/1.1 exchange, on a connection of its own unless the caller keeps one.
//!
//! Without a pool a connection that a killed gateway left behind cannot blame the next call. Not a
//! general client: loopback, no redirects, no retries.
//! Invariant: dropping what is returned closes the connection.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A request with a bearer token and a JSON body, which may be empty.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) address: SocketAddr,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) token: String,
    pub(crate) body: String,
    /// For requests that must happen once.
    pub(crate) idempotency_key: Option<String>,
}

/// A connection that takes one request after the other.
pub(crate) type Wire = http1::SendRequest<Full<Bytes>>;

/// Opens one.
///
/// # Errors
/// When nobody listens.
pub(crate) async fn open(address: SocketAddr) -> Result<Wire> {
    let stream = TcpStream::connect(address).await.context("nobody listens")?;
    stream.set_nodelay(true).context("failed to set up a connection")?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.context("failed to set up a connection")?;
    // Its error is the answer's error, and is seen there.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Sends a request on an open connection and waits for the head of the answer.
///
/// # Errors
/// When the connection breaks before the head.
pub(crate) async fn send_on(wire: &mut Wire, ask: &Ask) -> Result<Response<Incoming>> {
    let mut request = Request::builder()
        .method(&ask.method)
        .uri(&ask.path)
        .header("host", ask.address.to_string())
        .header("authorization", format!("Bearer {}", ask.token))
        .header("content-type", "application/json");
    if let Some(key) = &ask.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Full::new(Bytes::from(ask.body.clone())))?;
    wire.send_request(request).await.context("no answer")
}

/// Sends a request and waits for the head of the answer.
///
/// # Errors
/// When nobody listens, or the connection breaks before the head.
pub(crate) async fn send(ask: &Ask) -> Result<Response<Incoming>> {
    let mut wire = open(ask.address).await?;
    send_on(&mut wire, ask).await
}

/// The same, to the end of any answer, on a connection that serves further requests.
///
/// # Errors
/// When there is none, or it breaks off.
pub(crate) async fn whole_on(wire: &mut Wire, ask: &Ask) -> Result<Answer> {
    read(send_on(wire, ask).await?).await
}

async fn read(response: Response<Incoming>) -> Result<Answer> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.context("the answer broke off")?.to_bytes();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// A header as text; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body; null when it is no JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// The same, to the end of any answer.
///
/// # Errors
/// When there is none, or it breaks off.
pub(crate) async fn whole(ask: &Ask) -> Result<Answer> {
    read(send(ask).await?).await
}

/// The same, to the end of a JSON answer that says it went well.
///
/// # Errors
/// Any other answer.
pub(crate) async fn json(ask: &Ask) -> Result<Value> {
    let Ask { method, path, .. } = ask;
    let response = send(ask).await.with_context(|| format!("{method} {path}"))?;
    let status = response.status();
    let body = response.into_body().collect().await.context("the answer broke off")?.to_bytes();
    let said = String::from_utf8_lossy(&body);
    ensure!(status.is_success(), "{method} {path} was answered {status}: {said}");
    serde_json::from_slice(&body).with_context(|| format!("{method} {path} did not answer JSON"))
}
