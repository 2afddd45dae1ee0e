//! Chunks → client bytes. Counts usage on the way and keeps the final event back until the
//! settlement is on disk.
//!
//! The body owns the upstream connection and the hold. When it is dropped before its end the client
//! has left: a task takes everything over, drains or cancels as the channel says, and settles. The
//! same goes for one that is not read any more when its time is over.
//! Invariant: every stream that began is settled exactly once, and the terminator is sent only
//! after that; a stream that fails ends with an error event and without the terminator.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use anima_core::config::OnDisconnect;
use anima_core::failure::Failure;
use anima_core::ledger::Attempt;
use anima_wire::adapter::StreamDecoder;

use super::attempt::Started;
use super::call::Call;
use super::decision::Decision;
use super::hold::Open;
use super::progress::Step;
use super::trial::Trial;
use super::{Relay, keeper};
use crate::live::streams::{Entered, Through};
use crate::metrics::Inflight;
use crate::outbound::Body as Upstream;
use crate::settings::HoldExhausted;

mod ending; // how it ends
pub mod unread; // those that nobody reads

use ending::{abandoned, end};

/// A frame is sent when it has this many bytes, even if the upstream has more at once.
const GATHER_BYTES: usize = 16 * 1024;

/// How long a provider that has said that it failed may take to report what it consumed. The report
/// comes in the next packet or never; what it is worth is an exact cost.
pub(super) const LAST_REPORT: Duration = Duration::from_secs(2);

/// Everything that a running stream owns.
struct Flow {
    relay: Arc<Relay>,
    call: Arc<Call>,
    open: Open,
    failed: Vec<Attempt>,
    trial: Trial,
    decision: Decision,
    decoder: StreamDecoder,
    upstream: Upstream,
    idle: Duration,
    deadline: Instant,
    last_chunk: Instant,
    /// When the provider said that it failed.
    failed_at: Option<Instant>,
    /// Known to the switches as long as it streams.
    entered: Entered,
}

impl Flow {
    /// When the provider has been silent for too long, or has failed for too long.
    fn patience(&self) -> Instant {
        let silent = self.last_chunk + self.idle;
        self.failed_at.map_or(silent, |failed| silent.min(failed + LAST_REPORT))
    }

    /// Notes that bytes came, and what they may say.
    fn came(&mut self, now: Instant) {
        self.last_chunk = now;
        if self.failed_at.is_none() && self.decoder.is_failing() {
            self.failed_at = Some(now);
        }
    }

    /// Whether the provider has said what the whole answer comes to: there is no more of it.
    fn is_reported(&self) -> bool {
        self.decoder.usage().is_some() && !self.decoder.usage_is_running()
    }

    /// A wallet may be overdrawn where the operator says so, a budget never.
    fn may_overdraw(&self) -> bool {
        self.relay.limits.hold_exhausted == HoldExhausted::Overdraft && !self.call.has_budget()
    }

