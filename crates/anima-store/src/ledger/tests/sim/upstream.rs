//! The providers: what each does with a call, drawn when the call arrives, and the log of what each
//! call really costs.
//!
//! A call's progress is a function of time, so a caller that died or sleeps changes nothing about
//! it, but that some channels stop when their caller is gone.
//! Invariant: the log is the truth. Books are compared with it, never the other way round.

use std::collections::BTreeMap;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::recovery::LookUp;
use anima_core::money::{Currency, Rate};
use anima_core::pricing::{MeterRate, PriceList, When};
use anima_core::usage::{Meter, Usage};

/// A channel to a provider.
#[derive(Debug, Clone, Copy)]
pub(super) struct Channel {
    pub(super) name: &'static str,
    /// It can be asked what became of a call.
    pub(super) looks_up: bool,
    /// It stops when its caller is gone, and charges what was made.
    pub(super) stops: bool,
    /// Its cost per token, relative to the other's.
    dear: i64,
}

pub(super) const CHANNELS: [Channel; 3] = [
    Channel { name: "ask", looks_up: true, stops: false, dear: 1 },
    Channel { name: "stop", looks_up: true, stops: true, dear: 2 },
    Channel { name: "mute", looks_up: false, stops: false, dear: 3 },
];

/// What a channel charges us. Odd rates, so that rounding shows.
pub(super) fn cost_list(channel: &Channel) -> PriceList {
    list(&format!("cost-{}", channel.name), 1_333 * channel.dear, 5_777 * channel.dear)
}

/// What a customer is charged.
pub(super) fn sale_list() -> PriceList {
    list("sale", 9_111, 33_337)
}

fn list(code: &str, input: i64, output: i64) -> PriceList {
    let rate =
        |meter, units| MeterRate { meter, rate: Rate { units, pow10: 3 }, when: When::default() };
    let rates = vec![rate(Meter::InputTokens, input), rate(Meter::OutputTokens, output)];
    PriceList { code: code.to_owned(), version_no: 1, currency: Currency::USD, rates }
}

pub(super) fn used(input: u64, output: u64) -> Usage {
    Usage::default().with(Meter::InputTokens, input).with(Meter::OutputTokens, output)
}

/// What a provider does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Turns it down, for nothing.
    Refuses,
    /// Takes it, then answers 500; the prompt is charged.
    Breaks,
    /// Takes it and is not heard of before the caller's patience ends.
    Hangs,
    /// Answers in one piece.
    Whole,
    /// Answers piece by piece.
    Streams,
    /// Answers piece by piece, and breaks off after so many.
    Cuts(u64),
}

/// One call in the log.
#[derive(Debug, Clone)]
pub(super) struct Truth {
    pub(super) channel: Channel,
    pub(super) manner: Manner,
    pub(super) input: u64,
    /// Pieces of the whole answer.
    pub(super) pieces: u64,
    /// Tokens of a piece.
    pub(super) piece_tokens: u64,
    /// Milliseconds of a piece.
    pub(super) piece_ms: u64,
    /// Whether usage is reported at the end.
    pub(super) reports: bool,
    pub(super) started_at: Timestamp,
    caller: Uuid,
    /// When it was stopped before its end.
    stopped_at: Option<Timestamp>,
}

impl Truth {
    /// Pieces that were made by `now`.
    pub(super) fn made(&self, now: Timestamp) -> u64 {
        let now = self.stopped_at.map_or(now, |stopped| stopped.min(now));
        let elapsed = u64::try_from(now.since(self.started_at)).unwrap_or(0) / 1_000;
        let most = match self.manner {
            Manner::Refuses | Manner::Breaks => 0,
            Manner::Cuts(after) => after.min(self.pieces),
            Manner::Hangs | Manner::Whole | Manner::Streams => self.pieces,
        };
        most.min(elapsed / self.piece_ms.max(1))
    }

    /// When piece `n`, from 1, is there.
    pub(super) fn due(&self, n: u64) -> Timestamp {
        self.started_at.plus_millis(i64::try_from(n * self.piece_ms).unwrap())
    }

    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let (immediate, last) = match self.manner {
            Manner::Refuses | Manner::Breaks => (true, 0),
            Manner::Cuts(after) => (false, after.min(self.pieces)),
            Manner::Hangs | Manner::Whole | Manner::Streams => (false, self.pieces),
        };
        immediate || self.stopped_at.is_some_and(|at| at <= now) || now >= self.due(last)
    }

    fn caller_left(&mut self, now: Timestamp) {
        if self.channel.stops && !self.is_over(now) {
            self.stopped_at = Some(now);
        }
    }

    /// What it charges for, as of `now`.
    pub(super) fn billed(&self, now: Timestamp) -> Usage {
        if self.manner == Manner::Refuses {
            return Usage::default();
        }
        used(self.input, self.made(now) * self.piece_tokens)
    }
}

/// All providers.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    /// By request and attempt.
    pub(super) log: BTreeMap<(Uuid, i16), Truth>,
}

impl Upstream {
    /// A call arrives. The same call never arrives twice, for attempts are not repeated.
    pub(super) fn take(&mut self, key: (Uuid, i16), caller: Uuid, mut truth: Truth) {
        truth.caller = caller;
        assert!(self.log.insert(key, truth).is_none(), "{key:?} was sent twice");
    }

    /// A caller closed a connection.
    pub(super) fn caller_left(&mut self, key: (Uuid, i16), now: Timestamp) {
        if let Some(truth) = self.log.get_mut(&key) {
            truth.caller_left(now);
        }
    }

    /// All connections of a caller closed.
    pub(super) fn caller_died(&mut self, caller: Uuid, now: Timestamp) {
        for truth in self.log.values_mut().filter(|truth| truth.caller == caller) {
            truth.caller_left(now);
        }
    }

    /// What a channel says about a call.
    pub(super) fn look_up(&self, key: (Uuid, i16), channel: &Channel, now: Timestamp) -> LookUp {
        if !channel.looks_up {
            return LookUp::Impossible;
        }
        match self.log.get(&key).filter(|truth| truth.channel.name == channel.name) {
            None => LookUp::NeverMade,
            Some(truth) if truth.is_over(now) => {
                LookUp::Over { usage: truth.billed(now), tier: None }
            }
            Some(_) => LookUp::Running,
        }
    }
}

/// A call as the dice have it.
pub(super) fn draw(dice: impl Fn(u64) -> u64, input: u64, trouble: u64, now: Timestamp) -> Truth {
    let pieces = 1 + dice(12);
    let manner = if dice(1_000_000) < trouble {
        match dice(5) {
            0 => Manner::Refuses,
            1 => Manner::Breaks,
            2 => Manner::Hangs,
            _ => Manner::Cuts(dice(pieces)),
        }
    } else if dice(4) == 0 {
        Manner::Whole
    } else {
        Manner::Streams
    };
    Truth {
        channel: CHANNELS[0],
        manner,
        input,
        pieces,
        piece_tokens: 1 + dice(9),
        piece_ms: 20 + dice(900),
        reports: dice(1_000_000) >= trouble / 2,
        started_at: now,
        caller: Uuid::nil(),
        stopped_at: None,
    }
}
