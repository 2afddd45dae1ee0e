//! The books as rows, read from the database behind the gateways' backs.
//!
//! One query text for both databases, all columns as text. Nothing of the product is linked, so
//! that a defect in how it reads its rows cannot hide one in how it writes them.
//! Invariant: read only, and never through the proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::OpenFlags;
use rusqlite::types::ValueRef;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::place::Place;

/// A hold, by the request's id.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    /// The key that asked, and so the node that was asked.
    pub(crate) kid: String,
    /// Who owned it last.
    pub(crate) node: String,
    pub(crate) state: String,
    /// What was charged, in nano-dollars.
    pub(crate) settled: i64,
    /// What was sold and could not be taken.
    pub(crate) uncollected: i64,
    /// Microseconds since 1970.
    pub(crate) created_us: i64,
    pub(crate) closed_us: Option<i64>,
}

impl Hold {
    /// Whether it still holds money.
    pub(crate) fn is_open(&self) -> bool {
        self.closed_us.is_none()
    }
}

/// A recorded attempt.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) served: bool,
    /// Where the usage comes from.
    pub(crate) source: String,
}

/// One leg of a journal.
#[derive(Debug, Clone)]
pub(crate) struct Leg {
    pub(crate) journal: String,
    pub(crate) kind: i64,
    pub(crate) debit: String,
    pub(crate) credit: String,
    pub(crate) amount: i64,
    pub(crate) component: i64,
    pub(crate) attempt: Option<i64>,
    pub(crate) estimate: bool,
}

impl Leg {
    /// What it takes from a customer, below 0 what it gives back; `None` when it is no sale.
    pub(crate) fn sold(&self) -> Option<i64> {
        let customers =
            |account: &str| account.starts_with("wallet:") || account.starts_with("promo:");
        let sign = if customers(&self.debit) { 1 } else { -1 };
        (self.component == SALE).then_some(sign * self.amount)
    }

    /// What it adds to what was sold and no wallet covered; `None` when it is no such leg.
    pub(crate) fn unpaid(&self) -> Option<i64> {
        let sign = if self.credit == REVENUE { 1 } else { -1 };
        (self.component == UNPAID).then_some(sign * self.amount)
    }

    /// What it takes from a customer, below 0 what it gives back, of a refund; `None` when it is of
    /// none.
    pub(crate) fn returned(&self) -> Option<i64> {
        let sign = if self.debit == REFUNDS { -1 } else { 1 };
        (self.component == REFUND).then_some(sign * self.amount)
    }

    /// What it adds to our sales.
    pub(crate) fn earned(&self) -> i64 {
        let credit = if self.credit == REVENUE { self.amount } else { 0 };
        let debit = if self.debit == REVENUE { self.amount } else { 0 };
        credit - debit
    }

    /// Whether it is about what an attempt costs.
    pub(crate) fn is_cost(&self) -> bool {
        [COST, WASTE, EXPOSURE].contains(&self.component)
    }

    /// What it adds to what we owe a provider: as reported, and by estimate.
    pub(crate) fn owed(&self) -> (i64, i64) {
        let to = |account: &str| {
            let credit = if self.credit.starts_with(account) { self.amount } else { 0 };
            let debit = if self.debit.starts_with(account) { self.amount } else { 0 };
            credit - debit
        };
        (to("payable:"), to("payable_estimated:"))
    }

    /// Whether it belongs to what closed the hold, and not to a later correction.
    pub(crate) fn is_of_closing(&self) -> bool {
        [SETTLE, RELEASE_COST].contains(&self.kind)
    }

    /// Whether it belongs to what became known later.
    pub(crate) fn is_of_correction(&self) -> bool {
        self.kind == TRUE_UP
    }

    /// Whether it stands for a call whose end nobody saw.
    pub(crate) fn is_exposure(&self) -> bool {
        self.component == EXPOSURE
    }
}

/// Where sales go.
const REVENUE: &str = "revenue";

/// Where what is given back comes from.
const REFUNDS: &str = "refunds";

/// `leg.component`: the customer's side, an attempt that served, what is given back, an attempt
/// that did not serve, one whose end nobody saw, and what no wallet covered of a sale.
const SALE: i64 = 1;
const COST: i64 = 2;
const REFUND: i64 = 5;
const WASTE: i64 = 3;
const EXPOSURE: i64 = 10;
const UNPAID: i64 = 11;

/// `journal.kind`: what closes a hold.
const SETTLE: i64 = 1;
const RELEASE_COST: i64 = 2;

