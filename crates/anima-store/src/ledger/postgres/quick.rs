//! Decides whether a batch that was judged without locks may be written as it is.
//!
//! One wallet may take all traffic. If a batch held its lock from reading to `COMMIT`, one
//! writer at a time could work for it. So a batch is read and judged without locks first, and
//! takes them for its last statement alone, which adds to the balances instead of replacing
//! them. That is right where no verdict depends on the exact balance: all was accepted, with
//! room to spare. What others do at the same moment is met by the database: a hold is closed
//! only while it is open and ours, a wallet's row is refused below its floor, and the batch is
//! then made again under locks.
//! Invariant: a refusal, and a verdict about a wallet that is nearly empty, has promotional credit
//! or a changed floor, is only ever made under lock.

use std::collections::{BTreeMap, HashSet};

use crate::ledger::Error;
use crate::ledger::directory::Directory;
use crate::ledger::operation::{Item, Operation, Verdict};
use crate::ledger::plan::Wallet;

/// How many times what a batch takes of a wallet must be left after it: what the other writers of
/// all nodes may be taking at the same moment. Too low a number costs a repetition, no money.
const ROOM: i64 = 4;

/// What a batch adds to a wallet's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ledger) struct Move {
    pub(in crate::ledger) account_id: i64,
    pub(in crate::ledger) debits: i64,
    pub(in crate::ledger) held: i64,
}

/// Whether everything in it changes holds alone. Entries and corrections are rare, and read more.
pub(in crate::ledger) fn may_be_quick(items: &[Item]) -> bool {
    items.iter().all(|item| match &item.operation {
        Operation::Hold(_)
        | Operation::Settle(_)
        | Operation::Extend(_)
        | Operation::Checkpoint(_) => true,
        Operation::Post(_) | Operation::TrueUp(_) => false,
    })
}

/// What is to be added to each wallet, sorted; or `None` when the batch must be judged under lock.
pub(in crate::ledger) fn moves(
    before: &BTreeMap<i64, Wallet>,
    after: &BTreeMap<i64, Wallet>,
    verdicts: &[Verdict],
) -> Option<Vec<Move>> {
    if verdicts.iter().any(is_exceptional) {
        return None;
    }
    let changed = after.iter().filter(|(_, wallet)| wallet.changed);
    changed
        .map(|(account_id, after)| {
            let before = before.get(account_id)?;
            let is_plain = before.floor == after.floor && before.credits == after.credits;
            if !is_plain || is_tight(before, after) {
                return None;
            }
            Some(Move {
                account_id: *account_id,
                debits: after.debits.checked_sub(before.debits)?,
                held: after.held.checked_sub(before.held)?,
            })
        })
        .collect()
}

/// Notes which wallets are to be judged under lock from the start next time, and which no longer.
pub(super) fn learn(
    tight: &mut HashSet<i64>,
    before: &BTreeMap<i64, Wallet>,
    after: &BTreeMap<i64, Wallet>,
    short: &[i64],
) {
    for (account_id, after) in after {
        let Some(before) = before.get(account_id) else { continue };
        if is_tight(before, after) || short.contains(account_id) {
            tight.insert(*account_id);
        } else if after.held > before.held {
            // Something was taken of it with room to spare. What only gives back proves nothing.
            tight.remove(account_id);
        }
    }
}

/// The wallets that could not cover what was asked of them.
pub(super) fn short(items: &[Item], verdicts: &[Verdict], directory: &Directory) -> Vec<i64> {
    let is_short = |v: &Verdict| matches!(refusal(v), Some(Error::InsufficientFunds { .. }));
    let mut short = Vec::new();
    for (item, _) in items.iter().zip(verdicts).filter(|(_, verdict)| is_short(verdict)) {
        item.operation.each_wallet(|account, currency| {
            short.extend(directory.account(account, currency));
        });
    }
    short
}

