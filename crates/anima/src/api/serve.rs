//! How any call is served, whatever its client speaks: read, admitted, made, answered.
//!
//! The endpoints say what is wanted; the relay does it. Invariant: every way out carries the
//! headers of SPEC 4 and a body in the client's own format.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use anima_core::clock::mint_id;
use anima_core::config::QueueMode;
use anima_core::failure::Failure;
use anima_wire::adapter::BETA;
use anima_wire::dialect::Dialect;
use anima_wire::request::{self, CallRequest, Endpoint, Ranking};

use super::Plane;
use super::heartbeat::Heartbeat;
use super::idempotency::{self, Entry, Fate};
use super::tasks::submit::{Parcel, submit};
use crate::http::body;
use crate::http::caller::{self, Caller};
use crate::http::reply::{self, Facts, Format, Refusal};
use crate::metrics::Inflight;
use crate::relay::call::{Arrival, Call, endpoint_name};
use crate::relay::chat::{self, Answer, Outcome};
use crate::relay::decision::Decision;
use crate::relay::steer::Steering;
use crate::relay::{admit, hold};

/// What a path asks for, before the body is read.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) endpoint: Endpoint,
    /// What the body is written in, and the answer.
    pub(super) dialect: Dialect,
    /// The model and whether to stream, where the path says so.
    pub(super) named: Option<(String, bool)>,
    /// Whether the answer is a list; see [`CallRequest::as_array`].
    pub(super) as_array: bool,
    /// Of a rerank: the form of the answer.
    pub(super) ranking: Ranking,
}

impl Wanted {
    /// An endpoint of the dialect that most clients speak.
    pub(super) const fn openai(endpoint: Endpoint) -> Self {
        let dialect = Dialect::OpenAiChat;
        Self { endpoint, dialect, named: None, as_array: false, ranking: Ranking::Jina }
    }

    /// A chat in any dialect.
    pub(super) const fn chat(dialect: Dialect) -> Self {
        Self {
            endpoint: Endpoint::ChatCompletions,
            dialect,
            named: None,
            as_array: false,
            ranking: Ranking::Jina,
        }
    }

    /// Its short name.
    const fn name(&self) -> &'static str {
        endpoint_name(self.endpoint, self.dialect)
    }

    /// Reads a body.
    pub(super) fn read(
        &self,
        headers: &HeaderMap,
        bytes: Bytes,
    ) -> Result<CallRequest, request::Error> {
        if self.endpoint.takes_forms() {
            let none = HeaderValue::from_static("");
            let kind = headers.get(header::CONTENT_TYPE).unwrap_or(&none);
            let is_form = kind.as_bytes().to_ascii_lowercase().starts_with(b"multipart/");
            if is_form || self.endpoint.hears() {
                return CallRequest::parse_form(self.endpoint, kind, bytes);
            }
        }
        let mut read = match (self.dialect, &self.named) {
            (Dialect::OpenAiChat, _) => CallRequest::parse(self.endpoint, bytes)?,
            (Dialect::Gemini, Some((model, _))) if self.endpoint == Endpoint::Embeddings => {
                CallRequest::parse_embedding(bytes, model, self.as_array)?
            }
            (dialect, named) => {
                let named = named.as_ref().map(|(model, stream)| (model.as_str(), *stream));
                CallRequest::parse_as(dialect, bytes, named)?
            }
        };
        read.as_array = self.as_array;
        read.ranking = self.ranking;
        if self.dialect == Dialect::Anthropic {
            let betas = headers.get_all(BETA).iter().filter_map(|names| names.to_str().ok());
            read.betas = betas.collect::<Vec<_>>().join(",");
        }
        Ok(read)
    }
}

/// Any other path.
pub async fn unknown(State(plane): State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    let message = format!(
        "Unknown request URL: {} {}. Check the path and the method.",
        request.method(),
        request.uri().path()
    );
    let facts = plane.facts(Format::of(&request));
    reply::refuse(&Refusal::new(Failure::RouteUnknown, message), &facts)
}

/// A known path with another method.
pub async fn wrong_method(
    State(plane): State<Arc<Plane>>,
    request: Request<Body>,
) -> Response<Body> {
    let path = request.uri().path();
    let message = format!("Not allowed to {} on {path}.", request.method());
    let facts = plane.facts(Format::of(&request));
    reply::refuse(&Refusal::new(Failure::MethodRefused, message), &facts)
}

