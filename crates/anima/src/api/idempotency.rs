//! `Idempotency-Key`: a call that is sent again is answered again, and made and charged once.
//!
//! The order of things is the guarantee. The claim is on disk before the call's hold is asked for,
//! and the answer is on disk before its last byte goes out. What a crash leaves between the two is
//! judged by the hold, so a key never leads to a second charge. Invariant: a key is freed only when
//! its call was not charged. Without the header nothing here is done. Source: SPEC 4, `reliability`
//! 1.6 row 9.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use anima_core::failure::Failure;
use anima_store::config::Error;
use anima_store::idempotency::{Claim, Gone, IdempotencyStore, Verdict};

use crate::http::reply::{Refusal, id_text};
use crate::relay::Relay;
use crate::relay::call::Call;
use crate::secrets::Secrets;

mod kept; // an answer as it is stored and given again
mod recorder; // a streamed answer, kept while it goes out
mod registry; // the calls that this node is making
mod turn; // the one call of its key

pub use kept::Kept;
pub use turn::{Fate, Turn};

use registry::{Joined, Registry};

/// Longest key, as the drafts of the header and the vendors have it.
const KEY_CHARS_MAX: usize = 255;

/// Between two looks at a call that another node makes: from the first to the longest.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A claim without a hold outlives the call's deadline by this: clocks of nodes differ.
const GRACE_MS: i64 = 60_000;

/// What the caller of a running call is asked to wait, if it does not want to wait here.
const RETRY_AFTER_MS: u64 = 1_000;

/// What keeping answers takes.
#[derive(Debug)]
pub struct Idempotency {
    store: Arc<dyn IdempotencyStore>,
    secrets: Arc<Secrets>,
    registry: Registry,
    bounds: Bounds,
}

/// From the settings.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long an answer is kept.
    pub keep_ms: i64,
    /// The largest answer that is kept, bytes.
    pub answer_bytes_max: usize,
}

/// How a call with a key goes on.
#[derive(Debug)]
pub enum Entry {
    /// It is the one that is made.
    Mine(Box<Turn>),
    /// It was made before.
    Again(Arc<Kept>),
}

/// The key of a request, if it has one.
///
/// # Errors
/// [`Failure::BodyInvalid`] for one that is empty, too long or not of visible characters.
pub fn key_of(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(first) = given.next() else {
        return Ok(None);
    };
    let text = first.to_str().unwrap_or_default().trim();
    let fits = (1..=KEY_CHARS_MAX).contains(&text.len());
    if fits && given.next().is_none() {
        return Ok(Some(text));
    }
    let message = format!(
        "The Idempotency-Key must be given once and have 1 to {KEY_CHARS_MAX} visible characters."
    );
    Err(Refusal::new(Failure::BodyInvalid, message).param(Some("Idempotency-Key")))
}

impl Idempotency {
    /// Keeps answers in `store`, sealed by `secrets`.
    pub fn new(store: Arc<dyn IdempotencyStore>, secrets: Arc<Secrets>, bounds: Bounds) -> Self {
        Self { store, secrets, registry: Registry::default(), bounds }
    }

    /// Takes the key for a call, or waits for the call that has it, up to its own deadline.
    ///
    /// Must not be dropped before its end: a claim that nobody hears of blocks its key.
    ///
    /// # Errors
    /// [`Failure::IdempotencyConflict`], [`Failure::IdempotencyInProgress`],
    /// [`Failure::IdempotencyAnswerGone`], or [`Failure::ServiceUnavailable`].
    pub async fn enter(
        self: &Arc<Self>,
        relay: &Arc<Relay>,
        call: &Call,
        key: &str,
    ) -> Result<Entry, Refusal> {
        let (lease, node) = relay.term.lease();
        let claim = self.claim(call, key, node);
        loop {
            let mut running = match self.registry.join(&claim) {
                Joined::First(place) => {
                    let turn =
                        Turn::new(Arc::clone(self), Arc::clone(relay), (claim, lease), place);
                    return self.take(relay, Box::new(turn), call).await;
                }
                Joined::Conflict => return Err(conflict()),
                Joined::Running(running) => running,
            };
            if let Some(kept) = awaited(call, &mut running).await? {
                return Ok(Entry::Again(kept));
            }
        }
    }

    fn claim(&self, call: &Call, key: &str, node: Uuid) -> Claim {
        let deadline = call.deadline.duration_since(call.arrival.instant).as_millis();
        let longest_ms = i64::try_from(deadline).unwrap_or(i64::MAX).saturating_add(GRACE_MS);
        let (kid, request) = (&call.caller.kid, &call.request);
        // What some clients say in the path belongs to the request as much as its body.
        let manner = [u8::from(request.stream), u8::from(request.as_array)];
        let mut content =
            vec![&b"POST"[..], call.endpoint().as_bytes(), request.model.as_bytes(), &manner];
        content.extend(request.substance());
        Claim {
            kid: Arc::clone(kid),
            key_hash: self.secrets.fingerprint(&[b"key", kid.as_bytes(), key.as_bytes()]),
            content_hash: self.secrets.fingerprint(&content),
            call: call.arrival.id,
            node,
            at: call.arrival.at,
            stale_at: call.arrival.at.plus_millis(longest_ms),
            expires_at: call.arrival.at.plus_millis(self.bounds.keep_ms),
        }
    }

