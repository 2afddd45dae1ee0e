//! Everything that the ledger says of one request: its hold, open or closed, and its attempts.
//!
//! For people who look at one call; nothing is judged by it. Not here: its postings, which
//! [`crate::ledger::LedgerStore::postings`] reads. Invariant: read from one state of the database.

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::money::{Currency, Multiplier};

use super::currency_of;
use crate::ledger::Error;
use crate::ledger::session::{Failed, Mode, Record, Session, Work};

/// A price or a rate: its code and the version.
pub type Named = (String, i64);

/// A request as the ledger knows it. Amounts are units of their currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// Whose.
    pub app: String,
    /// Asked with which key.
    pub kid: String,
    /// What was asked for.
    pub alias: String,
    /// `HELD`, `SETTLED`, `RELEASED` or `UNKNOWN`.
    pub state: String,
    /// Of the wallet.
    pub currency: Currency,
    /// Reserved.
    pub held: i64,
    /// Taken from the wallet; `None` when nothing was sold.
    pub charged: Option<i64>,
    /// Sold, but more than the wallet had.
    pub uncollected: i64,
    /// Pinned at admission.
    pub sale_price: Named,
    /// The conversion rate pinned with it.
    pub fx: Option<Named>,
    /// The caller's factor on the sale price.
    pub multiplier: Multiplier,
    /// When it was held.
    pub created_at: Timestamp,
    /// When it was settled or released.
    pub closed_at: Option<Timestamp>,
    /// Its upstream calls, in order.
    pub attempts: Vec<StoryAttempt>,
}

/// An upstream call as it was booked first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoryAttempt {
    /// Counts up from 1.
    pub n: i64,
    /// Where it went.
    pub channel: String,
    /// With which credential.
    pub credential: String,
    /// The provider's name of the model.
    pub model: String,
    /// `ok` or the failure's reason.
    pub outcome: String,
    /// It answered the caller.
    pub served: bool,
    /// JSON: tokens and the like, by meter.
    pub usage: String,
    /// Who counted.
    pub usage_source: String,
    /// What it costs us; `None` when nothing.
    pub cost: Option<StoryCost>,
    /// The provider's own id of it.
    pub upstream_ref: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// When its first byte came.
    pub first_byte_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Timestamp,
}

/// What an upstream call costs us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoryCost {
    /// In units.
    pub amount: i64,
    /// Of the price.
    pub currency: Currency,
    /// Pinned at admission.
    pub price: Named,
    /// It rests on our own count.
    pub estimate: bool,
}

const HOLD: &str = "
    SELECT h.app, h.kid, h.alias, h.state, h.currency, h.amount, h.settled, h.uncollected,
           p.code, p.version_no, f.code, f.version_no, h.multiplier, h.created_at, h.closed_at
    FROM hold h
    JOIN price_ref p ON p.id = h.price_id
    LEFT JOIN price_ref f ON f.id = h.fx_id
    WHERE h.id = $1";

const ATTEMPTS: &str = "
    SELECT a.n, a.channel, a.credential, a.model, a.outcome, CASE WHEN a.served THEN 1 ELSE 0 END,
           CAST(a.usage AS TEXT), a.usage_source, a.cost, a.cost_currency, c.code, c.version_no,
           CASE WHEN a.cost_estimate THEN 1 ELSE 0 END, a.started_at, a.first_byte_at, a.ended_at,
           a.upstream_ref
    FROM attempt a LEFT JOIN price_ref c ON c.id = a.cost_price_id
    WHERE a.hold = $1 ORDER BY a.n";

/// One request, by its hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoryOf(pub(super) Uuid);

impl Work for StoryOf {
    /// `None` when nothing was ever held for it.
    type Output = Option<Story>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let Some(hold) = session.first(HOLD, &[self.0.into()]).await? else { return Ok(None) };
        let attempts = session.query(ATTEMPTS, &[self.0.into()]).await?;
        let attempts = attempts.iter().map(attempt).collect::<Result<_, Error>>()?;
        let ppm = u64::try_from(hold.int(12)?);
        Ok(Some(Story {
            app: hold.text(0)?.to_owned(),
            kid: hold.text(1)?.to_owned(),
            alias: hold.text(2)?.to_owned(),
            state: hold.text(3)?.to_owned(),
            currency: currency_of(hold.text(4)?)?,
            held: hold.int(5)?,
            charged: hold.maybe_int(6)?,
            uncollected: hold.int(7)?,
            sale_price: (hold.text(8)?.to_owned(), hold.int(9)?),
            fx: named(&hold, 10)?,
            multiplier: ppm.map_or(Multiplier::ONE, Multiplier::from_ppm),
            created_at: Timestamp::from_micros(hold.int(13)?),
            closed_at: hold.maybe_int(14)?.map(Timestamp::from_micros),
            attempts,
        }))
    }
}

/// A code in column `n`, and its version in the next.
fn named(record: &Record, n: usize) -> Result<Option<Named>, Error> {
    let (code, version_no) = (record.maybe_text(n)?, record.maybe_int(n.saturating_add(1))?);
    Ok(code.map(str::to_owned).zip(version_no))
}

fn attempt(record: &Record) -> Result<StoryAttempt, Error> {
    let cost = match (record.maybe_int(8)?, record.maybe_text(9)?, named(record, 10)?) {
        (Some(amount), Some(code), Some(price)) => {
            let (currency, estimate) = (currency_of(code)?, record.int(12)? == 1);
            Some(StoryCost { amount, currency, price, estimate })
        }
        _ => None,
    };
    let text = |n| Ok::<_, Error>(record.text(n)?.to_owned());
    Ok(StoryAttempt {
        n: record.int(0)?,
        channel: text(1)?,
        credential: text(2)?,
        model: text(3)?,
        outcome: text(4)?,
        served: record.int(5)? == 1,
        usage: text(6)?,
        usage_source: text(7)?,
        cost,
        upstream_ref: record.maybe_text(16)?.map(str::to_owned),
        started_at: Timestamp::from_micros(record.int(13)?),
        first_byte_at: record.maybe_int(14)?.map(Timestamp::from_micros),
        ended_at: Timestamp::from_micros(record.int(15)?),
    })
}
