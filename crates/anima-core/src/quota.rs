//! Limits: what a call asks of its counters, and what each of them says.
//!
//! A [`Bound`] is one limit that applies to one call; an [`Ask`] is all of them. The [`book`] is
//! the twin of the shared counters: the same arithmetic in one process. Invariant: an ask is judged
//! whole before anything is written, so a refused call leaves no trace. Source: SPEC 6,
//! `reliability` 2.1 and 2.2.

use std::sync::Arc;

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::config::{LimitKind, OnOutage, TokenCount, Window};
use crate::money::Currency;

pub mod book; // the counters of one process
pub mod calendar; // hours, days and months where the customer lives
pub mod rate; // GCRA: one instant per counter
pub mod rule; // a quota's row → the bounds of a call
pub mod share; // what a node may give out alone

pub use book::Book;
pub use calendar::Span;
pub use rate::Rate;
pub use rule::Rule;

/// What a limit hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// One key.
    Key,
    /// All keys of an app.
    App,
    /// All keys of a token group.
    TokenGroup,
    /// All calls of a channel.
    Channel,
}

impl Scope {
    /// As metrics, errors and reports say it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::App => "app",
            Self::TokenGroup => "token_group",
            Self::Channel => "channel",
        }
    }
}

/// What tells the limits of one quota apart. The amount of a budget or of slots is not part of it:
/// one that is raised goes on counting where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName {
    /// What is limited.
    pub kind: LimitKind,
    /// Tokens only: which ones.
    pub count: Option<TokenCount>,
    /// All but concurrency.
    pub window: Option<Window>,
    /// Cost only: of which currency.
    pub currency: Option<Currency>,
    /// Requests and tokens only: limit and burst. Another rate is another counter, so that one
    /// that is raised lets calls pass at once and not when the old one would have.
    pub rate: Option<(i64, i64)>,
    /// It counts and never refuses.
    pub shadow: bool,
}

impl std::fmt::Display for RuleName {
    /// Such as `tokens:total:1m`; part of the keys of shared counters.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.word())?;
        if let Some(count) = self.count {
            write!(f, ":{}", count.word())?;
        }
        if let Some(window) = self.window {
            write!(f, ":{}", window.word())?;
        }
        if let Some(currency) = self.currency {
            write!(f, ":{currency}")?;
        }
        if let Some((limit, burst)) = self.rate {
            write!(f, ":{limit}:{burst}")?;
        }
        if self.shadow { f.write_str(":shadow") } else { Ok(()) }
    }
}

/// Names one counter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counter {
    /// What it hangs on.
    pub scope: Scope,
    /// The code of that.
    pub code: Arc<str>,
    /// What it counts.
    pub rule: RuleName,
}

/// Counters of one tag are judged and written together; those of several tags one tag after the
/// other, with a way back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tag {
    /// An app and its keys.
    App(Arc<str>),
    /// A token group.
    TokenGroup(Arc<str>),
    /// A channel.
    Channel(Arc<str>),
}

/// How a bound is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Calls at a time.
    Slots {
        /// How many.
        limit: i64,
    },
    /// Units over time.
    Rate(Rate),
    /// Money in a span of the calendar, in units of its currency.
    Purse {
        /// How much.
        limit: i64,
        /// When.
        span: Span,
    },
}

/// One limit that applies to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Where it is counted.
    pub counter: Counter,
    /// Together with what.
    pub tag: Tag,
    /// How it is judged.
    pub check: Check,
    /// What the call takes of it: one slot, so many requests or tokens, so much money.
    pub units: i64,
    /// What happens without the shared counters.
    pub on_outage: OnOutage,
}

/// All that one call asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The call's id. The same id again is the same ask.
    pub id: Uuid,
    /// Judged together.
    pub bounds: &'a [Bound],
    /// When.
    pub now: Timestamp,
    /// How long what it takes is kept for it without being renewed, microseconds.
    pub lease_us: i64,
}

/// Whether a bound lets a call pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// It does.
    Yes,
    /// After so many microseconds, if nobody else comes.
    After(i64),
    /// When something is given back; nobody knows when.
    WhenFree,
    /// Never: the call is larger than the limit, or the limit has no end.
    Never,
    /// Nobody knows what was spent: the counter must be seeded from the ledger first.
    Unseeded,
}

/// Where one bound stands after an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether it lets the call pass.
    pub pass: Pass,
    /// The whole of it.
    pub limit: i64,
    /// What is left of it. Never negative.
    pub remaining: i64,
    /// Microseconds until it is whole again. 0 when unknown.
    pub reset_us: i64,
    /// Four fifths of it went with this call.
    pub warn: bool,
}

impl Standing {
    /// Of a bound that was not asked anything: it is not in the way.
    pub const FREE: Self =
        Self { pass: Pass::Yes, limit: i64::MAX, remaining: i64::MAX, reset_us: 0, warn: false };
}

/// What an ask came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was taken. Parallel to the bounds.
    Admitted(Vec<Standing>),
    /// Nothing was taken: the bound of that position stands in the way the longest.
    Refused(usize, Vec<Standing>),
    /// Nothing was taken: these counters must be seeded.
    Unseeded(Vec<usize>),
}

/// What all bounds together say. A shadow limit never stands in the way.
pub fn verdict(bounds: &[Bound], standings: Vec<Standing>) -> Verdict {
    let unseeded: Vec<usize> = (0..standings.len())
        .filter(|n| standings.get(*n).is_some_and(|s| s.pass == Pass::Unseeded))
        .collect();
    if !unseeded.is_empty() {
        return Verdict::Unseeded(unseeded);
    }
    let in_the_way = bounds
        .iter()
        .zip(&standings)
        .enumerate()
        .filter(|(_, (bound, standing))| !bound.counter.rule.shadow && standing.pass != Pass::Yes)
        .max_by_key(|(_, (_, standing))| patience(standing.pass))
        .map(|(n, _)| n);
    match in_the_way {
        Some(n) => Verdict::Refused(n, standings),
        None => Verdict::Admitted(standings),
    }
}

/// Longer waits come later.
const fn patience(pass: Pass) -> (u8, i64) {
    match pass {
        Pass::Yes => (0, 0),
        Pass::WhenFree => (1, 0),
        Pass::After(us) => (2, us),
        Pass::Unseeded => (3, 0),
        Pass::Never => (4, 0),
    }
}

/// The bound that is nearest to its end, of those that `which` picks: what the client is told.
pub fn tightest<'a>(
    bounds: &'a [Bound],
    standings: &'a [Standing],
    which: impl Fn(&Bound) -> bool,
) -> Option<(&'a Bound, &'a Standing)> {
    let left = |s: &Standing| i128::from(s.remaining) * 1_000_000 / i128::from(s.limit.max(1));
    bounds
        .iter()
        .zip(standings)
        .filter(|(bound, _)| !bound.counter.rule.shadow && which(bound))
        .min_by_key(|(_, standing)| left(standing))
}
