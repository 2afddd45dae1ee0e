//! The counters of all nodes, in Redis: one script per tag checks all, then writes all.
//!
//! Scripts read the server's time, so that the clocks of nodes do not matter; they say what they
//! found, and the pure code of `anima-core` says what that means. An ask that spans several tags
//! takes them one after the other and gives back when a later one refuses. Invariant: what is sent
//! twice is done once, because each step is known by the call's id. Source: `reliability` 2.2.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::Script;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::quota::book::Level;
use anima_core::quota::{Ask, Bound, Check, Span, Standing, Tag, Verdict, verdict};

use self::answers::{more, standing};
use self::close::{Again, close_each, close_tag};
use super::line::InTurn;
use super::{QuotaStore, Ticket, Unavailable, UndoStore};
use crate::pubsub::PubSub;
use crate::redis::{Error, Redis};
use crate::redis_keys::{self, Key};

mod answers; // what scripts found, as the book says it
mod close; // how tickets end
mod line; // who waits for them
mod purse; // what they know of what was spent

static ADMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/admit.lua")));
static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/renew.lua")));
static EXTEND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/extend.lua")));
static ALIVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/alive.lua")));

/// A purse is kept this much longer than its span, for calls that end after it.
const KEPT_MS: i64 = 3_600_000;
/// Renewals that are under way at once.
const RENEWED_AT_ONCE: usize = 128;
/// A purse without an end is kept this long without use; the ledger seeds the next.
const EVER_MS: i64 = 40 * 86_400_000;

/// The counters. See the module.
#[derive(Debug)]
pub struct RedisQuotas {
    redis: Redis,
    /// This node, among those that count here.
    node: Uuid,
    /// How many of them there were when this one last said that it lives.
    nodes: Arc<AtomicI64>,
    /// Where it hears of those whose turn has come.
    pubsub: Option<Arc<dyn PubSub>>,
    /// What scripts are told of the time: 0 for the server's own. Tests move theirs.
    time: fn(Timestamp) -> i64,
    /// The process that answers, where a test says so.
    #[cfg(test)]
    run: Option<u32>,
}

impl From<Error> for Unavailable {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

/// What the script said of one tag: whether it was taken, the time, and two numbers per bound.
struct Said {
    taken: bool,
    /// Others wait.
    behind: bool,
    now_us: i64,
    states: Vec<(i64, i64)>,
}

/// What is done with what a tag says, as the script is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judging {
    Look = 0,
    Take = 1,
    InTurn = 2,
    AtOnce = 3,
    LookAtOnce = 4,
}

impl Judging {
    /// The same, and nothing is taken.
    const fn looking(self) -> Self {
        match self {
            Self::AtOnce | Self::LookAtOnce => Self::LookAtOnce,
            Self::Look | Self::Take | Self::InTurn => Self::Look,
        }
    }
}

impl RedisQuotas {
    /// The counters behind a connection, for a node. `nodes` is told how many count here.
    pub fn new(redis: Redis, node: Uuid, nodes: Arc<AtomicI64>) -> Self {
        Self {
            redis,
            node,
            nodes,
            pubsub: None,
            time: |_| 0,
            #[cfg(test)]
            run: None,
        }
    }

    /// Hears over this of those whose turn has come.
    #[must_use]
    pub fn hearing(self, pubsub: &Arc<dyn PubSub>) -> Self {
        Self { pubsub: Some(Arc::clone(pubsub)), ..self }
    }

    /// Says that this node lives, and learns how many do.
    async fn live(&self, lease_us: i64) -> Result<(), Unavailable> {
        let arguments = [self.node.to_string(), (lease_us / 1_000).max(1).to_string()];
        let keys = [redis_keys::quota_nodes()];
        let nodes: i64 = self.redis.script(&ALIVE, &keys, arguments.as_slice()).await?;
        self.nodes.store(nodes, Ordering::Relaxed);
        Ok(())
    }

    /// The same, with the caller's time.
    #[cfg(test)]
    pub(super) fn with_callers_time(redis: Redis) -> Self {
        Self::new(redis, Uuid::nil(), Arc::default()).in_callers_time()
    }

    /// The same, of a node.
    #[cfg(test)]
    pub(super) fn in_callers_time(self) -> Self {
        Self { time: Timestamp::micros, ..self }
    }

    /// The same, as if another process answered from here on.
    #[cfg(test)]
    pub(super) fn of_run(self, run: u32) -> Self {
        Self { run: Some(run), ..self }
    }

