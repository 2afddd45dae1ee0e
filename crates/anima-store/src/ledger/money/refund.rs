//! Gives back what a settled request was charged, whole or in part, once per key.
//!
//! No hold covers a refund: it only gives. It is judged under the wallet's lock, against everything
//! that is booked about the request: sales and corrections less earlier refunds. The customer's own
//! money comes back first, then promotional credit, to the grants it was taken of; what comes back
//! to a grant that has expired since expires again.
//! A crash before the commit leaves nothing; after it, the same key finds the refund's row.
//! Invariant: refunds of a request never come to more than it was charged (I8).
//! Source: `reliability` 1.4, and 1.6, row 17.

use std::sync::Arc;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Account, Component, Entry, EntryKind, promo};
use anima_core::money::Currency;

use super::booking::{self, Locked};
use super::{MoveError, units};
use crate::ledger::Error;
use crate::ledger::session::{Failed, Mode, Session, Work};

/// What is to be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// The request.
    pub request: Uuid,
    /// Whose it was.
    pub app: Arc<str>,
    /// Of the app's wallet.
    pub currency: Currency,
    /// In units, above 0; `None` is all that is left.
    pub amount: Option<i64>,
    /// Names the refund among those of its request.
    pub key: Uuid,
    /// Why, or a document's number.
    pub reference: String,
    /// When.
    pub at: Timestamp,
}

/// A refund that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refunded {
    /// The journal entry.
    pub journal: Uuid,
    /// Given back to the wallet, in units.
    pub to_money: i64,
    /// Given back to promotional credit, in units.
    pub to_promo: i64,
    /// What of the request could still be refunded, in units.
    pub left: i64,
    /// It had been posted before; nothing was posted now.
    pub replayed: bool,
}

const HOLD: &str = "SELECT state FROM hold WHERE id = $1 AND account_id = $2";

/// What the customer's accounts gave and got back for a request, by component 1 (sale) and 5
/// (refund).
const BOOKED: &str = "
    SELECT CAST(COALESCE(sum(CASE WHEN l.debit_id = $1 THEN l.amount
                                  WHEN l.credit_id = $1 THEN -l.amount ELSE 0 END), 0) AS TEXT),
           CAST(COALESCE(sum(CASE WHEN l.debit_id = $2 THEN l.amount
                                  WHEN l.credit_id = $2 THEN -l.amount ELSE 0 END), 0) AS TEXT)
    FROM journal j JOIN leg l ON l.journal = j.id
    WHERE j.subject = $3 AND l.component IN (1, 5)";

const BEFORE: &str = "
    SELECT r.key, r.journal, r.asked, r.to_money, r.to_promo, j.reference
    FROM refund r JOIN journal j ON j.id = r.journal WHERE r.hold = $1";

const ROW: &str = "
    INSERT INTO refund (hold, seq, key, journal, asked, to_money, to_promo)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// The last grant that was used is the first that gets back.
const USES: &str = "
    SELECT u.grant_id, u.amount - u.returned
    FROM promo_use u JOIN promo_grant g ON g.id = u.grant_id
    WHERE u.hold = $1 AND u.returned < u.amount ORDER BY g.expires_at DESC, g.id DESC";

const RETURN_USE: &str =
    "UPDATE promo_use SET returned = returned + $1 WHERE hold = $2 AND grant_id = $3";

const RETURN_GRANT: &str = "UPDATE promo_grant SET used = used - $1 WHERE id = $2";

/// What of a request is booked and not given back, in units.
#[derive(Debug, Clone, Copy)]
struct Left {
    money: i64,
    promo: i64,
}

impl Left {
    const fn all(self) -> i64 {
        self.money.saturating_add(self.promo)
    }
}

impl Work for Refund {
    type Output = Result<Refunded, MoveError>;

