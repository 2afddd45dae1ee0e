//! What providers bill by channel and day, beside what the books say that those days cost.
//!
//! A day's cost is all that is owed for the calls that began on it (UTC), confirmed and estimated,
//! with every later correction. Not here: bookings; a figure on an invoice posts nothing, and what
//! is known call by call is booked as a true-up. Invariant: what was noted stays; the last figure
//! of a day counts. Source: `reliability` 1.12, I12.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use anima_core::clock::Timestamp;
use anima_core::ledger::Account;
use anima_core::money::Currency;

use super::estimates::{ByDay, EstimatedDay, EstimatesOf};
use super::{Books, currency_of, first_journal, units};
use crate::ledger::Error;
use crate::ledger::session::{Failed, Mode, Record, Session, Value, Work};

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

/// How much earlier than a call's day its request may have begun, days.
const EARLIER: i64 = 8;

/// A bill may differ from the books by so many parts of itself: 0.5 %.
const PARTS: i64 = 200;

/// A provider's bill for calls of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// The channel's code.
    pub channel: Arc<str>,
    /// Of the amounts.
    pub currency: Currency,
    /// The document's number.
    pub reference: String,
    /// Days since 1970 (UTC) with what is billed for their calls, in units; each day once.
    pub days: Vec<(i64, i64)>,
    /// When it was noted.
    pub at: Timestamp,
}

/// A day of which an invoice is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoicedDay {
    /// The channel's code.
    pub channel: String,
    /// Of the amounts.
    pub currency: Currency,
    /// Days since 1970, UTC.
    pub day: i64,
    /// What the provider bills, in units.
    pub billed: i64,
    /// What the books say, as providers reported it, in units.
    pub confirmed: i64,
    /// What they say by our own estimate, in units.
    pub estimated: i64,
    /// The document's number.
    pub reference: String,
    /// When it was noted.
    pub noted_at: Timestamp,
}

impl InvoicedDay {
    /// What is billed above what is booked, in units.
    pub const fn difference(&self) -> i64 {
        self.billed.saturating_sub(self.confirmed.saturating_add(self.estimated))
    }

    /// Whether that is more than 0.5 % of the bill, and more than what its rounding can explain.
    pub fn is_off(&self) -> bool {
        let booked = i128::from(self.confirmed).saturating_add(self.estimated.into());
        is_billed_off(self.billed, booked, self.currency)
    }
}

/// Whether a bill differs from the books by more than 0.5 % of itself and by more than half of the
/// currency's smallest coin, to which bills are rounded.
pub(in crate::ledger) fn is_billed_off(billed: i64, booked: i128, currency: Currency) -> bool {
    let difference = i128::from(billed).saturating_sub(booked).saturating_abs();
    let relative = billed / PARTS;
    difference > i128::from(relative.max(currency.half_coin()))
}

/// Notes invoices and compares them.
#[async_trait]
pub trait Invoices: Send + Sync + std::fmt::Debug {
    /// Notes what is billed, and gives its days as they compare now. What is noted already is not
    /// noted again.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn note_invoice(&self, invoice: Invoice) -> Result<Vec<InvoicedDay>, Error>;

    /// The latest days of which an invoice is known, of one channel or of all.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn invoices(&self, channel: Option<&str>, limit: u32) -> Result<Vec<InvoicedDay>, Error>;

    /// Costs that no report has confirmed, by channel, currency and day, the oldest day first. The
    /// limit is of days.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn estimated_days(&self, of: EstimatesOf) -> Result<Vec<EstimatedDay>, Error>;
}

#[async_trait]
impl Invoices for Books {
    async fn note_invoice(&self, invoice: Invoice) -> Result<Vec<InvoicedDay>, Error> {
        self.run(invoice).await
    }

    async fn invoices(&self, channel: Option<&str>, limit: u32) -> Result<Vec<InvoicedDay>, Error> {
        self.run(Listed { channel: channel.unwrap_or_default().to_owned(), limit }).await
    }

    async fn estimated_days(&self, of: EstimatesOf) -> Result<Vec<EstimatedDay>, Error> {
        self.run(ByDay(of)).await
    }
}

/// Channel, currency, day.
const LATEST: &str = "
    SELECT seq, amount, reference FROM invoice_day
    WHERE channel = $1 AND currency = $2 AND day = $3
    ORDER BY seq DESC LIMIT 1";

/// Channel, currency, day, amount, reference.
const NOTED: &str = "
    SELECT 1 FROM invoice_day
    WHERE channel = $1 AND currency = $2 AND day = $3 AND amount = $4 AND reference = $5
    LIMIT 1";

/// Channel, currency, day, number, amount, reference, instant.
const NOTE: &str = "
    INSERT INTO invoice_day (channel, currency, day, seq, amount, reference, noted_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT DO NOTHING";

impl Work for Invoice {
    type Output = Vec<InvoicedDay>;

    const MODE: Mode = Mode::Write;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let mut noted = Vec::with_capacity(self.days.len());
        for (day, amount) in &self.days {
            noted.push(self.note(session, *day, *amount).await?);
        }
        compare(session, &self.channel, &mut noted).await?;
        Ok(noted)
    }
}

