//! What purses know of what was spent, and how they are told: one script for all of it.
//!
//! A counter is known with the process that answers: another one's knows nothing. Invariant: a seed
//! names the life of the counter that the ledger was read for.

use std::sync::LazyLock;

use async_trait::async_trait;
use redis::Script;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::quota::book::{Birth, RIPENS_US, Seen};
use anima_core::quota::{Bound, Check};

use super::{EVER_MS, KEPT_MS, RedisQuotas, keys_of};
use crate::quota::{PurseStore, SeedStore, Unavailable};
use crate::redis_keys::{self, Key};

static PURSE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/purse.lua")));

/// A charge is known for so long, for whoever sends it again.
const CHARGE_MS: i64 = 3_600_000;

/// The keys of a purse and of its counter's birth.
fn birth_keys(purse: &Bound) -> Vec<Key> {
    let birth = redis_keys::quota_birth(&purse.tag, &purse.counter);
    keys_of(purse).into_iter().take(1).chain([birth]).collect()
}

#[async_trait]
impl SeedStore for RedisQuotas {
    async fn birth(&self, purse: &Bound, now: Timestamp) -> Result<Option<Birth>, Unavailable> {
        let Check::Purse { span, .. } = purse.check else { return Ok(None) };
        let arguments = [
            "birth".to_owned(),
            self.mark(span),
            self.run().to_string(),
            (self.time)(now).to_string(),
            RIPENS_US.to_string(),
            EVER_MS.to_string(),
        ];
        let said: Vec<String> =
            self.redis.script(&PURSE, &birth_keys(purse), &arguments[..]).await?;
        let [name, wait_us] = said.as_slice() else { return Ok(None) };
        let number = |text: &String| text.parse().unwrap_or(RIPENS_US);
        Ok(Some(Birth { name: number(name), wait_us: number(wait_us) }))
    }

    async fn seed(&self, purse: &Bound, (birth, spent): (i64, i64)) -> Result<bool, Unavailable> {
        let Check::Purse { span, .. } = purse.check else { return Ok(true) };
        let kept =
            if span.is_ever() { EVER_MS } else { span.to.since(span.from) / 1_000 + KEPT_MS };
        let arguments = [
            "seed".to_owned(),
            self.mark(span),
            spent.to_string(),
            kept.to_string(),
            birth.to_string(),
            self.run().to_string(),
            EVER_MS.to_string(),
        ];
        let mut keys = keys_of(purse);
        keys.push(redis_keys::quota_birth(&purse.tag, &purse.counter));
        let seeded: i64 = self.redis.script(&PURSE, &keys, &arguments[..]).await?;
        Ok(seeded == 1)
    }

    async fn put_off(&self, purse: &Bound) -> Result<bool, Unavailable> {
        let Check::Purse { span, .. } = purse.check else { return Ok(false) };
        let arguments = ["put off".to_owned(), self.mark(span)];
        let done: i64 = self.redis.script(&PURSE, &birth_keys(purse), &arguments[..]).await?;
        Ok(done == 1)
    }
}

#[async_trait]
impl PurseStore for RedisQuotas {
    async fn charge(&self, purse: &Bound, charge: Uuid) -> Result<bool, Unavailable> {
        let Check::Purse { span, .. } = purse.check else { return Ok(false) };
        let mut keys: Vec<Key> = keys_of(purse).into_iter().take(2).collect();
        keys.push(redis_keys::quota_charge(&purse.tag, charge));
        let (units, kept) = (purse.units.to_string(), CHARGE_MS.to_string());
        let arguments = ["charge".to_owned(), self.mark(span), units, kept];
        let charged: i64 = self.redis.script(&PURSE, &keys, &arguments[..]).await?;
        Ok(charged == 1)
    }

    async fn look(&self, purse: &Bound, now: Timestamp) -> Result<Option<Seen>, Unavailable> {
        let Check::Purse { span, .. } = purse.check else { return Ok(None) };
        let arguments = ["look".to_owned(), self.mark(span)];
        // What has expired is no hold any more.
        self.level_of(purse, now).await?;
        let said: Vec<String> = self.redis.script(&PURSE, &keys_of(purse), &arguments[..]).await?;
        let [spent, mended, holds @ ..] = said.as_slice() else { return Ok(None) };
        let number = |text: &String| text.parse().unwrap_or(0);
        let holds = holds.iter().filter_map(|id| Uuid::parse_str(id).ok()).collect();
        Ok(Some(Seen { spent: number(spent), holds, mended: number(mended) }))
    }

    async fn repair(&self, purse: &Bound, (mended, by): (i64, i64)) -> Result<bool, Unavailable> {
        let Check::Purse { span, .. } = purse.check else { return Ok(false) };
        let keys: Vec<Key> = keys_of(purse).into_iter().take(2).collect();
        let arguments = ["repair".to_owned(), self.mark(span), mended.to_string(), by.to_string()];
        let repaired: i64 = self.redis.script(&PURSE, &keys, &arguments[..]).await?;
        Ok(repaired == 1)
    }
}
