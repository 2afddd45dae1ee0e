//! The small numbers that stand for accounts and prices in the database, remembered.
//!
//! Rows of `account` and `price_ref` never change, so what was once looked up stays true; only a
//! rolled-back insert must be forgotten. Invariant: it never holds more than [`MOST`] entries.

use std::collections::{HashMap, HashSet};

use anima_core::ledger::{Account, PriceRef};
use anima_core::money::Currency;

use super::operation::Item;

/// About 20 MiB when every app has a wallet in here. Beyond, all is forgotten and looked up again.
const MOST: usize = 200_000;

/// Ids by what they stand for.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// By currency. There are few, and most often one: a short list is found faster than a hash.
    accounts: Vec<(Currency, HashMap<Account, i64>)>,
    prices: HashMap<PriceRef, i64>,
    entries: usize,
}

/// What a batch names and the directory lacks. Each once.
#[derive(Debug, Default)]
pub(super) struct Missing {
    pub(super) accounts: Vec<(Account, Currency)>,
    pub(super) prices: Vec<PriceRef>,
}

impl Directory {
    /// The account's id.
    pub(super) fn account(&self, account: &Account, currency: Currency) -> Option<i64> {
        let of_currency = self.accounts.iter().find(|(known, _)| *known == currency);
        of_currency?.1.get(account).copied()
    }

    /// The price's id.
    pub(super) fn price(&self, price: &PriceRef) -> Option<i64> {
        self.prices.get(price).copied()
    }

    /// What has to be looked up before these operations can be judged.
    pub(super) fn missing(&mut self, items: &[Item]) -> Missing {
        if self.entries > MOST {
            self.forget();
        }
        let mut missing = Missing::default();
        let mut accounts = HashSet::new();
        let mut prices = HashSet::new();
        for item in items {
            item.operation.each_account(|account, currency| {
                let known = self.account(account, currency).is_some();
                if !known && accounts.insert((account.clone(), currency)) {
                    missing.accounts.push((account.clone(), currency));
                }
            });
            item.operation.each_price(|price| {
                if self.price(price).is_none() && prices.insert(price.clone()) {
                    missing.prices.push(price.clone());
                }
            });
        }
        missing
    }

    pub(super) fn learn_account(&mut self, account: Account, currency: Currency, id: i64) {
        self.entries = self.entries.saturating_add(1);
        match self.accounts.iter_mut().find(|(known, _)| *known == currency) {
            Some((_, ids)) => {
                ids.insert(account, id);
            }
            None => self.accounts.push((currency, HashMap::from([(account, id)]))),
        }
    }

    pub(super) fn learn_price(&mut self, price: PriceRef, id: i64) {
        self.entries = self.entries.saturating_add(1);
        self.prices.insert(price, id);
    }

    /// Remembers many at once: ids with the position, from 1, of what they are of.
    pub(super) fn learn_accounts(&mut self, accounts: &[(Account, Currency)], ids: &[(i64, i64)]) {
        for (n, id) in ids {
            if let Some((account, currency)) = at(accounts, *n) {
                self.learn_account(account.clone(), *currency, *id);
            }
        }
    }

    /// The same for prices.
    pub(super) fn learn_prices(&mut self, prices: &[PriceRef], ids: &[(i64, i64)]) {
        for (n, id) in ids {
            if let Some(price) = at(prices, *n) {
                self.learn_price(price.clone(), *id);
            }
        }
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

fn at<T>(wanted: &[T], n: i64) -> Option<&T> {
    wanted.get(usize::try_from(n.checked_sub(1)?).ok()?)
}
