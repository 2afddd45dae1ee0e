//! The one HTTP client: every byte that leaves this process for another goes through here.
//!
//! Connections are pooled per (network policy, connect timeout); redirects are never followed;
//! Nagle is off. Invariant: without `allow_private_network` no connection is made to an address
//! that is not public, whatever a name resolves to: the resolver judges each address and the
//! connection goes to the very addresses that were judged (SPEC 13, `reliability` 7.2).

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::RwLock;
use tokio::time::Instant;
use tower::Service;

use anima_core::failure::Failure;

mod address;
mod connect;
mod segments;

pub use address::is_public;
pub use segments::Segments;

use connect::Bounded;

type Pool = Client<Bounded<HttpsConnector<HttpConnector<Resolver>>>, Segments>;

/// Idle connections kept per upstream host. Above the largest concurrency benchmarked (256), so
/// that no call pays for a new connection under steady load.
const IDLE_PER_HOST: usize = 512;
/// Idle connections are closed after this; most providers close theirs after 60 s or more.
const IDLE_FOR: Duration = Duration::from_secs(50);

/// How a channel may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Policy {
    /// Loopback and private addresses are allowed.
    pub private: bool,
    /// DNS, TCP and TLS together, milliseconds.
    pub connect_ms: u32,
}

/// The HTTP client. See the module.
#[derive(Debug)]
pub struct Outbound {
    pools: RwLock<BTreeMap<Policy, Pool>>,
    tls: rustls::ClientConfig,
}

/// A call that did not get as far as an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendError {
    /// What it counts as.
    pub failure: Failure,
    /// For the log; without secrets.
    pub detail: String,
}

impl Outbound {
    /// A client that trusts the usual public certificate authorities.
    ///
    /// # Errors
    /// When the TLS library has no usable protocol version.
    pub fn new() -> Result<Self, rustls::Error> {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { pools: RwLock::default(), tls })
    }

    /// Sends a request and waits for the answer's head. Connecting is bounded by the policy, the
    /// head by the caller.
    ///
    /// # Errors
    /// [`Failure::AddressForbidden`] before anything is sent; [`Failure::ConnectFailed`] when
    /// nothing was sent; [`Failure::ConnectionLost`] when it may have been.
    pub async fn send(
        &self,
        policy: Policy,
        request: Request<Segments>,
    ) -> Result<Response<Incoming>, SendError> {
        if !policy.private {
            refuse_private_literal(request.uri())?;
        }
        self.pool(policy).request(request).await.map_err(|error| {
            let detail = describe(&error);
            let failure = if detail.contains(FORBIDDEN) {
                Failure::AddressForbidden
            } else if error.is_connect() {
                Failure::ConnectFailed
            } else {
                Failure::ConnectionLost
            };
            SendError { failure, detail }
        })
    }

    fn pool(&self, policy: Policy) -> Pool {
        if let Some(pool) = self.pools.read().get(&policy) {
            return pool.clone();
        }
        let mut http = HttpConnector::new_with_resolver(Resolver { private: policy.private });
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(Duration::from_secs(30)));
        let within = Duration::from_millis(policy.connect_ms.into());
        // Shared out over the addresses of a name, so that one that is silent leaves time for the
        // next; the whole is bounded below.
        http.set_connect_timeout(Some(within));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(http);
        let pool = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .pool_idle_timeout(IDLE_FOR)
            .pool_timer(TokioTimer::new())
            .build(Bounded::new(https, within));
        self.pools.write().entry(policy).or_insert(pool).clone()
    }
}

/// Marks a refusal by the resolver inside a chain of connection errors.
const FORBIDDEN: &str = "address is not public";

/// An address written into a URL never meets the resolver, so it is judged here.
fn refuse_private_literal(uri: &Uri) -> Result<(), SendError> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(address) if !is_public(address) => Err(SendError {
            failure: Failure::AddressForbidden,
            detail: format!("{address}: {FORBIDDEN}"),
        }),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// An error with its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Resolves a name and keeps only the addresses that may be reached.
#[derive(Debug, Clone)]
struct Resolver {
    private: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let private = self.private;
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One private address among public ones is how a rebinding name looks: refuse it whole.
            if !private && found.iter().any(|a| !is_public(a.ip())) {
                let text = format!("{}: {FORBIDDEN}", name.as_str());
                return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, text));
            }
            Ok(found.into_iter())
        })
    }
}

/// An answer's body, read whole.
#[derive(Debug)]
pub enum Collected {
    /// All of it.
    Whole(Bytes),
    /// It is larger than allowed.
    TooLarge,
    /// It broke off: why, and after how many bytes.
    Broken(String, usize),
    /// Nothing came for too long.
    Idle,
    /// The deadline passed.
    Late,
}

/// Reads an answer's body up to `limit` bytes, without copying when it comes in one piece.
pub async fn collect(
    mut body: Incoming,
    limit: usize,
    idle: Duration,
    deadline: Instant,
) -> Collected {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    loop {
        let by = deadline.min(Instant::now() + idle);
        let frame = match tokio::time::timeout_at(by, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return Collected::Broken(describe(&error), first.len().max(joined.len()));
            }
            Ok(None) => break,
            Err(_elapsed) if by == deadline => return Collected::Late,
            Err(_elapsed) => return Collected::Idle,
        };
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        if first.is_empty() && joined.is_empty() {
            first = chunk;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&chunk);
        }
        if first.len().max(joined.len()) > limit {
            return Collected::TooLarge;
        }
    }
    Collected::Whole(if joined.is_empty() { first } else { joined.freeze() })
}
