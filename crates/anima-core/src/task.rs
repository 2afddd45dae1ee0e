//! The states of work that its caller does not wait for, and which follows which.
//!
//! Calls of keys in queue mode ASYNC and media share them: a call is sent and answered in one
//! upstream call, so it never is `queued` or `running`, which are what a vendor says. Not here: who
//! moves a task, and when. Invariant: a task that has ended stays as it ended, and what may have
//! been sent is never sent again. Sources: SPEC 9, `d-async-media` D.1, `reliability` 1.6.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Stored; nothing was sent. It may be run, and run again.
    Accepted,
    /// The request may be on its way: what comes of it is not known before its worker says so.
    Submitting,
    /// The vendor has taken it.
    Queued,
    /// The vendor is at it.
    Running,
    /// Its answer is here.
    Succeeded,
    /// There is no answer, and nothing is charged.
    Failed,
    /// Its caller, or an operator, did not want it any more.
    Cancelled,
    /// Its time was over before it was sent.
    Expired,
    /// It may have been sent, and whoever knows is gone: the books will tell.
    Unknown,
}

impl State {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Accepted,
        Self::Submitting,
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
        Self::Unknown,
    ];

    /// The word for it, in rows, replies and metrics alike.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Submitting => "submitting",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }

    /// The state of a word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.word() == word)
    }

    /// Whether nothing follows.
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }

    /// Whether a task in this state may be run from its start.
    pub const fn may_run(self) -> bool {
        matches!(self, Self::Accepted)
    }

    /// Whether `next` may follow.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Accepted => {
                matches!(next, Self::Submitting | Self::Failed | Self::Cancelled | Self::Expired)
            }
            // Back to the start only by the worker that knows that nothing was sent.
            Self::Submitting => !matches!(next, Self::Submitting | Self::Expired),
            Self::Queued => !matches!(next, Self::Accepted | Self::Submitting | Self::Queued),
            Self::Running => !matches!(next, Self::Accepted | Self::Submitting | Self::Running),
            Self::Unknown => {
                !matches!(next, Self::Accepted | Self::Submitting | Self::Unknown | Self::Expired)
            }
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired => false,
        }
    }
}

/// The text of a task's id.
pub fn id_text(id: Uuid) -> String {
    format!("task_{}", id.simple())
}

/// The id of a text.
pub fn id_of(text: &str) -> Option<Uuid> {
    let hex = text.strip_prefix("task_").filter(|hex| hex.len() == 32)?;
    Uuid::try_parse(hex).ok()
}

/// The first pause between two tries of a webhook, in microseconds.
const FIRST_US: i64 = 5_000_000;
/// The longest.
const LONGEST_US: i64 = 3 * 3_600_000_000;

/// How long to wait after so many failed tries of a webhook, in microseconds: three times as long
/// each time, and up to a fifth more by chance, so that those that failed together do not come back
/// together.
pub fn webhook_pause_us(tries: u32, chance: u64) -> i64 {
    let grown = 3_i64.checked_pow(tries.saturating_sub(1)).and_then(|n| FIRST_US.checked_mul(n));
    let pause = grown.unwrap_or(LONGEST_US).min(LONGEST_US);
    let fifth = u64::try_from(pause / 5).unwrap_or(0);
    let more = chance.checked_rem(fifth.max(1)).unwrap_or(0);
    pause.saturating_add(i64::try_from(more).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_text() {
        let id = Uuid::from_u128(0xabc);
        assert_eq!(id_of(&id_text(id)), Some(id));
        for wrong in ["", "task_", "abc", "task_zz", "req_00000000000000000000000000000abc"] {
            assert_eq!(id_of(wrong), None, "{wrong}");
        }
        assert_eq!(id_of(&format!("task_{id}")), None, "hyphens");
    }

    #[test]
    fn what_has_ended_stays_so() {
        for from in State::ALL {
            for to in State::ALL {
                let moves = from.may_become(*to);
                assert!(!(moves && from.has_ended()), "{from:?} {to:?}");
                assert!(!(moves && from == to), "{from:?}");
            }
            assert_eq!(State::of(from.word()), Some(*from));
        }
        assert_eq!(State::of("done"), None);
    }

    #[test]
    fn what_may_have_been_sent_and_nobody_knows_is_never_sent_again() {
        for state in [State::Unknown, State::Queued, State::Running] {
            assert!(!state.may_become(State::Accepted) && !state.may_run(), "{state:?}");
            assert!(!state.may_become(State::Submitting), "{state:?}");
        }
        assert!(State::Submitting.may_become(State::Unknown));
    }

    #[test]
    fn pauses_grow_to_three_hours_and_a_fifth() {
        let pauses: Vec<_> = (1..=9).map(|n| webhook_pause_us(n, 0) / 1_000_000).collect();
        assert_eq!(pauses, [5, 15, 45, 135, 405, 1_215, 3_645, 10_800, 10_800]);
        for tries in [0, 1, 5, u32::MAX] {
            let (least, most) = (webhook_pause_us(tries, 0), webhook_pause_us(tries, u64::MAX));
            assert!(most <= LONGEST_US + LONGEST_US / 5 && most >= least, "{tries}");
        }
    }
}
