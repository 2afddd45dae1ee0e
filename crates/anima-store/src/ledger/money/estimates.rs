//! What we owe by our own estimate, call by call: what a provider's report has still to confirm.
//!
//! Begins with the legs that were estimates when they were posted, by an index of their own, and
//! reads all that was posted about their requests. Invariant: what is listed and what was posted
//! without a request add up to the account `payable_estimated`.

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::money::Currency;

use super::{currency_of, units};
use crate::ledger::session::{Failed, Mode, Session, Work};

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

/// Account, or empty for all; most. The two selects within each other hold SQLite to this order:
/// estimates first, not journals.
const OPEN: &str = "
    SELECT j.subject, l.attempt, a.code, COALESCE(t.model, ''),
           CAST(sum(CASE WHEN l.credit_id = a.id THEN l.amount ELSE -l.amount END) AS TEXT),
           l.currency, min(j.posted_at)
    FROM journal j
    JOIN leg l ON l.journal = j.id
    JOIN account a ON a.id IN (l.debit_id, l.credit_id) AND a.class = 2031
    LEFT JOIN attempt t ON t.hold = j.subject AND t.n = l.attempt
    WHERE j.subject IN (
              SELECT (SELECT o.subject FROM journal o WHERE o.id = e.journal)
              FROM leg e
              WHERE e.estimate AND e.attempt IS NOT NULL)
      AND ($1 = '' OR a.code = $1)
    GROUP BY j.subject, l.attempt, a.code, t.model, l.currency
    HAVING sum(CASE WHEN l.credit_id = a.id THEN l.amount ELSE -l.amount END) > 0
    ORDER BY min(j.posted_at), j.subject, l.attempt
    LIMIT $2";

/// The oldest estimates.
#[derive(Debug, Clone)]
pub(super) struct Estimates {
    pub(super) channel: Option<String>,
    pub(super) limit: u32,
}

impl Work for Estimates {
    type Output = Vec<Estimate>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let account = self.channel.as_ref().map(|channel| format!("payable_estimated:{channel}"));
        let account = account.unwrap_or_default();
        let limit = i64::from(self.limit);
        let records = session.query(OPEN, &[account.as_str().into(), limit.into()]).await?;
        let estimates = records.iter().map(|record| {
            let code = record.text(2)?;
            Ok(Estimate {
                request: record.id(0)?,
                attempt: record.maybe_int(1)?.and_then(|n| i16::try_from(n).ok()),
                channel: code.split_once(':').map_or(code, |(_, channel)| channel).to_owned(),
                model: record.text(3)?.to_owned(),
                amount: units(record.sum(4)?)?,
                currency: currency_of(record.text(5)?)?,
                posted_at: Timestamp::from_micros(record.int(6)?),
            })
        });
        estimates.collect()
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
        let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {OPEN}")).unwrap();
        let steps = explained.query_map(("", 10), |row| row.get::<_, String>(3)).unwrap();
        let scans: Vec<_> = steps.map(Result::unwrap).filter(|s| s.starts_with("SCAN")).collect();
        assert_eq!(scans, ["SCAN e USING INDEX leg_estimate"]);
    }
}
