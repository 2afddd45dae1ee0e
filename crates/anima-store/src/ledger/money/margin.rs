//! What calls earned: sales, less what was given back, less what providers charge.
//!
//! Read from the legs by the class of their accounts, so that corrections count the way they were
//! booked. A sale counts for the channel and model that served, a cost for the one that it is of.
//! Amounts are in the currency of their legs; currencies are never added up. Invariant: over all
//! lines of a currency, `margin` is what the income and expense accounts say of these requests.

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::money::Currency;

use super::{currency_of, first_journal, units};
use crate::ledger::Error;
use crate::ledger::session::{Failed, Mode, Record, Session, Work};

/// Which calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarginOf {
    /// One request.
    Request(Uuid),
    /// What was posted from the first instant on until just before the second.
    Posted(Timestamp, Timestamp),
}

/// What the calls of one group earned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarginLine {
    /// Which channel; empty when none served.
    pub channel: String,
    /// Which upstream model; empty when none served.
    pub model: String,
    /// Which alias was asked for.
    pub alias: String,
    /// Whose calls.
    pub app: String,
    /// Days since 1970 UTC: when it was posted.
    pub day: i64,
    /// Of the amounts.
    pub currency: Currency,
    /// Sales, collected or not, in units.
    pub revenue: i64,
    /// What of them no wallet covered, in units.
    pub uncollected: i64,
    /// Given back, in units.
    pub refunds: i64,
    /// Cost of attempts that served, in units.
    pub cost: i64,
    /// Cost of attempts that did not, or that nobody was charged for, in units.
    pub waste: i64,
    /// What conversions earned, in units.
    pub fx: i64,
    /// Requests with a sale.
    pub sales: i64,
}

impl MarginLine {
    /// What is left, in units.
    pub const fn margin(&self) -> i64 {
        self.revenue
            .saturating_add(self.fx)
            .saturating_sub(self.refunds)
            .saturating_sub(self.cost)
            .saturating_sub(self.waste)
            .saturating_sub(self.uncollected)
    }

    fn read(record: &Record) -> Result<Self, Error> {
        let amount = |n| units(record.sum(n)?);
        Ok(Self {
            channel: record.text(0)?.to_owned(),
            model: record.text(1)?.to_owned(),
            alias: record.text(2)?.to_owned(),
            app: record.text(3)?.to_owned(),
            day: record.int(4)?,
            currency: currency_of(record.text(5)?)?,
            revenue: amount(6)?,
            refunds: amount(7)?,
            cost: amount(8)?,
            waste: amount(9)?,
            fx: amount(10)?,
            sales: record.int(11)?,
            uncollected: amount(12)?,
        })
    }
}

/// The query, for one choice of journals.
macro_rules! margin_text {
    ($which:literal) => {
        concat!(
            "SELECT COALESCE(a.channel, ''), COALESCE(a.model, ''), h.alias, h.app,
                CAST(j.posted_at / 86400000000 AS bigint), l.currency,
                CAST(sum(CASE c.class WHEN 4010 THEN l.amount ELSE 0 END
                       - CASE d.class WHEN 4010 THEN l.amount ELSE 0 END) AS TEXT),
                CAST(sum(CASE d.class WHEN 4020 THEN l.amount ELSE 0 END
                       - CASE c.class WHEN 4020 THEN l.amount ELSE 0 END) AS TEXT),
                CAST(sum(CASE d.class WHEN 5010 THEN l.amount ELSE 0 END
                       - CASE c.class WHEN 5010 THEN l.amount ELSE 0 END) AS TEXT),
                CAST(sum(CASE WHEN l.component = 11 THEN 0
                              WHEN d.class IN (5020, 5030) THEN l.amount ELSE 0 END
                       - CASE WHEN l.component = 11 THEN 0
                              WHEN c.class IN (5020, 5030) THEN l.amount ELSE 0 END) AS TEXT),
                CAST(sum(CASE c.class WHEN 5070 THEN l.amount ELSE 0 END
                       - CASE d.class WHEN 5070 THEN l.amount ELSE 0 END) AS TEXT),
                count(DISTINCT CASE WHEN c.class = 4010 THEN j.subject END),
                CAST(sum(CASE WHEN l.component <> 11 THEN 0
                              WHEN d.class = 5030 THEN l.amount ELSE -l.amount END) AS TEXT)
            FROM journal j
            JOIN leg l ON l.journal = j.id
            JOIN hold h ON h.id = j.subject
            JOIN account d ON d.id = l.debit_id
            JOIN account c ON c.id = l.credit_id
            LEFT JOIN attempt a ON a.hold = j.subject AND a.n = COALESCE(l.attempt, (
                SELECT max(s.n) FROM attempt s WHERE s.hold = j.subject AND s.served))
            WHERE ",
            $which,
            " GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 5, 1, 2, 3, 4, 6"
        )
    };
}

const OF_REQUEST: &str = margin_text!("j.subject = $1");

const POSTED: &str = margin_text!("j.id >= $1 AND j.id < $2");

impl Work for MarginOf {
    type Output = Vec<MarginLine>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let records = match *self {
            Self::Request(request) => session.query(OF_REQUEST, &[request.into()]).await?,
            Self::Posted(from, to) => {
                let range = [first_journal(from).into(), first_journal(to).into()];
                session.query(POSTED, &range).await?
            }
        };
        Ok(records.iter().map(MarginLine::read).collect::<Result<_, _>>()?)
    }
}
