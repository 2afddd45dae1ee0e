//! What is booked: a small chat as it is on an ordinary day, one attempt, a report of usage.
//!
//! Invariant: every text has the length that it has in life, since bytes on disk are measured.

use std::sync::{Arc, LazyLock};

use tokio::task::JoinSet;
use uuid::Uuid;

use anima_core::clock::{Rng as _, SeededRng, Timestamp, mint_id};
use anima_core::ledger::{
    Account, Attempt, AttemptCost, Close, Component, Entry, EntryKind, Exposure, Hold, Leg,
    PriceRef, Settlement,
};
use anima_core::money::{Currency, Multiplier};
use anima_core::usage::{Meter, Usage, UsageSource};

use super::Failure;
use super::place::Opened;

/// Ids differ from run to run by their time.
static RNG: LazyLock<SeededRng> = LazyLock::new(|| SeededRng::new(1));

/// An id that nobody has.
pub(super) fn id() -> Uuid {
    mint_id(now(), &*RNG)
}

/// Gives so many wallets more money than a run can spend.
pub(super) async fn fund(opened: &Opened, wallets: u64) -> Result<(), Failure> {
    let mut calls = JoinSet::new();
    for n in 0..wallets {
        let (ledger, entry) = (Arc::clone(&opened.ledger), topup(n));
        calls.spawn(async move { ledger.post(entry).await });
    }
    for posted in calls.join_all().await {
        posted?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a program of its own: this is its clock")]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros());
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(0))
}

fn app(n: u64) -> Arc<str> {
    format!("customer-{n}").into()
}

fn price(code: &str) -> PriceRef {
    PriceRef { code: code.into(), version_no: 1 }
}

fn topup(n: u64) -> Entry {
    Entry {
        subject: id(),
        kind: EntryKind::Topup,
        seq: 0,
        legs: vec![Leg {
            debit: Account::PspClearing,
            credit: Account::Wallet(app(n)),
            amount: 1_000_000_000_000_000,
            currency: Currency::USD,
            component: Component::Topup,
            attempt: None,
            price: None,
            estimate: false,
        }],
        reference: "measurement".to_owned(),
        at: now(),
        floor: 0,
    }
}

/// A hold on one of so many wallets.
pub(super) fn hold(wallets: u64) -> Hold {
    let created_at = now();
    Hold {
        id: id(),
        app: app(RNG.next_u64() % wallets),
        kid: "01JD4T0M6W".into(),
        alias: "gpt-4o-mini".into(),
        currency: Currency::USD,
        amount: 40_000_000,
        floor: 0,
        sale_price: price("gpt-4o-mini-sale"),
        fx: None,
        multiplier: Multiplier::ONE,
        exposure: Some(Exposure {
            channel: "openai-main".into(),
            amount: 30_000_000,
            currency: Currency::USD,
            price: price("gpt-4o-mini-cost"),
        }),
        created_at,
        expires_at: created_at.plus_millis(600_000),
    }
}

/// Its settlement.
pub(super) fn settlement(hold: &Hold) -> Settlement {
    Settlement {
        hold: hold.id,
        app: Arc::clone(&hold.app),
        currency: hold.currency,
        close: Close::Settle { sale: 1_234_567, estimate: false },
        sale_price: hold.sale_price.clone(),
        conversion: None,
        attempts: vec![Attempt {
            n: 1,
            channel: "openai-main".into(),
            credential: "main".into(),
            model: "gpt-4o-mini-2024-07-18".into(),
            outcome: "ok",
            served: true,
            usage: Usage::default().with(Meter::InputTokens, 812).with(Meter::OutputTokens, 96),
            usage_source: UsageSource::Provider,
            cost: Some(AttemptCost {
                amount: 987_654,
                currency: Currency::USD,
                price: price("gpt-4o-mini-cost"),
                estimate: false,
            }),
            upstream_ref: Some("chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT".to_owned()),
            started_at: hold.created_at,
            first_byte_at: Some(hold.created_at.plus_millis(310)),
            ended_at: hold.created_at.plus_millis(900),
        }],
        at: hold.created_at.plus_millis(900),
    }
}