    /// Asks for a larger hold in time, and says when there is none to be had. Pending while all
    /// that is held is used up and the answer has not come.
    fn keep_within_hold(&self, cx: &Context<'_>) -> Poll<Option<Failure>> {
        let progress = &self.open.progress;
        let step = loop {
            match progress.note(self.decoder.output_bytes()) {
                // It goes on meanwhile as far as is held, and no further.
                Step::Extend => keeper::extend(&self.relay, Arc::clone(progress)),
                step @ (Step::GoOn | Step::Wait | Step::Exhausted) => break step,
            }
        };
        match step {
            Step::GoOn | Step::Extend => Poll::Ready(None),
            // It is over, but for its end.
            Step::Wait | Step::Exhausted if self.is_reported() => Poll::Ready(None),
            Step::Exhausted if progress.is_over_budget() => {
                Poll::Ready(Some(Failure::BudgetExceeded))
            }
            Step::Wait | Step::Exhausted if self.may_overdraw() => Poll::Ready(None),
            Step::Exhausted => Poll::Ready(Some(Failure::InsufficientFunds)),
            Step::Wait => {
                if !progress.wait(cx.waker()) {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

/// The final event; `None` where only breaking off says that it failed.
type Final = Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>;

enum Phase {
    /// Chunks go through.
    Relaying(Box<Flow>),
    /// The end is being booked; yields the final event.
    Settling(Final),
    /// What is ready goes out, then the connection breaks.
    Breaking,
    /// Nothing more to do.
    Finished,
}

impl Phase {
    /// Ends the relaying and starts the booking.
    fn finish(&mut self, failure: Option<Failure>) {
        if let Self::Relaying(flow) = std::mem::replace(self, Self::Finished) {
            *self = Self::Settling(Box::pin(end(flow, failure)));
        }
    }
}

/// The body of a streamed answer.
pub struct RelayStream {
    /// What may go to the client now, in order.
    ready: Vec<Bytes>,
    timer: Pin<Box<Sleep>>,
    /// Fires when the node may wait no longer for its streams, or a switch ends this one.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Shared with whoever ends streams that nobody reads. Locked by one poll, or by that.
    phase: Arc<Mutex<Phase>>,
    inflight: Option<Inflight>,
    tasks: TaskTracker,
    /// Shutdown waits for a stream as for any other task that owns money.
    _owner: TaskTrackerToken,
}

impl std::fmt::Debug for RelayStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayStream").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}

impl RelayStream {
    pub(super) fn new(
        relay: Arc<Relay>,
        call: Arc<Call>,
        (open, failed, trial): (Open, Vec<Attempt>, Trial),
        started: Started,
        decision: Decision,
    ) -> Self {
        let idle = Duration::from_millis(trial.timeouts.idle_ms.into());
        let deadline = trial.deadline(&call);
        let last_chunk = Instant::now();
        let entered = relay.live.streams.enter(through(&call, &trial), &relay.cut);
        let cut = Box::pin(entered.wake().cancelled_owned());
        let tasks = relay.tasks.clone();
        open.progress.streaming(started.decoder.upstream_ref());
        let mut flow = Flow {
            relay,
            call,
            open,
            failed,
            trial,
            decision,
            decoder: started.decoder,
            upstream: started.body,
            idle,
            deadline,
            last_chunk,
            failed_at: None,
            entered,
        };
        flow.came(last_chunk);
        let due = deadline.min(flow.patience());
        let watch = Arc::clone(&flow.relay);
        let phase = Arc::new(Mutex::new(Phase::Relaying(Box::new(flow))));
        watch.unread.watch(&phase);
        Self {
            ready: started.ready,
            timer: Box::pin(tokio::time::sleep_until(due)),
            cut,
            phase,
            inflight: None,
            _owner: tasks.token(),
            tasks,
        }
    }

    /// Whether the call goes on when this is dropped before its end.
    pub fn drains(&self) -> bool {
        match &*self.phase.lock() {
            Phase::Relaying(flow) => flow.trial.on_disconnect == OnDisconnect::Drain,
            Phase::Settling(_) | Phase::Breaking | Phase::Finished => true,
        }
    }

    /// What is streamed, unless it is events.
    pub fn content_type(&self) -> Option<HeaderValue> {
        match &*self.phase.lock() {
            Phase::Relaying(flow) => flow.trial.content_type.clone(),
            Phase::Settling(_) | Phase::Breaking | Phase::Finished => None,
        }
    }

    /// Counts the request as being served until the stream is dropped.
    pub fn count(&mut self, inflight: Inflight) {
        self.inflight = Some(inflight);
    }

    /// Bytes that may go to the client now.
    fn ready_bytes(&self) -> usize {
        self.ready.iter().map(Bytes::len).sum()
    }

    /// What is ready, as one frame: what the upstream had at once leaves at once. A frame costs the
    /// server about 2 µs, copying a chunk a tenth of that.
    fn gathered(&mut self) -> Option<Result<Frame<Bytes>, io::Error>> {
        let joined = if self.ready.len() < 2 {
            self.ready.pop()?
        } else {
            let mut joined = BytesMut::with_capacity(self.ready_bytes());
            self.ready.drain(..).for_each(|piece| joined.extend_from_slice(&piece));
            joined.freeze()
        };
        Some(Ok(Frame::data(joined)))
    }

    /// Takes in what the upstream has. Ready when there is something to send or the phase changed.
    fn poll_upstream(&mut self, phase: &mut Phase, cx: &mut Context<'_>) -> Poll<()> {
        let Phase::Relaying(flow) = phase else {
            return Poll::Ready(());
        };
        if flow.decoder.is_done() {
            phase.finish(None);
            return Poll::Ready(());
        }
        if flow.entered.is_cut() {
            phase.finish(Some(Failure::CutOff));
            return Poll::Ready(());
        }
        match flow.keep_within_hold(cx) {
            Poll::Ready(None) => {}
            Poll::Ready(Some(failure)) => {
                phase.finish(Some(failure));
                return Poll::Ready(());
            }
            Poll::Pending => {
                // It is not the provider who is silent.
                flow.last_chunk = Instant::now();
                return self.poll_bounds(phase, cx);
            }
        }
        let Poll::Ready(frame) = Pin::new(&mut flow.upstream).poll_frame(cx) else {
            return self.poll_bounds(phase, cx);
        };
        let outcome = match frame {
            Some(Ok(frame)) => {
                let pushed = match frame.into_data() {
                    Ok(chunk) => flow.decoder.push(chunk, &mut self.ready),
                    Err(_trailers) => Ok(()),
                };
                flow.came(Instant::now());
                pushed
            }
            Some(Err(_broken)) => Err(Failure::StreamCut),
            None => flow.decoder.end(&mut self.ready),
        };
        if flow.failed_at.is_some() {
            self.timer.as_mut().reset(flow.deadline.min(flow.patience()));
        }
        if let Err(failure) = outcome {
            phase.finish(Some(failure));
        }
        Poll::Ready(())
    }

    /// What ends a stream while its upstream is silent.
    fn poll_bounds(&mut self, phase: &mut Phase, cx: &mut Context<'_>) -> Poll<()> {
        if self.cut.as_mut().poll(cx).is_ready() {
            let is_cut = matches!(phase, Phase::Relaying(flow) if flow.entered.is_cut());
            let failure = if is_cut { Failure::CutOff } else { Failure::ShuttingDown };
            phase.finish(Some(failure));
            return Poll::Ready(());
        }
        self.poll_timer(phase, cx)
    }

    /// The timer is set once and only looked at when it fires: re-arming it for each chunk would
    /// cost more than the chunk.
    fn poll_timer(&mut self, phase: &mut Phase, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.timer.as_mut().poll(cx));
        let Phase::Relaying(flow) = phase else {
            return Poll::Ready(());
        };
        let now = Instant::now();
        let due = flow.deadline.min(flow.patience());
        if now < due {
            self.timer.as_mut().reset(due);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let late = now >= flow.deadline;
        let failure = match () {
            () if flow.decoder.is_failing() => Failure::ErrorInAnswer,
            () if late => flow.trial.late(&flow.call),
            () => Failure::IdleTimeout,
        };
        phase.finish(Some(failure));
        Poll::Ready(())
    }
}

impl Body for RelayStream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let shared = Arc::clone(&self.phase);
        let phase = &mut *shared.lock();
        loop {
            if self.ready_bytes() >= GATHER_BYTES {
                return Poll::Ready(self.gathered());
            }
            let is_flushed = self.ready.is_empty();
            let waiting = match phase {
                Phase::Relaying(_) => self.poll_upstream(phase, cx),
                Phase::Settling(settling) => settling.as_mut().poll(cx).map(|last| {
                    let is_broken = last.is_none();
                    *phase = if is_broken { Phase::Breaking } else { Phase::Finished };
                    self.ready.extend(last);
                }),
                Phase::Breaking if is_flushed => {
                    *phase = Phase::Finished;
                    return Poll::Ready(Some(Err(io::Error::other("the sound broke off"))));
                }
                Phase::Breaking | Phase::Finished => return Poll::Ready(self.gathered()),
            };
            if waiting.is_pending() {
                return match self.gathered() {
                    Some(frame) => Poll::Ready(Some(frame)),
                    None => Poll::Pending,
                };
            }
        }
    }

    /// True from the frame on that ends the answer: whoever keeps answers waits with that one.
    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && matches!(*self.phase.lock(), Phase::Finished)
    }
}

impl Drop for RelayStream {
    fn drop(&mut self) {
        let phase = std::mem::replace(&mut *self.phase.lock(), Phase::Finished);
        match phase {
            Phase::Relaying(flow) => {
                self.tasks.spawn(abandoned(flow));
            }
            // A settlement that has begun goes on by itself.
            Phase::Settling(settling) => {
                self.tasks.spawn(async move { drop(settling.await) });
            }
            Phase::Breaking | Phase::Finished => {}
        }
    }
}

/// What a stream goes through, as switches name it.
fn through(call: &Call, trial: &Trial) -> Through {
    let caller = &call.caller;
    Through {
        channel: Arc::clone(&trial.channel),
        alias: Arc::clone(&call.alias.code),
        kid: Arc::clone(&caller.kid),
        app: Arc::clone(&caller.app),
        group: caller.group.as_ref().map(|group| Arc::clone(&group.code)),
        since: call.arrival.instant,
    }
}
