//! What a record means to a claim. Pure; both backends ask it.
//!
//! A record says how its call ended, or nothing: then the call's hold is the witness, for it is in
//! the same database and is closed once, by the call or by recovery. Where there is no hold, the
//! lease that the claim was made under says whether there can be one yet. Invariant: no claim is
//! told to make a call while an earlier one under its key may be or have been charged.

use uuid::Uuid;

use anima_core::clock::Timestamp;

use super::{Claim, Gone, Verdict};

/// Between a settlement and the end of its claim there are milliseconds while its process lives. A
/// settled call that has not ended its claim after this long never will. In microseconds.
const ENDING_US: i64 = 10_000_000;

/// A record as it is stored, with the hold of its call and the lease of its node: all as of one
/// instant.
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
    /// The lease of the claim was taken away or given back. Not: it has run out and may be renewed.
    pub(super) is_orphaned: bool,
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
        // It was retired (`sql::RETIRE`): given once, in an outage, by a process that died.
        ("KEPT", Some(none)) if none.is_empty() => {
            Some(Verdict::Gone { call: record.call, why: Gone::Lost })
        }
        ("KEPT", Some(sealed)) => Some(Verdict::Kept { call: record.call, sealed: sealed.clone() }),
        ("RUNNING", _) => running(record, now),
        _ => Some(Verdict::Gone { call: record.call, why: Gone::TooLarge }),
    }
}

/// A call that has not said how it ended.
fn running(record: &Record, now: Timestamp) -> Option<Verdict> {
    match record.hold.as_deref() {
        // Before the hold, nothing was sent, and without the lease nothing will be. A call sends
        // when its hold is on disk and, looked at after that, the lease of its claim surely stands
        // (see `Claim::node`). So whatever was sent had its hold before its lease ended, and who
        // sees the lease ended sees the hold. A hold that is placed later all the same, by a
        // transaction that read the lease before, or under the next lease of its process, is
        // released unused. Its call ends or frees nothing here: the key is another call's by then.
        None if record.is_orphaned => None,
        // After the deadline nothing will be sent either. This is for a node without a lease.
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
            is_orphaned: false,
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

    #[test]
    fn only_what_has_neither_an_end_nor_a_hold_is_free_with_its_lease() {
        let orphaned = |state, hold: Option<&str>| Record {
            hold: hold.map(str::to_owned),
            closed_at: hold.map(|_| 0),
            is_orphaned: true,
            ..record(state)
        };
        assert_eq!(judge(&orphaned("RUNNING", None), &claim(50)), None);
        for hold in ["HELD", "UNKNOWN", "SETTLED"] {
            let verdict = judge(&orphaned("RUNNING", Some(hold)), &claim(50));
            assert_eq!(verdict, Some(Verdict::Running), "{hold}");
        }
        assert!(matches!(judge(&orphaned("KEPT", None), &claim(50)), Some(Verdict::Kept { .. })));
        let too_large = judge(&orphaned("TOO_LARGE", None), &claim(50));
        assert!(matches!(too_large, Some(Verdict::Gone { .. })));
    }
}
