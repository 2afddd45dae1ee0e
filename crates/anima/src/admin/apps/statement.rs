//! An app's statement of one month, as JSON or as CSV.
//!
//! Months are UTC. A month that is not over is shown as far as it has come. Invariant: opening and
//! lines give closing, for money and promotional credit alike; the store refuses to show it else.

use serde_json::{Value, json};

use anima_core::clock::Timestamp;
use anima_core::ledger::EntryKind;
use anima_core::money::{Currency, Money};
use anima_store::ledger::money::{LineKind, Period, Statement, StatementLine, Sums};

use super::balance::app_of;
use crate::admin::Admin;
use crate::admin::problem::Problem;
use crate::admin::reply::Reply;

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

/// A statement as it was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The app.
    pub(crate) app: &'a str,
    /// Written `2026-11`.
    pub(crate) month: &'a str,
    /// As CSV.
    pub(crate) is_csv: bool,
}

/// The statement.
///
/// # Errors
/// No such app, no month, or the ledger's.
pub(crate) async fn statement(admin: &Admin, asked: Asked<'_>) -> Result<Reply, Problem> {
    let row = app_of(admin, asked.app).await?;
    let wrong = || Problem::invalid("month", "a month such as 2026-01");
    let (from, to) = month(asked.month).ok_or_else(wrong)?;
    let period = Period { app: asked.app.into(), currency: row.currency, from, to };
    let statement = admin.stores.money.statement(period).await?;
    if asked.is_csv {
        let name = format!("{}-{}.csv", asked.app.replace(':', "_"), asked.month);
        return Ok(Reply::csv(csv(&statement, row.currency), &name));
    }
    Ok(Reply::ok(show(asked, (from, to), &statement, row.currency)))
}

/// The first instant of a month and that of the next.
fn month(text: &str) -> Option<(Timestamp, Timestamp)> {
    let (year, month) = text.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if year.len() != 4 || month.len() != 2 || !digits(year) || !digits(month) {
        return None;
    }
    let (year, month): (u16, u8) = (year.parse().ok()?, month.parse().ok()?);
    let start =
        |year: u16, month: u8| Timestamp::parse(&format!("{year:04}-{month:02}-01T00:00:00Z"));
    let next = if month == 12 { start(year.checked_add(1)?, 1) } else { start(year, month + 1) };
    Some((start(year, month)?, next?))
}

/// The word for a line.
const fn word(kind: LineKind) -> &'static str {
    match kind {
        LineKind::Sales => "sales",
        LineKind::Entry(EntryKind::Topup) => "topup",
        LineKind::Entry(EntryKind::Refund) => "refund",
        LineKind::Entry(EntryKind::Adjust) => "adjustment",
        LineKind::Entry(EntryKind::PromoGrant) => "promo_grant",
        LineKind::Entry(EntryKind::PromoExpiry) => "promo_expiry",
        LineKind::Entry(EntryKind::Trueup) => "correction",
        LineKind::Entry(EntryKind::Settle | EntryKind::ReleaseCost) => "settlement",
    }
}

/// A day as people write it.
fn date(day: i64) -> String {
    let text = Timestamp::from_micros(day.saturating_mul(DAY_US)).to_string();
    text.split('T').next().unwrap_or(&text).to_owned()
}

fn text(units: i64, currency: Currency) -> String {
    Money::new(units, currency).to_string()
}

fn show_sums(sums: Sums, currency: Currency) -> Value {
    json!({ "wallet": text(sums.money, currency), "promo": text(sums.promo, currency) })
}

fn show(
    asked: Asked<'_>,
    (from, to): (Timestamp, Timestamp),
    statement: &Statement,
    currency: Currency,
) -> Value {
    let line = |line: &StatementLine| {
        json!({
            "date": date(line.day),
            "kind": word(line.kind),
            "model": line.model,
            "subject": line.subject,
            "reference": line.reference,
            "count": line.count,
            "wallet": text(line.amount.money, currency),
            "promo": text(line.amount.promo, currency),
        })
    };
    json!({
        "app": asked.app,
        "month": asked.month,
        "from": from,
        "to": to,
        "currency": currency.code(),
        "opening": show_sums(statement.opening, currency),
        "lines": statement.lines.iter().map(line).collect::<Vec<_>>(),
        "closing": show_sums(statement.closing, currency),
    })
}

fn csv(statement: &Statement, currency: Currency) -> String {
    let total = |kind: &str, sums: Sums| {
        let (money, promo) = (text(sums.money, currency), text(sums.promo, currency));
        format!(",{kind},,,,,{money},{promo},{currency}\r\n")
    };
    let line = |line: &StatementLine| {
        format!(
            "{},{},{},{},{},{},{},{},{currency}\r\n",
            date(line.day),
            word(line.kind),
            field(line.model.as_deref().unwrap_or_default()),
            line.subject.map(|id| id.to_string()).unwrap_or_default(),
            field(&line.reference),
            line.count,
            text(line.amount.money, currency),
            text(line.amount.promo, currency),
        )
    };
    let head = "date,kind,model,subject,reference,count,wallet,promo,currency\r\n".to_owned();
    let lines = statement.lines.iter().map(line);
    [head, total("opening", statement.opening)]
        .into_iter()
        .chain(lines)
        .chain([total("closing", statement.closing)])
        .collect()
}

/// A text as a field (RFC 4180). What a spreadsheet would take for a formula gets an apostrophe.
fn field(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_half_open_and_anything_else_is_none() {
        let (from, to) = month("2026-12").unwrap();
        assert_eq!(from.to_string(), "2026-12-01T00:00:00Z");
        assert_eq!(to.to_string(), "2027-01-01T00:00:00Z");
        for bad in ["2026-13", "2026-00", "2026-1", "26-01", "2026-01-01", "", "2026", "+026-01"] {
            assert!(month(bad).is_none(), "{bad}");
        }
        assert_eq!(date(20_000), "2024-10-04");
    }

    #[test]
    fn fields_are_quoted_and_formulas_disarmed() {
        assert_eq!(field("plain"), "plain");
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(field("=SUM(A1)"), "'=SUM(A1)");
    }
}