impl Invoice {
    async fn note(
        &self,
        session: &mut Session<'_>,
        day: i64,
        amount: i64,
    ) -> Result<InvoicedDay, Failed> {
        let key = || [(&*self.channel).into(), self.currency.code().into(), Value::from(day)];
        let (mut billed, mut reference) = (amount, self.reference.clone());
        let same = key().into_iter().chain([amount.into(), self.reference.as_str().into()]);
        let noted = session.first(NOTED, &same.collect::<Vec<_>>()).await?.is_some();
        let latest = session.first(LATEST, &key()).await?;
        let seq = match &latest {
            // Sent again, late: what came after it stands.
            Some(row) if noted => {
                (billed, reference) = (row.int(1)?, row.text(2)?.to_owned());
                row.int(0)?
            }
            Some(row) => row.int(0)?,
            None => 0,
        };
        if !noted {
            let values =
                [seq.saturating_add(1).into(), amount.into(), self.reference.as_str().into()];
            let row: Vec<Value> =
                key().into_iter().chain(values).chain([self.at.micros().into()]).collect();
            if session.execute(NOTE, &row).await? == 0 {
                return Err(Failed::Met("an invoice of the same day was noted".to_owned()));
            }
        }
        Ok(InvoicedDay {
            channel: self.channel.to_string(),
            currency: self.currency,
            day,
            billed,
            confirmed: 0,
            estimated: 0,
            reference,
            noted_at: self.at,
        })
    }
}

/// Channel, or empty for all; most.
const LISTED: &str = "
    SELECT i.channel, i.currency, i.day, i.amount, i.reference, i.noted_at
    FROM invoice_day i
    WHERE ($1 = '' OR i.channel = $1)
      AND i.seq = (SELECT max(n.seq) FROM invoice_day n
                   WHERE n.channel = i.channel AND n.currency = i.currency AND n.day = i.day)
    ORDER BY i.day DESC, i.channel, i.currency
    LIMIT $2";

#[derive(Debug, Clone)]
struct Listed {
    channel: String,
    limit: u32,
}

impl Work for Listed {
    type Output = Vec<InvoicedDay>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let parameters = [self.channel.as_str().into(), i64::from(self.limit).into()];
        let records = session.query(LISTED, &parameters).await?;
        let listed = records.iter().map(|record| {
            Ok(InvoicedDay {
                channel: record.text(0)?.to_owned(),
                currency: currency_of(record.text(1)?)?,
                day: record.int(2)?,
                billed: record.int(3)?,
                confirmed: 0,
                estimated: 0,
                reference: record.text(4)?.to_owned(),
                noted_at: Timestamp::from_micros(record.int(5)?),
            })
        });
        let mut listed = listed.collect::<Result<Vec<_>, Error>>()?;
        compare(session, &self.channel, &mut listed).await?;
        Ok(listed)
    }
}

/// The lowest id of a request, start, end, channel or empty for all. Found by the request's id.
const BOOKED: &str = "
    SELECT t.channel, l.currency, CAST(t.started_at / 86400000000 AS bigint), a.class,
           CAST(sum(CASE WHEN l.credit_id = a.id THEN l.amount ELSE -l.amount END) AS TEXT)
    FROM attempt t
    JOIN journal j ON j.subject = t.hold
    JOIN leg l ON l.journal = j.id AND l.attempt = t.n
    JOIN account a ON a.id IN (l.debit_id, l.credit_id) AND a.class IN (2030, 2031)
    WHERE t.hold >= $1 AND t.started_at >= $2 AND t.started_at < $3
      AND ($4 = '' OR t.channel = $4)
    GROUP BY 1, 2, 3, 4";

/// Fills in what is booked for the days.
async fn compare(
    session: &mut Session<'_>,
    channel: &str,
    days: &mut [InvoicedDay],
) -> Result<(), Failed> {
    let all = || days.iter().map(|invoiced| invoiced.day);
    let (Some(first), Some(last)) = (all().min(), all().max()) else { return Ok(()) };
    let at = |day: i64| Timestamp::from_micros(day.saturating_mul(DAY_US));
    let from = first_journal(at(first.saturating_sub(EARLIER)));
    let (start, end) = (at(first).micros(), at(last.saturating_add(1)).micros());
    let parameters = [from.into(), start.into(), end.into(), channel.into()];
    let mut booked: BTreeMap<(String, String, i64, bool), i64> = BTreeMap::new();
    for record in session.query(BOOKED, &parameters).await? {
        let (key, amount) = booked_day(&record)?;
        booked.insert(key, amount);
    }
    for invoiced in days {
        let of = |is_estimated| {
            let currency = invoiced.currency.code().to_owned();
            let key = (invoiced.channel.clone(), currency, invoiced.day, is_estimated);
            booked.get(&key).copied().unwrap_or(0)
        };
        (invoiced.confirmed, invoiced.estimated) = (of(false), of(true));
    }
    Ok(())
}

type Key = (String, String, i64, bool);

fn booked_day(record: &Record) -> Result<(Key, i64), Error> {
    let estimated = i64::from(Account::PayableEstimated("".into()).class());
    let key = (
        record.text(0)?.to_owned(),
        record.text(1)?.to_owned(),
        record.int(2)?,
        record.int(3)? == estimated,
    );
    Ok((key, units(record.sum(4)?)?))
}
