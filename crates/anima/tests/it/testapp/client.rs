//! A plain HTTP client: whole replies, streams event by event, and bytes on a bare socket.
//!
//! It retries nothing and follows nothing. Dropping a stream before its end closes the connection,
//! which is how a client leaves.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The client of one test.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    pool: Pooled<HttpConnector, Full<Bytes>>,
}

/// A whole reply.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the body ended as HTTP says it must.
    pub(crate) complete: bool,
}

/// A reply whose head has come.
#[derive(Debug)]
pub(crate) struct Streamed {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    buffer: BytesMut,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let pool = Pooled::builder(TokioExecutor::new()).build(HttpConnector::new());
        Self { address, pool }
    }

    /// The same server over HTTP/2, by a client that lets it send `bytes` of each answer.
    pub(crate) fn narrow(&self, bytes: u32) -> Self {
        let mut builder = Pooled::builder(TokioExecutor::new());
        builder.http2_only(true).http2_initial_stream_window_size(bytes);
        Self { address: self.address, pool: builder.build(HttpConnector::new()) }
    }

    /// Sends a request and waits for the head.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Streamed {
        let uri = format!("http://{}{path}", self.address);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).unwrap();
        let (head, body) = self.pool.request(request).await.expect("a reply").into_parts();
        let status = head.status.as_u16();
        Streamed { status, headers: head.headers, body, buffer: BytesMut::new() }
    }

    /// Sends bytes piece by piece until the server answers or closes, and gives what it answered.
    /// `pieces` is asked again for as long as it gives some; when it gives none, only the answer is
    /// waited for.
    pub(crate) async fn push(
        &self,
        head: &str,
        mut pieces: impl FnMut() -> Option<Bytes>,
    ) -> String {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        let (mut from, mut to) = socket.split();
        let mut answer = Vec::new();
        let write = async {
            while let Some(piece) = pieces() {
                if to.write_all(&piece).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // An error here is a reset after the answer, which is in `answer` by then.
            _ = from.read_to_end(&mut answer) => {}
            () = write => {}
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Streamed {
    /// A response header.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The payload of the next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event = self.buffer.split_to(end + 2);
                let event = String::from_utf8(event.to_vec()).unwrap();
                return Some(payload(&event));
            }
            let frame = self.body.frame().await?.ok()?;
            self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    }

    /// Reads on to the end.
    pub(crate) async fn whole(mut self) -> Reply {
        let mut complete = true;
        while let Some(frame) = self.body.frame().await {
            match frame {
                Ok(frame) => self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_broken) => {
                    complete = false;
                    break;
                }
            }
        }
        let Self { status, headers, buffer, .. } = self;
        Reply { status, headers, body: buffer.freeze(), complete }
    }
}

impl Reply {
    /// A response header; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    /// The body as JSON; null when it is empty.
    pub(crate) fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The id of the request, as the gateway says it.
    pub(crate) fn request_id(&self) -> &str {
        self.header("x-anima-request-id")
    }

    /// Status and `error.code`.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let body = self.json();
        (self.status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    /// The payloads of a stream's events.
    pub(crate) fn events(&self) -> Vec<String> {
        self.text().split("\n\n").filter(|e| !e.trim().is_empty()).map(payload).collect()
    }

    /// The last event of a stream as JSON.
    pub(crate) fn last_event(&self) -> Value {
        let last = self.events().pop().unwrap_or_default();
        serde_json::from_str(&last).unwrap_or(Value::Null)
    }
}

/// The lines of an event's `data` fields.
fn payload(event: &str) -> String {
    let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}
