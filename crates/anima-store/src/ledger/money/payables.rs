//! What we owe providers: confirmed by them or estimated by us, and for how long.
//!
//! A payment or a correction clears the oldest debt first. Ages are whole days, UTC.
//! Invariant: the ages of a line add up to what it owes.

use std::collections::BTreeMap;

use anima_core::clock::Timestamp;
use anima_core::ledger::Account;
use anima_core::money::Currency;

use super::{currency_of, units};
use crate::ledger::Error;
use crate::ledger::plan::day;
use crate::ledger::session::{Failed, Mode, Session, Work};

/// A debt by age, in units. I10 asks after what is estimated and older than a week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Age {
    /// Booked today or yesterday.
    pub new: i64,
    /// Two to seven days old.
    pub week: i64,
    /// Eight to thirty days old.
    pub month: i64,
    /// Older. Holds what is overpaid, too, below 0.
    pub older: i64,
}

impl Age {
    /// All of it, in units.
    pub const fn all(&self) -> i64 {
        self.new.saturating_add(self.week).saturating_add(self.month).saturating_add(self.older)
    }
}

/// What we owe one provider in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payable {
    /// The channel's code.
    pub channel: String,
    /// Of the amounts.
    pub currency: Currency,
    /// As the provider reported.
    pub confirmed: Age,
    /// By our own estimate.
    pub estimated: Age,
}

/// Debits and credits of payables by day, the oldest first.
const DAYS: &str = "
    SELECT a.code, a.class, a.currency, CAST(b.day AS bigint), CAST(sum(b.debits) AS TEXT),
           CAST(sum(b.credits) AS TEXT)
    FROM account_day b JOIN account a ON a.id = b.account_id
    WHERE a.class IN (2030, 2031)
    GROUP BY a.code, a.class, a.currency, b.day
    ORDER BY a.code, a.currency, b.day";

/// All payables.
#[derive(Debug, Clone)]
pub(super) struct Payables {
    pub(super) now: Timestamp,
}

/// One account's days: the day and the credits, and all debits.
#[derive(Debug, Default)]
struct Days {
    credits: Vec<(i64, i128)>,
    debits: i128,
}

impl Work for Payables {
    type Output = Vec<Payable>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let estimated = i64::from(Account::PayableEstimated("".into()).class());
        let mut accounts: BTreeMap<(String, String, bool), Days> = BTreeMap::new();
        for record in session.query(DAYS, &[]).await? {
            let is_estimated = record.int(1)? == estimated;
            let code = record.text(0)?;
            let channel = code.split_once(':').map_or(code, |(_, channel)| channel).to_owned();
            let key = (channel, record.text(2)?.to_owned(), is_estimated);
            let days = accounts.entry(key).or_default();
            days.credits.push((record.int(3)?, record.sum(5)?));
            days.debits = days.debits.saturating_add(record.sum(4)?);
        }
        let today = day(self.now);
        let mut payables: BTreeMap<(String, String), Payable> = BTreeMap::new();
        for ((channel, code, is_estimated), days) in accounts {
            let age = days.age(today)?;
            let currency = currency_of(&code)?;
            let payable = payables.entry((channel.clone(), code)).or_insert_with(|| Payable {
                channel,
                currency,
                confirmed: Age::default(),
                estimated: Age::default(),
            });
            *(if is_estimated { &mut payable.estimated } else { &mut payable.confirmed }) = age;
        }
        let owed = |p: &Payable| p.confirmed != Age::default() || p.estimated != Age::default();
        Ok(payables.into_values().filter(owed).collect())
    }
}

impl Days {
    fn age(self, today: i64) -> Result<Age, Error> {
        let mut paid = self.debits;
        let mut age = Age::default();
        for (day, credit) in self.credits {
            let cleared = credit.min(paid);
            paid = paid.saturating_sub(cleared);
            let open = units(credit.saturating_sub(cleared))?;
            let slot = match today.saturating_sub(day) {
                ..2 => &mut age.new,
                2..8 => &mut age.week,
                8..31 => &mut age.month,
                _ => &mut age.older,
            };
            *slot = slot.saturating_add(open);
        }
        age.older = age.older.saturating_sub(units(paid)?);
        Ok(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_paid_clears_the_oldest_first() {
        let days = |debits| Days { credits: vec![(60, 10), (80, 5), (95, 7), (99, 3)], debits };
        let age = |debits| days(debits).age(100).unwrap();
        assert_eq!(age(0), Age { new: 3, week: 7, month: 5, older: 10 });
        assert_eq!(age(12), Age { new: 3, week: 7, month: 3, older: 0 });
        assert_eq!(age(25).all(), 0);
        assert_eq!(age(30), Age { older: -5, ..Age::default() });
    }
}
