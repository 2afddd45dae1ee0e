//! Promotional credit: granted, and posted back when it expires unused.
//!
//! A grant debits what it costs us (or the clearing account, when it was sold) and credits
//! `promo:<app>`; calls use it through the writer. No hold covers either movement: a grant only
//! gives, and an expiry leaves what open calls have reserved: it is judged under the wallet's lock,
//! which every hold and settlement takes too.
//! A crash before a commit leaves nothing. Granting again under the same id, or expiring again,
//! finds what the first one left.
//! Invariant: `gated_balance.promo` of a wallet = what is left of its grants = the balance of
//! `promo:<app>`. Source: `reliability` 1.4.

use std::sync::Arc;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Account, Component, Entry, EntryKind, Leg, promo};
use anima_core::money::{Currency, Money};

use super::{booking, currency_of};
use crate::ledger::session::{Failed, Mode, Record, Session, Work};
use crate::ledger::{Error, digest};

/// Promotional credit for an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Names it.
    pub id: Uuid,
    /// Who gets it.
    pub app: Arc<str>,
    /// Of the app's wallet.
    pub currency: Currency,
    /// In units; above 0.
    pub amount: i64,
    /// Whether it was paid for. What expires of it is then income, not a cost that was saved.
    pub sold: bool,
    /// Calls admitted from here on cannot use it.
    pub expires_at: Timestamp,
    /// A campaign, or a document's number.
    pub reference: String,
    /// When.
    pub at: Timestamp,
}

/// A grant that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// The journal entry.
    pub journal: Uuid,
    /// It had been posted before; nothing was posted now.
    pub replayed: bool,
}

/// A grant as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantState {
    /// Its name.
    pub id: Uuid,
    /// Who got it.
    pub app: Arc<str>,
    /// In units.
    pub granted: Money,
    /// What calls used, less what was refunded, in units.
    pub used: i64,
    /// What was posted back unused, in units.
    pub expired: i64,
    /// Whether it was paid for.
    pub sold: bool,
    /// When it was given.
    pub granted_at: Timestamp,
    /// Calls admitted from here on cannot use it.
    pub expires_at: Timestamp,
    /// As given.
    pub reference: String,
}

/// What was posted back of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredCredit {
    /// The grant.
    pub grant: Uuid,
    /// Whose it was.
    pub app: Arc<str>,
    /// The journal entry.
    pub journal: Uuid,
    /// How much.
    pub amount: Money,
}

impl GrantState {
    /// What is left of it, in units.
    pub const fn left(&self) -> i64 {
        self.granted.units.saturating_sub(self.used).saturating_sub(self.expired)
    }

    fn read(record: &Record) -> Result<Self, Error> {
        let currency = currency_of(record.text(2)?)?;
        Ok(Self {
            id: record.id(0)?,
            app: record.text(1)?.into(),
            granted: Money::new(record.int(3)?, currency),
            used: record.int(4)?,
            expired: record.int(5)?,
            sold: record.flag(6)?,
            granted_at: Timestamp::from_micros(record.int(7)?),
            expires_at: Timestamp::from_micros(record.int(8)?),
            reference: record.text(9)?.to_owned(),
        })
    }
}

const ROW: &str = "
    INSERT INTO promo_grant (id, account_id, app, currency, amount, sold, granted_at, expires_at,
                             reference)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const GRANT: &str = "
    SELECT id, app, currency, amount, used, expired, sold, granted_at, expires_at, reference
    FROM promo_grant WHERE id = $1";

const OF_APP: &str = "
    SELECT id, app, currency, amount, used, expired, sold, granted_at, expires_at, reference
    FROM promo_grant WHERE app = $1 AND currency = $2 ORDER BY expires_at, id";

const DUE: &str = "
    SELECT id, app, currency, amount, used, expired, sold, granted_at, expires_at, reference
    FROM promo_grant
    WHERE used + expired < amount AND expires_at <= $1
      AND (expires_at > $2 OR (expires_at = $2 AND id > $3))
    ORDER BY expires_at, id LIMIT 100";

/// What calls that were admitted before the grant expired have reserved.
const RESERVED: &str = "
    SELECT CAST(COALESCE(sum(amount), 0) AS TEXT) FROM hold
    WHERE state IN ('HELD', 'UNKNOWN') AND account_id = $1 AND created_at < $2";

const EXPIRIES: &str = "SELECT expiries FROM promo_grant WHERE id = $1";

const EXPIRE: &str = "
    UPDATE promo_grant SET expired = expired + $1, expiries = expiries + 1 WHERE id = $2";

impl Grant {
    /// Checks a grant for what is no grant.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.amount <= 0 || self.expires_at <= self.at {
            return Err(Error::Refused("a grant of nothing, or one that has expired".into()));
        }
        Ok(())
    }

    fn entry(&self, floor: i64) -> Entry {
        let debit = if self.sold { Account::PspClearing } else { Account::PromoCost };
        Entry {
            subject: self.id,
            kind: EntryKind::PromoGrant,
            seq: 0,
            legs: vec![leg(
                debit,
                Account::Promo(Arc::clone(&self.app)),
                Money::new(self.amount, self.currency),
            )],
            reference: self.reference.clone(),
            at: self.at,
            floor,
        }
    }
}

