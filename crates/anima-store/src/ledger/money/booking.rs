//! A journal with its legs, and what they do to balances, inside one session.
//!
//! The slow twin of the writer's `judge` and `rows`, for entries that people make: same rows, same
//! digests, one entry at a time. Invariant: the wallet's row is locked from [`lock`] to the end of
//! the transaction, and every balance that a leg moves is moved in that transaction.

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Account, Entry, Leg, Normal};
use anima_core::money::Currency;

use super::units;
use crate::ledger::Error;
use crate::ledger::digest::{self, journal_id};
use crate::ledger::plan::day;
use crate::ledger::session::{Failed, Record, Session, Value};

const FIND_ACCOUNT: &str = "SELECT id FROM account WHERE code = $1 AND currency = $2";

const MAKE_CURRENCY: &str =
    "INSERT INTO currency (code, scale) VALUES ($1, $2) ON CONFLICT DO NOTHING";

const MAKE_ACCOUNT: &str = "
    INSERT INTO account (code, class, normal, currency) VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING";

const MAKE_GATE: &str = "INSERT INTO gated_balance (account_id) VALUES ($1) ON CONFLICT DO NOTHING";

/// Locks and reads in one statement, which both databases have.
const LOCK: &str = "
    UPDATE gated_balance SET held = held WHERE account_id = $1
    RETURNING debits, credits, held, floor, promo, promo_id";

const WRITE_WALLET: &str = "
    UPDATE gated_balance SET debits = $1, credits = $2, promo = $3, promo_id = $4
    WHERE account_id = $5";

const CLOCK_SQLITE: &str = "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000";
const CLOCK_POSTGRES: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

const JOURNAL: &str = "
    INSERT INTO journal (id, kind, subject, seq, at, posted_at, estimate, digest, reference)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const LEG: &str = "
    INSERT INTO leg (journal, n, debit_id, credit_id, amount, currency, component, estimate)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

const HOUSE_SQLITE: &str = "
    INSERT INTO house_balance (account_id, day, debits, credits) VALUES ($1, $2, $3, $4)
    ON CONFLICT (account_id, day) DO UPDATE
    SET debits = debits + excluded.debits, credits = credits + excluded.credits";

const HOUSE_POSTGRES: &str =
    "INSERT INTO balance_delta (account_id, day, debits, credits) VALUES ($1, $2, $3, $4)";

const GATE: &str = "
    SELECT id, digest FROM journal WHERE subject = $1 AND kind = $2 AND seq = $3";

/// A wallet under lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Locked {
    pub(super) account_id: i64,
    pub(super) debits: i64,
    pub(super) credits: i64,
    pub(super) held: i64,
    pub(super) floor: i64,
    /// What is left of its grants, expired ones included until they are posted back.
    pub(super) promo: i64,
    /// The account of that.
    pub(super) promo_id: Option<i64>,
}

impl Locked {
    /// What is left above the floor, promotional credit included.
    pub(super) const fn above_floor(&self) -> i64 {
        self.credits
            .saturating_sub(self.debits)
            .saturating_add(self.promo)
            .saturating_sub(self.held)
            .saturating_sub(self.floor)
    }
}

/// The id of an account, if it was ever posted to.
pub(super) async fn find(
    session: &mut Session<'_>,
    account: &Account,
    currency: Currency,
) -> Result<Option<i64>, Failed> {
    let parameters = [account.to_string().as_str().into(), currency.code().into()];
    let found = session.first(FIND_ACCOUNT, &parameters).await?;
    Ok(found.map(|record| record.int(0)).transpose()?)
}

/// The id of an account, made when it is new.
pub(super) async fn account(
    session: &mut Session<'_>,
    account: &Account,
    currency: Currency,
) -> Result<i64, Failed> {
    if let Some(id) = find(session, account, currency).await? {
        return Ok(id);
    }
    let scale = i64::from(currency.scale());
    session.execute(MAKE_CURRENCY, &[currency.code().into(), scale.into()]).await?;
    let normal = match account.normal() {
        Normal::Debit => "D",
        Normal::Credit => "C",
    };
    let code = account.to_string();
    let row = [code.as_str().into(), account.class().into(), normal.into(), currency.code().into()];
    session.execute(MAKE_ACCOUNT, &row).await?;
    let made = find(session, account, currency).await?;
    let id = made.ok_or_else(|| Error::Refused(format!("the account {code} was not made")))?;
    if account.is_gated() {
        session.execute(MAKE_GATE, &[id.into()]).await?;
    }
    Ok(id)
}

