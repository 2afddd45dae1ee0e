//! What a record means to a claim. Pure; both backends ask it.
//!
//! A record says how its call ended, or nothing: then the call's hold is the witness, for it is in
//! the same database and is closed once, by the call or by recovery. Invariant: no claim is told to
//! make a call while an earlier one under its key may be or have been charged.

use uuid::Uuid;

use anima_core::clock::Timestamp;

use super::{Claim, Gone, Verdict};

/// Between a settlement and the end of its claim there are milliseconds while its process lives. A
/// settled call that has not ended its claim after this long never will. In microseconds.
const ENDING_US: i64 = 10_000_000;

/// A record as it is stored, with the hold of its call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) content_hash: [u8; 32],
    pub(super) call: Uuid,
    pub(super) state: String,
    pub(super) answer: Option<Vec<u8>>,
    pub(super) stale_at: i64,
    pub(super) expires_at: i64,
    /// State of the hold, if the call placed one.
    pub(super) hold: Option<String>,
    /// When it was closed.
    pub(super) closed_at: Option<i64>,
}

/// What to tell a claim that meets a record. `None`: the key may be taken over.
pub(super) fn judge(record: &Record, claim: &Claim) -> Option<Verdict> {
    // A call that may still run keeps its key, however short answers are kept.
    let is_running = record.state == "RUNNING";
    let until = if is_running { record.expires_at.max(record.stale_at) } else { record.expires_at };
    if until <= claim.at.micros() {
        return None;
    }
    let verdict = verdict(record, claim.at)?;
    let same = record.content_hash == claim.content_hash;
    Some(if same { verdict } else { Verdict::Conflict })
}

fn verdict(record: &Record, now: Timestamp) -> Option<Verdict> {
    match (record.state.as_str(), &record.answer) {
        ("KEPT", Some(sealed)) => Some(Verdict::Kept { call: record.call, sealed: sealed.clone() }),
        ("RUNNING", _) => running(record, now),
        _ => Some(Verdict::Gone { call: record.call, why: Gone::TooLarge }),
    }
}

/// A call that has not said how it ended.
fn running(record: &Record, now: Timestamp) -> Option<Verdict> {
    match record.hold.as_deref() {
        // Before the hold, nothing was sent; after the deadline nothing will be.
        None => (now.micros() < record.stale_at).then_some(Verdict::Running),
        Some("RELEASED") => None,
        Some("SETTLED") => {
            let closed_at = record.closed_at.unwrap_or(0);
            Some(if now.micros() < closed_at.saturating_add(ENDING_US) {
                Verdict::Running
            } else {
                Verdict::Gone { call: record.call, why: Gone::Lost }
            })
        }
        // Open, or waiting for recovery.
        Some(_) => Some(Verdict::Running),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: &str) -> Record {
        Record {
            content_hash: [1; 32],
            call: Uuid::from_u128(1),
            state: state.to_owned(),
            answer: (state == "KEPT").then(|| vec![1]),
            stale_at: 900,
            expires_at: 100,
            hold: None,
            closed_at: None,
        }
    }

    fn claim(at: i64) -> Claim {
        Claim {
            kid: "kid".into(),
            key_hash: [2; 32],
            content_hash: [1; 32],
            call: Uuid::from_u128(2),
            node: Uuid::from_u128(3),
            at: Timestamp::from_micros(at),
            stale_at: Timestamp::from_micros(at),
            expires_at: Timestamp::from_micros(at),
        }
    }

    #[test]
    fn a_call_that_may_still_run_keeps_its_key_beyond_the_time_of_answers() {
        assert!(judge(&record("RUNNING"), &claim(500)).is_some());
        assert_eq!(judge(&record("RUNNING"), &claim(900)), None);
        assert_eq!(judge(&record("KEPT"), &claim(500)), None);
    }
}