const fn leg(debit: Account, credit: Account, amount: Money) -> Leg {
    Leg {
        debit,
        credit,
        amount: amount.units,
        currency: amount.currency,
        component: Component::Promo,
        attempt: None,
        price: None,
        estimate: false,
    }
}

impl Work for Grant {
    type Output = Granted;

    const MODE: Mode = Mode::Write;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let wallet = Account::Wallet(Arc::clone(&self.app));
        let account_id = booking::account(session, &wallet, self.currency).await?;
        let mut wallet = booking::lock(session, account_id).await?;
        let entry = self.entry(wallet.floor);
        if let Some((journal, found)) = booking::gate(session, &entry).await? {
            let stored = session.first(GRANT, &[self.id.into()]).await?;
            let stored = stored.as_ref().map(GrantState::read).transpose()?;
            let same = stored.is_some_and(|g| g.expires_at == self.expires_at)
                && found == digest::of_entry(&entry);
            let replay = Granted { journal, replayed: true };
            return if same { Ok(replay) } else { Err(Error::Conflict.into()) };
        }
        let journal = booking::post(session, &entry, &mut wallet).await?;
        let row = [
            self.id.into(),
            account_id.into(),
            (&*self.app).into(),
            self.currency.code().into(),
            self.amount.into(),
            self.sold.into(),
            self.at.micros().into(),
            self.expires_at.micros().into(),
            self.reference.as_str().into(),
        ];
        session.execute(ROW, &row).await?;
        Ok(Granted { journal, replayed: false })
    }
}

/// An app's grants.
#[derive(Debug, Clone)]
pub(super) struct Grants {
    pub(super) app: Arc<str>,
    pub(super) currency: Currency,
}

impl Work for Grants {
    type Output = Vec<GrantState>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let of = [(&*self.app).into(), self.currency.code().into()];
        let records = session.query(OF_APP, &of).await?;
        Ok(records.iter().map(GrantState::read).collect::<Result<_, _>>()?)
    }
}

/// A page of grants that have expired by `now` and have something left.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub(super) now: Timestamp,
    /// Expiry and id of the last one of the page before.
    pub(super) after: (Timestamp, Uuid),
}

impl Work for Due {
    type Output = Vec<GrantState>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let (expiry, id) = self.after;
        let of = [self.now.micros().into(), expiry.micros().into(), id.into()];
        let records = session.query(DUE, &of).await?;
        Ok(records.iter().map(GrantState::read).collect::<Result<_, _>>()?)
    }
}

/// Posts back what may expire of one grant.
#[derive(Debug, Clone)]
pub(super) struct Expire {
    /// As it was when it was found due.
    pub(super) grant: GrantState,
    pub(super) now: Timestamp,
}

impl Work for Expire {
    type Output = Option<ExpiredCredit>;

    const MODE: Mode = Mode::Write;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let (app, currency) = (Arc::clone(&self.grant.app), self.grant.granted.currency);
        let account = Account::Wallet(Arc::clone(&app));
        let account_id = booking::account(session, &account, currency).await?;
        let mut wallet = booking::lock(session, account_id).await?;
        // Under the lock, for calls may have used it, and another node may have posted it back.
        let Some(record) = session.first(GRANT, &[self.grant.id.into()]).await? else {
            return Ok(None);
        };
        let grant = GrantState::read(&record)?;
        let before = [account_id.into(), grant.expires_at.micros().into()];
        let reserved = session.first(RESERVED, &before).await?;
        let reserved = reserved.map(|record| record.sum(0)).transpose()?.unwrap_or(0);
        let reserved = i64::try_from(reserved).unwrap_or(i64::MAX);
        let amount = promo::expirable(grant.left(), reserved, wallet.above_floor());
        if amount <= 0 {
            return Ok(None);
        }
        let seq = session.first(EXPIRIES, &[grant.id.into()]).await?;
        let seq = seq.map(|record| record.int(0)).transpose()?.unwrap_or(0);
        let credit = if grant.sold { Account::Breakage } else { Account::PromoCost };
        let amount = Money::new(amount, currency);
        let entry = Entry {
            subject: grant.id,
            kind: EntryKind::PromoExpiry,
            seq: i16::try_from(seq).map_err(|e| Error::Refused(e.to_string()))?,
            legs: vec![leg(Account::Promo(Arc::clone(&app)), credit, amount)],
            reference: grant.reference.clone(),
            at: self.now,
            floor: wallet.floor,
        };
        let journal = booking::post(session, &entry, &mut wallet).await?;
        session.change(EXPIRE, &[amount.units.into(), grant.id.into()]).await?;
        Ok(Some(ExpiredCredit { grant: grant.id, app, journal, amount }))
    }
}