/// Locks a wallet and reads it.
pub(super) async fn lock(session: &mut Session<'_>, account_id: i64) -> Result<Locked, Failed> {
    let record = session.first(LOCK, &[account_id.into()]).await?;
    let record = record.ok_or_else(|| Error::Refused("the wallet has no balance".to_owned()))?;
    let wallet = |record: &Record| -> Result<Locked, Error> {
        Ok(Locked {
            account_id,
            debits: record.int(0)?,
            credits: record.int(1)?,
            held: record.int(2)?,
            floor: record.int(3)?,
            promo: record.int(4)?,
            promo_id: record.maybe_int(5)?,
        })
    };
    Ok(wallet(&record)?)
}

/// The journal that stands under a key, with its digest.
pub(super) async fn gate(
    session: &mut Session<'_>,
    entry: &Entry,
) -> Result<Option<(Uuid, Vec<u8>)>, Failed> {
    let key = [entry.subject.into(), entry.kind.number().into(), entry.seq.into()];
    let found = session.first(GATE, &key).await?;
    Ok(found.map(|r| Ok::<_, Error>((r.id(0)?, r.bytes(1)?.to_vec()))).transpose()?)
}

/// The database's clock.
pub(super) async fn clock(session: &mut Session<'_>) -> Result<Timestamp, Failed> {
    let text = if session.is_postgres() { CLOCK_POSTGRES } else { CLOCK_SQLITE };
    let record = session.first(text, &[]).await?;
    let record = record.ok_or_else(|| Error::Unavailable("the database has no clock".into()))?;
    Ok(Timestamp::from_micros(record.int(0)?))
}

/// Posts an entry that touches one wallet at most, the locked one, and writes that wallet.
pub(super) async fn post(
    session: &mut Session<'_>,
    entry: &Entry,
    wallet: &mut Locked,
) -> Result<Uuid, Failed> {
    let posted_at = clock(session).await?;
    let digest = digest::of_entry(entry);
    let id = journal_id(posted_at, &digest);
    let row = [
        id.into(),
        entry.kind.number().into(),
        entry.subject.into(),
        entry.seq.into(),
        entry.at.micros().into(),
        posted_at.micros().into(),
        false.into(),
        digest.as_slice().into(),
        entry.reference.as_str().into(),
    ];
    session.execute(JOURNAL, &row).await?;
    for (leg, n) in entry.legs.iter().zip(1_i16..) {
        post_leg(session, (leg, n), (id, posted_at), wallet).await?;
    }
    let row = [
        wallet.debits.into(),
        wallet.credits.into(),
        wallet.promo.into(),
        wallet.promo_id.into(),
        wallet.account_id.into(),
    ];
    session.change(WRITE_WALLET, &row).await?;
    Ok(id)
}

async fn post_leg(
    session: &mut Session<'_>,
    (leg, n): (&Leg, i16),
    (journal, posted_at): (Uuid, Timestamp),
    wallet: &mut Locked,
) -> Result<(), Failed> {
    let mut ids = [0, 0];
    let sides = [(&leg.debit, leg.amount, 0), (&leg.credit, 0, leg.amount)];
    for (id, (owner, debit, credit)) in ids.iter_mut().zip(sides) {
        *id = account(session, owner, leg.currency).await?;
        if *id == wallet.account_id {
            wallet.debits = sum(wallet.debits, debit)?;
            wallet.credits = sum(wallet.credits, credit)?;
        } else if owner.is_gated() {
            return Err(Error::Refused("the entry moves a wallet without its lock".into()).into());
        } else {
            let text = if session.is_postgres() { HOUSE_POSTGRES } else { HOUSE_SQLITE };
            let row = [(*id).into(), day(posted_at).into(), debit.into(), credit.into()];
            session.execute(text, &row).await?;
        }
        if matches!(owner, Account::Promo(_)) {
            wallet.promo = sum(wallet.promo, credit.saturating_sub(debit))?;
            wallet.promo_id = Some(*id);
        }
    }
    let row: [Value; 8] = [
        journal.into(),
        n.into(),
        ids[0].into(),
        ids[1].into(),
        leg.amount.into(),
        leg.currency.code().into(),
        leg.component.number().into(),
        leg.estimate.into(),
    ];
    session.execute(LEG, &row).await?;
    Ok(())
}

fn sum(a: i64, b: i64) -> Result<i64, Error> {
    units(i128::from(a).saturating_add(b.into()))
}
