//! The one call of its key: makes the call's answer durable before it goes out, or frees the key.
//!
//! Invariant: what may have been charged is never freed here. A turn that is dropped without a word
//! leaves its record as it is, and the call's hold will tell.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Response;
use http_body_util::BodyExt as _;

use anima_core::failure::{Circuit, Failure};
use anima_store::config::Error;
use anima_store::idempotency::{Claim, Ending, UsedKey};

use super::recorder::Recorder;
use super::registry::Place;
use super::{Idempotency, Kept, context};
use crate::http::reply::Refusal;
use crate::relay::Relay;
use crate::relay::call::Keyed;

/// How long the client of an answer that is booked waits for it to be kept too. Then it gets it all
/// the same; only a further try under the same key will not.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the end of a call is told while the database is away, and the pause between.
const TRIES: usize = 30;
const PAUSE: Duration = Duration::from_secs(1);

/// What becomes of a key when its call has been made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The answer is kept.
    Keep,
    /// The answer is kept while it is streamed.
    Record {
        /// Whether the call goes on when its client leaves.
        drains: bool,
    },
    /// Nothing was charged and another try may succeed: the key is free.
    Free {
        /// Whether those who wait for the call have failed with it.
        shared: bool,
    },
    /// The call may be charged and has no answer: its hold will tell.
    Leave,
}

impl Fate {
    /// What becomes of the key of a call that failed.
    pub fn of(failure: Failure) -> Self {
        if failure == Failure::Unbooked {
            Self::Leave
        } else if failure.row().circuit == Circuit::Succeeds {
            // The provider judged the request itself: asking again would be judged alike.
            Self::Keep
        } else {
            let own = matches!(failure, Failure::ClientGone | Failure::ShuttingDown);
            Self::Free { shared: !own }
        }
    }
}

/// The right to make the call of a key.
#[derive(Debug)]
pub struct Turn {
    pub(super) idempotency: Arc<Idempotency>,
    pub(super) relay: Arc<Relay>,
    claim: Claim,
    /// The number of the lease that the claim names.
    lease: u64,
    place: Place,
}

impl Turn {
    pub(super) fn new(
        idempotency: Arc<Idempotency>,
        relay: Arc<Relay>,
        (claim, lease): (Claim, u64),
        place: Place,
    ) -> Self {
        Self { idempotency, relay, claim, lease, place }
    }

    pub(super) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// The call's key, and the lease that it is claimed under: under no other one may the call
    /// send anything.
    pub fn keyed(&self) -> Keyed {
        let Claim { kid, key_hash: hash, .. } = &self.claim;
        Keyed { key: UsedKey { kid: Arc::clone(kid), hash: *hash }, lease: self.lease }
    }

    /// The claim as of now, for another look.
    pub(super) fn look_again(&mut self) {
        self.claim.at = self.relay.clock.now();
        (self.lease, self.claim.node) = self.relay.term.lease();
    }

    /// Gives an answer to those who wait here.
    pub(super) fn pass_on(&self, kept: Arc<Kept>) {
        self.place.pass_on(kept);
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.idempotency.bounds.answer_bytes_max
    }

    /// The claim could not be made, or could and was not heard of.
    pub(super) fn unclaimed(self, error: &Error) -> Refusal {
        let request_id = self.claim.call;
        tracing::error!(%request_id, %error, "failed to claim an idempotency key");
        self.relay.tasks.spawn(free(Arc::clone(&self.idempotency), self.claim));
        let message = "Idempotency keys cannot be checked at the moment. Try again shortly.";
        Refusal::new(Failure::ServiceUnavailable, message).retry_after(1_000)
    }

    /// Does what the call's end asks for, and gives the reply to send.
    pub async fn finish(self, fate: Fate, response: Response<Body>) -> Response<Body> {
        match fate {
            Fate::Leave => response,
            Fate::Record { drains } => {
                let (parts, body) = response.into_parts();
                let recorder = Recorder::new(self, &parts, body, drains);
                Response::from_parts(parts, Body::new(recorder))
            }
            Fate::Keep => {
                let (kept, response) = split(response).await;
                self.keep(kept).await;
                response
            }
            Fate::Free { shared } => {
                let (kept, response) = split(response).await;
                if shared {
                    self.place.pass_on(Arc::new(kept));
                }
                let Self { idempotency, claim, .. } = &self;
                let freed = idempotency.store.abandon(claim);
                if !matches!(tokio::time::timeout(PATIENCE, freed).await, Ok(Ok(()))) {
                    self.relay.tasks.spawn(free(Arc::clone(idempotency), claim.clone()));
                }
                response
            }
        }
    }

    /// Makes an answer durable. It may go out afterwards, whether or not that succeeded: the call
    /// is booked, and its key does not lead to another one.
    pub(super) async fn keep(self, kept: Kept) {
        let sealed = if kept.size() > self.bytes_max() {
            Ok(Ending::TooLarge)
        } else {
            let secrets = &self.idempotency.secrets;
            secrets.seal_bytes(&context(self.claim.call), &kept.to_bytes()).map(Ending::Kept)
        };
        // Those who wait here do not need the database.
        self.place.pass_on(Arc::new(kept));
        let Ok(ending) = sealed else {
            return tracing::error!(request_id = %self.claim.call, "failed to seal an answer");
        };
        self.end(ending).await;
    }

    /// An answer that outgrew its bound on the way.
    pub(super) async fn too_large(self) {
        self.end(Ending::TooLarge).await;
    }

    async fn end(self, ending: Ending) {
        let Self { idempotency, claim, .. } = &self;
        let ended = idempotency.store.end(claim, ending.clone());
        if !matches!(tokio::time::timeout(PATIENCE, ended).await, Ok(Ok(_))) {
            tracing::warn!(request_id = %claim.call, "an answer is kept later");
            self.relay.tasks.spawn(end_later(Arc::clone(idempotency), claim.clone(), ending));
        }
    }
}

/// A reply's answer, and the reply.
async fn split(response: Response<Body>) -> (Kept, Response<Body>) {
    let (parts, body) = response.into_parts();
    // These bodies are in memory and cannot fail.
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let kept = Kept::of(&parts, bytes.clone());
    (kept, Response::from_parts(parts, Body::from(bytes)))
}

/// Keeps an answer that was given while the database was away.
async fn end_later(idempotency: Arc<Idempotency>, claim: Claim, ending: Ending) {
    for _ in 0..TRIES {
        tokio::time::sleep(PAUSE).await;
        let ended = idempotency.store.end(&claim, ending.clone());
        if matches!(tokio::time::timeout(PATIENCE, ended).await, Ok(Ok(_))) {
            return;
        }
    }
    tracing::error!(request_id = %claim.call, "failed to keep an answer");
}

/// Frees a key, for as long as there is hope.
async fn free(idempotency: Arc<Idempotency>, claim: Claim) {
    for _ in 0..TRIES {
        if idempotency.store.abandon(&claim).await.is_ok() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    tracing::error!(request_id = %claim.call, "failed to free an idempotency key");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_charged_frees_a_key() {
        for failure in Failure::ALL {
            let fate = Fate::of(*failure);
            if *failure == Failure::Unbooked {
                assert_eq!(fate, Fate::Leave);
            } else if failure.row().circuit == Circuit::Succeeds {
                assert_eq!(fate, Fate::Keep, "{failure:?}");
                assert!(!failure.row().should_retry, "{failure:?}");
            } else {
                assert!(matches!(fate, Fate::Free { .. }), "{failure:?}");
            }
        }
    }
}
