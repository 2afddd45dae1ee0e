//! Providers' invoices: what they bill by channel and day, beside what the books say.
//!
//! An invoice is noted and compared; it posts nothing. A day that is off by more than 0.5 % is an
//! alarm here and a breach of I12 until an invoice or a true-up puts it right. Invariant: the same
//! figures again change nothing. Source: `reliability` 1.12, I12.

use std::collections::BTreeSet;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use anima_core::clock::Timestamp;
use anima_core::config::Resource;
use anima_core::money::{Currency, Money};
use anima_store::ledger::money::{Invoice, InvoicedDay};

use super::Admin;
use super::apps::{Noted, check_reference, note};
use super::call::Call;
use super::problem::{Code, Problem};
use super::reply::Reply;
use super::typed::typed;

/// Days of one invoice: a year and a day.
const DAYS_MAX: usize = 367;

/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// The payload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    channel: String,
    currency: Currency,
    reference: String,
    days: Vec<Day>,
    #[serde(default)]
    reason: Option<String>,
}

/// What is billed for a day.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Day {
    day: String,
    amount: String,
}

/// Notes an invoice and compares it.
///
/// # Errors
/// A bad member, a channel that there never was, or the ledger's.
pub(crate) async fn note_invoice(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[])?;
    let payload: Payload = typed(Value::Object(call.object()?))?;
    let days = checked(&payload)?;
    // One that was deleted may still be billed.
    let versions = admin.stores.config.versions(Resource::Channel, &payload.channel).await?;
    if versions.is_empty() {
        let detail = "no channel of that code exists";
        return Err(Problem::member(Code::UnknownReference, "channel", detail));
    }
    let invoice = Invoice {
        channel: payload.channel.as_str().into(),
        currency: payload.currency,
        reference: payload.reference.clone(),
        days,
        at: admin.clock.now(),
    };
    let days = admin.stores.money.note_invoice(invoice).await?;
    let off: Vec<&InvoicedDay> = days.iter().filter(|day| day.is_off()).collect();
    admin.watch.invoiced(&payload.channel, &off);
    let body = json!({
        "channel": payload.channel,
        "currency": payload.currency.code(),
        "reference": payload.reference,
        "off": off.len(),
        "days": days.iter().map(shown).collect::<Vec<_>>(),
    });
    let what = Noted { action: "invoice", resource: "channel", code: &payload.channel };
    note(admin, &call.caller.actor, what, payload.reason, body.clone()).await?;
    Ok(Reply::ok(body).with_status(StatusCode::CREATED))
}

/// The days with their amounts in units.
fn checked(payload: &Payload) -> Result<Vec<(i64, i64)>, Problem> {
    check_reference(&payload.reference)?;
    if payload.reference.trim().is_empty() {
        return Err(Problem::invalid("reference", "the number of the invoice"));
    }
    if payload.days.is_empty() || payload.days.len() > DAYS_MAX {
        return Err(Problem::invalid("days", "1 to 367 days"));
    }
    let mut seen = BTreeSet::new();
    let mut days = Vec::with_capacity(payload.days.len());
    for (at, billed) in payload.days.iter().enumerate() {
        let Some(day) = day_of(&billed.day).filter(|day| seen.insert(*day)) else {
            let expected = "a day such as 2026-01-31, each once";
            return Err(Problem::invalid(format!("days[{at}].day"), expected));
        };
        let amount = Money::parse(&billed.amount, payload.currency).ok();
        let Some(amount) = amount.filter(|amount| amount.units >= 0) else {
            let expected = "a decimal in a string, 0 or above, in the currency of the invoice";
            return Err(Problem::invalid(format!("days[{at}].amount"), expected));
        };
        days.push((day, amount.units));
    }
    Ok(days)
}

/// Days since 1970, from the year 1970 on.
pub(crate) fn day_of(text: &str) -> Option<i64> {
    let start = Timestamp::parse(&format!("{text}T00:00:00Z"))?;
    (text.len() == 10 && start.seconds() >= 0).then(|| start.seconds() / DAY_S)
}

/// Its first instant.
pub(crate) const fn start_of(day: i64) -> Timestamp {
    Timestamp::from_micros(day.saturating_mul(DAY_S).saturating_mul(1_000_000))
}

/// A day as `day_of` reads it.
pub(crate) fn day_text(day: i64) -> String {
    let start = start_of(day).to_string();
    start.split('T').next().unwrap_or_default().to_owned()
}

/// Lists the latest days of which an invoice is known.
///
/// # Errors
/// A bad query, or the ledger's.
pub(crate) async fn invoices(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&["channel", "limit"])?;
    let channel = call.query.get("channel").map(String::as_str);
    let days = admin.stores.money.invoices(channel, call.limit()?).await?;
    Ok(Reply::page(days.iter().map(shown).collect(), Value::Null))
}

fn shown(of: &InvoicedDay) -> Value {
    let text = |units| Money::new(units, of.currency).to_string();
    json!({
        "channel": of.channel,
        "currency": of.currency.code(),
        "day": day_text(of.day),
        "billed": text(of.billed),
        "confirmed": text(of.confirmed),
        "estimated": text(of.estimated),
        "difference": text(of.difference()),
        "difference_percent": percent(of.difference(), of.billed),
        "off": of.is_off(),
        "reference": of.reference,
        "noted_at": of.noted_at,
    })
}

/// A share with two decimals, towards 0. `None` of nothing.
fn percent(part: i64, whole: i64) -> Option<String> {
    let hundredths = i128::from(part).checked_mul(10_000)?.checked_div(i128::from(whole))?;
    let sign = if hundredths < 0 { "-" } else { "" };
    let hundredths = hundredths.unsigned_abs();
    Some(format!("{sign}{}.{:02}", hundredths / 100, hundredths % 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_written_in_percent() {
        let shown = |part, whole| percent(part, whole).unwrap();
        assert_eq!((shown(1, 200), shown(-1, 3)), ("0.50".to_owned(), "-33.33".to_owned()));
        assert_eq!((shown(0, 7), shown(-1, 100_000)), ("0.00".to_owned(), "0.00".to_owned()));
        assert_eq!((shown(14, 7), percent(1, 0)), ("200.00".to_owned(), None));
        assert_eq!(shown(i64::MIN, 1).len(), "-922337203685477580800.00".len());
    }

    #[test]
    fn a_day_is_ten_characters() {
        assert_eq!(
            (day_of("1970-01-02"), day_of("2026-02-29"), day_of("1969-12-31")),
            (Some(1), None, None)
        );
        for text in
            ["", "2026-1-1", "2026-01-01T00:00:00Z", "20260101", "2026-01-01+", " 2026-01-01"]
        {
            assert_eq!(day_of(text), None, "{text}");
        }
    }
}
