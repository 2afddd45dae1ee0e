//! The one HTTP client: every byte that leaves this process for another goes through here.
//!
//! Connections are pooled per (network policy, connect timeout); redirects are never followed;
//! Nagle is off. Invariant: without `allow_private_network` no connection is made to an address
//! that is not public, whatever a name resolves to: the resolver judges each address and the
//! connection goes to the very addresses that were judged (SPEC 13, `reliability` 7.2).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use ipnet::IpNet;
use parking_lot::RwLock;
use tokio::time::Instant;

use anima_core::clock::Timestamp;
use anima_core::failure::Failure;

mod address; // which addresses are public
mod body; // what an answer's reader owns
mod connect; // the bound over connecting
mod link; // one connection
mod pool; // connections kept
mod resolve; // names into judged addresses
mod segments; // request bodies
mod tokens; // access tokens of service accounts
mod webhook; // to addresses that callers name

pub use address::is_public;
pub use body::Body;
pub use segments::Segments;
pub use webhook::{deliver, may_deliver};

use connect::Bounded;
use pool::Pool;
use resolve::{Reach, Resolver};

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
    pools: RwLock<BTreeMap<Policy, Arc<Pool>>>,
    /// Where callers may have webhooks sent although it is private.
    allowed: Arc<[IpNet]>,
    tls: rustls::ClientConfig,
    tokens: tokens::Tokens,
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
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let allowed = Arc::default();
        Ok(Self { pools: RwLock::default(), allowed, tls, tokens: tokens::Tokens::default() })
    }

    /// The same, and webhooks may go to these private addresses.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn allowing(private: &[IpNet]) -> Result<Self, rustls::Error> {
        Ok(Self { allowed: private.into(), ..Self::new()? })
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
    ) -> Result<Response<Body>, SendError> {
        if !policy.private {
            refuse_private_literal(request.uri())?;
        }
        self.pool(policy).send(request).await.map_err(SendError::from)
    }

    /// The token to send in the place of a secret that is a service account of Google's; `None`
    /// for a secret that is sent itself. One exchange serves everybody who waits for it.
    ///
    /// # Errors
    /// When the account cannot be read, or the exchange fails.
    pub async fn access_token(
        &self,
        policy: Policy,
        secret: &str,
        now: Timestamp,
        by: Instant,
    ) -> Result<Option<Arc<tokens::Token>>, SendError> {
        match tokens::Account::read(secret) {
            None => Ok(None),
            Some(account) => self.tokens.of(self, policy, &account?, now, by).await.map(Some),
        }
    }

    /// Whether a secret is a service account, in whose place a token is sent.
    pub fn is_account(secret: &str) -> bool {
        tokens::Account::is_one(secret)
    }

    /// Forgets the token of a service account that was refused, if it was fetched `before`. Whether
    /// there was one, so that another may be had.
    pub async fn forget_token(&self, secret: &str, before: Timestamp) -> bool {
        match tokens::Account::read(secret) {
            Some(Ok(account)) => self.tokens.forget(&account, before).await,
            Some(Err(_)) | None => false,
        }
    }

    fn pool(&self, policy: Policy) -> Arc<Pool> {
        if let Some(pool) = self.pools.read().get(&policy) {
            return Arc::clone(pool);
        }
        let reach = if policy.private { Reach::Anywhere } else { Reach::Public };
        let pool = Arc::new(self.pool_to(reach, policy.connect_ms));
        Arc::clone(self.pools.write().entry(policy).or_insert(pool))
    }

    /// Connections to what may be reached.
    fn pool_to(&self, reach: Reach, connect_ms: u32) -> Pool {
        let mut http = HttpConnector::new_with_resolver(Resolver { reach });
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(Duration::from_secs(30)));
        let within = Duration::from_millis(connect_ms.into());
        // Shared out over the addresses of a name, so that one that is silent leaves time for the
        // next; the whole is bounded below.
        http.set_connect_timeout(Some(within));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(http);
        Pool::new(Bounded::new(https, within))
    }
}

impl From<pool::Error> for SendError {
    fn from(error: pool::Error) -> Self {
        match error {
            pool::Error::Unsent(cause) => {
                let detail = describe(&*cause);
                let forbidden = detail.contains(FORBIDDEN);
                let failure =
                    if forbidden { Failure::AddressForbidden } else { Failure::ConnectFailed };
                Self { failure, detail }
            }
            pool::Error::Lost(cause) => {
                Self { failure: Failure::ConnectionLost, detail: describe(&cause) }
            }
        }
    }
}

/// Marks a refusal by the resolver inside a chain of connection errors.
const FORBIDDEN: &str = "address is not public";

/// An address written into a URL never meets the resolver, so it is judged here.
fn refuse_private_literal(uri: &Uri) -> Result<(), SendError> {
    refuse_literal(uri, &Reach::Public)
}

fn refuse_literal(uri: &Uri, reach: &Reach) -> Result<(), SendError> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(address) if !reach.allows(address) => Err(SendError {
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
pub async fn collect(mut body: Body, limit: usize, idle: Duration, deadline: Instant) -> Collected {
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
