//! Everything that a batch's verdicts rest on, read in one round trip.
//!
//! Under lock, the lock statement goes first and alone: it locks in the order of ids, so that two
//! batches cannot wait for each other in a circle, and gives the balances as they are under the
//! lock; everything after it runs on a newer snapshot. Without locks the same is read as it stands,
//! and `quick` decides whether that is good enough.
//! Invariant: after locks were taken, nothing that was read before them is judged. Source:
//! `reliability` 0.4.

use deadpool_postgres::Object;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use anima_core::clock::Timestamp;

use crate::ledger::control::IS_UP;
use crate::ledger::digest::Digest;
use crate::ledger::directory::Directory;
use crate::ledger::epoch::Node;
use crate::ledger::operation::{Item, Operation};
use crate::ledger::plan::{Known, State, StoredHold, Wallet};

/// The rest is set once for each connection.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

pub(super) const LOCK: &str = "
    SELECT account_id, debits, credits, held, floor, promo, promo_id FROM gated_balance
    WHERE account_id = ANY($1) ORDER BY account_id FOR UPDATE";

const LOOK: &str = "
    SELECT account_id, debits, credits, held, floor, promo, promo_id FROM gated_balance
    WHERE account_id = ANY($1)";

const CLOCK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

const HOLDS: &str = "
    SELECT id, account_id, price_id, amount, kid, alias, node, settled, uncollected, digest,
           created_at
    FROM hold WHERE id = ANY($1)";

const GATES: &str = "
    SELECT j.subject, j.kind, j.seq, j.id, j.digest
    FROM unnest($1::uuid[], $2::smallint[], $3::smallint[]) AS k (subject, kind, seq)
    JOIN journal j ON j.subject = k.subject AND j.kind = k.kind AND j.seq = k.seq";

/// How a batch is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// As it stands, in a new transaction.
    Unlocked,
    /// Under the wallets' locks, in a new transaction.
    Locked,
    /// Under the wallets' locks, in the transaction that has begun.
    LockedAgain,
}

/// What a batch asks about.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Wallets, sorted, each once.
    pub(super) accounts: Vec<i64>,
    holds: Vec<Uuid>,
    subjects: Vec<Uuid>,
    kinds: Vec<i16>,
    seqs: Vec<i16>,
    /// The lease under which holds are to be placed.
    lease: Option<Uuid>,
    /// Holds whose books are to be corrected.
    pub(super) corrected: Vec<Uuid>,
}

/// Begins a transaction where none is, locks the batch's wallets or does not, and reads what it
/// names.
pub(super) async fn read(
    client: &Object,
    named: &Named,
    reading: Reading,
) -> Result<(Timestamp, Known), Error> {
    let wallets = if reading == Reading::Unlocked { LOOK } else { LOCK };
    let lock = client.prepare_cached(wallets).await?;
    let clock = client.prepare_cached(CLOCK).await?;
    let holds = client.prepare_cached(HOLDS).await?;
    let gates = client.prepare_cached(GATES).await?;
    let lease = client.prepare_cached(IS_UP).await?;
    // Polled in this order, so sent in this order, without waiting in between.
    let (begun, wallets, clock, holds, gates, lease) = tokio::join!(
        biased;
        async {
            match reading {
                Reading::Unlocked | Reading::Locked => client.batch_execute(BEGIN).await,
                Reading::LockedAgain => Ok(()),
            }
        },
        async { client.query(&lock, &[&named.accounts]).await },
        client.query_one(&clock, &[]),
        async {
            if named.holds.is_empty() {
                return Ok(Vec::new());
            }
            client.query(&holds, &[&named.holds]).await
        },
        async {
            if named.subjects.is_empty() {
                return Ok(Vec::new());
            }
            client.query(&gates, &[&named.subjects, &named.kinds, &named.seqs]).await
        },
        async {
            match &named.lease {
                Some(node) => client.query(&lease, &[node]).await.map(|up| up.is_empty()),
                None => Ok(false),
            }
        },
    );
    begun?;
    let mut known = Known { is_fenced: lease?, ..Known::default() };
    for row in wallets? {
        known.wallets.insert(row.try_get(0)?, wallet(&row)?);
    }
    let posted_at = Timestamp::from_micros(clock?.try_get(0)?);
    for row in holds? {
        known.holds.insert(row.try_get(0)?, stored_hold(&row)?);
    }
    for row in gates? {
        let key = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        known.gates.insert(key, (row.try_get(3)?, digest(row.try_get(4)?)));
    }
    Ok((posted_at, known))
}

impl Named {
    /// Collects it. The accounts are sorted, which is the order in which they are locked.
    pub(super) fn of(items: &[Item], directory: &Directory, node: Node) -> Self {
        let mut named = Self::default();
        for item in items {
            item.operation.each_wallet(|account, currency| {
                named.accounts.extend(directory.account(account, currency));
            });
            match &item.operation {
                Operation::Hold(hold) => {
                    named.holds.push(hold.id);
                    named.lease = node.has_lease.then_some(node.id);
                }
                Operation::Extend(extension) => named.holds.push(extension.hold),
                Operation::TrueUp(correction) => {
                    named.holds.push(correction.settle.settlement.hold);
                    named.corrected.push(correction.settle.settlement.hold);
                }
                // It is written where its hold is open and ours, and nowhere else.
                Operation::Checkpoint(_) => {}
                Operation::Settle(settle) => named.holds.push(settle.settlement.hold),
                Operation::Post(post) => {
                    named.subjects.push(post.entry.subject);
                    named.kinds.push(post.entry.kind.number());
                    named.seqs.push(post.entry.seq);
                }
            }
        }
        named.accounts.sort_unstable();
        named.accounts.dedup();
        named
    }
}

fn wallet(row: &Row) -> Result<Wallet, Error> {
    Ok(Wallet {
        debits: row.try_get(1)?,
        credits: row.try_get(2)?,
        held: row.try_get(3)?,
        floor: row.try_get(4)?,
        promo: row.try_get(5)?,
        promo_id: row.try_get(6)?,
        changed: false,
    })
}

fn stored_hold(row: &Row) -> Result<StoredHold, Error> {
    let node = row.try_get(6)?;
    let state = match row.try_get::<_, Option<&[u8]>>(9)? {
        None => State::Open { node },
        Some(found) => State::Closed {
            node,
            charged: row.try_get::<_, Option<i64>>(7)?.unwrap_or(0),
            uncollected: row.try_get(8)?,
            digest: digest(found),
        },
    };
    Ok(StoredHold {
        account_id: row.try_get(1)?,
        price_id: row.try_get(2)?,
        amount: row.try_get(3)?,
        kid: row.try_get::<_, &str>(4)?.into(),
        alias: row.try_get::<_, &str>(5)?.into(),
        created_at: Timestamp::from_micros(row.try_get(10)?),
        state,
    })
}

/// The table's check says that it has 32 bytes; other bytes would equal no content.
pub(super) fn digest(bytes: &[u8]) -> Digest {
    bytes.try_into().unwrap_or_default()
}
