//! The simulator: a script, a truth log, and a server that plays the plans.
//!
//! Thin on purpose: it reads a request whole, has its answer planned by `decide.rs`, enters it in
//! the log and plays it. HTTP/1.1 with keep-alive, and HTTP/2 with prior knowledge. Nothing is
//! global, so any number of simulators live in one process. The invariant: no byte of an answer is
//! sent before its entry is in the log.

use std::future::{Future, pending};
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::RwLock;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::control;
use crate::decide::{Ask, Turn, decide};
use crate::gate::Gate;
use crate::lookup;
use crate::player::{Closed, Player, moment};
use crate::prose;
use crate::refusal::{ErrorBody, Face};
use crate::reply::{Head, Truth};
use crate::script::{Counts, Script};
use crate::socket::{ResetOrder, Socket};
use crate::truth::{Call, Log, LogSettings, Outcome, Record};

/// The largest request body: more than any real provider takes.
const BODY_MAX: usize = 64 << 20;
/// Milliseconds until the next accept after a failed one, so that a lack of file descriptors does
/// not become a busy loop.
const ACCEPT_PAUSE_MS: u64 = 10;

/// A simulated provider.
#[derive(Debug)]
pub struct Simulator {
    active: RwLock<Arc<Active>>,
    log: Arc<Log>,
    gate: Arc<Gate>,
}

/// A loaded script with its counters.
#[derive(Debug)]
struct Active {
    script: Script,
    counts: Counts,
}

impl Active {
    fn new(script: Script) -> Arc<Self> {
        Arc::new(Self { counts: Counts::new(&script), script })
    }
}

impl Simulator {
    /// A simulator whose log is in memory.
    pub fn new(script: Script) -> Self {
        let log = Arc::new(Log::in_memory(LogSettings::default()));
        Self { active: RwLock::new(Active::new(script)), log, gate: Arc::default() }
    }

    /// A simulator with another log.
    ///
    /// # Errors
    ///
    /// The log file cannot be opened or read.
    pub fn with_log(script: Script, settings: LogSettings) -> io::Result<Self> {
        let (active, log) = (RwLock::new(Active::new(script)), Log::open(settings)?);
        Ok(Self { active, log, gate: Arc::default() })
    }

    /// The logged calls, in order of their numbers.
    pub fn calls(&self) -> Vec<Call> {
        self.calls_after(0)
    }

    /// The logged calls with a higher number, in order.
    pub fn calls_after(&self, number: u64) -> Vec<Call> {
        self.log.after(number)
    }

    /// Forgets the logged calls. Numbers go on, and a log file stays as it is.
    pub fn clear_calls(&self) {
        self.log.clear();
    }

    /// The script of the calls that arrive now.
    pub fn script(&self) -> Script {
        self.active.read().script.clone()
    }

    /// Replaces the script for the calls that arrive from now on; all rules count from zero.
    pub fn set_script(&self, script: Script) {
        *self.active.write() = Active::new(script);
    }

    /// Ends the answers that wait for it (`gate`), of all calls that have arrived.
    pub fn open_gate(&self) {
        self.gate.open();
    }

    /// Waits until every call that has arrived has ended in the log. A silent call ends when its
    /// caller leaves.
    pub async fn idle(&self) {
        self.log.idle().await;
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Serves until `shutdown` is ready, then drops every connection at once. Calls that were open
    /// get the outcome `stopped`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(connection(Arc::clone(&self), stream));
                    }
                    Err(_) => sleep_until(moment(ACCEPT_PAUSE_MS)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        self.log.stop();
        connections.shutdown().await;
    }

