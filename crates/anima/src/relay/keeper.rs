//! The keeper of a node's running calls: checkpoints for all of them in one go, larger holds for
//! those that outgrow theirs.
//!
//! Calls enter when their hold is placed and leave when it is settled. Invariant: no call waits for
//! the keeper; what it writes only helps whoever has to end a call in its place.
//! Source: `reliability` 1.5.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use anima_core::ledger::Extension;
use anima_store::ledger::Error;

use super::admission::{Asking, Held};
use super::progress::{Bounds, Progress};
use super::{Relay, hold};

/// Between two checkpoints of a call (`reliability` 1.5).
const EVERY: Bounds = Bounds { tokens: INTERVAL_TOKENS, time: Duration::from_secs(5) };

/// Output tokens that a call may be ahead of its checkpoint.
pub(super) const INTERVAL_TOKENS: u64 = 1_000;

/// How often the keeper looks. A fast stream makes some hundred tokens in this time.
const LOOK: Duration = Duration::from_secs(1);

/// After a database that did not answer, more is not asked for again before this.
const PAUSE: Duration = Duration::from_secs(1);

/// The running calls of a node.
#[derive(Debug, Default)]
pub struct Keeper {
    running: Arc<Mutex<HashMap<Uuid, Arc<Progress>>>>,
}

/// A call is known to the keeper as long as this lives.
#[derive(Debug)]
pub(super) struct Entered {
    id: Uuid,
    running: Arc<Mutex<HashMap<Uuid, Arc<Progress>>>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.running.lock().remove(&self.id);
    }
}

impl Keeper {
    /// Takes a call in.
    pub(super) fn enter(&self, progress: &Arc<Progress>) -> Entered {
        let id = progress.hold.id;
        self.running.lock().insert(id, Arc::clone(progress));
        Entered { id, running: Arc::clone(&self.running) }
    }

    /// The calls that run here, by their holds.
    pub(super) fn running(&self) -> BTreeSet<Uuid> {
        self.running.lock().keys().copied().collect()
    }

    /// Whether a call runs here.
    pub(super) fn knows(&self, id: &Uuid) -> bool {
        self.running.lock().contains_key(id)
    }

    fn due(&self, now: Instant) -> Vec<Arc<Progress>> {
        let running = self.running.lock();
        running.values().filter(|progress| progress.is_due(now, EVERY)).cloned().collect()
    }
}

/// Writes checkpoints until the task is aborted.
pub async fn run(relay: Arc<Relay>) {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let now = Instant::now();
        let due = relay.keeper.due(now);
        let mut written = Vec::with_capacity(due.len());
        for progress in due {
            let checkpoint = progress.checkpoint(now).await;
            written.push((progress, checkpoint));
        }
        // A call that has gone on to another attempt meanwhile has said so itself, and must not be
        // overwritten by what was so before.
        written.retain(|(progress, checkpoint)| progress.is_current(checkpoint));
        let checkpoints: Vec<_> = written.into_iter().map(|(_, checkpoint)| checkpoint).collect();
        let count = checkpoints.len() as u64;
        if count == 0 {
            continue;
        }
        match relay.ledger.checkpoint(checkpoints).await {
            Ok(()) => relay.metrics.recovery.checkpoints.inc_by(count),
            Err(error) => tracing::warn!(%error, "failed to write checkpoints"),
        }
    }
}

/// Asks for a larger hold, in a task of its own: the call goes on meanwhile, as far as is held.
pub(super) fn extend(relay: &Arc<Relay>, progress: Arc<Progress>) {
    let mut question = Question { progress, is_last: true };
    let relay_of_task = Arc::clone(relay);
    relay.tasks.spawn(async move {
        let outcome = ask(&relay_of_task, &question.progress).await;
        relay_of_task.metrics.recovery.extension(outcome.word());
        question.is_last = matches!(outcome, Asked::Last | Asked::Nothing);
        let is_answer = outcome != Asked::Unanswered;
        question.progress.heard(is_answer);
        if !is_answer {
            tokio::time::sleep(PAUSE).await;
        }
    });
}

/// A question for more, which is answered when this is dropped, by a task that panics too: a call
/// waits for it, and ends if there is no other answer.
struct Question {
    progress: Arc<Progress>,
    is_last: bool,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.progress.answered(self.is_last);
    }
}

/// What came of the question for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// A whole slice more.
    More,
    /// All that the wallet and the budgets had left.
    Last,
    /// Nothing: there is no more, or the hold is not ours any longer.
    Nothing,
    /// Not known.
    Unanswered,
}

impl Asked {
    const fn word(self) -> &'static str {
        match self {
            Self::More => "extended",
            Self::Last => "extended_last",
            Self::Nothing => "refused",
            Self::Unanswered => "unavailable",
        }
    }
}

/// Why a hold was not extended.
enum Short {
    /// So much more is there, in units.
    Left(i64),
    /// Nobody knows.
    Unanswered,
    /// It is not ours to extend.
    Over,
}

