//! What stands in the books about a hold, read back into what a correction is judged from.
//!
//! Rows, the same for both databases. Invariant: every account and price that is read is remembered
//! in the directory, so that the judge can post to it.

use std::collections::HashMap;

use uuid::Uuid;

use anima_core::ledger::{Account, Component, EntryKind, Leg, PriceRef};
use anima_core::money::Currency;

use super::digest::Digest;
use super::directory::Directory;
use super::plan::{Booked, BookedTrueup};

/// One leg about a hold, with its journal and its accounts.
#[derive(Debug)]
pub(super) struct BookedLeg {
    pub(super) subject: Uuid,
    pub(super) journal: Uuid,
    pub(super) kind: i16,
    pub(super) seq: i16,
    pub(super) digest: Digest,
    pub(super) debit: (i64, String),
    pub(super) credit: (i64, String),
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) component: i16,
    pub(super) attempt: Option<i16>,
    /// Id, code and version.
    pub(super) price: Option<(i64, String, i64)>,
    pub(super) estimate: bool,
}

/// What customers got back by the legs of a correction, in units of the sale's currency.
pub(super) fn given_back(legs: &[Leg]) -> i64 {
    let is_customer = |account: &Account| matches!(account, Account::Wallet(_) | Account::Promo(_));
    let sale = legs.iter().filter(|leg| leg.component == Component::Sale);
    sale.map(|leg| if is_customer(&leg.debit) { leg.amount.saturating_neg() } else { leg.amount })
        .fold(0, i64::saturating_add)
}

/// Sorts legs and numbers of attempts by their holds.
///
/// # Errors
/// What cannot be read, in words.
pub(super) fn read(
    legs: Vec<BookedLeg>,
    attempts: Vec<(Uuid, i16)>,
    directory: &mut Directory,
) -> Result<HashMap<Uuid, Booked>, String> {
    let mut all: HashMap<Uuid, Booked> = HashMap::new();
    for row in legs {
        let booked = all.entry(row.subject).or_default();
        let (seq, journal, digest) = (row.seq, row.journal, row.digest);
        let is_trueup = row.kind == EntryKind::Trueup.number();
        let leg = leg(row, directory)?;
        if is_trueup {
            let given_back = given_back(std::slice::from_ref(&leg));
            match booked.trueups.iter_mut().find(|trueup| trueup.journal == journal) {
                Some(known) => known.given_back = known.given_back.saturating_add(given_back),
                None => booked.trueups.push(BookedTrueup { seq, journal, digest, given_back }),
            }
        }
        booked.legs.push(leg);
    }
    for (hold, n) in attempts {
        all.entry(hold).or_default().attempts.push(n);
    }
    Ok(all)
}

fn leg(row: BookedLeg, directory: &mut Directory) -> Result<Leg, String> {
    let currency = Currency::parse(&row.currency).map_err(|e| e.to_string())?;
    let component = Component::from_number(row.component).ok_or("a component that is not known")?;
    let mut account = |(id, code): (i64, String)| {
        let account =
            Account::parse(&code).ok_or_else(|| format!("no account is called {code}"))?;
        directory.learn_account(account.clone(), currency, id);
        Ok::<_, String>(account)
    };
    let (debit, credit) = (account(row.debit)?, account(row.credit)?);
    let price = row.price.map(|(id, code, version_no)| {
        let price = PriceRef { code: code.into(), version_no };
        directory.learn_price(price.clone(), id);
        price
    });
    Ok(Leg {
        debit,
        credit,
        amount: row.amount,
        currency,
        component,
        attempt: row.attempt,
        price,
        estimate: row.estimate,
    })
}
