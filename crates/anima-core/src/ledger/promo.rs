//! Promotional credit: used before an app's own money, the grant that expires first going first.
//!
//! A sale is paid in parts: what is left of the grants, then the wallet. The parts are whole units
//! and the last one takes the rest, so nothing is rounded. A call may use the credit that was valid
//! when it was admitted, as it is charged the price of that time.
//! Invariant: what is taken of the grants and of the wallet adds up to what is charged.
//! Source: `reliability` 1.4.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use std::sync::Arc;

use uuid::Uuid;

use super::{Account, Component, Leg, PriceRef};
use crate::clock::Timestamp;
use crate::money::Currency;

/// What is left of one grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credit {
    /// The grant.
    pub id: Uuid,
    /// In units; not negative.
    pub left: i64,
    /// Not usable by calls that are admitted from here on.
    pub expires_at: Timestamp,
}

/// What is taken of one grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The grant.
    pub id: Uuid,
    /// In units; above 0.
    pub amount: i64,
}

/// What calls admitted at `at` may use of these grants, in units.
pub fn usable(credits: &[Credit], at: Timestamp) -> i64 {
    let valid = credits.iter().filter(|credit| credit.expires_at > at);
    valid.fold(0, |sum: i64, credit| sum.saturating_add(credit.left.max(0)))
}

/// Takes up to `amount` from the grants that were valid at `at`, the first to expire first; among
/// those of one expiry the one with the lower id. Lowers what is left of them.
pub fn take(credits: &mut [Credit], at: Timestamp, amount: i64) -> Vec<Taken> {
    credits.sort_by_key(|credit| (credit.expires_at, credit.id));
    let mut wanted = amount.max(0);
    let mut taken = Vec::new();
    for credit in credits.iter_mut().filter(|credit| credit.expires_at > at) {
        let amount = credit.left.min(wanted);
        if amount > 0 {
            credit.left = credit.left.saturating_sub(amount);
            wanted = wanted.saturating_sub(amount);
            taken.push(Taken { id: credit.id, amount });
        }
    }
    taken
}

/// What of a grant that has expired may be posted back: what is left, but for what calls admitted
/// before its expiry have reserved, and never so much that the wallet fell below its floor.
pub fn expirable(left: i64, reserved_before: i64, above_floor: i64) -> i64 {
    left.saturating_sub(reserved_before.max(0)).min(above_floor).max(0)
}

/// Divides a refund: the customer's own money comes back first, then promotional credit.
///
/// `money_left` is what the wallet paid and did not get back yet. Gives both parts; they add up.
pub fn refund_parts(amount: i64, money_left: i64) -> (i64, i64) {
    let money = amount.min(money_left).max(0);
    (money, amount.saturating_sub(money))
}

/// Pairs what is taken with where it goes, in order, into legs of one debit and one credit each.
///
/// Both lists add up to the same; parts of 0 are left out. `n` sources and `m` sinks give at most
/// `n + m - 1` legs.
pub fn pair(
    sources: &[(Account, i64)],
    sinks: &[(Account, i64)],
    (currency, component): (Currency, Component),
    price: Option<&PriceRef>,
    estimate: bool,
) -> Vec<Leg> {
    let mut legs = Vec::new();
    let mut sinks = sinks.iter().filter(|sink| sink.1 > 0).cloned();
    let mut sink = sinks.next();
    for (debit, amount) in sources {
        let mut rest = *amount;
        while rest > 0
            && let Some((credit, room)) = &mut sink
        {
            let part = rest.min(*room);
            rest = rest.saturating_sub(part);
            *room = room.saturating_sub(part);
            let credit = credit.clone();
            if *room == 0 {
                sink = sinks.next();
            }
            legs.push(Leg {
                debit: debit.clone(),
                credit,
                amount: part,
                currency,
                component,
                attempt: None,
                price: price.cloned(),
                estimate,
            });
        }
    }
    legs
}