/// Whether a verdict could depend on what others do to the wallet at the same moment.
fn is_tight(before: &Wallet, after: &Wallet) -> bool {
    let left = after.above(after.floor);
    let taken = before.above(before.floor).saturating_sub(left).max(0);
    before.promo != 0 || after.promo != 0 || left < taken.saturating_mul(ROOM)
}

/// Whether it was not simply done as asked.
fn is_exceptional(verdict: &Verdict) -> bool {
    let is_short = matches!(verdict, Verdict::Settled(Ok(settled)) if settled.uncollected > 0);
    is_short || refusal(verdict).is_some()
}

fn refusal(verdict: &Verdict) -> Option<&Error> {
    match verdict {
        Verdict::Held(verdict) | Verdict::Extended(verdict) | Verdict::Checkpointed(verdict) => {
            verdict.as_ref().err()
        }
        Verdict::Settled(verdict) => verdict.as_ref().err(),
        Verdict::Posted(verdict) => verdict.as_ref().err(),
        Verdict::TruedUp(verdict) => verdict.as_ref().err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Settled;

    fn wallet(credits: i64, debits: i64, held: i64) -> Wallet {
        Wallet { debits, credits, held, floor: 0, promo: 0, promo_id: None, changed: true }
    }

    fn of(wallet: Wallet) -> BTreeMap<i64, Wallet> {
        BTreeMap::from([(7, wallet)])
    }

    const HELD: Verdict = Verdict::Held(Ok(()));

    #[test]
    fn what_leaves_room_is_added_to_the_row() {
        let (before, after) = (of(wallet(1_000, 0, 100)), of(wallet(1_000, 30, 150)));
        let moved = moves(&before, &after, &[HELD]).unwrap();
        assert_eq!(moved, vec![Move { account_id: 7, debits: 30, held: 50 }]);
    }

    #[test]
    fn what_gives_money_back_needs_no_room() {
        let (before, after) = (of(wallet(100, 0, 100)), of(wallet(100, 10, 0)));
        assert!(moves(&before, &after, &[HELD]).is_some());
    }

    #[test]
    fn what_leaves_too_little_is_judged_under_lock() {
        let before = of(wallet(500, 0, 0));
        assert!(moves(&before, &of(wallet(500, 0, 100)), &[HELD]).is_some());
        assert!(moves(&before, &of(wallet(500, 0, 101)), &[HELD]).is_none());
    }

    #[test]
    fn a_refusal_and_what_could_not_be_collected_are_judged_under_lock() {
        let same = of(wallet(1_000, 0, 0));
        let refused = Verdict::Held(Err(Error::InsufficientFunds { available: 0 }));
        assert!(moves(&same, &same, &[HELD, refused]).is_none());
        let short = Settled { charged: 1, uncollected: 1, replayed: false };
        assert!(moves(&same, &same, &[Verdict::Settled(Ok(short))]).is_none());
    }

    #[test]
    fn promotional_credit_and_a_changed_floor_are_judged_under_lock() {
        let plain = wallet(1_000, 0, 0);
        let with_promo = of(Wallet { promo: 1, ..plain });
        assert!(moves(&with_promo, &with_promo, &[HELD]).is_none());
        let floored = of(Wallet { floor: -10, ..plain });
        assert!(moves(&of(plain), &floored, &[HELD]).is_none());
    }

    #[test]
    fn a_wallet_is_tight_until_it_has_room_again() {
        let mut tight = HashSet::new();
        let (rich, poor) = (of(wallet(1_000, 0, 10)), of(wallet(12, 0, 10)));
        learn(&mut tight, &of(wallet(12, 0, 0)), &poor, &[]);
        assert!(tight.contains(&7));
        learn(&mut tight, &rich, &rich, &[7]);
        assert!(tight.contains(&7), "it could not cover what was asked");
        learn(&mut tight, &rich, &rich, &[]);
        assert!(tight.contains(&7), "nothing was taken of it");
        learn(&mut tight, &rich, &of(wallet(1_000, 0, 20)), &[]);
        assert!(tight.is_empty());
    }
}
