//! How far a running call has come: what the call itself notes, and others on this node read.
//!
//! A few atomics on the way of each chunk; what is written to the database from it, and when, is
//! the `keeper`'s. Tokens are estimated from bytes here, and never charged: a settlement rests on
//! the provider's report or on a real count. Invariant: noting never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use anima_core::ledger::{Attempt, Checkpoint, Hold, Phase, Running};
use anima_core::usage::{Meter, Usage};

use anima_wire::adapter::sound_usage;

use super::call::{Call, price_ref};
use super::trial::Trial;
use super::{Limits, booking, hold};

/// Bytes of generated text per token of the running estimate: ordinary text has four to five
/// (`f-tokens` F.1).
const BYTES_PER_TOKEN: u64 = 4;

/// A larger hold is asked for when this share of it is used up (`reliability` 1.5).
const EXTEND_AT_PERCENT: u64 = 80;

/// What a running call has to do about its hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    GoOn,
    /// Ask for more, while it goes on.
    Extend,
    /// Go no further until that is answered: all that is held is used up.
    Wait,
    /// End: it has used up what is held, and there is no more.
    Exhausted,
}

/// A running call.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) call: Arc<Call>,
    /// The hold as it was placed.
    pub(super) hold: Hold,
    /// The lease that it was placed under.
    pub(super) lease: u64,
    /// Units held, extensions included.
    held: AtomicI64,
    /// Output tokens, of all choices together, that the hold covers. `None`: the provider keeps to
    /// the caller's own limit, which is held in full.
    covers: Option<AtomicU64>,
    /// More is being asked for.
    asking: AtomicBool,
    /// Nobody could say when it was asked last.
    unanswered: AtomicBool,
    /// Who waits for the answer.
    waiter: AtomicWaker,
    /// There is no more.
    refused: AtomicBool,
    /// A budget of the call has no more.
    over_budget: AtomicBool,
    output_bytes: AtomicU64,
    upstream: Mutex<Upstream>,
    /// Our own count of the prompt, made when it is first needed.
    input_tokens: OnceCell<u64>,
    noted: Mutex<Noted>,
}

/// The upstream calls so far.
#[derive(Debug, Default)]
struct Upstream {
    ended: Vec<Attempt>,
    running: Option<Running>,
}

/// What the last checkpoint said.
#[derive(Debug)]
struct Noted {
    at: Instant,
    output_tokens: u64,
    attempt: i16,
}

impl Progress {
    /// A call whose hold was just placed.
    pub(super) fn new(call: Arc<Call>, (hold, lease): (Hold, u64), limits: &Limits) -> Self {
        let limited = call.request.output_tokens_max.is_some();
        let wanted = hold::wanted_output(&call, limits).saturating_mul(call.request.choices);
        Self {
            lease,
            held: AtomicI64::new(hold.amount),
            covers: (!limited).then(|| AtomicU64::new(wanted)),
            asking: AtomicBool::new(false),
            unanswered: AtomicBool::new(false),
            waiter: AtomicWaker::new(),
            refused: AtomicBool::new(false),
            over_budget: AtomicBool::new(false),
            output_bytes: AtomicU64::new(0),
            upstream: Mutex::default(),
            input_tokens: OnceCell::new(),
            noted: Mutex::new(Noted { at: Instant::now(), output_tokens: 0, attempt: 0 }),
            call,
            hold,
        }
    }

    /// Notes that a request is about to be sent, and what came of those before.
    pub(super) fn dispatched(&self, trial: &Trial, ended: &[Attempt]) {
        let mut upstream = self.upstream.lock();
        if upstream.ended.len() != ended.len() {
            upstream.ended = ended.to_vec();
        }
        upstream.running = Some(Running {
            n: trial.n,
            channel: Arc::clone(&trial.channel),
            credential: Arc::clone(&trial.credential),
            model: Arc::clone(&trial.model),
            cost_price: price_ref(&trial.cost),
            upstream_ref: None,
            usage: Usage::default(),
            delivered: false,
            started_at: trial.started_at,
        });
    }

    /// Whether a request was, or was about to be, sent.
    pub(super) fn was_dispatched(&self) -> bool {
        let upstream = self.upstream.lock();
        upstream.running.is_some() || !upstream.ended.is_empty()
    }

    /// Notes that content goes to the client, and the provider's own id of the call.
    pub(super) fn streaming(&self, upstream_ref: Option<&str>) {
        if let Some(running) = &mut self.upstream.lock().running {
            running.delivered = true;
            running.upstream_ref = upstream_ref.map(str::to_owned);
        }
    }

    /// Notes how many bytes of text were generated in all, and says what that means for the hold.
    pub(super) fn note(&self, output_bytes: usize) -> Step {
        let bytes = output_bytes as u64;
        self.output_bytes.store(bytes, Ordering::Relaxed);
        let Some(covers) = &self.covers else { return Step::GoOn };
        // Before what is covered, which is raised first.
        let is_refused = self.refused.load(Ordering::Acquire);
        let (tokens, covers) = (bytes / BYTES_PER_TOKEN, covers.load(Ordering::Relaxed));
        if tokens.saturating_mul(100) < covers.saturating_mul(EXTEND_AT_PERCENT) {
            return Step::GoOn;
        }
        if is_refused {
            return if tokens < covers { Step::GoOn } else { Step::Exhausted };
        }
        if !self.asking.swap(true, Ordering::AcqRel) {
            return Step::Extend;
        }
        let waits = tokens >= covers && !self.unanswered.load(Ordering::Relaxed);
        if waits { Step::Wait } else { Step::GoOn }
    }