    /// Claims the key in the database, where another node may have it.
    async fn take(
        &self,
        relay: &Relay,
        mut turn: Box<Turn>,
        call: &Call,
    ) -> Result<Entry, Refusal> {
        let mut pause = LOOK_AGAIN.0;
        loop {
            let claimed = relay.dependencies.while_up(self.store.claim(turn.claim())).await;
            let verdict = match claimed.unwrap_or_else(|| Err(away())) {
                Ok(verdict) => verdict,
                Err(error) => return Err(turn.unclaimed(&error)),
            };
            match verdict {
                Verdict::Fresh => return Ok(Entry::Mine(turn)),
                Verdict::Conflict => return Err(conflict()),
                Verdict::Gone { call, why } => return Err(gone(call, why)),
                Verdict::Kept { call, sealed } => return self.again(&turn, call, &sealed),
                Verdict::Running => waited(call, tokio::time::sleep(pause)).await?,
            }
            pause = LOOK_AGAIN.1.min(pause * 2);
            turn.look_again();
        }
    }

    fn again(&self, turn: &Turn, call: Uuid, sealed: &[u8]) -> Result<Entry, Refusal> {
        let opened = self.secrets.open_bytes(&context(call), sealed);
        let Some(kept) = opened.ok().and_then(|bytes| Kept::from_bytes(&bytes)) else {
            tracing::error!(request_id = %call, "failed to open a kept answer");
            return Err(gone(call, Gone::Lost));
        };
        let kept = Arc::new(kept);
        turn.pass_on(Arc::clone(&kept));
        Ok(Entry::Again(kept))
    }
}

/// What binds a sealed answer to its call.
fn context(call: Uuid) -> String {
    format!("idempotency|{call}")
}

/// Waits for the answer of a call that this node makes. `None` when it ended without one that may
/// be given to others.
async fn awaited(
    call: &Call,
    running: &mut watch::Receiver<Option<Arc<Kept>>>,
) -> Result<Option<Arc<Kept>>, Refusal> {
    let answered = waited(call, running.wait_for(Option::is_some)).await?;
    Ok(answered.ok().and_then(|kept| kept.clone()))
}

/// Waits within the call's deadline, and for as long as its client does.
async fn waited<T>(call: &Call, event: impl Future<Output = T>) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        happened = event => Ok(happened),
        () = call.arrival.gone.cancelled() => {
            Err(Refusal::new(Failure::ClientGone, "The client left."))
        }
        () = tokio::time::sleep_until(call.deadline) => Err(in_progress()),
    }
}

/// The database went down while it was asked.
fn away() -> Error {
    Error::Unavailable("the database is down".to_owned())
}

fn conflict() -> Refusal {
    let message = "This Idempotency-Key was used for another request. Repeat that request, or use \
                   a new key.";
    Refusal::new(Failure::IdempotencyConflict, message)
}

fn in_progress() -> Refusal {
    let message = "The request of this Idempotency-Key is still running. Ask again with the same \
                   key.";
    Refusal::new(Failure::IdempotencyInProgress, message).retry_after(RETRY_AFTER_MS)
}

fn gone(call: Uuid, why: Gone) -> Refusal {
    let why = match why {
        Gone::TooLarge => "its answer is larger than what is kept",
        Gone::Lost => "its answer was lost",
    };
    let message = format!(
        "The request of this Idempotency-Key was served and charged as {}, and {why}. It was not \
         made again. Use a new key to make it again.",
        id_text(call)
    );
    Refusal::new(Failure::IdempotencyAnswerGone, message)
}

/// Forgets what has expired, for as long as the node runs.
pub async fn sweep(idempotency: Arc<Idempotency>, relay: Arc<Relay>) {
    const EVERY: Duration = Duration::from_mins(1);
    /// Rows in one transaction: some milliseconds, so that nobody waits for it.
    const MOST: u32 = 500;
    let mut every = tokio::time::interval_at(Instant::now() + EVERY, EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        loop {
            match idempotency.store.sweep(relay.clock.now(), MOST).await {
                Ok(swept) if swept >= u64::from(MOST) => tokio::task::yield_now().await,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "failed to forget expired answers");
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn given(values: &[&'static str]) -> Result<Option<String>, Failure> {
        let mut headers = HeaderMap::new();
        for value in values {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.append("idempotency-key", value);
            }
        }
        key_of(&headers).map(|key| key.map(str::to_owned)).map_err(|refusal| refusal.failure)
    }

    #[test]
    fn a_key_is_given_once_and_has_1_to_255_characters() {
        assert_eq!(given(&[]), Ok(None));
        assert_eq!(given(&[" stainless-node-retry-1 "]), Ok(Some("stainless-node-retry-1".into())));
        let long: &'static str = "x".repeat(256).leak();
        for wrong in [&[""][..], &["  "], &["a", "a"], &["a\u{e9}"], &[long]] {
            assert_eq!(given(wrong), Err(Failure::BodyInvalid), "{wrong:?}");
        }
    }
}
