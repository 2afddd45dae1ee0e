//! What the outcome of an attempt means for the health of where it went: `reliability` 3.3.
//!
//! The classes stand in the failures' table; this says what each does. Invariant: total, and tested
//! row by row against the page.

use super::window::Counts;
use crate::config::Breaker;
use crate::failure::{Circuit, Failure};

/// What an outcome does to a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it says nothing about the channel.
    Neutral,
    /// It answered properly.
    Success,
    /// It failed; counted in halves.
    Failure {
        /// 2 is a whole failure.
        halves: u32,
    },
}

/// What else follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// The credential rests for this model for the time asked.
    CoolDown,
    /// The same, and where no time was asked others go first for a moment.
    GiveWay,
    /// The credential is out until it is tried again.
    Quarantine,
    /// The credential's account is used up: it is out until an operator says otherwise.
    Exhaust,
    /// The model is not there: its routes are out until it is tried again.
    DisableModel,
}

/// An attempt, as its circuit sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What it does to the circuit.
    pub effect: Effect,
    /// Its first byte was later than the channel's bound, or never came.
    pub slow: bool,
    /// What else follows.
    pub action: Action,
}

impl Verdict {
    /// Judges an attempt: how it failed, if it did, and how long its first byte took, or how long
    /// one was waited for.
    pub fn of(failure: Option<Failure>, first_byte_ms: u64, settings: &Breaker) -> Self {
        let late = first_byte_ms >= u64::from(settings.slow_call_ms);
        let Some(failure) = failure else {
            return Self { effect: Effect::Success, slow: late, action: Action::None };
        };
        let (effect, action) = match failure.row().circuit {
            Circuit::Counts => (Effect::Failure { halves: 2 }, Action::None),
            Circuit::CountsHalf => (Effect::Failure { halves: 1 }, Action::None),
            Circuit::Overloads => (Effect::Failure { halves: 1 }, Action::GiveWay),
            Circuit::Ignores => (Effect::Neutral, Action::None),
            Circuit::CoolsDown => (Effect::Neutral, Action::CoolDown),
            Circuit::Exhausts => (Effect::Neutral, Action::Exhaust),
            Circuit::FaultsCredential => (Effect::Neutral, Action::Quarantine),
            Circuit::LacksModel => (Effect::Neutral, Action::DisableModel),
            Circuit::Succeeds => (Effect::Success, Action::None),
        };
        let waits = matches!(failure, Failure::ClientGone | Failure::DeadlineExceeded);
        let slow =
            failure == Failure::FirstByteTimeout || (late && (waits || effect == Effect::Success));
        Self { effect, slow, action }
    }

    /// What it adds to a window; `None` when it is no call for it.
    pub(super) const fn counts(self) -> Option<Counts> {
        let slow = self.slow as u32;
        match self.effect {
            Effect::Neutral if !self.slow => None,
            Effect::Neutral | Effect::Success => Some(Counts { calls: 1, failed_halves: 0, slow }),
            Effect::Failure { halves } => Some(Counts { calls: 1, failed_halves: halves, slow }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Retry;

    const WHOLE: Effect = Effect::Failure { halves: 2 };
    const HALF: Effect = Effect::Failure { halves: 1 };

    /// `reliability` 3.3, row by row: outcome, breaker, other action, retry elsewhere.
    const TABLE: &[(&str, Failure, Effect, Action, bool)] = &[
        ("DNS, connect, TLS, proxy error", Failure::ConnectFailed, WHOLE, Action::None, true),
        ("reset before response byte", Failure::ConnectionLost, WHOLE, Action::None, true),
        ("500, 502, 504", Failure::ServerError, WHOLE, Action::None, true),
        ("503, 529 overloaded", Failure::Overloaded, HALF, Action::GiveWay, true),
        ("429", Failure::RateLimited, Effect::Neutral, Action::CoolDown, true),
        ("spend limit", Failure::AccountExhausted, Effect::Neutral, Action::Exhaust, true),
        ("401, 403", Failure::CredentialRefused, Effect::Neutral, Action::Quarantine, true),
        ("404, 410", Failure::UpstreamModelUnknown, Effect::Neutral, Action::DisableModel, true),
        ("400, 413, 422", Failure::RequestRefused, Effect::Success, Action::None, false),
        ("context length", Failure::ContextTooLong, Effect::Success, Action::None, false),
        ("content policy", Failure::ContentRefused, Effect::Success, Action::None, false),
        ("TTFT timeout", Failure::FirstByteTimeout, WHOLE, Action::None, true),
        ("idle gap mid-stream", Failure::IdleTimeout, HALF, Action::None, true),
        ("total timeout mid-stream", Failure::TotalTimeout, HALF, Action::None, true),
        ("error event in a 200", Failure::ErrorInAnswer, WHOLE, Action::None, true),
        ("malformed", Failure::AnswerMalformed, WHOLE, Action::None, true),
        ("no terminator", Failure::StreamCut, WHOLE, Action::None, true),
        ("no usage and no content", Failure::AnswerEmpty, HALF, Action::None, true),
        ("client cancelled", Failure::ClientGone, Effect::Neutral, Action::None, false),
        ("our deadline", Failure::DeadlineExceeded, Effect::Neutral, Action::None, false),
        ("our hold", Failure::InsufficientFunds, Effect::Neutral, Action::None, false),
        ("our bound", Failure::AnswerTooLarge, Effect::Neutral, Action::None, false),
        ("our address guard", Failure::AddressForbidden, Effect::Neutral, Action::None, true),
    ];

    #[test]
    fn every_row_of_the_normative_table_holds() {
        let settings = Breaker::default();
        for (row, failure, effect, action, elsewhere) in TABLE {
            let verdict = Verdict::of(Some(*failure), 0, &settings);
            assert_eq!((verdict.effect, verdict.action), (*effect, *action), "{row}");
            assert_eq!(failure.row().retry == Retry::NextChannel, *elsewhere, "{row}");
            assert_eq!(verdict.slow, *failure == Failure::FirstByteTimeout, "{row}");
        }
        let answered = Verdict::of(None, 0, &settings);
        assert_eq!((answered.effect, answered.slow), (Effect::Success, false));
    }

    #[test]
    fn a_failure_of_the_caller_or_of_ours_is_no_failure_of_the_channel() {
        use crate::failure::Source;
        for failure in Failure::ALL {
            let verdict = Verdict::of(Some(*failure), 0, &Breaker::default());
            if failure.row().source != Source::Upstream {
                assert!(!matches!(verdict.effect, Effect::Failure { .. }), "{failure:?}");
            }
        }
    }

    #[test]
    fn a_first_byte_beyond_the_bound_is_slow_also_when_the_client_gave_up_before_it() {
        let settings = Breaker { slow_call_ms: 100, ..Breaker::default() };
        let slow = |failure, ms| Verdict::of(failure, ms, &settings).slow;
        assert!(slow(None, 100) && !slow(None, 99));
        assert!(slow(Some(Failure::ClientGone), 100) && !slow(Some(Failure::ClientGone), 99));
        assert!(!slow(Some(Failure::RateLimited), 100), "a refusal is not slow");
        let gone = Verdict::of(Some(Failure::ClientGone), 100, &settings);
        assert_eq!(gone.counts(), Some(Counts { calls: 1, failed_halves: 0, slow: 1 }));
        let gone = Verdict::of(Some(Failure::ClientGone), 99, &settings);
        assert_eq!(gone.counts(), None);
    }
}