impl Plane {
    /// Facts about a request that just came in.
    pub(super) fn facts(&self, format: Format) -> Facts {
        let id = mint_id(self.relay.clock.now(), &*self.relay.rng);
        Facts {
            id,
            format,
            config_version: self.relay.live.rev(),
            degraded: self.relay.dependencies.degraded(),
            ..Facts::default()
        }
    }

    /// Checks the key of a request.
    pub(super) async fn identify(&self, parts: &Parts) -> Result<Caller, Refusal> {
        let now = self.relay.clock.now();
        let head = (&parts.headers, &parts.uri);
        caller::identify(&self.relay.live, &self.secrets, now, head, peer(parts)).await
    }
}

/// The client's address.
fn peer(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip())
}

/// Serves one call from its head to its answer.
pub(super) async fn serve(
    plane: Arc<Plane>,
    wanted: Wanted,
    request: Request<Body>,
) -> Response<Body> {
    let gone = CancellationToken::new();
    let mut facts = plane.facts(Format::from(wanted.dialect));
    let arrival = Arrival {
        id: facts.id,
        at: plane.relay.clock.now(),
        instant: Instant::now(),
        gone: gone.clone(),
    };
    let inflight = plane.relay.metrics.enter();
    let (mut call, key, parcel) = match admitted(&plane, &wanted, request, arrival.clone()).await {
        Ok(admitted) => admitted,
        Err((refusal, who)) => {
            note_refusal(&plane, wanted.name(), &arrival, &refusal, who);
            return reply::refuse(&refusal, &facts);
        }
    };
    facts.config_version = call.caller.pinned.rev;
    facts.as_array = call.request.as_array;
    // The guard fires when this future is dropped, which is how a leaving client shows.
    let leaving = gone.drop_guard();
    let heartbeat = Heartbeat::of(plane.beats, &mut call, &facts);
    let relay = Arc::clone(&plane.relay);
    let tasks = relay.tasks.clone();
    // Boxed: a task moves its future with each change of its state, and these are large.
    let response = if let Some(parcel) = parcel {
        tasks.spawn(Box::pin(submit(plane, (call, key), parcel, facts.clone()))).await
    } else if let Some(key) = key {
        let keyed = keyed(plane, (call, key), facts.clone(), inflight);
        let running = tasks.spawn(Box::pin(keyed));
        match heartbeat {
            Some(heartbeat) => return heartbeat.beside(running, leaving).await,
            None => running.await,
        }
    } else {
        let running = tasks.spawn(Box::pin(chat::run(relay, Arc::new(call))));
        if let Some(heartbeat) = heartbeat {
            let made = async move { Ok(answer(running.await?, &mut facts, inflight)) };
            return heartbeat.beside(made, leaving).await;
        }
        running.await.map(|outcome| answer(outcome, &mut facts, inflight))
    };
    leaving.disarm();
    response.unwrap_or_else(|panic| panicked(&panic, &facts))
}

/// What is said of a call that panicked.
pub(super) fn panicked(panic: &JoinError, facts: &Facts) -> Response<Body> {
    tracing::error!(request_id = %facts.id, %panic, "a call panicked");
    let message = "Something went wrong inside the gateway. The call may be charged.";
    reply::refuse(&Refusal::new(Failure::Internal, message), facts)
}

/// Serves a call with an idempotency key: makes it, or gives the answer of the one that was made.
async fn keyed(
    plane: Arc<Plane>,
    (call, key): (Call, String),
    mut facts: Facts,
    inflight: Inflight,
) -> Response<Body> {
    let relay = Arc::clone(&plane.relay);
    let turn = match plane.idempotency.enter(&relay, &call, &key).await {
        Ok(Entry::Mine(turn)) => turn,
        Ok(Entry::Again(kept)) => {
            relay.conclude(Decision::replayed(&call, kept.status()));
            return kept.replay(&facts);
        }
        Err(refusal) => {
            let who = Some(call.caller.clone());
            note_refusal(&plane, call.endpoint(), &call.arrival, &refusal, who);
            return reply::refuse(&refusal, &facts);
        }
    };
    let keyed = Some(turn.keyed());
    let outcome = chat::run(relay, Arc::new(Call { keyed, ..call })).await;
    let fate = match &outcome.answer {
        Ok(Answer::Whole(..)) => Fate::Keep,
        Ok(Answer::Stream(stream)) => Fate::Record { drains: stream.drains() },
        Err(refusal) => Fate::of(refusal.failure),
    };
    turn.finish(fate, answer(outcome, &mut facts, inflight)).await
}

