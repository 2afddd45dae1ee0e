//! Signs of life for streams that wait for their turn.
//!
//! A client that waits long sees nothing and gives up, or something in between does. So a stream of
//! a key in queue mode WAIT that is still in line after a while is given its head, and then a sign
//! of life every few seconds until its answer begins. What the head would have said of the answer
//! (who served, how many attempts, where the limits stand) is not known then and not said.
//! Invariant: nothing that is not a stream of events is touched, and a client that hangs up is out
//! of the line at once. Source: SPEC 6, `reliability` 2.4.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Limited};
use tokio::task::JoinError;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::DropGuard;

use anima_core::config::QueueMode;
use anima_core::failure::Failure;
use anima_wire::dialect::Dialect;
use anima_wire::request::Endpoint;
use anima_wire::surface::waiting;

use super::serve::panicked;
use crate::http::reply::{self, Facts};
use crate::relay::call::Call;
use crate::settings::Settings;

/// The largest body of a refusal; ours have some hundred bytes.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// When signs of life are given.
#[derive(Debug, Clone, Copy)]
pub struct Beats {
    /// After this time in line.
    after: Duration,
    /// And then as often as this.
    every: Duration,
}

impl Beats {
    /// As the settings say; `None` when there are none.
    pub fn of(settings: &Settings) -> Option<Self> {
        let after = Duration::from_millis(settings.queue_heartbeat_after_ms);
        let every = Duration::from_millis(settings.queue_heartbeat_ms);
        (!after.is_zero()).then_some(Self { after, every })
    }
}

/// A stream that may have to wait.
pub(super) struct Heartbeat {
    beats: Beats,
    waits: Arc<AtomicBool>,
    dialect: Dialect,
    since: Instant,
    facts: Facts,
}

impl Heartbeat {
    /// For a call that streams events and may wait for its turn.
    pub(super) fn of(beats: Option<Beats>, call: &mut Call, facts: &Facts) -> Option<Self> {
        let beats = beats.filter(|_| call.caller.terms.mode == QueueMode::Wait)?;
        let (request, dialect) = (&call.request, call.request.dialect);
        let talks = matches!(request.endpoint, Endpoint::ChatCompletions | Endpoint::Completions);
        if !request.stream || request.as_array || !talks {
            return None;
        }
        let waits = Arc::new(AtomicBool::new(false));
        call.waits = Some(Arc::clone(&waits));
        let (since, facts) = (call.arrival.instant, facts.clone());
        Some(Self { beats, waits, dialect, since, facts })
    }

    /// Answers with what is being made, or with a stream that has it in time.
    pub(super) async fn beside(
        mut self,
        made: impl Future<Output = Result<Response<Body>, JoinError>> + Send + 'static,
        leaving: DropGuard,
    ) -> Response<Body> {
        let mut made: Made = Box::pin(made);
        loop {
            tokio::select! {
                biased;
                response = &mut made => {
                    leaving.disarm();
                    return response.unwrap_or_else(|panic| panicked(&panic, &self.facts));
                }
                () = tokio::time::sleep(self.beats.after) => {
                    if self.waits.load(Ordering::Acquire) {
                        break;
                    }
                }
            }
        }
        let waited = self.since.elapsed().as_millis();
        self.facts.queue_wait_ms = u64::try_from(waited).unwrap_or(u64::MAX);
        let mut timer = tokio::time::interval(self.beats.every);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (stage, facts) = (Stage::Waiting(made, leaving), self.facts.clone());
        let body = Beating { stage, timer, dialect: self.dialect, facts: self.facts };
        reply::streamed(Body::new(body), &facts)
    }
}

/// The answer, as it would have been given.
type Made = Pin<Box<dyn Future<Output = Result<Response<Body>, JoinError>> + Send>>;

/// Where such a stream is.
enum Stage {
    /// Whoever drops it leaves.
    Waiting(Made, DropGuard),
    /// It was refused after all: the event that says so.
    Refused(Pin<Box<dyn Future<Output = Bytes> + Send>>),
    Answering(Body),
    Over,
}

/// The body of a stream that waits for its turn.
struct Beating {
    stage: Stage,
    /// Its first tick is at once.
    timer: Interval,
    dialect: Dialect,
    facts: Facts,
}

impl Beating {
    /// Goes on with what was made.
    fn follow(&mut self, made: Result<Response<Body>, JoinError>) {
        if let Stage::Waiting(_, leaving) = std::mem::replace(&mut self.stage, Stage::Over) {
            leaving.disarm();
        }
        let response = made.unwrap_or_else(|panic| panicked(&panic, &self.facts));
        self.stage = if response.status() == StatusCode::OK {
            Stage::Answering(response.into_body())
        } else {
            Stage::Refused(Box::pin(refused(self.dialect, response)))
        };
    }
}

impl http_body::Body for Beating {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            match &mut self.stage {
                Stage::Waiting(made, _) => {
                    if let Poll::Ready(made) = made.as_mut().poll(cx) {
                        self.follow(made);
                        continue;
                    }
                    ready!(self.timer.poll_tick(cx));
                    let sign = Bytes::from_static(waiting::sign_of_life(self.dialect));
                    return Poll::Ready(Some(Ok(Frame::data(sign))));
                }
                Stage::Refused(event) => {
                    let event = ready!(event.as_mut().poll(cx));
                    self.stage = Stage::Over;
                    return Poll::Ready(Some(Ok(Frame::data(event))));
                }
                Stage::Answering(body) => return Pin::new(body).poll_frame(cx),
                Stage::Over => return Poll::Ready(None),
            }
        }
    }
}

/// The event that says what a refusal says.
async fn refused(dialect: Dialect, response: Response<Body>) -> Bytes {
    let read = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await;
    let body = match read {
        Ok(body) => body.to_bytes(),
        // Ours are whole and small: this takes a defect.
        Err(error) => {
            tracing::error!(%error, "failed to read a refusal");
            Bytes::from_static(Failure::Internal.reason().as_bytes())
        }
    };
    waiting::error_event(dialect, &body)
}
