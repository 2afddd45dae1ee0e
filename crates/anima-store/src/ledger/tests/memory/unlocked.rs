//! Batches that are read and judged without locks, as the writers on PostgreSQL do it.
//!
//! Between reading and writing others may write. What is written then adds to the balances as they
//! are, and the database refuses what does not fit any more: a hold that is not open, not ours or
//! not as it was read, an id that is taken, a wallet below its floor. Whether a batch may go this
//! way the product's own `quick` decides. Invariant: what is refused leaves nothing.

use uuid::Uuid;

use anima_core::clock::Timestamp;

use super::{Memory, State};
use crate::ledger::judge::Judge;
use crate::ledger::operation::{Item, Verdict};
use crate::ledger::plan::{Known, Plan};
use crate::ledger::postgres::quick::{self, Move};

/// A batch on its way: what was read for it.
#[derive(Debug)]
pub(in crate::ledger::tests) struct Reading {
    node: Uuid,
    posted_at: Timestamp,
    known: Known,
}

/// Reads what a batch names. `None` when such a batch is only judged under lock.
pub(in crate::ledger::tests) fn read(
    memory: &mut Memory,
    node: Uuid,
    posted_at: Timestamp,
    items: &[Item],
) -> Option<Reading> {
    if !quick::may_be_quick(items) {
        return None;
    }
    memory.intern(items);
    Some(Reading { node, posted_at, known: memory.load(node, items) })
}

/// Judges a batch by what was read, and writes it. `None`, and nothing written, when it has to
/// be judged under lock.
pub(in crate::ledger::tests) fn write(
    memory: &mut Memory,
    reading: Reading,
    items: &[Item],
) -> Option<Vec<Verdict>> {
    let Reading { node, posted_at, mut known } = reading;
    let before = known.wallets.clone();
    let directory = &memory.directory;
    let mut judge = Judge { directory, node, posted_at, known: &mut known, plan: Plan::default() };
    let verdicts = judge.judge(items);
    let plan = judge.plan;
    let moves = quick::moves(&before, &known.wallets, &verdicts)?;
    let fits = fits(memory, node, &plan, &moves);
    if !fits && !memory.bugs.commits_late_unchecked {
        return None;
    }
    known.wallets.clear();
    for Move { account_id, debits, held } in moves {
        let mut wallet = memory.wallets[&account_id];
        wallet.debits += debits;
        wallet.held += held;
        wallet.changed = true;
        known.wallets.insert(account_id, wallet);
    }
    memory.write_rows(node, &plan, &known);
    Some(verdicts)
}

/// Whether the database takes it as things stand now.
fn fits(memory: &Memory, node: Uuid, plan: &Plan<'_>, moves: &[Move]) -> bool {
    let is_new = |id: &Uuid| plan.holds.iter().any(|row| row.hold.id == *id);
    let as_read = |(id, amount): (Uuid, i64)| {
        let stored = memory.holds.get(&id).map(|row| &row.stored);
        let same = |stored: &super::StoredHold| {
            stored.amount == amount && stored.state == State::Open { node }
        };
        is_new(&id) || stored.is_some_and(same)
    };
    let closings = plan.closings.iter().map(|row| (row.id, row.amount));
    // What one batch extends and closes it closes for what it is extended to.
    let closings =
        closings.map(|(id, amount)| (id, plan.extensions.get(&id).map_or(amount, |(was, _)| *was)));
    let extended = plan.extensions.iter().map(|(id, (was, _))| (*id, *was));
    let covered = |moved: &Move| {
        let mut wallet = memory.wallets[&moved.account_id];
        wallet.debits += moved.debits;
        wallet.held += moved.held;
        wallet.above(wallet.floor) >= 0 && wallet.held >= 0
    };
    memory.refuse_impossible(node, plan).is_ok()
        && plan.holds.iter().all(|row| !memory.holds.contains_key(&row.hold.id))
        && closings.chain(extended).all(as_read)
        && moves.iter().all(covered)
}
