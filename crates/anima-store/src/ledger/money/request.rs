//! A request as it is recorded: what a report about it is checked against and priced by.
//!
//! Not here: what is booked about it now, which the judge reads under lock. Invariant: what was
//! recorded when it was settled is never changed, so it can be read without a lock.

use std::sync::Arc;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Attempt, AttemptCost, PriceRef};
use anima_core::money::{Currency, Multiplier};
use anima_core::usage::{Usage, UsageSource};

use super::currency_of;
use crate::ledger::Error;
use crate::ledger::session::{Failed, Mode, Record, Session, Work};
use crate::ledger::spool::record::outcome;

/// A request whose hold is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose.
    pub app: Arc<str>,
    /// Of the wallet.
    pub currency: Currency,
    /// When it was settled or released.
    pub closed_at: Timestamp,
    /// Something was sold, when it was closed or by a correction since.
    pub is_sold: bool,
    /// The sale price pinned at admission.
    pub sale_price: PriceRef,
    /// The conversion rate pinned with it.
    pub fx: Option<PriceRef>,
    /// The caller's factor on the sale price.
    pub multiplier: Multiplier,
    /// Its upstream calls with what they were booked for at first, in order. Without their usage.
    pub attempts: Vec<Attempt>,
}

/// What was released may have been sold by a correction (kind 10): an answer that was given while
/// the database was away. Its sale legs (component 1) take of the customer's money (2010) or credit
/// (2020), or give back.
const HOLD: &str = "
    SELECT h.app, h.currency, h.state, p.code, p.version_no, f.code, f.version_no, h.multiplier,
           h.closed_at,
           CASE h.state WHEN 'SETTLED' THEN 1
                ELSE CASE WHEN (
                    SELECT sum(CASE WHEN d.class IN (2010, 2020) THEN l.amount
                                    ELSE -l.amount END)
                    FROM journal j
                    JOIN leg l ON l.journal = j.id
                    JOIN account d ON d.id = l.debit_id
                    WHERE j.subject = h.id AND j.kind = 10 AND l.component = 1) > 0
                THEN 1 ELSE 0 END END
    FROM hold h
    JOIN price_ref p ON p.id = h.price_id
    LEFT JOIN price_ref f ON f.id = h.fx_id
    WHERE h.id = $1";

const ATTEMPTS: &str = "
    SELECT a.n, a.channel, a.credential, a.model, a.outcome, CASE WHEN a.served THEN 1 ELSE 0 END,
           a.cost, a.cost_currency, c.code, c.version_no,
           CASE WHEN a.cost_estimate THEN 1 ELSE 0 END, a.started_at, a.ended_at
    FROM attempt a LEFT JOIN price_ref c ON c.id = a.cost_price_id
    WHERE a.hold = $1 ORDER BY a.n";

/// One request, by its hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct ById(pub(super) Uuid);

impl Work for ById {
    /// `None` when there is none, or its hold is open.
    type Output = Option<Request>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let Some(hold) = session.first(HOLD, &[self.0.into()]).await? else { return Ok(None) };
        let state = hold.text(2)?;
        if !["SETTLED", "RELEASED"].contains(&state) {
            return Ok(None);
        }
        let attempts = session.query(ATTEMPTS, &[self.0.into()]).await?;
        let ppm = u64::try_from(hold.int(7)?);
        Ok(Some(Request {
            app: hold.text(0)?.into(),
            currency: currency_of(hold.text(1)?)?,
            closed_at: Timestamp::from_micros(hold.int(8)?),
            is_sold: hold.int(9)? == 1,
            sale_price: PriceRef { code: hold.text(3)?.into(), version_no: hold.int(4)? },
            fx: price(&hold, 5)?,
            multiplier: ppm.map_or(Multiplier::ONE, Multiplier::from_ppm),
            attempts: attempts.iter().map(attempt).collect::<Result<_, Error>>()?,
        }))
    }
}

/// A price's code in column `n`, and its version in the next.
fn price(record: &Record, n: usize) -> Result<Option<PriceRef>, Error> {
    let (code, version_no) = (record.maybe_text(n)?, record.maybe_int(n.saturating_add(1))?);
    Ok(code.zip(version_no).map(|(code, version_no)| PriceRef { code: code.into(), version_no }))
}

fn attempt(record: &Record) -> Result<Attempt, Error> {
    let cost = match (record.maybe_int(6)?, record.maybe_text(7)?, price(record, 8)?) {
        (Some(amount), Some(code), Some(price)) => {
            let (currency, estimate) = (currency_of(code)?, record.int(10)? == 1);
            Some(AttemptCost { amount, currency, price, estimate })
        }
        _ => None,
    };
    let n = i16::try_from(record.int(0)?);
    Ok(Attempt {
        n: n.map_err(|wide| Error::Refused(format!("the number of an attempt: {wide}")))?,
        channel: record.text(1)?.into(),
        credential: record.text(2)?.into(),
        model: record.text(3)?.into(),
        outcome: outcome(record.text(4)?.to_owned()),
        served: record.int(5)? == 1,
        usage: Usage::default(),
        usage_source: UsageSource::None,
        cost,
        upstream_ref: None,
        started_at: Timestamp::from_micros(record.int(11)?),
        first_byte_at: None,
        ended_at: Timestamp::from_micros(record.int(12)?),
    })
}
