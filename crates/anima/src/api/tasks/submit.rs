//! A call becomes a task: stored first, then answered with 202.
//!
//! Invariant: whoever got a 202 has a task on disk, and the same idempotency key gets the same
//! task, also when this process dies between the two.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use uuid::Uuid;

use anima_core::failure::Failure;
use anima_core::task::State;
use anima_store::tasks::{Accepted, Created, Task};

use super::super::Plane;
use super::super::idempotency::{Entry, Fate};
pub(in crate::api) use super::parcel::Parcel;
use super::pin::Pin;
use super::{Part, id_text, show};
use crate::http::reply::{self, Facts, Refusal};
use crate::outbound;
use crate::relay::call::Call;
use crate::relay::hold;

/// Where to send the end of a task.
const WEBHOOK: &str = "x-anima-webhook-url";
/// Longest URL.
const URL_BYTES_MAX: usize = 2_048;
/// Seconds until the first look at a task is worth it.
const LOOK_AFTER_S: &str = "1";

/// Stores a call and says so.
pub(in crate::api) async fn submit(
    plane: Arc<Plane>,
    (call, key): (Call, Option<String>),
    parcel: Parcel,
    facts: Facts,
) -> Response<Body> {
    let turn = match &key {
        None => None,
        Some(key) => match plane.idempotency.enter(&plane.relay, &call, key).await {
            Ok(Entry::Mine(turn)) => Some(turn),
            Ok(Entry::Again(kept)) => return kept.replay(&facts),
            Err(refusal) => return reply::refuse(&refusal, &facts),
        },
    };
    let (fate, response) = match stored(&plane, (&call, key.as_deref()), &parcel).await {
        Ok(id) => (Fate::Keep, accepted(&plane, &call, id, &facts)),
        Err(refusal) => (Fate::of(refusal.failure), reply::refuse(&refusal, &facts)),
    };
    match turn {
        Some(turn) => turn.finish(fate, response).await,
        None => response,
    }
}

async fn stored(
    plane: &Plane,
    (call, key): (&Call, Option<&str>),
    parcel: &Parcel,
) -> Result<Uuid, Refusal> {
    let (relay, tasks) = (&plane.relay, &plane.tasks);
    let (id, kid) = (call.arrival.id, &call.caller.kid);
    let defect = || Refusal::new(Failure::Internal, "The call could not be stored.");
    let url = webhook_url(plane, &parcel.headers)?;
    let seal = |part, plain: &[u8]| tasks.seal((part, id), plain).ok_or_else(defect);
    let fingerprint = |parts: &[&[u8]]| tasks.secrets.fingerprint(parts);
    // What was asked for is the same when it is asked for again after a change of its price.
    let content_hash = fingerprint(&[b"task", &parcel.to_bytes()]);
    let request = Parcel { pin: Some(Pin::of(call)), ..parcel.clone() }.to_bytes();
    let covered = relay.dependencies.while_up(hold::covered(relay, call)).await;
    let covered = covered.unwrap_or_else(|| Err(hold::database_down()));
    // What is not covered makes no task, and finds the one that its idempotency key has made.
    let room = call.caller.terms.max_tasks.unwrap_or(tasks.bounds.queue_max);
    let accepted = Accepted {
        id,
        kid: Arc::clone(kid),
        app: Arc::clone(&call.caller.app),
        endpoint: call.endpoint(),
        alias: Arc::clone(&call.alias.code),
        currency: call.caller.currency,
        request: seal(Part::Request, &request)?,
        key_hash: key.map(|key| fingerprint(&[b"task", kid.as_bytes(), key.as_bytes()])),
        content_hash,
        webhook: url.map(|url| seal(Part::Webhook, url.as_bytes())).transpose()?,
        at: call.arrival.at,
        expires_at: call.arrival.at.plus_millis(tasks.bounds.wait_ms),
        most: if covered.is_ok() { room } else { 0 },
    };
    let created = relay.dependencies.while_up(tasks.stores.tasks.create(accepted)).await;
    match created {
        Some(Ok(Created::Fresh)) => {
            relay.metrics.tasks.accepted.inc();
            tasks.work.notify_one();
            Ok(id)
        }
        Some(Ok(Created::Known { id, content_hash: known })) if known == content_hash => Ok(id),
        Some(Ok(Created::Known { .. })) => {
            let message = "This Idempotency-Key was used for another request. Repeat that request, \
                           or use a new key.";
            Err(Refusal::new(Failure::IdempotencyConflict, message))
        }
        Some(Ok(Created::Full)) => {
            covered?;
            let message = "As many tasks of this API key wait as may. Try again later.";
            Err(Refusal::new(Failure::QueueFull, message).retry_after(5_000))
        }
        Some(Err(error)) => {
            tracing::error!(task = %id, %error, "failed to store a task");
            relay.note_database(true);
            Err(hold::database_down())
        }
        None => Err(hold::database_down()),
    }
}

/// Where the end of the task is to be sent, if anywhere.
fn webhook_url<'a>(plane: &Plane, headers: &'a HeaderMap) -> Result<Option<&'a str>, Refusal> {
    let mut given = headers.get_all(WEBHOOK).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let refused = |why: &str| {
        let refusal = Refusal::new(Failure::BodyInvalid, format!("The header {WEBHOOK} {why}."));
        refusal.param(Some(WEBHOOK))
    };
    if given.next().is_some() {
        return Err(refused("must be given once"));
    }
    let text = value.to_str().unwrap_or_default().trim();
    let uri: Option<Uri> = text.parse().ok().filter(|_| text.len() <= URL_BYTES_MAX);
    let uri = uri.ok_or_else(|| refused("must be a URL of at most 2048 bytes"))?;
    outbound::may_deliver(&plane.relay.outbound, &uri).map_err(refused)?;
    Ok(Some(text))
}

/// The 202.
fn accepted(plane: &Plane, call: &Call, id: Uuid, facts: &Facts) -> Response<Body> {
    let task = Task {
        id,
        kid: Arc::clone(&call.caller.kid),
        app: Arc::clone(&call.caller.app),
        kind: "call".to_owned(),
        endpoint: call.endpoint().to_owned(),
        alias: Arc::clone(&call.alias.code),
        currency: call.caller.currency.code().to_owned(),
        state: State::Accepted,
        run: 0,
        call: None,
        created_at: call.arrival.at,
        expires_at: call.arrival.at.plus_millis(plane.tasks.bounds.wait_ms),
        ended_at: None,
        keep_until: None,
        error: None,
        hook: None,
    };
    let body = Bytes::from(show(&task, None).to_string());
    let mut response = reply::json(StatusCode::ACCEPTED, body, facts);
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(format!("/v1/tasks/{}", id_text(id))) {
        headers.insert(LOCATION, location);
    }
    headers.insert(RETRY_AFTER, HeaderValue::from_static(LOOK_AFTER_S));
    response
}