/// `journal.kind`: a correction.
const TRUE_UP: i64 = 10;

/// All rows of a run.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) holds: BTreeMap<String, Hold>,
    /// By request and number.
    pub(crate) attempts: BTreeMap<String, BTreeMap<i64, Attempt>>,
    /// By what they explain.
    pub(crate) legs: BTreeMap<String, Vec<Leg>>,
    /// What each wallet has: posted and held.
    pub(crate) wallets: BTreeMap<String, (i64, i64)>,
    /// Requests whose idempotency key is still theirs.
    pub(crate) keyed: BTreeSet<String>,
}

const HOLDS: &str = "
    SELECT lower(hex(id)), kid, lower(hex(node)), state, settled, uncollected, created_at, closed_at
    FROM hold";

const ATTEMPTS: &str = "
    SELECT lower(hex(hold)), n, CASE WHEN served THEN 1 ELSE 0 END, usage_source
    FROM attempt";

const LEGS: &str = "
    SELECT lower(hex(j.subject)), lower(hex(j.id)), j.kind, d.code, c.code, l.amount, l.component,
           l.attempt, CASE WHEN l.estimate THEN 1 ELSE 0 END
    FROM leg l
    JOIN journal j ON j.id = l.journal
    JOIN account d ON d.id = l.debit_id
    JOIN account c ON c.id = l.credit_id
    ORDER BY j.kind, j.seq, l.n";

const WALLETS: &str = "
    SELECT a.code, g.credits - g.debits, g.held
    FROM gated_balance g JOIN account a ON a.id = g.account_id";

const KEYED: &str = "SELECT lower(hex(call)) FROM idempotency";

const SOLD_AT: &str = "
    SELECT lower(hex(j.subject)), p.version_no
    FROM leg l
    JOIN journal j ON j.id = l.journal
    JOIN price_ref p ON p.id = l.price_id
    WHERE l.component = 1";

const OPEN: &str = "SELECT count(*) FROM hold WHERE state IN ('HELD', 'UNKNOWN')";

/// One row, its columns as text.
type Row = Vec<Option<String>>;

impl Books {
    /// Reads everything.
    ///
    /// # Errors
    /// When the database cannot be read, or a row is not as we know it.
    pub(crate) async fn read(place: &Place) -> Result<Self> {
        Self::of([
            rows(place, HOLDS).await?,
            rows(place, ATTEMPTS).await?,
            rows(place, LEGS).await?,
            rows(place, WALLETS).await?,
            rows(place, KEYED).await?,
        ])
    }

    fn of([holds, attempts, legs, wallets, keyed]: [Vec<Row>; 5]) -> Result<Self> {
        let mut books = Self::default();
        for row in holds {
            let hold = Hold {
                kid: text(&row, 1)?,
                node: text(&row, 2)?,
                state: text(&row, 3)?,
                settled: number(&row, 4)?.unwrap_or(0),
                uncollected: number(&row, 5)?.unwrap_or(0),
                created_us: number(&row, 6)?.context("a hold without a time")?,
                closed_us: number(&row, 7)?,
            };
            books.holds.insert(text(&row, 0)?, hold);
        }
        for row in attempts {
            let of = books.attempts.entry(text(&row, 0)?).or_default();
            let served = number(&row, 2)? == Some(1);
            let attempt = Attempt { served, source: text(&row, 3)? };
            of.insert(number(&row, 1)?.context("an attempt without a number")?, attempt);
        }
        for row in legs {
            books.legs.entry(text(&row, 0)?).or_default().push(leg(&row)?);
        }
        for row in wallets {
            let sums = number(&row, 1)?.zip(number(&row, 2)?).context("a wallet without sums")?;
            books.wallets.insert(text(&row, 0)?, sums);
        }
        books.keyed = keyed.iter().map(|row| text(row, 0)).collect::<Result<_>>()?;
        Ok(books)
    }
}

fn leg(row: &Row) -> Result<Leg> {
    Ok(Leg {
        journal: text(row, 1)?,
        kind: number(row, 2)?.context("a journal without a kind")?,
        debit: text(row, 3)?,
        credit: text(row, 4)?,
        amount: number(row, 5)?.context("a leg without an amount")?,
        component: number(row, 6)?.context("a leg without a component")?,
        attempt: number(row, 7)?,
        estimate: number(row, 8)? == Some(1),
    })
}

/// Holds that still hold money.
///
/// # Errors
/// When the database cannot be read.
pub(crate) async fn open_holds(place: &Place) -> Result<i64> {
    counted(&rows(place, OPEN).await?)
}

