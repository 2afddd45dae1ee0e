//! What one call has tried, and what that allows next.
//!
//! Invariant: no more attempts than the alias's budget, no more than two at one channel, and none
//! that could do a paid job twice. Source: `reliability` 4.

use std::sync::Arc;
use std::time::Duration;

use anima_core::clock::Timestamp;
use anima_core::config::Kind;
use anima_core::failure::{Circuit, Cost, Failure, Retry, Source};
use anima_wire::adapter::Classified;

use super::super::plan::micros;

/// Attempts at one channel at most (`reliability` 4).
const PER_CHANNEL: usize = 2;
/// Waits before the same channel is tried again: spread from nothing to this, doubled with each.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How sure it is that a failed attempt did nothing (`reliability` 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Safety {
    /// Nothing was sent.
    Unsent,
    /// The provider said no.
    Refused,
    /// It may have been worked on.
    Uncertain,
}

/// The class of a failure.
pub(super) const fn safety(failure: Failure) -> Safety {
    let row = failure.row();
    match row.cost {
        Cost::Nothing if matches!(failure, Failure::ConnectFailed | Failure::AddressForbidden) => {
            Safety::Unsent
        }
        Cost::Nothing => Safety::Refused,
        Cost::EstimatedInput | Cost::Delivered => Safety::Uncertain,
    }
}

/// Whether a job of a kind may be made again although it may have been made: a chat costs its
/// tokens, a film costs a film.
const fn repeats_uncertain(kind: Kind) -> bool {
    !matches!(kind, Kind::Image | Kind::Video | Kind::Music)
}

/// Whether another attempt may follow a failure.
pub(super) fn may_follow(kind: Kind, failure: Failure) -> bool {
    let elsewhere = failure.row().retry == Retry::NextChannel;
    elsewhere && !may_be_made(kind, failure)
}

/// Whether a job that is paid by the piece may have been made although its answer was lost: what
/// became of it is unknown, and to ask again may cost it again (`reference/README`, fact 10).
pub(in crate::relay) fn may_be_made(kind: Kind, failure: Failure) -> bool {
    safety(failure) == Safety::Uncertain && !repeats_uncertain(kind)
}

/// Whether the same channel may do better a moment later.
pub(super) fn may_pass(failure: Failure) -> bool {
    let passing = matches!(
        failure,
        Failure::ConnectFailed
            | Failure::ConnectionLost
            | Failure::ServerError
            | Failure::Overloaded
            | Failure::RateLimited
            | Failure::StreamCut
            | Failure::ErrorInAnswer
            | Failure::AnswerEmpty
            | Failure::AnswerMalformed
    );
    passing && failure.row().source == Source::Upstream
}

/// Whether a failure is one credential's, so that another of the channel may do better at once.
pub(super) const fn is_credentials(failure: Failure) -> bool {
    matches!(failure, Failure::CredentialRefused | Failure::AccountExhausted | Failure::RateLimited)
}

/// How long to wait before attempt `n` (from 1) at the same channel: full jitter.
pub(super) fn backoff(n: u32, bits: u64) -> Duration {
    let most = BACKOFF.saturating_mul(1 << n.min(10)).min(BACKOFF_MAX);
    let most_us = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1);
    Duration::from_micros(bits % most_us)
}

/// Attempts so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// Where, and with which credential.
    made: Vec<(Arc<str>, Arc<str>)>,
    /// Which channels as a whole asked to be left alone, and until when.
    asked: Vec<(Arc<str>, Timestamp)>,
}

impl Tries {
    pub(super) fn add(&mut self, channel: &Arc<str>, credential: &Arc<str>) {
        self.made.push((Arc::clone(channel), Arc::clone(credential)));
    }

