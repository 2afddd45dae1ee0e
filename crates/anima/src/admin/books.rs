//! The ledger as an admin reads it: a request's postings, the trial balance, the invariants.
//!
//! Amounts are decimal strings in their currency. Read only: money moves through calls and through
//! the movements of `apps`.

use serde_json::{Value, json};
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::money::{Currency, Money};
use anima_store::ledger::{Finding, Posting, TrialLine};

use super::Admin;
use super::call::Call;
use super::problem::{Code, Problem};
use super::reply::Reply;

/// The postings about one request, or about one top-up.
///
/// # Errors
/// A bad query, or the ledger's.
pub(crate) async fn postings(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&["request_id"])?;
    let Some(text) = call.query.get("request_id") else {
        return Err(Problem::member(Code::InvalidMember, "request_id", "is required"));
    };
    let postings = admin.stores.ledger.postings(request_id(text)?).await?;
    Ok(Reply::page(postings.iter().map(show_posting).collect(), Value::Null))
}

/// Reads a request's id.
///
/// # Errors
/// When it is not one.
pub(super) fn request_id(text: &str) -> Result<Uuid, Problem> {
    // `req_` and 32 hex digits is how replies write a request's id; `Uuid` reads the other forms.
    let bare = text.strip_prefix("req_").unwrap_or(text);
    Uuid::try_parse(bare)
        .map_err(|_other| Problem::invalid("request_id", "req_ and 32 hex digits, or a UUID"))
}

pub(super) fn show_posting(posting: &Posting) -> Value {
    let price = posting.price.as_ref();
    json!({
        "journal": posting.journal,
        "kind": posting.kind,
        "subject": posting.subject,
        "request_id": format!("req_{}", posting.subject.simple()),
        "n": posting.n,
        "debit": posting.debit,
        "credit": posting.credit,
        "amount": Money::new(posting.amount, posting.currency).to_string(),
        "currency": posting.currency,
        "component": posting.component,
        "attempt": posting.attempt,
        "price": price.map(|(code, version_no)| json!({"code": code, "version_no": version_no})),
        "estimate": posting.estimate,
        "reference": posting.reference,
        "posted_at": posting.posted_at,
    })
}

/// The trial balance, by account, with the totals of each currency: of now, or just before `at`.
///
/// # Errors
/// A bad query, or the ledger's.
pub(crate) async fn trial_balance(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&["at"])?;
    let lines = match call.query.get("at") {
        None => admin.stores.ledger.trial_balance().await?,
        Some(text) => match Timestamp::parse(text) {
            Some(at) => admin.stores.money.trial_balance_at(at).await?,
            None => return Err(Problem::invalid("at", "an RFC 3339 time")),
        },
    };
    let mut totals: Vec<(Currency, i128, i128)> = Vec::new();
    for line in &lines {
        match totals.iter_mut().find(|total| total.0 == line.currency) {
            Some(total) => {
                total.1 = total.1.saturating_add(line.debits);
                total.2 = total.2.saturating_add(line.credits);
            }
            None => totals.push((line.currency, line.debits, line.credits)),
        }
    }
    let totals: Vec<Value> = totals
        .into_iter()
        .map(|(currency, debits, credits)| {
            json!({
                "currency": currency,
                "debits": decimal(debits, currency),
                "credits": decimal(credits, currency),
            })
        })
        .collect();
    let items = lines.iter().map(show_line).collect();
    Ok(Reply::page(items, Value::Null).with_member("totals", Value::Array(totals)))
}

fn show_line(line: &TrialLine) -> Value {
    json!({
        "account": line.account,
        "class": line.class,
        "currency": line.currency,
        "debits": decimal(line.debits, line.currency),
        "credits": decimal(line.credits, line.currency),
    })
}

/// Checks the invariants now. A breach is a finding, not an error of the call.
///
/// # Errors
/// The ledger's.
pub(crate) async fn verify(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[])?;
    let findings = admin.stores.ledger.verify(admin.clock.now()).await?;
    let ok = findings.iter().all(|finding| finding.breaches.is_empty());
    let findings: Vec<Value> = findings.iter().map(show_finding).collect();
    Ok(Reply::ok(json!({ "ok": ok, "findings": findings })))
}

fn show_finding(finding: &Finding) -> Value {
    json!({
        "invariant": finding.invariant,
        "statement": finding.statement,
        "checked": finding.checked,
        "ok": finding.breaches.is_empty(),
        "breaches": finding.breaches,
        "not_applicable": finding.not_applicable,
    })
}

/// A sum of many amounts, which may not fit [`Money`], written like one.
fn decimal(units: i128, currency: Currency) -> String {
    let width = usize::from(currency.scale());
    let digits = format!("{:0>1$}", units.unsigned_abs(), width.saturating_add(1));
    let (whole, rest) = digits.split_at(digits.len().saturating_sub(width));
    let kept = rest.trim_end_matches('0').len().max(2).min(width);
    let sign = if units < 0 { "-" } else { "" };
    format!("{sign}{whole}.{}", rest.get(..kept).unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_written_like_money() {
        for units in [0, 1, -1, 10, 1_000_000_000, 2_500_000_000, -10_000_000_001, i64::MAX] {
            for currency in [Currency::USD, Currency::parse("JPY").unwrap()] {
                let money = Money::new(units, currency).to_string();
                assert_eq!(decimal(units.into(), currency), money);
            }
        }
        let large = i128::from(i64::MAX) * 10;
        assert_eq!(decimal(large, Currency::USD), "92233720368.54775807");
    }
}