/// Asks for another slice, or for what is left.
async fn ask(relay: &Relay, progress: &Progress) -> Asked {
    let choices = progress.call.request.choices.max(1);
    let covered = progress.covers() / choices;
    let mut wanted = Wanted::slice(covered.saturating_add(relay.limits.hold_output_tokens));
    loop {
        let said = grow(relay, progress, wanted.tokens).await;
        let longest = |left: i64, to| {
            let total = progress.held().saturating_add(left);
            hold::longest(&progress.call, total, (covered, to))
        };
        if let Some(asked) = wanted.after(&said, longest) {
            return asked;
        }
    }
}

/// The tokens that are asked for: a slice, or the most below it for which there is money. Others
/// may take of that meanwhile: it is asked again for what they leave, and the call goes no further
/// until it has its answer.
struct Wanted {
    tokens: u64,
    is_slice: bool,
}

impl Wanted {
    const fn slice(tokens: u64) -> Self {
        Self { tokens, is_slice: true }
    }

    /// What came of it, or `None` when less is to be asked for: the most that what is left covers.
    /// Less each time, also when more is there again, so this ends.
    fn after(
        &mut self,
        said: &Result<(), Short>,
        longest: impl FnOnce(i64, u64) -> Option<u64>,
    ) -> Option<Asked> {
        let left = match said {
            Ok(()) if self.is_slice => return Some(Asked::More),
            Ok(()) => return Some(Asked::Last),
            Err(Short::Left(left)) => *left,
            Err(Short::Unanswered) => return Some(Asked::Unanswered),
            Err(Short::Over) => return Some(Asked::Nothing),
        };
        let Some(tokens) = longest(left, self.tokens) else { return Some(Asked::Nothing) };
        *self = Self { tokens, is_slice: false };
        None
    }
}

/// Has the budgets of a call hold so much for it.
async fn budgeted(relay: &Relay, progress: &Progress, amount: i64) -> Result<(), Short> {
    match relay.admission.hold(&progress.call, amount).await {
        Held::All => Ok(()),
        Held::Left(left) => {
            progress.over_budget(true);
            Err(Short::Left(left))
        }
        Held::Unknown => Err(Short::Unanswered),
    }
}

/// Extends the hold to so many tokens of each choice: in the budgets of the call, then in its
/// wallet, or in neither.
async fn grow(relay: &Relay, progress: &Progress, tokens: u64) -> Result<(), Short> {
    let call = &progress.call;
    let amount = hold::amount(call, tokens).map_err(|_logged| Short::Over)?;
    let asked = Asking::now(&*relay.clock);
    budgeted(relay, progress, amount).await?;
    let extension = Extension {
        hold: progress.hold.id,
        app: Arc::clone(&progress.hold.app),
        currency: progress.hold.currency,
        amount,
        floor: progress.hold.floor,
    };
    let Err(error) = relay.ledger.extend(extension).await else {
        if asked.is_late(&*relay.clock) {
            // Its budgets may have been seeded without it meanwhile.
            budgeted(relay, progress, amount).await?;
        }
        progress.extended(amount, tokens.saturating_mul(call.request.choices.max(1)));
        return Ok(());
    };
    // What the budgets hold too much until then is corrected by the settlement.
    let _less = relay.admission.hold(call, progress.held()).await;
    Err(match error {
        Error::InsufficientFunds { available } => {
            progress.over_budget(false);
            Short::Left(available)
        }
        Error::Unavailable(_) | Error::Overloaded => Short::Unanswered,
        Error::HoldUnknown
        | Error::Fenced
        | Error::Conflict
        | Error::Spooled(_)
        | Error::Refused(_) => Short::Over,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a budget each time that it is asked; it has nothing in the end.
    fn asked(left: &[u64]) -> (Asked, u64) {
        let mut wanted = Wanted::slice(100);
        let mut left = left.iter().copied().chain([0]);
        loop {
            let left = left.next().unwrap();
            let fits = wanted.tokens <= left;
            let said = if fits { Ok(()) } else { Err(Short::Left(left.cast_signed())) };
            let longest = |left: i64, to: u64| {
                (left > 0).then(|| left.cast_unsigned().min(to.saturating_sub(1)))
            };
            if let Some(asked) = wanted.after(&said, longest) {
                return (asked, wanted.tokens);
            }
        }
    }

    #[test]
    fn what_others_leave_is_taken_and_no_more() {
        assert_eq!(asked(&[100]), (Asked::More, 100));
        assert_eq!(asked(&[40, 40]), (Asked::Last, 40));
        assert_eq!(asked(&[40, 30, 20, 20]), (Asked::Last, 20), "taken in between, twice");
        assert_eq!(asked(&[40, 200]), (Asked::Last, 40), "given back in between");
        assert_eq!(asked(&[40, 30]).0, Asked::Nothing);
        assert_eq!(asked(&[]), (Asked::Nothing, 100));
    }
}