    /// Notes how long a channel that failed asks to be left alone. A credential that is throttled
    /// or refused speaks for itself alone, and the circuits know of it.
    pub(super) fn note(&mut self, channel: &Arc<str>, failed: &Classified, now: Timestamp) {
        let circuit = failed.failure.row().circuit;
        let whole = matches!(circuit, Circuit::Counts | Circuit::CountsHalf | Circuit::Overloads);
        if let (true, Some(ms)) = (whole, failed.retry_after_ms) {
            let until = now.plus_millis(i64::try_from(ms).unwrap_or(i64::MAX));
            self.asked.push((Arc::clone(channel), until));
        }
    }

    /// How long a channel still asks to be left alone.
    pub(super) fn asked(&self, channel: &str, now: Timestamp) -> Duration {
        let of_channel = self.asked.iter().filter(|(asked, _)| **asked == *channel);
        of_channel.map(|(_, until)| micros(until.since(now))).max().unwrap_or_default()
    }

    /// Whether the channel may be tried once more.
    pub(super) fn has_room(&self, channel: &str) -> bool {
        self.made.iter().filter(|(tried, _)| **tried == *channel).count() < PER_CHANNEL
    }

    /// Whether the credential was tried.
    pub(super) fn has(&self, channel: &str, credential: &str) -> bool {
        self.made.iter().any(|(at, with)| **at == *channel && **with == *credential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::trial::classified;

    #[test]
    fn failures_are_unsent_refused_or_uncertain() {
        for (failure, class) in [
            (Failure::ConnectFailed, Safety::Unsent),
            (Failure::RateLimited, Safety::Refused),
            (Failure::Overloaded, Safety::Refused),
            (Failure::CredentialRefused, Safety::Refused),
            (Failure::ConnectionLost, Safety::Uncertain),
            (Failure::FirstByteTimeout, Safety::Uncertain),
            (Failure::ServerError, Safety::Uncertain),
        ] {
            assert_eq!(safety(failure), class, "{failure:?}");
        }
    }

    #[test]
    fn what_may_have_made_a_film_is_not_asked_for_again() {
        assert!(may_follow(Kind::Chat, Failure::ConnectionLost));
        assert!(!may_follow(Kind::Video, Failure::ConnectionLost));
        assert!(may_follow(Kind::Video, Failure::ConnectFailed));
        assert!(may_follow(Kind::Video, Failure::RateLimited));
        assert!(!may_follow(Kind::Chat, Failure::RequestRefused));
    }

    #[test]
    fn waits_are_spread_from_nothing_to_a_bound_that_doubles() {
        for n in 0..20 {
            let most = BACKOFF.saturating_mul(1 << n.min(10)).min(BACKOFF_MAX);
            assert!(backoff(n, u64::MAX) < most, "{n}");
        }
        assert_eq!(backoff(3, 0), Duration::ZERO);
    }

    #[test]
    fn a_channel_rests_as_it_asks_and_a_throttled_credential_speaks_for_itself() {
        let mut tries = Tries::default();
        let at = |ms| Timestamp::default().plus_millis(ms);
        for (channel, failure, ms) in [
            ("c", Failure::ServerError, Some(2_000)),
            ("c", Failure::Overloaded, Some(1_000)),
            ("c", Failure::ServerError, None),
            ("d", Failure::RateLimited, Some(9_000)),
        ] {
            let failed = Classified { retry_after_ms: ms, ..classified(failure) };
            tries.note(&channel.into(), &failed, at(0));
        }
        assert_eq!(tries.asked("c", at(500)), Duration::from_millis(1_500));
        assert_eq!(tries.asked("c", at(3_000)), Duration::ZERO);
        assert_eq!(tries.asked("d", at(0)), Duration::ZERO);
    }

    #[test]
    fn a_channel_is_tried_twice_at_most() {
        let mut tries = Tries::default();
        let (channel, credential) = ("c".into(), "a".into());
        assert!(tries.has_room("c") && !tries.has("c", "a"));
        tries.add(&channel, &credential);
        tries.add(&channel, &credential);
        assert!(!tries.has_room("c") && tries.has_room("d") && tries.has("c", "a"));
    }
}
