//! One app's statement: opening, what moved, closing, for its money and its promotional credit.
//!
//! Sales are summed by day and model; everything else stands on a line of its own. Opening and
//! closing are each worked out from the balance of now and what was posted since, so that a line
//! that was missed would show. Invariant: opening + lines = closing.

use std::sync::Arc;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Account, EntryKind};
use anima_core::money::Currency;

use super::{booking, first_journal, units};
use crate::ledger::Error;
use crate::ledger::plan::day;
use crate::ledger::session::{Failed, Mode, Record, Session, Value, Work};

/// Whose statement, and for when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// The app.
    pub app: Arc<str>,
    /// Of its wallet.
    pub currency: Currency,
    /// From here on, by the time of posting, to the millisecond.
    pub from: Timestamp,
    /// Until just before here.
    pub to: Timestamp,
}

/// An amount of money and one of promotional credit, in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// On the wallet.
    pub money: i64,
    /// What is left of grants.
    pub promo: i64,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    /// Calls of one model on one day.
    Sales,
    /// One entry.
    Entry(EntryKind),
}

/// One line: what it added to or took from the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementLine {
    /// Days since 1970 UTC.
    pub day: i64,
    /// What it is about.
    pub kind: LineKind,
    /// The model, for sales and what corrects them.
    pub model: Option<String>,
    /// What the entry explains: a request, a grant, a top-up. `None` for sales.
    pub subject: Option<Uuid>,
    /// As given with the entry; empty for sales.
    pub reference: String,
    /// How many calls or entries.
    pub count: i64,
    /// Above 0 what came in, below 0 what went out.
    pub amount: Sums,
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Just before the period.
    pub opening: Sums,
    /// By day; sales before the rest.
    pub lines: Vec<StatementLine>,
    /// At its end, or now.
    pub closing: Sums,
}

impl Sums {
    fn plus(self, other: Self) -> Result<Self, Error> {
        Ok(Self {
            money: units(i128::from(self.money).saturating_add(other.money.into()))?,
            promo: units(i128::from(self.promo).saturating_add(other.promo.into()))?,
        })
    }

    fn minus(self, other: Self) -> Result<Self, Error> {
        self.plus(Self { money: other.money.saturating_neg(), promo: other.promo.saturating_neg() })
    }

    fn read(record: &Record, money: usize, promo: usize) -> Result<Self, Error> {
        Ok(Self { money: units(record.sum(money)?)?, promo: units(record.sum(promo)?)? })
    }
}

const NOW: &str = "
    SELECT CAST(credits - debits AS TEXT), CAST(promo AS TEXT), COALESCE(promo_id, -1)
    FROM gated_balance WHERE account_id = $1";

/// The signed sum of what legs did to the accounts `$1` (money) and `$2` (promotional credit).
macro_rules! moved {
    () => {
        "CAST(COALESCE(sum(CASE WHEN l.credit_id = $1 THEN l.amount
                                WHEN l.debit_id = $1 THEN -l.amount ELSE 0 END), 0) AS TEXT),
         CAST(COALESCE(sum(CASE WHEN l.credit_id = $2 THEN l.amount
                                WHEN l.debit_id = $2 THEN -l.amount ELSE 0 END), 0) AS TEXT)"
    };
}

/// Legs that touch one of the two.
macro_rules! touched {
    () => {
        "(l.debit_id = $1 OR l.credit_id = $1 OR l.debit_id = $2 OR l.credit_id = $2)"
    };
}

const SINCE: &str =
    concat!("SELECT ", moved!(), " FROM leg l WHERE l.journal >= $3 AND ", touched!());

const SALES: &str = concat!(
    "SELECT ",
    moved!(),
    ", CAST(j.posted_at / 86400000000 AS bigint), h.alias, count(DISTINCT j.id)
    FROM journal j JOIN leg l ON l.journal = j.id JOIN hold h ON h.id = j.subject
    WHERE j.id >= $3 AND j.id < $4 AND j.kind IN (1, 2) AND ",
    touched!(),
    " GROUP BY 3, 4 ORDER BY 3, 4"
);

