//! Reading the books: balances, postings, the trial balance. The queries are one text for both
//! databases.
//!
//! Not here: the invariants (`audit`). Invariant: sums over accounts are made in 128 bits
//! here, because a database's sum may not fit its own integers.

use std::collections::BTreeMap;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Balance, Component, EntryKind};
use anima_core::money::Currency;

use super::{Error, Posting, TrialLine};

/// A wallet: code, currency → posted, held, floor, promotional credit.
pub(super) const BALANCE: &str = "
    SELECT g.posted, g.held, g.floor, g.promo
    FROM account a JOIN gated_balance g ON g.account_id = a.id
    WHERE a.code = $1 AND a.currency = $2";

/// The legs about a subject, in order: see [`PostingRow`].
pub(super) const POSTINGS: &str = "
    SELECT j.id, j.kind, j.subject, l.n, d.code, c.code, l.amount, l.currency, l.component,
           l.attempt, p.code, p.version_no, l.estimate, j.reference, j.posted_at
    FROM journal j
    JOIN leg l ON l.journal = j.id
    JOIN account d ON d.id = l.debit_id
    JOIN account c ON c.id = l.credit_id
    LEFT JOIN price_ref p ON p.id = l.price_id
    WHERE j.subject = $1
    ORDER BY j.posted_at, j.kind, j.seq, l.n";

/// Every balance row: see [`Line`]. Amounts as text, for they may be wider than 64 bits.
pub(super) const LINES: &str = "
    SELECT a.code, a.class, a.currency, CAST(b.debits AS TEXT), CAST(b.credits AS TEXT)
    FROM account_balance b JOIN account a ON a.id = b.account_id";

/// A row of [`POSTINGS`].
#[derive(Debug)]
pub(super) struct PostingRow {
    pub(super) journal: Uuid,
    pub(super) kind: i16,
    pub(super) subject: Uuid,
    pub(super) n: i16,
    pub(super) debit: String,
    pub(super) credit: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) component: i16,
    pub(super) attempt: Option<i16>,
    pub(super) price_code: Option<String>,
    pub(super) price_version: Option<i64>,
    pub(super) estimate: bool,
    pub(super) reference: String,
    pub(super) posted_at: i64,
}

/// A row of [`LINES`].
#[derive(Debug)]
pub(super) struct Line {
    pub(super) account: String,
    pub(super) class: i16,
    pub(super) currency: String,
    pub(super) debits: String,
    pub(super) credits: String,
}

fn damaged(what: &str) -> Error {
    Error::Refused(format!("a stored row cannot be read: {what}"))
}

fn currency(code: &str) -> Result<Currency, Error> {
    Currency::parse(code).map_err(|e| damaged(&format!("{code}: {e}")))
}

/// The wallet, or an empty one.
pub(super) fn balance(currency: Currency, found: Option<(i64, i64, i64, i64)>) -> Balance {
    let (posted, held, floor, promo) = found.unwrap_or_default();
    Balance { currency, posted, promo, held, floor }
}

impl PostingRow {
    /// Reads numbers and codes back into what they stand for.
    pub(super) fn read(self) -> Result<Posting, Error> {
        let component = Component::from_number(self.component);
        Ok(Posting {
            journal: self.journal,
            kind: EntryKind::from_number(self.kind).ok_or_else(|| damaged("the kind"))?,
            subject: self.subject,
            n: self.n,
            debit: self.debit,
            credit: self.credit,
            amount: self.amount,
            currency: currency(&self.currency)?,
            component: component.ok_or_else(|| damaged("the component"))?,
            attempt: self.attempt,
            price: self.price_code.zip(self.price_version),
            estimate: self.estimate,
            reference: self.reference,
            posted_at: Timestamp::from_micros(self.posted_at),
        })
    }
}

/// Sums lines by account and currency, sorted by code.
pub(super) fn trial_balance(lines: Vec<Line>) -> Result<Vec<TrialLine>, Error> {
    let mut sums: BTreeMap<(String, Currency), TrialLine> = BTreeMap::new();
    for line in lines {
        let currency = currency(&line.currency)?;
        let amount = |text: &str| text.parse::<i128>().map_err(|e| damaged(&e.to_string()));
        let (debits, credits) = (amount(&line.debits)?, amount(&line.credits)?);
        let sum = sums.entry((line.account.clone(), currency)).or_insert_with(|| TrialLine {
            account: line.account,
            class: line.class,
            currency,
            debits: 0,
            credits: 0,
        });
        sum.debits = sum.debits.checked_add(debits).ok_or_else(|| damaged("a sum"))?;
        sum.credits = sum.credits.checked_add(credits).ok_or_else(|| damaged("a sum"))?;
    }
    let moved = |line: &TrialLine| line.debits != 0 || line.credits != 0;
    Ok(sums.into_values().filter(moved).collect())
}