    async fn judge(&self, ask: Ask<'_>, tag: &Tag, how: Judging) -> Result<Said, Unavailable> {
        let mut keys = vec![redis_keys::quota_ticket(tag, ask.id)];
        let mut arguments = vec![
            ask.id.to_string(),
            (self.time)(ask.now).to_string(),
            ask.lease_us.to_string(),
            (how as u8).to_string(),
        ];
        for bound in ask.bounds.iter().filter(|bound| bound.tag == *tag) {
            keys.extend(keys_of(bound));
            self.describe(bound, ask.now, &mut arguments);
        }
        let [heads, line, _, meta, ..] = redis_keys::quota_line(tag);
        match how {
            Judging::InTurn => keys.push(heads),
            Judging::AtOnce | Judging::LookAtOnce => keys.extend([meta, line]),
            Judging::Look | Judging::Take => {}
        }
        let said: Vec<i64> = self.redis.script(&ADMIT, &keys, arguments).await?;
        let (head, states) = said.split_at_checked(2).unwrap_or_default();
        let states = states.chunks_exact(2).filter_map(|pair| match pair {
            [again, state] => Some((*again, *state)),
            _ => None,
        });
        Ok(Said {
            taken: head.first() == Some(&1),
            behind: head.first() == Some(&2),
            now_us: head.last().copied().unwrap_or_else(|| ask.now.micros()),
            states: states.collect(),
        })
    }

    /// Takes all of an ask or nothing, one tag after the other.
    async fn admit_as(&self, ask: Ask<'_>, how: Judging) -> Result<InTurn, Unavailable> {
        let (mut said, mut taken) = (Vec::new(), Vec::new());
        let (mut pass, mut behind) = (true, None);
        for tag in tags(ask.bounds) {
            let one = self.judge(ask, tag, if pass { how } else { how.looking() }).await?;
            pass &= one.taken;
            if one.taken {
                taken.push(tag);
            }
            if one.behind {
                behind = Some(InTurn::Behind(tag.clone()));
                break;
            }
            said.push((tag, one));
        }
        if !pass {
            for tag in taken {
                self.give_back(ask, tag).await?;
            }
        }
        if let Some(behind) = behind {
            return Ok(behind);
        }
        let mut place = vec![0_usize; said.len()];
        let standings = ask.bounds.iter().filter_map(|bound| {
            let n = said.iter().position(|(tag, _)| **tag == bound.tag)?;
            let (at, (_, one)) = (place.get_mut(n)?, said.get(n)?);
            let state = one.states.get(*at).copied()?;
            *at += 1;
            Some(standing(bound, state, one.now_us))
        });
        Ok(InTurn::Judged(verdict(ask.bounds, standings.collect())))
    }

    /// Which process answers; 0 where that is not told.
    fn run(&self) -> u32 {
        #[cfg(test)]
        if let Some(run) = self.run {
            return run;
        }
        self.redis.run_of_server()
    }

    /// What a purse is marked with that is counted here: its span, and the process that answers.
    /// What another one knew may lack what was written last, so it counts as not known, and the
    /// ledger seeds it anew (`reliability` 2.3).
    fn mark(&self, span: Span) -> String {
        match self.run() {
            0 => span.from.micros().to_string(),
            run => format!("{}{run:010}", span.from.micros()),
        }
    }

    /// A bound, as `admit` takes it.
    fn describe(&self, bound: &Bound, now: Timestamp, arguments: &mut Vec<String>) {
        let shadow = i64::from(bound.counter.rule.shadow).to_string();
        match bound.check {
            Check::Slots { limit } => arguments.extend(["s".to_owned(), shadow, limit.to_string()]),
            Check::Rate(rate) => arguments.extend([
                "r".to_owned(),
                shadow,
                rate.cost_us(bound.units).to_string(),
                rate.burst_us().to_string(),
                rate.period_us.to_string(),
            ]),
            Check::Purse { limit, span } => arguments.extend([
                "p".to_owned(),
                shadow,
                limit.to_string(),
                bound.units.to_string(),
                self.mark(span),
                kept_ms(span, now).to_string(),
            ]),
        }
    }

    /// Gives back what an ask took of a tag.
    async fn give_back(&self, ask: Ask<'_>, tag: &Tag) -> Result<(), Unavailable> {
        let none = |bound: &Bound| Bound { units: 0, ..bound.clone() };
        let bounds = ask.bounds.iter().filter(|bound| bound.tag == *tag).map(none).collect();
        let ticket = Ticket { id: ask.id, bounds };
        close_tag(self, &ticket, tag, (ask.now, Again::Perhaps)).await.map(drop)
    }

