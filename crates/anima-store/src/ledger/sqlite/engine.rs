//! One transaction of a batch on SQLite: look up, judge, write, commit.
//!
//! Not here: the row writes (`rows`) and who comes next (`batch`). Invariant: after an error
//! nothing of the batch is in the file, and nothing that it looked up is remembered.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OptionalExtension as _, Row, Transaction, TransactionBehavior,
};
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Account, Normal, PriceRef};
use anima_core::money::Currency;

use super::{booked, credit, rows};
use crate::database::OpenError;
use crate::ledger::batch::{self, Failure};
use crate::ledger::digest::Digest;
use crate::ledger::directory::Directory;
use crate::ledger::epoch::{Epoch, Node};
use crate::ledger::judge::Judge;
use crate::ledger::operation::{Item, Operation, Verdict};
use crate::ledger::plan::{GateKey, Known, Plan, State, StoredHold, Wallet};
use crate::sqlite;

/// Statements kept compiled: every one of this folder.
const STATEMENTS: usize = 64;

/// Pages in the WAL before a commit also moves them into the file. Four times SQLite's own 1,000:
/// a page that many batches touch is then moved once, and the file is synced less often. 16 MiB.
const CHECKPOINT_PAGES: i64 = 4_000;

/// What [`batch`] waits at a time for callers who are on their way; with the system's slack it is
/// twice that. A commit takes 300 to 500 µs.
const MOMENT: Duration = Duration::from_micros(50);

/// The writer's connection and what it remembers.
#[derive(Debug)]
pub(super) struct Engine {
    connection: Connection,
    epoch: Arc<Epoch>,
    directory: Directory,
}

impl Engine {
    pub(super) fn new(path: &Path, epoch: Arc<Epoch>) -> Result<Self, OpenError> {
        let connection = sqlite::open(path)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection
            .pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))
            .map_err(|e| OpenError::Unreachable(e.to_string()))?;
        Ok(Self { connection, epoch, directory: Directory::default() })
    }

    fn write(&mut self, items: &[Item]) -> rusqlite::Result<Vec<Verdict>> {
        let node = self.epoch.node();
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let posted_at = now(&transaction)?;
        intern(&transaction, &mut self.directory, items)?;
        let mut known = load(&transaction, &self.directory, items)?;
        known.is_fenced = is_fenced(&transaction, node, items)?;
        known.booked = booked::load(&transaction, &mut self.directory, items)?;
        let mut judge = Judge {
            directory: &self.directory,
            node: node.id,
            posted_at,
            known: &mut known,
            plan: Plan::default(),
        };
        let verdicts = judge.judge(items);
        let plan = judge.plan;
        rows::write(&transaction, &plan, &known, node.id, posted_at)?;
        transaction.commit()?;
        Ok(verdicts)
    }
}

impl batch::Engine for Engine {
    async fn commit(&mut self, items: &[Item]) -> Result<Vec<Verdict>, Failure> {
        self.write(items).map_err(|e| {
            self.directory.forget();
            failure(&e)
        })
    }

    /// A panic rolls its transaction back, and what was looked up in it with it.
    fn reset(&mut self) {
        self.directory.forget();
    }

    #[expect(clippy::disallowed_methods, reason = "the thread is the writer's own")]
    async fn pause(&mut self) {
        // The runtime's timer cannot wait so shortly.
        std::thread::sleep(MOMENT);
    }
}

/// What an error means for the batch.
fn failure(error: &rusqlite::Error) -> Failure {
    let why = error.to_string();
    let rusqlite::Error::SqliteFailure(code, _) = error else {
        // A row that cannot be read or bound: somebody's in particular.
        return Failure::Refused(why);
    };
    let is = |codes: &[ErrorCode]| codes.contains(&code.code);
    // After a failed sync the system may have dropped what it should have written and say so only
    // once: the file must not be trusted before it has been opened anew.
    let unsynced = [rusqlite::ffi::SQLITE_IOERR_FSYNC, rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC]
        .contains(&code.extended_code);
    if unsynced || is(&[ErrorCode::DatabaseCorrupt, ErrorCode::NotADatabase]) {
        Failure::Fatal(why)
    } else if is(&[
        ErrorCode::DatabaseBusy,
        ErrorCode::DatabaseLocked,
        ErrorCode::DiskFull,
        ErrorCode::SystemIoFailure,
        ErrorCode::CannotOpen,
        ErrorCode::ReadOnly,
        ErrorCode::OutOfMemory,
    ]) {
        Failure::Lost(why)
    } else {
        Failure::Refused(why)
    }
}

/// The database's clock, which is also the other backend's way to tell when something was posted.
pub(super) fn now(transaction: &Transaction<'_>) -> rusqlite::Result<Timestamp> {
    const NOW: &str = "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000";
    let micros = transaction.prepare_cached(NOW)?.query_row([], |row| row.get(0))?;
    Ok(Timestamp::from_micros(micros))
}

/// Looks up the accounts and prices that are not remembered, and makes the new ones.
fn intern(
    transaction: &Transaction<'_>,
    directory: &mut Directory,
    items: &[Item],
) -> rusqlite::Result<()> {
    let missing = directory.missing(items);
    for (account, currency) in missing.accounts {
        let id = account_id(transaction, &account, currency)?;
        directory.learn_account(account, currency, id);
    }
    for price in missing.prices {
        let id = price_id(transaction, &price)?;
        directory.learn_price(price, id);
    }
    Ok(())
}

