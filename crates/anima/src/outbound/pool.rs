//! Connections to upstreams: made, kept while idle, and used again.
//!
//! One pool per network policy. HTTP/1.1 connections are kept per origin, the last used first, and
//! belong to one call at a time; one of HTTP/2 carries so many calls, and then another is made.
//! Which of the two it is, TLS negotiates. hyper-util's pool would do, but runs each connection in
//! a task of its own (see `link`). Invariant: a request is sent again on another connection only
//! when it is certain that nothing of it was sent on the first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use hyper::client::conn::http2;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use tokio::time::Instant;
use tower::{BoxError, Service as _};

use super::Segments;
use super::body::Body;
use super::connect::Bounded;
use super::link::{Link, Stream};
use super::resolve::Resolver;

/// Idle connections kept per origin. Above the largest concurrency benchmarked (256), so that no
/// call pays for a new connection under steady load.
const IDLE_PER_ORIGIN: usize = 512;

/// Idle connections are closed after this; most providers close theirs after 60 s or more.
const IDLE_FOR: Duration = Duration::from_secs(50);

/// Calls on one connection of HTTP/2. Servers allow 100 at least as a rule; beyond what they allow,
/// calls would wait unseen, and a healthy provider would look late.
const CALLS_PER_CONNECTION: usize = 64;

/// What a call of HTTP/2 may have unread before its provider must wait.
const CALL_WINDOW: u32 = 512 * 1024;

/// The same for a whole connection: more than all its calls together, so that clients who do not
/// read hold up nobody else.
const CONNECTION_WINDOW: u32 = CALL_WINDOW * 65;

/// While calls run, a connection of HTTP/2 is asked for a sign of life so often, and given up so
/// long after. Not while it rests: there are servers that answer idle pings by closing.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WITHIN: Duration = Duration::from_secs(10);

/// Makes streams: name, TCP and TLS.
pub(super) type Connector = Bounded<HttpsConnector<HttpConnector<Resolver>>>;

/// Where a connection leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Origin {
    secure: bool,
    authority: Authority,
}

/// What is kept for one origin.
#[derive(Debug, Default)]
struct Kept {
    /// The last used at the back.
    idle: VecDeque<(Instant, Box<Link>)>,
    shared: Vec<Lane>,
}

/// A connection of HTTP/2.
#[derive(Debug, Clone)]
struct Lane {
    sender: http2::SendRequest<Segments>,
    load: Arc<Mutex<Load>>,
}

/// How much a connection of HTTP/2 carries.
#[derive(Debug)]
struct Load {
    calls: usize,
    /// When the last call began or ended.
    moved: Instant,
}

impl Lane {
    /// Takes a call on, if there is room. Called under the shelf's lock only, so that no two calls
    /// see the same room.
    fn board(&self, now: Instant) -> Option<Carrier> {
        let mut load = self.load.lock();
        if load.calls >= CALLS_PER_CONNECTION {
            return None;
        }
        *load = Load { calls: load.calls.saturating_add(1), moved: now };
        Some(Carrier::Shared(self.sender.clone(), Boarded(Arc::clone(&self.load))))
    }

    /// Whether another call may go on it. One that has long been idle may be dead unseen.
    fn is_good(&self, now: Instant) -> bool {
        let load = self.load.lock();
        let is_old = load.calls == 0 && now.saturating_duration_since(load.moved) >= IDLE_FOR;
        !is_old && !self.sender.is_closed()
    }
}

/// A call on a connection of HTTP/2, until its answer is over.
#[derive(Debug)]
pub(super) struct Boarded(Arc<Mutex<Load>>);

impl Drop for Boarded {
    fn drop(&mut self) {
        let mut load = self.0.lock();
        *load = Load { calls: load.calls.saturating_sub(1), moved: Instant::now() };
    }
}

#[derive(Debug)]
struct Shelf {
    kept: HashMap<Origin, Kept>,
    swept: Instant,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    shelf: Arc<Mutex<Shelf>>,
}

/// Where a connection goes when it is at rest.
#[derive(Debug)]
pub(super) struct Home {
    shelf: Arc<Mutex<Shelf>>,
    origin: Origin,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Error {
    /// Nothing was sent.
    Unsent(BoxError),
    /// It may have been sent, and even answered.
    Lost(hyper::Error),
}

/// A connection that a request can be sent on.
enum Carrier {
    /// Its own.
    Own(Box<Link>),
    /// One of many calls on it.
    Shared(http2::SendRequest<Segments>, Boarded),
}

impl Pool {
    pub(super) fn new(connector: Connector) -> Self {
        let shelf = Shelf { kept: HashMap::new(), swept: Instant::now() };
        Self { connector, shelf: Arc::new(Mutex::new(shelf)) }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        mut request: Request<Segments>,
    ) -> Result<Response<Body>, Error> {
        let uri = request.uri().clone();
        let origin = Origin::of(&uri).ok_or_else(|| Error::Unsent("no host in the URL".into()))?;
        while let Some(kept) = self.take(&origin) {
            match exchange(kept, &origin, request, &self.shelf).await {
                Ok(response) => return Ok(response),
                // The peer closed it at this very moment.
                Err((_, Some(unsent))) => request = restored(unsent, &uri),
                Err((error, None)) => return Err(Error::Lost(error)),
            }
        }
        // Boxed: its state is many times that of an exchange, and every call would carry it.
        let fresh = Box::pin(self.connect(&origin, uri)).await.map_err(Error::Unsent)?;
        exchange(fresh, &origin, request, &self.shelf).await.map_err(|(error, unsent)| {
            if unsent.is_some() { Error::Unsent(error.into()) } else { Error::Lost(error) }
        })
    }

