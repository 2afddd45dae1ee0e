//! What we owe by our own estimate, call by call: what a provider's report has still to confirm.
//!
//! Begins with the legs that were estimates when they were posted, by an index of their own, and
//! reads all that was posted about their requests. Invariant: what is listed and what was posted
//! without a request add up to the account `payable_estimated`.

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::money::Currency;

use super::{currency_of, units};
use crate::ledger::session::{Failed, Mode, Session, Value, Work};

/// The estimated cost of one upstream call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// The request.
    pub request: Uuid,
    /// Which of its upstream calls. `None` for what is not about a call.
    pub attempt: Option<i16>,
    /// Which channel.
    pub channel: String,
    /// The upstream model; empty for what is not about a call.
    pub model: String,
    /// In units, above 0.
    pub amount: i64,
    /// Of the amount.
    pub currency: Currency,
    /// Since when.
    pub posted_at: Timestamp,
}

/// Which estimates. What is `None` is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EstimatesOf {
    /// Of one channel.
    pub channel: Option<String>,
    /// In one currency.
    pub currency: Option<Currency>,
    /// Of upstream calls that began from here on; what is of no call counts as of its posting.
    pub from: Option<Timestamp>,
    /// And before here.
    pub to: Option<Timestamp>,
    /// At most so many.
    pub limit: u32,
}

/// What is estimated of one channel's calls of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EstimatedDay {
    /// Which channel.
    pub channel: String,
    /// Of the amount.
    pub currency: Currency,
    /// Days since 1970, UTC, by when the calls began.
    pub day: i64,
    /// Upstream calls.
    pub calls: i64,
    /// In units.
    pub amount: i64,
}

/// Account and currency, or empty for all; from, to; most. The two selects within each other hold
/// SQLite to this order: estimates first, not journals.
macro_rules! open {
    ($columns:literal, $end:literal) => {
        concat!(
            $columns,
            "
    FROM (
        SELECT j.subject, l.attempt, a.code, COALESCE(t.model, '') AS model, l.currency,
               sum(CASE WHEN l.credit_id = a.id THEN l.amount ELSE -l.amount END) AS amount,
               min(j.posted_at) AS posted_at,
               min(COALESCE(t.started_at, j.posted_at)) AS began_at
        FROM journal j
        JOIN leg l ON l.journal = j.id
        JOIN account a ON a.id IN (l.debit_id, l.credit_id) AND a.class = 2031
        LEFT JOIN attempt t ON t.hold = j.subject AND t.n = l.attempt
        WHERE j.subject IN (
                  SELECT (SELECT o.subject FROM journal o WHERE o.id = e.journal)
                  FROM leg e
                  WHERE e.estimate AND e.attempt IS NOT NULL)
          AND ($1 = '' OR a.code = $1) AND ($2 = '' OR l.currency = $2)
        GROUP BY j.subject, l.attempt, a.code, t.model, l.currency
        HAVING sum(CASE WHEN l.credit_id = a.id THEN l.amount ELSE -l.amount END) > 0
    ) AS cost
    WHERE began_at >= $3 AND began_at < $4
    ",
            $end
        )
    };
}

const BY_CALL: &str = open!(
    "SELECT subject, attempt, code, model, CAST(amount AS TEXT), currency, posted_at",
    "ORDER BY posted_at, subject, attempt LIMIT $5"
);

const BY_DAY: &str = open!(
    "SELECT code, currency, began_at / 86400000000, count(*), CAST(sum(amount) AS TEXT)",
    "GROUP BY 1, 2, 3 ORDER BY 3, 1, 2 LIMIT $5"
);

impl EstimatesOf {
    fn parameters(&self) -> [Value; 5] {
        let account = self.channel.as_ref().map(|channel| format!("payable_estimated:{channel}"));
        let bound = |at: Option<Timestamp>, open| at.map_or(open, Timestamp::micros);
        [
            account.unwrap_or_default().as_str().into(),
            self.currency.as_ref().map_or("", Currency::code).into(),
            bound(self.from, i64::MIN).into(),
            bound(self.to, i64::MAX).into(),
            i64::from(self.limit).into(),
        ]
    }
}

/// The channel of an account's code.
fn channel_of(code: &str) -> String {
    code.split_once(':').map_or(code, |(_, channel)| channel).to_owned()
}

/// One by one, the oldest first.
#[derive(Debug, Clone)]
pub(super) struct ByCall(pub(super) EstimatesOf);

impl Work for ByCall {
    type Output = Vec<Estimate>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let records = session.query(BY_CALL, &self.0.parameters()).await?;
        let estimates = records.iter().map(|record| {
            Ok(Estimate {
                request: record.id(0)?,
                attempt: record.maybe_int(1)?.and_then(|n| i16::try_from(n).ok()),
                channel: channel_of(record.text(2)?),
                model: record.text(3)?.to_owned(),
                amount: units(record.sum(4)?)?,
                currency: currency_of(record.text(5)?)?,
                posted_at: Timestamp::from_micros(record.int(6)?),
            })
        });
        estimates.collect()
    }
}

/// Added up by channel, currency and day.
#[derive(Debug, Clone)]
pub(super) struct ByDay(pub(super) EstimatesOf);

impl Work for ByDay {
    type Output = Vec<EstimatedDay>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let records = session.query(BY_DAY, &self.0.parameters()).await?;
        let days = records.iter().map(|record| {
            Ok(EstimatedDay {
                channel: channel_of(record.text(0)?),
                currency: currency_of(record.text(1)?)?,
                day: record.int(2)?,
                calls: record.int(3)?,
                amount: units(record.sum(4)?)?,
            })
        });
        days.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{self, Location};
    use crate::ledger::tests::fixtures;

    #[tokio::test]
    async fn estimates_are_found_by_their_index_and_nothing_is_read_whole() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("a.db");
        let location = Location::Sqlite(file.clone());
        let stores = database::open(&location, &fixtures::opener()).await.unwrap();
        drop(stores);
        let connection = rusqlite::Connection::open(file).unwrap();
        for text in [BY_CALL, BY_DAY] {
            let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
            let steps = explained.query_map(("", "", 0, 0, 10), |row| row.get::<_, String>(3));
            let steps = steps.unwrap().map(Result::unwrap);
            let scans: Vec<_> =
                steps.filter(|s| s.starts_with("SCAN") && s != "SCAN cost").collect();
            assert_eq!(scans, ["SCAN e USING INDEX leg_estimate"]);
        }
    }
}