    /// Sets what a ticket holds of the purses of a tag: whether it did, and of each purse what was
    /// held before and what was spent and held in all.
    async fn extend_tag(
        &self,
        ask: Ask<'_>,
        (tag, bounds): (&Tag, &[&Bound]),
    ) -> Result<(bool, i64, Vec<(i64, i64)>), Unavailable> {
        let mut keys = vec![redis_keys::quota_ticket(tag, ask.id)];
        let mut arguments =
            vec![ask.id.to_string(), (self.time)(ask.now).to_string(), ask.lease_us.to_string()];
        for bound in bounds {
            let Check::Purse { limit, span } = bound.check else { continue };
            keys.extend(keys_of(bound));
            arguments.extend([
                i64::from(bound.counter.rule.shadow).to_string(),
                limit.to_string(),
                bound.units.to_string(),
                self.mark(span),
                kept_ms(span, ask.now).to_string(),
            ]);
        }
        let said: Vec<i64> = self.redis.script(&EXTEND, &keys, arguments).await?;
        let (head, states) = said.split_at_checked(2).unwrap_or_default();
        let states = states.chunks_exact(2).filter_map(|pair| match pair {
            [before, state] => Some((*before, *state)),
            _ => None,
        });
        let now_us = head.last().copied().unwrap_or_else(|| ask.now.micros());
        Ok((head.first() == Some(&1), now_us, states.collect()))
    }

    async fn level_of(&self, bound: &Bound, now: Timestamp) -> Result<Option<Level>, Unavailable> {
        let ask = Ask { id: Uuid::nil(), bounds: std::slice::from_ref(bound), now, lease_us: 0 };
        let said = self.judge(ask, &bound.tag, Judging::Look).await?;
        let state = said.states.first().map_or(-1, |(_, state)| *state);
        self.level(bound, (state, said.now_us)).await
    }

    async fn level(
        &self,
        bound: &Bound,
        (state, now_us): (i64, i64),
    ) -> Result<Option<Level>, Unavailable> {
        Ok(match bound.check {
            Check::Slots { .. } => Some(Level { used: state, held: 0, reset_us: 0 }),
            Check::Rate(rate) => {
                let used = rate.burst.saturating_sub(rate.remaining(state, now_us));
                Some(Level { used, held: 0, reset_us: rate.start(state, now_us) - now_us })
            }
            Check::Purse { .. } if state < 0 => None,
            Check::Purse { span, .. } => {
                let mut command = redis::cmd("HGET");
                let keys = keys_of(bound);
                let Some(purse) = keys.first() else { return Ok(None) };
                command.arg(self.redis.key(purse)).arg("held");
                let held: Option<i64> = self.redis.command(&command).await?;
                let reset_us = if span.is_ever() { 0 } else { span.to.micros() - now_us };
                Some(Level { used: state, held: held.unwrap_or(0), reset_us })
            }
        })
    }

    async fn renew_one(
        &self,
        ticket: &Ticket,
        (now, lease_us): (Timestamp, i64),
    ) -> Result<(), Unavailable> {
        for tag in tags(&ticket.bounds) {
            let mut keys = vec![redis_keys::quota_ticket(tag, ticket.id)];
            let mut arguments =
                vec![ticket.id.to_string(), (self.time)(now).to_string(), lease_us.to_string()];
            for bound in ticket.bounds.iter().filter(|bound| bound.tag == *tag) {
                let own = keys_of(bound);
                match (bound.check, own.get(1)) {
                    (Check::Slots { .. }, _) => {
                        keys.extend(own);
                        arguments.push("s".to_owned());
                    }
                    (Check::Purse { .. }, Some(holds)) => {
                        keys.push(holds.clone());
                        arguments.push("p".to_owned());
                    }
                    (Check::Purse { .. } | Check::Rate(_), _) => {}
                }
            }
            let _known: i64 = self.redis.script(&RENEW, &keys, arguments).await?;
        }
        Ok(())
    }
}

/// The tags of some bounds, each once, in order of appearance.
fn tags(bounds: &[Bound]) -> Vec<&Tag> {
    let mut tags: Vec<&Tag> = Vec::with_capacity(1);
    for bound in bounds {
        if !tags.contains(&&bound.tag) {
            tags.push(&bound.tag);
        }
    }
    tags
}

/// The keys of a bound, as the scripts take them.
fn keys_of(bound: &Bound) -> Vec<Key> {
    let span = match bound.check {
        Check::Purse { span, .. } => Some(span),
        Check::Slots { .. } | Check::Rate(_) => None,
    };
    redis_keys::quota_counter(&bound.tag, &bound.counter, span)
}