/// `inflight` goes on with a stream, which is served until its end.
pub(super) fn answer(outcome: Outcome, facts: &mut Facts, inflight: Inflight) -> Response<Body> {
    facts.served_model = outcome.served_model;
    facts.attempts = outcome.attempts;
    facts.output_limit = outcome.output_limit;
    facts.dropped = outcome.dropped;
    facts.limits = outcome.limits;
    facts.queue_wait_ms = u64::try_from(outcome.waited.as_millis()).unwrap_or(u64::MAX);
    facts.way = outcome.way;
    match outcome.answer {
        Ok(Answer::Whole(bytes, kind)) => {
            facts.content_type = kind.map(HeaderValue::from_static);
            reply::json(StatusCode::OK, bytes, facts)
        }
        Ok(Answer::Stream(mut stream)) => {
            stream.count(inflight);
            facts.content_type = stream.content_type();
            reply::streamed(Body::new(stream), facts)
        }
        Err(refusal) => reply::refuse(&refusal, facts),
    }
}

/// A call, its idempotency key, and the call to be stored where it is made later.
type Admitted = (Call, Option<String>, Option<Parcel>);

/// A refusal before admission, and who asked if that is known: key and app.
type Unadmitted = (Refusal, Option<Caller>);

async fn admitted(
    plane: &Plane,
    wanted: &Wanted,
    request: Request<Body>,
    arrival: Arrival,
) -> Result<Admitted, Unadmitted> {
    let (parts, body) = request.into_parts();
    let caller = plane.identify(&parts).await.map_err(|refusal| (refusal, None))?;
    let known = |refusal: Refusal| (refusal, Some(caller.clone()));
    if plane.relay.dependencies.database_down() {
        // Before the body is read: what cannot be held is refused within milliseconds.
        return Err(known(hold::database_down()));
    }
    let key = idempotency::key_of(&parts.headers).map_err(known)?.map(str::to_owned);
    let read = body::read(body, plane.body_bytes_max, plane.body_within, &plane.room).await;
    let bytes = read.map_err(known)?;
    let parcel = deferred(&caller, (wanted, &parts), &bytes).map_err(known)?;
    let mut request = wanted.read(&parts.headers, bytes).map_err(|error| known(error.into()))?;
    request.created_s = u64::try_from(arrival.at.seconds()).unwrap_or(0);
    let allowed = caller.allowed(plane.relay.limits.allowed);
    let steering = Steering::read(&parts.headers, allowed).map_err(known)?;
    let admitted = admit::admit(caller.clone(), request, (arrival, steering));
    admitted.map(|call| (call, key, parcel)).map_err(|refusal| (refusal, Some(caller)))
}

/// The call as it is to be stored, where its key does not wait for its calls.
fn deferred(
    caller: &Caller,
    (wanted, parts): (&Wanted, &Parts),
    body: &Bytes,
) -> Result<Option<Parcel>, Refusal> {
    if caller.terms.mode != QueueMode::Async {
        return Ok(None);
    }
    Parcel::of(wanted, &parts.headers, body.clone()).map(Some).ok_or_else(|| {
        let message = "This endpoint is not served to keys in queue mode ASYNC. Use another key.";
        Refusal::new(Failure::ModelMismatch, message)
    })
}

/// Writes the record of a request that was not admitted.
fn note_refusal(
    plane: &Plane,
    endpoint: &'static str,
    arrival: &Arrival,
    refusal: &Refusal,
    caller: Option<Caller>,
) {
    let who = caller.map_or_else(Default::default, |c| (c.app, c.kid));
    let total = arrival.instant.elapsed();
    let mut decision = Decision::unadmitted((arrival.id, arrival.at), endpoint, who, total);
    decision.note(refusal);
    plane.relay.conclude(decision);
}
