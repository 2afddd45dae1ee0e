//! What we owe by our own estimate, call by call: what a provider's report has still to confirm.
//!
//! Reads all legs, as the verifier does for I10. Invariant: what is listed and what was posted
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

/// Account, or empty for all; most.
const OPEN: &str = "
    SELECT j.subject, x.attempt, a.code, COALESCE(t.model, ''), CAST(sum(x.amount) AS TEXT),
           x.currency, min(j.posted_at)
    FROM (SELECT journal, attempt, currency, credit_id AS account_id, amount FROM leg
          UNION ALL
          SELECT journal, attempt, currency, debit_id, -amount FROM leg) x
    JOIN account a ON a.id = x.account_id AND a.class = 2031
    JOIN journal j ON j.id = x.journal
    LEFT JOIN attempt t ON t.hold = j.subject AND t.n = x.attempt
    WHERE $1 = '' OR a.code = $1
    GROUP BY j.subject, x.attempt, a.code, t.model, x.currency
    HAVING sum(x.amount) > 0
    ORDER BY min(j.posted_at), j.subject, x.attempt
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