/// The sources of a sale: promotional credit first, the wallet for the rest.
pub fn sources(app: &Arc<str>, charged: i64, promo: i64) -> [(Account, i64); 2] {
    let promo = promo.clamp(0, charged.max(0));
    [
        (Account::Promo(Arc::clone(app)), promo),
        (Account::Wallet(Arc::clone(app)), charged.saturating_sub(promo)),
    ]
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test may overflow and fail")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn credit(id: u128, left: i64, expires: i64) -> Credit {
        Credit { id: Uuid::from_u128(id), left, expires_at: Timestamp::from_micros(expires) }
    }

    const NOW: Timestamp = Timestamp::from_micros(100);

    #[test]
    fn the_first_to_expire_goes_first_and_the_expired_are_left_alone() {
        let mut credits = [credit(1, 10, 300), credit(2, 10, 200), credit(3, 10, 100)];
        assert_eq!(usable(&credits, NOW), 20);
        let taken = take(&mut credits, NOW, 15);
        let shown: Vec<_> = taken.iter().map(|t| (t.id.as_u128(), t.amount)).collect();
        assert_eq!(shown, [(2, 10), (1, 5)]);
        assert_eq!(usable(&credits, NOW), 5);
    }

    #[test]
    fn what_open_calls_reserved_does_not_expire_under_them() {
        assert_eq!(expirable(10, 0, 100), 10);
        assert_eq!(expirable(10, 4, 100), 6);
        assert_eq!(expirable(10, 40, 100), 0);
        assert_eq!(expirable(10, 0, 3), 3);
        assert_eq!(expirable(10, 0, -3), 0);
    }

    fn amounts() -> impl Strategy<Value = Vec<i64>> {
        prop::collection::vec(0_i64..1_000_000_000_000, 0..6)
    }

    proptest! {
        #[test]
        fn a_sale_in_parts_loses_nothing(
            lefts in amounts(), expiries in prop::collection::vec(0_i64..200, 6),
            charged in 0_i64..3_000_000_000_000,
        ) {
            let mut credits: Vec<Credit> = (0_u128..).zip(lefts.iter().zip(&expiries))
                .map(|(n, (left, expires))| credit(n, *left, *expires)).collect();
            let valid = usable(&credits, NOW);
            let before: i64 = credits.iter().map(|c| c.left).sum();
            let taken = take(&mut credits, NOW, charged);
            let promo: i64 = taken.iter().map(|t| t.amount).sum();
            prop_assert_eq!(promo, charged.min(valid));
            prop_assert_eq!(before - promo, credits.iter().map(|c| c.left).sum::<i64>());
            prop_assert!(taken.iter().all(|t| t.amount > 0));
            let app: Arc<str> = "acme".into();
            let legs = pair(&sources(&app, charged, promo), &[(Account::Revenue, charged)],
                (Currency::USD, Component::Sale), None, false);
            prop_assert_eq!(legs.iter().map(|l| l.amount).sum::<i64>(), charged);
            prop_assert!(legs.len() <= 2 && legs.iter().all(|l| l.amount > 0));
            let of_promo: i64 = legs.iter().filter(|l| matches!(l.debit, Account::Promo(_)))
                .map(|l| l.amount).sum();
            prop_assert_eq!(of_promo, promo);
        }

        #[test]
        fn pairing_keeps_what_each_account_gives_and_gets(
            given in amounts(), cut in 0_i64..3_000_000_000_000,
        ) {
            let total: i64 = given.iter().sum();
            let first = cut.min(total);
            let sources: Vec<_> = given.iter().enumerate()
                .map(|(n, amount)| (Account::Payable(n.to_string().into()), *amount)).collect();
            let sinks = [(Account::FxPosition, first), (Account::FxResult, total - first)];
            let legs = pair(&sources, &sinks, (Currency::USD, Component::Sale), None, false);
            for (account, amount) in sources.iter().chain(&sinks) {
                let moved: i64 = legs.iter()
                    .filter(|l| l.debit == *account || l.credit == *account)
                    .map(|l| l.amount).sum();
                prop_assert_eq!(moved, *amount);
            }
        }

        #[test]
        fn a_refund_in_parts_adds_up(amount in 0_i64..1_000, left in -10_i64..1_000) {
            let (money, promo) = refund_parts(amount, left);
            prop_assert_eq!(money + promo, amount);
            prop_assert!(money >= 0 && promo >= 0 && money <= left.max(0));
        }
    }
}
