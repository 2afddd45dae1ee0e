//! What follows from a run that ended without an answer. Pure.
//!
//! Invariant: only what was certainly not sent is run again, and only where time may heal what
//! stood in the way.

use anima_core::failure::Failure;

use crate::http::reply::Refusal;

/// Pauses are at least this long, so that nothing spins, and at most so long, so that what heals
/// early is seen.
const PAUSE_MS: (u64, u64) = (100, 60_000);
/// The pause where nobody says how long.
const UNKNOWN_MS: u64 = 2_000;

/// What becomes of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It has failed, and the refusal is what it ends with.
    Fail,
    /// Its key may not be used any more.
    Cancel,
    /// It goes back, to be run again after so many milliseconds.
    Again(u64),
}

/// What follows from a refusal. `sent`: an attempt was made.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else stands in the way stays there")]
pub(super) fn after(refusal: &Refusal, sent: bool) -> Next {
    if sent {
        return Next::Fail;
    }
    let told = refusal.retry_after_ms;
    let again = |ms: u64| Next::Again(ms.clamp(PAUSE_MS.0, PAUSE_MS.1));
    match refusal.failure {
        Failure::KeyDisabled | Failure::KeyExpired | Failure::KeyUnknown => Next::Cancel,
        // A limit that never lets it pass says no time.
        Failure::ConcurrencyLimited
        | Failure::RequestsLimited
        | Failure::TokensLimited
        | Failure::BudgetExceeded => told.map_or(Next::Fail, again),
        Failure::QueueTimeout
        | Failure::QueueFull
        | Failure::DeadlineUnreachable
        | Failure::ServiceUnavailable
        | Failure::ServiceSuspended
        | Failure::AuthUnavailable
        | Failure::NoHealthyChannel => again(told.unwrap_or(UNKNOWN_MS)),
        // This node stops: another one may have it at once.
        Failure::ClientGone | Failure::ShuttingDown => Next::Again(0),
        _ => Next::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(failure: Failure, ms: Option<u64>) -> Refusal {
        Refusal { retry_after_ms: ms, ..Refusal::new(failure, "x") }
    }

    #[test]
    fn what_was_sent_is_never_run_again() {
        for failure in Failure::ALL {
            assert_eq!(after(&refusal(*failure, Some(1)), true), Next::Fail, "{failure:?}");
        }
    }

    #[test]
    fn limits_and_outages_heal_and_bad_requests_do_not() {
        let next = |failure, ms| after(&refusal(failure, ms), false);
        assert_eq!(next(Failure::ConcurrencyLimited, Some(250)), Next::Again(250));
        assert_eq!(next(Failure::RequestsLimited, Some(1)), Next::Again(100));
        assert_eq!(next(Failure::BudgetExceeded, Some(86_400_000)), Next::Again(60_000));
        assert_eq!(next(Failure::TokensLimited, None), Next::Fail);
        assert_eq!(next(Failure::NoHealthyChannel, None), Next::Again(2_000));
        assert_eq!(next(Failure::ClientGone, None), Next::Again(0));
        assert_eq!(next(Failure::KeyDisabled, None), Next::Cancel);
        for failure in [Failure::InsufficientFunds, Failure::BodyInvalid, Failure::ModelUnknown] {
            assert_eq!(next(failure, None), Next::Fail, "{failure:?}");
        }
    }
}
