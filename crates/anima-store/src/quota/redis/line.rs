//! The lines of all nodes, in Redis: what is given back is handed over by the same script.
//!
//! The script writes the lease of the one that it calls and tells its node, so that a slot is never
//! free while somebody waits for it. A message that is lost is found when the node attends next.
//! Invariant: a line touches keys of its tag alone. Source: `reliability` 2.4.

use std::sync::LazyLock;

use async_trait::async_trait;
use redis::Script;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::queue::line::{Attended, Joined, Joining, NODE_US};
use anima_core::queue::{Ahead, Waiting, turn};
use anima_core::quota::{Ask, Check, Scope, Tag, Verdict};

use super::{Judging, RedisQuotas, keys_of};
use crate::pubsub::Subscription;
use crate::quota::Unavailable;
use crate::quota::line::{InTurn, LineExits, LineStore, LineView, Waits, tag_of, word_of};
use crate::redis_keys::{self, Topic};

static JOIN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(include_str!("../scripts/line.lua"), include_str!("../scripts/join.lua")))
});
static LEAVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(include_str!("../scripts/line.lua"), include_str!("../scripts/leave.lua")))
});
static DISOWN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(include_str!("../scripts/line.lua"), include_str!("../scripts/disown.lua")))
});
static SHOWN: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/shown.lua")));
static AHEAD: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/ahead.lua")));
static LINES: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/lines.lua")));
static ATTEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(include_str!("../scripts/line.lua"), include_str!("../scripts/attend.lua")))
});

/// Calls that one run of a script is about: no longer run keeps the server from others.
const ATTENDED_AT_ONCE: usize = 256;
/// Lines that are shown, and tenants of each.
const SHOWN_MAX: usize = 1_000;

fn waiting_of(said: &[String; 4]) -> Waiting {
    let [tenant, calls, since_us, pace_us] = said;
    let number = |text: &str| text.parse::<i64>().unwrap_or(0);
    Waiting {
        tenant: tenant.as_str().into(),
        calls: usize::try_from(number(calls)).unwrap_or(0),
        since_us: number(since_us),
        pace_us: Some(number(pace_us)).filter(|us| *us >= 0),
    }
}

/// Says in one go that the node lives, and which of these calls do not wait.
async fn attend_some(
    quotas: &RedisQuotas,
    tag: &Tag,
    ids: &[Uuid],
    now: Timestamp,
) -> Result<Attended, Unavailable> {
    let mut arguments = vec![quotas.node.to_string(), (quotas.time)(now).to_string()];
    arguments.extend(ids.iter().map(Uuid::to_string));
    let keys = redis_keys::quota_line(tag);
    let said: Vec<i64> = quotas.redis.script(&ATTEND, &keys, arguments).await?;
    let (next, absent) = said.split_first().unzip();
    let place = |place: &i64| ids.get(usize::try_from(place - 1).ok()?).copied();
    let absent = absent.map_or_else(Vec::new, |a| a.iter().filter_map(place).collect());
    Ok(Attended { absent, next_us: known(next) })
}

/// Takes calls out in one go: how many were in line.
async fn leave_some(
    quotas: &RedisQuotas,
    tag: &Tag,
    ids: &[Uuid],
    now: Timestamp,
) -> Result<i64, Unavailable> {
    let mut arguments = vec![(quotas.time)(now).to_string()];
    arguments.extend(ids.iter().map(Uuid::to_string));
    let keys = redis_keys::quota_line(tag);
    Ok(quotas.redis.script(&LEAVE, &keys, arguments).await?)
}

/// Has a line shown to operators.
async fn note_line(quotas: &RedisQuotas, tag: &Tag) -> Result<(), Unavailable> {
    let arguments = [(NODE_US / 1_000).to_string(), word_of(tag)];
    let keys = [redis_keys::quota_lines()];
    let _none: Vec<String> = quotas.redis.script(&LINES, &keys, arguments.as_slice()).await?;
    Ok(())
}

/// Where a node hears of its calls.
fn topic_of(node: Uuid) -> Topic {
    Topic::node(&node.to_string())
}

/// -1 is: nobody knows.
fn known(next_us: Option<&i64>) -> Option<i64> {
    next_us.copied().filter(|us| *us >= 0)
}

#[async_trait]
impl LineExits for RedisQuotas {
    async fn leave(&self, tag: &Tag, id: Uuid, now: Timestamp) -> Result<bool, Unavailable> {
        Ok(leave_some(self, tag, &[id], now).await? == 1)
    }

    async fn leave_all(&self, tag: &Tag, ids: &[Uuid], now: Timestamp) -> Result<(), Unavailable> {
        for some in ids.chunks(ATTENDED_AT_ONCE) {
            leave_some(self, tag, some, now).await?;
        }
        Ok(())
    }