fn account_id(
    transaction: &Transaction<'_>,
    account: &Account,
    currency: Currency,
) -> rusqlite::Result<i64> {
    const FIND: &str = "SELECT id FROM account WHERE code = ?1 AND currency = ?2";
    const CURRENCY: &str =
        "INSERT INTO currency (code, scale) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    const MAKE: &str = "
        INSERT INTO account (code, class, normal, currency) VALUES (?1, ?2, ?3, ?4)";
    const GATE: &str = "INSERT INTO gated_balance (account_id) VALUES (?1)";
    let code = account.to_string();
    let found = transaction
        .prepare_cached(FIND)?
        .query_row((&code, currency.code()), |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    transaction.prepare_cached(CURRENCY)?.execute((currency.code(), currency.scale()))?;
    let normal = match account.normal() {
        Normal::Debit => "D",
        Normal::Credit => "C",
    };
    let row = (&code, account.class(), normal, currency.code());
    let id = transaction.prepare_cached(MAKE)?.insert(row)?;
    if account.is_gated() {
        transaction.prepare_cached(GATE)?.execute([id])?;
    }
    Ok(id)
}

fn price_id(transaction: &Transaction<'_>, price: &PriceRef) -> rusqlite::Result<i64> {
    const FIND: &str = "SELECT id FROM price_ref WHERE code = ?1 AND version_no = ?2";
    const MAKE: &str = "INSERT INTO price_ref (code, version_no) VALUES (?1, ?2)";
    let row = (&*price.code, price.version_no);
    let found = transaction.prepare_cached(FIND)?.query_row(row, |row| row.get(0)).optional()?;
    match found {
        Some(id) => Ok(id),
        None => transaction.prepare_cached(MAKE)?.insert(row),
    }
}

/// Whether the lease is gone under which holds are to be placed.
fn is_fenced(transaction: &Transaction<'_>, node: Node, items: &[Item]) -> rusqlite::Result<bool> {
    const UP: &str = "SELECT 1 FROM node_lease WHERE id = ?1 AND state = 'UP'";
    let is_hold = |item: &Item| matches!(item.operation, Operation::Hold(_));
    if !node.has_lease || !items.iter().any(is_hold) {
        return Ok(false);
    }
    let up = transaction.prepare_cached(UP)?.exists([node.id.into_bytes()])?;
    Ok(!up)
}

/// Reads everything that the batch's verdicts rest on.
fn load(
    transaction: &Transaction<'_>,
    directory: &Directory,
    items: &[Item],
) -> rusqlite::Result<Known> {
    const WALLET: &str = "
        SELECT debits, credits, held, floor, promo, promo_id FROM gated_balance
        WHERE account_id = ?1";
    let mut known = Known::default();
    let mut accounts = Vec::with_capacity(items.len());
    for item in items {
        item.operation
            .each_wallet(|account, currency| accounts.extend(directory.account(account, currency)));
    }
    accounts.sort_unstable();
    accounts.dedup();
    let mut wallet = transaction.prepare_cached(WALLET)?;
    for account_id in accounts {
        known.wallets.insert(account_id, wallet.query_row([account_id], wallet_row)?);
    }
    credit::load(transaction, &mut known)?;
    load_holds_and_gates(transaction, items, &mut known)?;
    Ok(known)
}

fn load_holds_and_gates(
    transaction: &Transaction<'_>,
    items: &[Item],
    known: &mut Known,
) -> rusqlite::Result<()> {
    const HOLD: &str = "
        SELECT account_id, price_id, amount, kid, alias, node, settled, uncollected, digest,
               created_at
        FROM hold WHERE id = ?1";
    const GATE: &str = "
        SELECT id, digest FROM journal WHERE subject = ?1 AND kind = ?2 AND seq = ?3";
    let mut hold = transaction.prepare_cached(HOLD)?;
    for item in items {
        let id = match &item.operation {
            Operation::Hold(hold) => hold.id,
            Operation::Settle(settle) => settle.settlement.hold,
            Operation::TrueUp(correction) => correction.settle.settlement.hold,
            Operation::Extend(extension) => extension.hold,
            // It is written where its hold is open and ours, and nowhere else.
            Operation::Checkpoint(_) => continue,
            Operation::Post(post) => {
                let entry = &post.entry;
                let key: GateKey = (entry.subject, entry.kind.number(), entry.seq);
                let row = (key.0.into_bytes(), key.1, key.2);
                let gate = |row: &Row<'_>| Ok((Uuid::from_bytes(row.get(0)?), row.get(1)?));
                let found = transaction.prepare_cached(GATE)?.query_row(row, gate).optional()?;
                known.gates.extend(found.map(|gate| (key, gate)));
                continue;
            }
        };
        let found = hold.query_row([id.into_bytes()], stored_hold).optional()?;
        known.holds.extend(found.map(|stored| (id, stored)));
    }
    Ok(())
}

fn wallet_row(row: &Row<'_>) -> rusqlite::Result<Wallet> {
    Ok(Wallet {
        debits: row.get(0)?,
        credits: row.get(1)?,
        held: row.get(2)?,
        floor: row.get(3)?,
        promo: row.get(4)?,
        promo_id: row.get(5)?,
        changed: false,
    })
}

fn stored_hold(row: &Row<'_>) -> rusqlite::Result<StoredHold> {
    let digest: Option<Digest> = row.get(8)?;
    let node = Uuid::from_bytes(row.get(5)?);
    let state = match digest {
        None => State::Open { node },
        Some(digest) => State::Closed {
            node,
            charged: row.get::<_, Option<i64>>(6)?.unwrap_or(0),
            uncollected: row.get(7)?,
            digest,
        },
    };
    Ok(StoredHold {
        account_id: row.get(0)?,
        price_id: row.get(1)?,
        amount: row.get(2)?,
        kid: row.get(3)?,
        alias: row.get(4)?,
        created_at: Timestamp::from_micros(row.get(9)?),
        state,
    })
}
