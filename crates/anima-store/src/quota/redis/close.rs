//! How tickets end: one script per tag.
//!
//! A ticket that this node took alone may be known to the counters in part: of some tags, or with
//! its slots and without its purses. Invariant: a purse is said to be charged only by the script
//! that charged it.

use std::sync::LazyLock;

use redis::Script;

use anima_core::clock::Timestamp;
use anima_core::quota::{Bound, Check, Tag};

use super::{RedisQuotas, keys_of, tags};
use crate::quota::{Ticket, Unavailable};
use crate::redis_keys;

static CLOSE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(include_str!("../scripts/line.lua"), include_str!("../scripts/close.lua")))
});

/// Whether the counters may be told of a call again whose ticket was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It has ended: what comes late for it is not heard.
    Never = 0,
    /// It was refused, and may be admitted yet: also by a node alone.
    Perhaps = 1,
}

fn is_purse(bound: &Bound) -> bool {
    matches!(bound.check, Check::Purse { .. })
}

/// Closes the ticket of one tag. Gives the purses of the tag that it did not know of, so that
/// they were not charged; `None` when there is no ticket.
pub(super) async fn close_tag(
    quotas: &RedisQuotas,
    ticket: &Ticket,
    tag: &Tag,
    (now, again): (Timestamp, Again),
) -> Result<Option<Vec<Bound>>, Unavailable> {
    let mut keys = Vec::from(redis_keys::quota_line(tag));
    keys.push(redis_keys::quota_ticket(tag, ticket.id));
    let mut arguments =
        vec![ticket.id.to_string(), (quotas.time)(now).to_string(), (again as u8).to_string()];
    let own = || ticket.bounds.iter().filter(|bound| bound.tag == *tag);
    for bound in own() {
        keys.extend(keys_of(bound));
        match bound.check {
            Check::Slots { .. } => arguments.push("s".to_owned()),
            Check::Rate(rate) => {
                arguments.extend(["r".to_owned(), rate.cost_us(bound.units).to_string()]);
            }
            Check::Purse { .. } => {
                arguments.extend(["p".to_owned(), bound.units.to_string()]);
            }
        }
    }
    let said: Vec<i64> = quotas.redis.script(&CLOSE, &keys, arguments).await?;
    let Some((1, charged)) = said.split_first() else { return Ok(None) };
    let purses = own().filter(|bound| is_purse(bound)).zip(charged);
    Ok(Some(purses.filter(|(_, charged)| **charged == 0).map(|(own, _)| own.clone()).collect()))
}

/// Closes a ticket tag by tag, also when one of them does not answer. Gives the purses that are
/// not known to be charged.
pub(super) async fn close_each(
    quotas: &RedisQuotas,
    ticket: &Ticket,
    now: Timestamp,
) -> Vec<Bound> {
    let mut uncharged = Vec::new();
    for tag in tags(&ticket.bounds) {
        if let Ok(Some(some)) = close_tag(quotas, ticket, tag, (now, Again::Never)).await {
            uncharged.extend(some);
            continue;
        }
        let own = ticket.bounds.iter().filter(|bound| bound.tag == *tag && is_purse(bound));
        uncharged.extend(own.cloned());
    }
    uncharged
}