const ENTRIES: &str = concat!(
    "SELECT ",
    moved!(),
    ", j.kind, j.posted_at, j.subject, j.reference, h.alias
    FROM journal j JOIN leg l ON l.journal = j.id LEFT JOIN hold h ON h.id = j.subject
    WHERE j.posted_at >= $3 AND j.posted_at < $4 AND j.kind NOT IN (1, 2) AND ",
    touched!(),
    " GROUP BY j.id, j.kind, j.posted_at, j.subject, j.reference, h.alias
    ORDER BY j.posted_at, j.id"
);

impl Work for Period {
    type Output = Statement;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let wallet = Account::Wallet(Arc::clone(&self.app));
        let Some(wallet) = booking::find(session, &wallet, self.currency).await? else {
            let nothing = Sums::default();
            return Ok(Statement { opening: nothing, lines: Vec::new(), closing: nothing });
        };
        let Some(now) = session.first(NOW, &[wallet.into()]).await? else {
            return Err(Error::Refused("the wallet has no balance".to_owned()).into());
        };
        let accounts = [wallet.into(), now.int(2)?.into()];
        let now = Sums::read(&now, 0, 1)?;
        let opening = now.minus(self.since(session, &accounts, self.from).await?)?;
        let closing = now.minus(self.since(session, &accounts, self.to).await?)?;
        let mut lines = self.sales(session, &accounts).await?;
        lines.extend(self.entries(session, &accounts).await?);
        lines.sort_by_key(|line| line.day);
        let sum = lines.iter().try_fold(opening, |sum, line| sum.plus(line.amount))?;
        if sum != closing {
            let why = format!("the statement gives {sum:?} where the balance says {closing:?}");
            return Err(Error::Refused(why).into());
        }
        Ok(Statement { opening, lines, closing })
    }
}

impl Period {
    async fn since(
        &self,
        session: &mut Session<'_>,
        accounts: &[Value; 2],
        at: Timestamp,
    ) -> Result<Sums, Failed> {
        let [money, promo] = accounts.clone();
        let record = session.first(SINCE, &[money, promo, first_journal(at).into()]).await?;
        Ok(record.map(|record| Sums::read(&record, 0, 1)).transpose()?.unwrap_or_default())
    }

    async fn sales(
        &self,
        session: &mut Session<'_>,
        accounts: &[Value; 2],
    ) -> Result<Vec<StatementLine>, Failed> {
        let [money, promo] = accounts.clone();
        let (from, to) = (first_journal(self.from).into(), first_journal(self.to).into());
        let records = session.query(SALES, &[money, promo, from, to]).await?;
        let line = |record: &Record| {
            Ok(StatementLine {
                day: record.int(2)?,
                kind: LineKind::Sales,
                model: Some(record.text(3)?.to_owned()),
                subject: None,
                reference: String::new(),
                count: record.int(4)?,
                amount: Sums::read(record, 0, 1)?,
            })
        };
        Ok(records.iter().map(line).collect::<Result<_, Error>>()?)
    }

    async fn entries(
        &self,
        session: &mut Session<'_>,
        accounts: &[Value; 2],
    ) -> Result<Vec<StatementLine>, Failed> {
        let [money, promo] = accounts.clone();
        // Journals' ids tell milliseconds, so both bounds are whole ones.
        let micros = |at: Timestamp| at.millis().saturating_mul(1_000).into();
        let range = [money, promo, micros(self.from), micros(self.to)];
        let records = session.query(ENTRIES, &range).await?;
        let line = |record: &Record| {
            let kind = i16::try_from(record.int(2)?).ok().and_then(EntryKind::from_number);
            let kind = kind.ok_or_else(|| Error::Refused("a journal of no known kind".into()))?;
            Ok(StatementLine {
                day: day(Timestamp::from_micros(record.int(3)?)),
                kind: LineKind::Entry(kind),
                model: record.maybe_text(6)?.map(str::to_owned),
                subject: Some(record.id(4)?),
                reference: record.text(5)?.to_owned(),
                count: 1,
                amount: Sums::read(record, 0, 1)?,
            })
        };
        Ok(records.iter().map(line).collect::<Result<_, Error>>()?)
    }
}
