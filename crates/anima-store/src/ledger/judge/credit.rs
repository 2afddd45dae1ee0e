//! Promotional credit in front of the judge: what of it a call may use, and what it takes.
//!
//! Apps without promotional credit have no entry in `known.credits`, and pay one look into an empty
//! map. A hold is judged over money and credit together, in one balance under one lock; the part
//! that each of them pays is only decided at the settlement.
//! Invariant: a wallet's `promo` goes down by exactly what its grants' rows go down by.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use std::sync::Arc;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::promo::{take, usable};
use anima_core::ledger::{Account, Leg};
use anima_core::money::Currency;

use super::{Judge, too_large};
use crate::ledger::Error;
use crate::ledger::plan::{UseRow, Wallet};

impl Judge<'_, '_> {
    /// What a call that was admitted at `at` may use of the wallet's grants.
    pub(super) fn usable(&self, account_id: i64, at: Timestamp) -> i64 {
        self.known.credits.get(&account_id).map_or(0, |credits| usable(credits, at))
    }

    /// What of the wallet's promotional credit such a call may not use.
    pub(super) fn expired(&self, account_id: i64, at: Timestamp) -> i64 {
        let promo = self.known.wallets.get(&account_id).map_or(0, |wallet| wallet.promo);
        if promo == 0 { 0 } else { promo.saturating_sub(self.usable(account_id, at)) }
    }

    /// Takes the part of a settlement or a correction off the grants. The wallet is the caller's.
    pub(super) fn take_credit(
        &mut self,
        hold: Uuid,
        (account_id, at): (i64, Timestamp),
        promo: i64,
    ) {
        if promo > 0
            && let Some(credits) = self.known.credits.get_mut(&account_id)
        {
            let taken = take(credits, at, promo);
            self.plan.uses.extend(taken.into_iter().map(|taken| UseRow { hold, taken }));
        }
    }

    /// The account of a wallet's promotional credit, which its own row names.
    pub(super) fn promo_account(&self, account: &Account, currency: Currency) -> Option<i64> {
        let Account::Promo(app) = account else { return None };
        let wallet = self.directory.account(&Account::Wallet(Arc::clone(app)), currency)?;
        self.known.wallets.get(&wallet)?.promo_id
    }

    /// What a correction takes of promotional credit and gives back to it, in this order. Its
    /// wallet has less or more of it then. The grants' rows follow when the plan is written.
    pub(super) fn moved_credit(
        &self,
        legs: &[Leg],
        wallets: &mut Vec<(i64, Wallet)>,
    ) -> Result<(i64, i64), Error> {
        let (mut taken, mut returned) = (0_i64, 0_i64);
        for leg in legs {
            let (app, amount) = match (&leg.debit, &leg.credit) {
                (Account::Promo(app), _) => (app, leg.amount.saturating_neg()),
                (_, Account::Promo(app)) => (app, leg.amount),
                _ => continue,
            };
            let account_id = self.account(&Account::Wallet(Arc::clone(app)), leg.currency)?;
            if !wallets.iter().any(|(id, _)| *id == account_id) {
                let known = self.known.wallets.get(&account_id).copied();
                wallets.push((account_id, known.ok_or_else(|| super::not_loaded("a wallet"))?));
            }
            for (_, wallet) in wallets.iter_mut().filter(|(id, _)| *id == account_id) {
                wallet.promo = wallet.promo.checked_add(amount).ok_or_else(too_large)?;
                wallet.changed = true;
            }
            let sum = if amount < 0 { &mut taken } else { &mut returned };
            *sum = sum.checked_add(leg.amount).ok_or_else(too_large)?;
        }
        Ok((taken, returned))
    }
}