fn kept_ms(span: Span, now: Timestamp) -> i64 {
    if span.is_ever() { EVER_MS } else { (span.to.since(now) / 1_000).max(0) + KEPT_MS }
}

#[async_trait]
impl UndoStore for RedisQuotas {
    async fn undo(&self, ticket: &Ticket, now: Timestamp) -> Result<(), Unavailable> {
        for tag in tags(&ticket.bounds) {
            close_tag(self, ticket, tag, (now, Again::Perhaps)).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl QuotaStore for RedisQuotas {
    async fn admit(&self, ask: Ask<'_>) -> Result<Verdict, Unavailable> {
        match self.admit_as(ask, Judging::Take).await? {
            InTurn::Judged(verdict) => Ok(verdict),
            InTurn::Behind(_) => Err(Unavailable("others wait, and nobody asked".to_owned())),
        }
    }

    async fn close(&self, ticket: &Ticket, now: Timestamp) -> Result<bool, Unavailable> {
        let mut closed = false;
        for tag in tags(&ticket.bounds) {
            closed |= close_tag(self, ticket, tag, (now, Again::Never)).await?.is_some();
        }
        Ok(closed)
    }

    async fn close_untold(&self, ticket: &Ticket, now: Timestamp) -> Vec<Bound> {
        close_each(self, ticket, now).await
    }

    async fn renew(
        &self,
        tickets: &[Ticket],
        now: Timestamp,
        lease_us: i64,
    ) -> Result<(), Unavailable> {
        self.live(lease_us).await?;
        // Many at once share their way there and back on the one connection. One that cannot be
        // renewed does not keep the others from it.
        let mut renewed = Ok(());
        for some in tickets.chunks(RENEWED_AT_ONCE) {
            let mut under_way = FuturesUnordered::new();
            for ticket in some {
                under_way.push(self.renew_one(ticket, (now, lease_us)));
            }
            while let Some(one) = under_way.next().await {
                renewed = renewed.and(one);
            }
        }
        renewed
    }

    async fn extend(&self, ask: Ask<'_>) -> Result<Verdict, Unavailable> {
        let is_purse = |bound: &&Bound| matches!(bound.check, Check::Purse { .. });
        let mut said: Vec<Option<Standing>> = vec![None; ask.bounds.len()];
        let mut taken: Vec<(&Tag, Vec<Bound>)> = Vec::new();
        let mut pass = true;
        for tag in tags(ask.bounds) {
            let places = |bound: &&(usize, &Bound)| bound.1.tag == *tag && is_purse(&bound.1);
            let all: Vec<(usize, &Bound)> = ask.bounds.iter().enumerate().collect();
            let own: Vec<(usize, &Bound)> = all.iter().filter(places).copied().collect();
            let bounds: Vec<&Bound> = own.iter().map(|(_, bound)| *bound).collect();
            if bounds.is_empty() || !pass {
                continue;
            }
            let (done, now_us, states) = self.extend_tag(ask, (tag, &bounds)).await?;
            pass &= done;
            let before = bounds.iter().zip(&states);
            let before =
                before.map(|(bound, (held, _))| Bound { units: *held, ..(*bound).clone() });
            if done {
                taken.push((tag, before.collect()));
            }
            for ((n, bound), state) in own.iter().zip(states) {
                if let Some(place) = said.get_mut(*n) {
                    *place = Some(more(bound, state, now_us));
                }
            }
        }
        if !pass {
            for (tag, before) in taken {
                let bounds: Vec<&Bound> = before.iter().collect();
                self.extend_tag(ask, (tag, &bounds)).await?;
            }
        }
        let standings = said.into_iter().map(|said| said.unwrap_or(Standing::FREE));
        Ok(verdict(ask.bounds, standings.collect()))
    }

    async fn levels(
        &self,
        bounds: &[Bound],
        now: Timestamp,
    ) -> Result<Vec<Option<Level>>, Unavailable> {
        // One look for each tag: calls that are refused wait for it, for their answer's headers.
        let mut levels = vec![None; bounds.len()];
        for tag in tags(bounds) {
            let ask = Ask { id: Uuid::nil(), bounds, now, lease_us: 0 };
            let said = self.judge(ask, tag, Judging::Look).await?;
            let own = bounds.iter().zip(&mut levels).filter(|(bound, _)| bound.tag == *tag);
            for ((bound, level), (_, state)) in own.zip(said.states) {
                *level = self.level(bound, (state, said.now_us)).await?;
            }
        }
        Ok(levels)
    }

    async fn sweep(&self, _now: Timestamp) {
        // The server forgets by itself.
    }
}