/// How many requests of a key were charged.
///
/// # Errors
/// When the database cannot be read.
pub(crate) async fn sold_to(place: &Place, kid: &str) -> Result<i64> {
    let of = format!("SELECT count(*) FROM hold WHERE kid = '{kid}' AND settled > 0");
    counted(&rows(place, &of).await?)
}

fn counted(rows: &[Row]) -> Result<i64> {
    rows.first().map(|row| number(row, 0)).transpose()?.flatten().context("nothing was counted")
}

/// The version of the sale price that each request was charged at, by the request's id.
///
/// # Errors
/// When the database cannot be read.
pub(crate) async fn sold_at(place: &Place) -> Result<BTreeMap<String, i64>> {
    let mut versions = BTreeMap::new();
    for row in rows(place, SOLD_AT).await? {
        versions.insert(text(&row, 0)?, number(&row, 1)?.context("a sale without a price")?);
    }
    Ok(versions)
}

/// Attempts at one channel that began between two instants, microseconds since 1970: the request's
/// id and the attempt's number.
///
/// # Errors
/// When the database cannot be read.
pub(crate) async fn attempts_at(
    place: &Place,
    channel: &str,
    (from_us, to_us): (i64, i64),
) -> Result<Vec<(String, i64)>> {
    let of = format!(
        "SELECT lower(hex(hold)), n FROM attempt
         WHERE channel = '{channel}' AND started_at >= {from_us} AND started_at <= {to_us}"
    );
    let rows = rows(place, &of).await?;
    let read =
        |row: &Row| Ok((text(row, 0)?, number(row, 1)?.context("an attempt without a number")?));
    rows.iter().map(read).collect()
}

/// A call that nobody waits for.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) kid: String,
    pub(crate) state: String,
    /// The request of its last run, when one was made.
    pub(crate) call: Option<String>,
    /// Why it failed.
    pub(crate) error: Option<String>,
    /// Something that was charged is still to be given back.
    pub(crate) is_due: bool,
}

const TASKS: &str = "SELECT kid, state, lower(hex(call)), error_code, refund FROM task";

/// Every task.
///
/// # Errors
/// When the database cannot be read.
pub(crate) async fn tasks(place: &Place) -> Result<Vec<Task>> {
    let read = |row: &Row| {
        let column = |at: usize| row.get(at).cloned().flatten().filter(|text| !text.is_empty());
        Ok(Task {
            kid: text(row, 0)?,
            state: text(row, 1)?,
            call: column(2),
            error: column(3),
            is_due: column(4).as_deref() == Some("DUE"),
        })
    };
    rows(place, TASKS).await?.iter().map(read).collect()
}

/// Every decision record.
///
/// # Errors
/// When the database cannot be read, or one is no JSON.
pub(crate) async fn decisions(place: &Place) -> Result<Vec<serde_json::Value>> {
    let rows = rows(place, "SELECT record FROM decision_record").await?;
    let read = |row: &Row| serde_json::from_str(&text(row, 0)?).context("a record is no JSON");
    rows.iter().map(read).collect()
}

fn text(row: &Row, at: usize) -> Result<String> {
    row.get(at).cloned().flatten().with_context(|| format!("column {at} is empty"))
}

fn number(row: &Row, at: usize) -> Result<Option<i64>> {
    let read = |text: &String| text.parse().with_context(|| format!("{text} is no number"));
    row.get(at).and_then(Option::as_ref).map(read).transpose()
}

async fn rows(place: &Place, query: &str) -> Result<Vec<Row>> {
    match place {
        Place::Sqlite(file) => from_file(file, query),
        Place::Postgres(behind) => from_server(&behind.url, query).await,
    }
}

/// On a connection of its own, since a reader that stays would keep the log from being replayed.
fn from_file(file: &Path, query: &str) -> Result<Vec<Row>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(file, flags)?;
    let mut statement = connection.prepare(query)?;
    let columns = statement.column_count();
    let read = |row: &rusqlite::Row<'_>| (0..columns).map(|n| Ok(shown(row.get_ref(n)?))).collect();
    let rows: rusqlite::Result<Vec<Row>> = statement.query_map([], read)?.collect();
    rows.context("failed to read the file")
}

fn shown(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
    }
}

async fn from_server(url: &str, query: &str) -> Result<Vec<Row>> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move { drop(connection.await) });
    let mut rows = Vec::new();
    for message in client.simple_query(query).await? {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push((0..row.len()).map(|n| row.get(n).map(str::to_owned)).collect());
        }
    }
    Ok(rows)
}