    /// Has `waker` called when the question for more is answered. Whether it still is open.
    pub(super) fn wait(&self, waker: &Waker) -> bool {
        self.waiter.register(waker);
        self.asking.load(Ordering::Acquire)
    }

    /// Whether the question for more could be answered. Where nobody can, the call goes on.
    pub(super) fn heard(&self, is_answer: bool) {
        self.unanswered.store(!is_answer, Ordering::Relaxed);
        self.waiter.wake();
    }

    /// Whether a call that may not ask for more has used up what is held.
    pub(super) fn is_exhausted(&self, output_bytes: usize) -> bool {
        let tokens = output_bytes as u64 / BYTES_PER_TOKEN;
        self.covers.as_ref().is_some_and(|covers| tokens >= covers.load(Ordering::Relaxed))
    }

    /// Units held, extensions included.
    pub(super) fn held(&self) -> i64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Output tokens that the hold covers.
    pub(super) fn covers(&self) -> u64 {
        self.covers.as_ref().map_or(u64::MAX, |covers| covers.load(Ordering::Relaxed))
    }

    /// The hold was extended.
    pub(super) fn extended(&self, held: i64, covered: u64) {
        self.held.store(held, Ordering::Relaxed);
        if let Some(covers) = &self.covers {
            covers.store(covered, Ordering::Relaxed);
        }
    }

    /// The question for more was answered: is there any more to be had?
    pub(super) fn answered(&self, is_last: bool) {
        if is_last {
            self.refused.store(true, Ordering::Release);
        }
        self.asking.store(false, Ordering::Release);
        self.waiter.wake();
    }

    /// What was asked for was not to be had: of a budget of the call, or of its wallet.
    pub(super) fn over_budget(&self, is_budget: bool) {
        self.over_budget.store(is_budget, Ordering::Relaxed);
    }

    /// Whether it is a budget that ends the call, and not the wallet.
    pub(super) fn is_over_budget(&self) -> bool {
        self.over_budget.load(Ordering::Relaxed)
    }

    fn output_tokens(&self) -> u64 {
        self.output_bytes.load(Ordering::Relaxed) / BYTES_PER_TOKEN
    }

    /// Whether there is something new to be written down.
    pub(super) fn is_due(&self, now: Instant, every: Bounds) -> bool {
        let noted = self.noted.lock();
        let upstream = self.upstream.lock();
        let attempt = upstream.running.as_ref().map_or(0, |running| running.n);
        let more = self.output_tokens().saturating_sub(noted.output_tokens);
        let is_new = attempt != noted.attempt || more > 0;
        is_new && (more >= every.tokens || now.duration_since(noted.at) >= every.time)
    }

    /// Whether the call is still at the attempt that a checkpoint tells of.
    pub(super) fn is_current(&self, checkpoint: &Checkpoint) -> bool {
        let attempt = |running: &Option<Running>| running.as_ref().map(|running| running.n);
        attempt(&self.upstream.lock().running) == attempt(&checkpoint.running)
    }

    /// What is to be written down now.
    pub(super) async fn checkpoint(&self, now: Instant) -> Checkpoint {
        let output_tokens = self.output_tokens();
        let (ended, mut running) = {
            let upstream = self.upstream.lock();
            (upstream.ended.clone(), upstream.running.clone())
        };
        let mut progress = 0;
        let delivered = running.as_ref().is_some_and(|running| running.delivered);
        if let Some(running) = running.as_mut().filter(|running| running.delivered) {
            let count = || booking::count_input(&self.call);
            let input = *self.input_tokens.get_or_init(count).await;
            let usage = Usage::default().with(Meter::InputTokens, input);
            running.usage = sound_usage(&self.call.request)
                .unwrap_or_else(|| usage.with(Meter::OutputTokens, output_tokens));
            let multiplier = self.call.multiplier;
            let charge = self.call.sale.charge(&running.usage, None, multiplier);
            let owed = charge.ok().and_then(|charge| self.call.owed(charge.units).ok());
            progress = owed.unwrap_or(0);
        }
        let attempt = running.as_ref().map_or(0, |running| running.n);
        *self.noted.lock() = Noted { at: now, output_tokens, attempt };
        Checkpoint {
            hold: self.hold.id,
            app: Arc::clone(&self.hold.app),
            currency: self.hold.currency,
            phase: match (&running, delivered) {
                (None, _) => Phase::Intent,
                (Some(_), false) => Phase::Dispatched,
                (Some(_), true) => Phase::Streaming,
            },
            progress,
            ended,
            running,
            expires_at: self.hold.expires_at,
        }
    }
}

/// How much may happen between two checkpoints of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Output tokens.
    pub(super) tokens: u64,
    /// Time, if anything happened.
    pub(super) time: std::time::Duration,
}