    async fn disown(&self, tag: &Tag, id: Uuid, now: Timestamp) -> Result<(), Unavailable> {
        let mut keys = Vec::from(redis_keys::quota_line(tag));
        keys.push(redis_keys::quota_ticket(tag, id));
        let arguments = [id.to_string(), (self.time)(now).to_string()];
        let _done: i64 = self.redis.script(&DISOWN, &keys, arguments.as_slice()).await?;
        Ok(())
    }
}

#[async_trait]
impl LineView for RedisQuotas {
    async fn ahead(&self, tag: &Tag, (tenant, id): (&str, Uuid)) -> Result<Ahead, Unavailable> {
        let [heads, _, seats, meta, ..] = redis_keys::quota_line(tag);
        let arguments = [tenant.to_owned(), id.to_string()];
        let said = self.redis.script(&AHEAD, &[heads, seats, meta], arguments.as_slice()).await?;
        let (calls, tenants, pace_us): (i64, i64, i64) = said;
        Ok(Ahead { calls, tenants, pace_us: known(Some(&pace_us)) })
    }

    async fn waiting(&self) -> Result<Vec<Waits>, Unavailable> {
        let keys = [redis_keys::quota_lines()];
        let most = SHOWN_MAX.to_string();
        let lines: Vec<String> = self.redis.script(&LINES, &keys, &most).await?;
        let mut all = Vec::new();
        for tag in lines.iter().filter_map(|word| tag_of(word)) {
            let [heads, _, _, meta, ..] = redis_keys::quota_line(&tag);
            let said: Vec<String> = self.redis.script(&SHOWN, &[heads, meta], &most).await?;
            let (tenants, _) = said.as_chunks::<4>();
            let waits = |of| Waits { tag: tag.clone(), of: waiting_of(of), shared: true };
            all.extend(tenants.iter().map(waits));
        }
        Ok(all)
    }
}

#[async_trait]
impl LineStore for RedisQuotas {
    async fn admit_in_turn(&self, ask: Ask<'_>) -> Result<InTurn, Unavailable> {
        self.admit_as(ask, Judging::InTurn).await
    }

    async fn admit_at_once(&self, ask: Ask<'_>) -> Result<Verdict, Unavailable> {
        match self.admit_as(ask, Judging::AtOnce).await? {
            InTurn::Judged(verdict) => Ok(verdict),
            InTurn::Behind(_) => Err(Unavailable("others wait, and nobody asked".to_owned())),
        }
    }

    async fn join(
        &self,
        tag: &Tag,
        joining: Joining<'_>,
        now: Timestamp,
    ) -> Result<Joined, Unavailable> {
        let mut keys = Vec::from(redis_keys::quota_line(tag));
        keys.push(redis_keys::quota_ticket(tag, joining.id));
        let mut arguments = vec![
            joining.id.to_string(),
            (self.time)(now).to_string(),
            joining.within_us.to_string(),
            joining.since_us.to_string(),
            joining.tenant.to_string(),
            self.node.to_string(),
            turn(joining.weight).to_string(),
            self.redis.topic(&topic_of(self.node)),
            joining.most.to_string(),
            joining.ahead_max.to_string(),
        ];
        for bound in joining.bounds {
            let own = i64::from(bound.counter.scope == Scope::Key).to_string();
            match bound.check {
                Check::Slots { limit } => {
                    arguments.extend(["s".to_owned(), own, limit.to_string()]);
                }
                Check::Rate(rate) => arguments.extend([
                    "r".to_owned(),
                    own,
                    rate.cost_us(bound.units).to_string(),
                    rate.burst_us().to_string(),
                    rate.period_us.to_string(),
                ]),
                Check::Purse { .. } => continue,
            }
            keys.extend(keys_of(bound));
        }
        let said: Vec<i64> = self.redis.script(&JOIN, &keys, arguments).await?;
        let [what, ahead, since_us, next_us] = said.as_slice() else {
            return Err(Unavailable("a line gave no answer".to_owned()));
        };
        Ok(match what {
            0 => Joined::Called,
            1 => Joined::Waits(*since_us, known(Some(next_us))),
            2 => Joined::Full(*ahead),
            _ => Joined::Vain(*ahead),
        })
    }

    async fn attend(
        &self,
        tag: &Tag,
        ids: &[Uuid],
        now: Timestamp,
    ) -> Result<Attended, Unavailable> {
        let some = ids.get(..ids.len().min(ATTENDED_AT_ONCE)).unwrap_or(ids);
        let mut attended = if some.is_empty() {
            attend_some(self, tag, some, now).await?
        } else {
            let (attended, noted) =
                tokio::join!(attend_some(self, tag, some, now), note_line(self, tag));
            noted?;
            attended?
        };
        for some in ids.chunks(ATTENDED_AT_ONCE).skip(1) {
            let Attended { absent, next_us } = attend_some(self, tag, some, now).await?;
            attended.absent.extend(absent);
            attended.next_us = next_us;
        }
        Ok(attended)
    }

    fn called(&self) -> Vec<Uuid> {
        Vec::new()
    }

    async fn calls(&self) -> Option<Subscription> {
        Some(self.pubsub.as_ref()?.subscribe(&topic_of(self.node)).await)
    }
}