    const MODE: Mode = Mode::Write;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let wallet = Account::Wallet(Arc::clone(&self.app));
        let Some(account_id) = booking::find(session, &wallet, self.currency).await? else {
            return Err(Error::HoldUnknown.into());
        };
        let wallet = booking::lock(session, account_id).await?;
        let hold = session.first(HOLD, &[self.request.into(), account_id.into()]).await?;
        let state = hold.as_ref().map(|record| record.text(0)).transpose()?;
        let left = self.left(session, &wallet).await?;
        let before = session.query(BEFORE, &[self.request.into()]).await?;
        // What was released may have been sold by a correction: an answer that was given while the
        // database was away.
        let is_sold = match state {
            Some("SETTLED") => true,
            Some("RELEASED") => left.all() > 0 || !before.is_empty(),
            _ => false,
        };
        if !is_sold {
            return Err(Error::HoldUnknown.into());
        }
        for record in &before {
            if record.id(0)? == self.key {
                let same = record.maybe_int(2)? == self.amount && record.text(5)? == self.reference;
                if !same {
                    return Err(Error::Conflict.into());
                }
                return Ok(Ok(Refunded {
                    journal: record.id(1)?,
                    to_money: record.int(3)?,
                    to_promo: record.int(4)?,
                    left: left.all(),
                    replayed: true,
                }));
            }
        }
        let amount = self.amount.unwrap_or_else(|| left.all());
        if amount <= 0 || amount > left.all() {
            return Ok(Err(MoveError::TooMuch { left: left.all() }));
        }
        let seq = i16::try_from(before.len()).map_err(|e| Error::Refused(e.to_string()))?;
        let parts = promo::refund_parts(amount, left.money);
        let refunded = self.book(session, wallet, (seq, parts)).await?;
        Ok(Ok(Refunded { left: left.all().saturating_sub(amount), ..refunded }))
    }
}

impl Refund {
    async fn left(&self, session: &mut Session<'_>, wallet: &Locked) -> Result<Left, Failed> {
        let promo_id = wallet.promo_id.unwrap_or(-1);
        let accounts = [wallet.account_id.into(), promo_id.into(), self.request.into()];
        let booked = session.first(BOOKED, &accounts).await?;
        let Some(booked) = booked else { return Ok(Left { money: 0, promo: 0 }) };
        Ok(Left { money: units(booked.sum(0)?)?, promo: units(booked.sum(1)?)? })
    }

    async fn book(
        &self,
        session: &mut Session<'_>,
        mut wallet: Locked,
        (seq, (to_money, to_promo)): (i16, (i64, i64)),
    ) -> Result<Refunded, Failed> {
        let total = to_money.saturating_add(to_promo);
        let sinks = [
            (Account::Wallet(Arc::clone(&self.app)), to_money),
            (Account::Promo(Arc::clone(&self.app)), to_promo),
        ];
        let currency = (self.currency, Component::Refund);
        let entry = Entry {
            subject: self.request,
            kind: EntryKind::Refund,
            seq,
            legs: promo::pair(&[(Account::Refunds, total)], &sinks, currency, None, false),
            reference: self.reference.clone(),
            at: self.at,
            floor: wallet.floor,
        };
        let journal = booking::post(session, &entry, &mut wallet).await?;
        self.give_back(session, to_promo).await?;
        let row = [
            self.request.into(),
            seq.into(),
            self.key.into(),
            journal.into(),
            self.amount.into(),
            to_money.into(),
            to_promo.into(),
        ];
        session.execute(ROW, &row).await?;
        Ok(Refunded { journal, to_money, to_promo, left: 0, replayed: false })
    }

    /// Gives promotional credit back to the grants that it was taken of.
    async fn give_back(&self, session: &mut Session<'_>, amount: i64) -> Result<(), Failed> {
        if amount <= 0 {
            return Ok(());
        }
        let mut left = amount;
        for used in session.query(USES, &[self.request.into()]).await? {
            let (grant, part) = (used.id(0)?, used.int(1)?.min(left));
            if part > 0 {
                let row = [part.into(), self.request.into(), grant.into()];
                session.change(RETURN_USE, &row).await?;
                session.change(RETURN_GRANT, &[part.into(), grant.into()]).await?;
                left = left.saturating_sub(part);
            }
        }
        if left > 0 {
            let why = "more promotional credit is booked about the request than its grants gave";
            return Err(Error::Refused(why.to_owned()).into());
        }
        Ok(())
    }
}