    /// A kept connection that is good for another call.
    fn take(&self, origin: &Origin) -> Option<Carrier> {
        let now = Instant::now();
        loop {
            let (since, mut link) = {
                let mut locked = self.shelf.lock();
                let kept = locked.kept.get_mut(origin)?;
                kept.shared.retain(|lane| lane.is_good(now));
                if let Some(carrier) = kept.shared.iter().find_map(|lane| lane.board(now)) {
                    return Some(carrier);
                }
                kept.idle.pop_back()?
            };
            // Looked at outside the lock: it reads from the socket.
            if now.saturating_duration_since(since) < IDLE_FOR && link.is_at_rest() {
                return Some(Carrier::Own(link));
            }
        }
    }

    async fn connect(&self, origin: &Origin, uri: Uri) -> Result<Carrier, BoxError> {
        let mut connector = self.connector.clone();
        std::future::poll_fn(|cx| connector.poll_ready(cx)).await?;
        let stream: Stream = connector.call(uri).await?;
        if !stream.connected().is_negotiated_h2() {
            return Ok(Carrier::Own(Box::new(Link::open(stream).await?)));
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .keep_alive_while_idle(false)
            .initial_stream_window_size(CALL_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP/2 connection ended");
            }
        });
        let now = Instant::now();
        let lane = Lane { sender, load: Arc::new(Mutex::new(Load { calls: 0, moved: now })) };
        let mut locked = self.shelf.lock();
        let carrier = lane.board(now);
        locked.kept.entry(origin.clone()).or_default().shared.push(lane);
        carrier.ok_or_else(|| "a fresh connection is full".into())
    }
}

/// One exchange. Fails with the request when nothing of it was sent.
async fn exchange(
    carrier: Carrier,
    origin: &Origin,
    mut request: Request<Segments>,
    shelf: &Arc<Mutex<Shelf>>,
) -> Result<Response<Body>, (hyper::Error, Option<Request<Segments>>)> {
    match carrier {
        Carrier::Own(mut link) => {
            origin.address(&mut request);
            match link.send(request).await {
                Ok(response) => {
                    let home = Home { shelf: Arc::clone(shelf), origin: origin.clone() };
                    Ok(response.map(|incoming| Body::new(incoming, (link, home))))
                }
                Err(mut failed) => {
                    let unsent = failed.take_message();
                    Err((failed.into_error(), unsent))
                }
            }
        }
        Carrier::Shared(mut sender, boarded) => match sender.try_send_request(request).await {
            Ok(response) => Ok(response.map(|incoming| Body::boarded(incoming, boarded))),
            Err(mut failed) => {
                let unsent = failed.take_message();
                Err((failed.into_error(), unsent))
            }
        },
    }
}

/// A request that was not sent, as it was before it was addressed.
fn restored(mut request: Request<Segments>, uri: &Uri) -> Request<Segments> {
    *request.uri_mut() = uri.clone();
    request.headers_mut().remove(header::HOST);
    request
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        Some(Self { secure, authority: uri.authority()?.clone() })
    }

    /// Writes the target as HTTP/1.1 wants it: the path in the first line, the host in a header.
    fn address(&self, request: &mut Request<Segments>) {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        let default = if self.secure { 443 } else { 80 };
        let host = match self.authority.port_u16() {
            Some(port) if port == default => HeaderValue::from_str(self.authority.host()),
            Some(_) | None => HeaderValue::from_str(self.authority.as_str()),
        };
        if let Ok(host) = host {
            request.headers_mut().insert(header::HOST, host);
        }
    }
}

impl Home {
    /// Keeps a connection that is at rest for the next call.
    pub(super) fn welcome(self, link: Box<Link>) {
        let now = Instant::now();
        let mut surplus = Vec::new();
        let mut locked = self.shelf.lock();
        let kept = locked.kept.entry(self.origin).or_default();
        kept.idle.push_back((now, link));
        if kept.idle.len() > IDLE_PER_ORIGIN {
            surplus.extend(kept.idle.pop_front());
        }
        if now.saturating_duration_since(locked.swept) >= IDLE_FOR {
            locked.swept = now;
            locked.sweep(now, &mut surplus);
        }
        drop(locked);
        // Closed outside the lock.
        drop(surplus);
    }
}

impl Shelf {
    /// Takes out what has been idle for too long, of every origin.
    fn sweep(&mut self, now: Instant, surplus: &mut Vec<(Instant, Box<Link>)>) {
        let is_old = |since: &Instant| now.saturating_duration_since(*since) >= IDLE_FOR;
        self.kept.retain(|_, kept| {
            while kept.idle.front().is_some_and(|(since, _)| is_old(since)) {
                surplus.extend(kept.idle.pop_front());
            }
            // A crowd may have left several behind; one is enough to begin with.
            let mut spare = false;
            kept.shared.retain(|lane| {
                let rests = lane.load.lock().calls == 0;
                lane.is_good(now) && (!rests || !std::mem::replace(&mut spare, true))
            });
            !kept.idle.is_empty() || !kept.shared.is_empty()
        });
    }
}

#[cfg(test)]
mod tests;
