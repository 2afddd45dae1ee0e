//! `OpenAI`'s endpoints. `chat`, `completions` and `embeddings` differ only in what they accept, so
//! they share one handler, parameterised by the endpoint.
//!
//! Invariant: every way out carries the headers of SPEC 4 and a body in `OpenAI`'s format.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use anima_core::clock::mint_id;
use anima_core::failure::Failure;
use anima_wire::request::{CallRequest, Endpoint};

use super::Plane;
use crate::http::body;
use crate::http::caller::{self, Caller};
use crate::http::reply::{self, Facts, Refusal};
use crate::metrics::Inflight;
use crate::relay::admit;
use crate::relay::call::{Arrival, Call, endpoint_name};
use crate::relay::chat::{self, Answer, Outcome};
use crate::relay::decision::Decision;

pub mod models;

/// `POST /v1/chat/completions`.
pub async fn chat_completions(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Endpoint::ChatCompletions, request).await
}

/// `POST /v1/completions`.
pub async fn completions(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Endpoint::Completions, request).await
}

/// `POST /v1/embeddings`.
pub async fn embeddings(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Endpoint::Embeddings, request).await
}

/// Any other path.
pub async fn unknown(State(plane): State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    let message = format!(
        "Unknown request URL: {} {}. Check the path and the method.",
        request.method(),
        request.uri().path()
    );
    reply::refuse(&Refusal::new(Failure::RouteUnknown, message), &plane.facts())
}

/// A known path with another method.
pub async fn wrong_method(
    State(plane): State<Arc<Plane>>,
    request: Request<Body>,
) -> Response<Body> {
    let path = request.uri().path();
    let message = format!("Not allowed to {} on {path}.", request.method());
    reply::refuse(&Refusal::new(Failure::MethodRefused, message), &plane.facts())
}

impl Plane {
    /// Facts about a request that just came in.
    fn facts(&self) -> Facts {
        let id = mint_id(self.relay.clock.now(), &*self.relay.rng);
        Facts {
            id,
            config_version: self.relay.live.rev(),
            degraded: self.relay.degraded(),
            ..Facts::default()
        }
    }

    /// Checks the key of a request.
    async fn identify(&self, parts: &Parts) -> Result<Caller, Refusal> {
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
async fn serve(plane: Arc<Plane>, endpoint: Endpoint, request: Request<Body>) -> Response<Body> {
    let gone = CancellationToken::new();
    let mut facts = plane.facts();
    let arrival = Arrival {
        id: facts.id,
        at: plane.relay.clock.now(),
        instant: Instant::now(),
        gone: gone.clone(),
    };
    let inflight = plane.relay.metrics.enter();
    let call = match admitted(&plane, endpoint, request, arrival.clone()).await {
        Ok(call) => Arc::new(call),
        Err((refusal, who)) => {
            note_refusal(&plane, endpoint, &arrival, &refusal, who);
            return reply::refuse(&refusal, &facts);
        }
    };
    facts.config_version = call.caller.pinned.snapshot.rev;
    // The guard fires when this future is dropped, which is how a leaving client shows.
    let leaving = gone.drop_guard();
    let relay = Arc::clone(&plane.relay);
    // Boxed: a task moves its future with each change of its state, and this one is large.
    let outcome = plane.relay.tasks.spawn(Box::pin(chat::run(relay, call))).await;
    leaving.disarm();
    answer(outcome, &mut facts, inflight)
}

/// `inflight` goes on with a stream, which is served until its end.
fn answer(
    outcome: Result<Outcome, tokio::task::JoinError>,
    facts: &mut Facts,
    inflight: Inflight,
) -> Response<Body> {
    let outcome = outcome.unwrap_or_else(|panic| {
        tracing::error!(request_id = %facts.id, %panic, "a call panicked");
        let message = "Something went wrong inside the gateway. The call was not charged.";
        let answer = Err(Refusal::new(Failure::Internal, message));
        Outcome { answer, served_model: None, attempts: 0 }
    });
    facts.served_model = outcome.served_model;
    facts.attempts = outcome.attempts;
    match outcome.answer {
        Ok(Answer::Whole(bytes)) => reply::json(StatusCode::OK, bytes, facts),
        Ok(Answer::Stream(mut stream)) => {
            stream.count(inflight);
            reply::event_stream(Body::new(stream), facts)
        }
        Err(refusal) => reply::refuse(&refusal, facts),
    }
}

/// A refusal before admission, and who asked if that is known: key and app.
type Unadmitted = (Refusal, Option<Caller>);

async fn admitted(
    plane: &Plane,
    endpoint: Endpoint,
    request: Request<Body>,
    arrival: Arrival,
) -> Result<Call, Unadmitted> {
    let (parts, body) = request.into_parts();
    let caller = plane.identify(&parts).await.map_err(|refusal| (refusal, None))?;
    let known = |refusal: Refusal| (refusal, Some(caller.clone()));
    let read = body::read(body, plane.body_bytes_max, plane.body_within).await;
    let bytes = read.map_err(known)?;
    let parsed = CallRequest::parse(endpoint, bytes);
    let request = parsed.map_err(|error| known(error.into()))?;
    admit::admit(caller.clone(), request, arrival).map_err(|refusal| (refusal, Some(caller)))
}

/// Writes the record of a request that was not admitted.
fn note_refusal(
    plane: &Plane,
    endpoint: Endpoint,
    arrival: &Arrival,
    refusal: &Refusal,
    caller: Option<Caller>,
) {
    let who = caller.map_or_else(Default::default, |c| (c.app, c.kid));
    let endpoint = endpoint_name(endpoint);
    let total = arrival.instant.elapsed();
    let decision = Decision::unadmitted(arrival.id, endpoint, who, refusal.failure, total);
    decision.write(&plane.relay.metrics);
}