    async fn handle(
        &self,
        request: Request<Incoming>,
        reset: &ResetOrder,
    ) -> Result<Response<Player>, Closed> {
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, BODY_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let error = ErrorBody::no_path(413, "The request is too large.".to_owned());
                return Ok(plain(error.status, error.json(Face::Openai)));
            }
            // The caller left while it was asking: not a call.
            Err(_) => return Err(Closed),
        };
        if control::owns(parts.uri.path()) {
            let (status, json) = control::answer(self, &parts.method, &parts.uri, &body);
            return Ok(plain(status, json));
        }
        if lookup::owns(parts.uri.path()) {
            let active = Arc::clone(&self.active.read());
            let asked = (&parts.method, parts.uri.path(), bearer(&parts.headers));
            let (status, json) = lookup::answer(&self.log, &active.script, asked);
            return Ok(plain(status, json));
        }
        self.play(&parts, &body, reset).await
    }

    /// Plans, logs and begins an answer.
    async fn play(
        &self,
        parts: &Parts,
        body: &Bytes,
        reset: &ResetOrder,
    ) -> Result<Response<Player>, Closed> {
        let active = Arc::clone(&self.active.read());
        let gate = (Arc::clone(&self.gate), self.gate.opened());
        let number = self.log.number();
        let id = call_id(active.script.seed, number);
        let received_ms = unix_ms();
        let query = parts.uri.query().unwrap_or_default();
        let key = credential(&parts.headers, query);
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let ask = Ask {
            method: &parts.method,
            path: parts.uri.path(),
            query,
            key,
            content_type: kind.unwrap_or_default(),
            body,
        };
        let turn = Turn { id: &id, created_s: received_ms / 1000 };
        let reply = decide(&ask, &active.script, &active.counts, turn);
        let mut record = Record::open(&self.log, number, reply.truth, |truth| {
            entry(
                truth,
                &reply.head,
                &parts.headers,
                &Arrival { number, id: &id, received_ms, key },
            )
        });
        if reply.latency_ms > 0 {
            sleep_until(moment(reply.latency_ms)).await;
        }
        match reply.head {
            Head::Silent => {
                record.fell_silent();
                pending().await
            }
            Head::Reset => {
                reset.give();
                record.finish();
                Err(Closed)
            }
            Head::Status { status, headers } => {
                let mut response = Response::new(Player::new(reply.steps, record, gate));
                *response.status_mut() = status_code(status);
                response.headers_mut().extend(headers);
                Ok(response)
            }
        }
    }
}

async fn connection(simulator: Arc<Simulator>, stream: TcpStream) {
    // Without it a paced stream would be held back by Nagle's algorithm; a failure only slows.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let reset = ResetOrder::default();
    let socket = TokioIo::new(Socket::new(stream, reset.clone()));
    let service = service_fn(move |request| {
        let (simulator, reset) = (Arc::clone(&simulator), reset.clone());
        async move { simulator.handle(request, &reset).await }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    // One flat buffer: the events of an unpaced stream leave in one system call.
    server.http1().writev(false).header_read_timeout(None);
    // An error here is a caller that left or a fault that was asked for; the log has both.
    drop(server.serve_connection(socket, service).await);
}

fn plain(status: u16, json: Vec<u8>) -> Response<Player> {
    let mut response = Response::new(Player::plain(json));
    *response.status_mut() = status_code(status);
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// What is known of a call beside its plan.
struct Arrival<'a> {
    number: u64,
    id: &'a str,
    received_ms: u64,
    key: Option<&'a str>,
}

fn entry(truth: &Truth, head: &Head, headers: &HeaderMap, arrival: &Arrival<'_>) -> Call {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
    let tail = |key: &str| {
        let start = key.char_indices().rev().nth(3).map_or(0, |(place, _)| place);
        key.get(start..).unwrap_or_default().to_owned()
    };
    Call {
        number: arrival.number,
        id: arrival.id.to_owned(),
        received_ms: arrival.received_ms,
        attempt_id: text("x-anima-attempt-id"),
        request_id: text("x-anima-request-id"),
        key_tail: arrival.key.map(tail),
        endpoint: truth.endpoint,
        model: truth.model.clone(),
        stream: truth.stream,
        rule: truth.rule,
        status: match head {
            Head::Status { status, .. } => Some(*status),
            Head::Silent | Head::Reset => None,
        },
        billed: truth.billed(0),
        reported: None,
        pictures: truth.pictures.clone(),
        chunks: 0,
        caller_left: false,
        outcome: Outcome::Open,
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

/// The key of a call, from wherever the vendors' clients put it.
fn credential<'a>(headers: &'a HeaderMap, query: &'a str) -> Option<&'a str> {
    let mut named = ["x-api-key", "x-goog-api-key", "api-key"].iter();
    let header = named.find_map(|name| headers.get(*name)?.to_str().ok());
    let parameter = || query.split('&').find_map(|pair| pair.strip_prefix("key="));
    bearer(headers).or(header).or_else(parameter)
}

/// The id of a call: the first half tells simulators with different seeds apart.
fn call_id(seed: u64, number: u64) -> String {
    format!("simcall_{:08x}{number:08x}", prose::mix(seed, 0) >> 32)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the provider's own clock, only shown in `created` and in the log; no decision uses it"
)]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
