//! Money that people move, and what they read of the books: refunds, promotional credit,
//! statements, payables, margins.
//!
//! Contract, for every backend:
//! - A movement is one transaction under its wallet's lock, beside the writer's batches. It is on
//!   disk when the call returns `Ok`. A crash leaves all of it or nothing; the caller repeats it
//!   under the same key, which posts nothing a second time.
//! - A movement is new postings. Nothing that was posted is changed.
//! - A report is read from one state of the database.
//!
//! Top-ups and adjustments need no more than [`super::LedgerStore::post`].

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use deadpool_postgres::Pool;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::money::Currency;

use super::session::{self, Mode, Work};
use super::{Error, TrialLine};
use crate::sqlite;

mod booking; // a journal, its legs and their balances, by hand
mod estimates; // what providers have still to confirm
mod invoices; // what providers bill
mod margin; // what calls earned
mod payables; // what we owe providers
mod promo; // grants and their expiry
mod refund; // what calls give back
mod request; // a request as it is recorded
mod shortfall; // calls that no wallet covered
mod statement; // one app's month
mod story; // all about one request
#[cfg(test)]
mod tests;
mod trial; // the trial balance of an earlier instant
mod usage; // what calls used, by channel, alias, app, key and time

pub use estimates::{Estimate, EstimatedDay, EstimatesOf};
pub(super) use invoices::is_billed_off;
pub use invoices::{Invoice, InvoicedDay, Invoices};
pub use margin::{MarginLine, MarginOf};
pub use payables::{Age, Payable};
pub use promo::{ExpiredCredit, Grant, GrantState, Granted};
pub use refund::{Refund, Refunded};
pub use request::Request;
pub use shortfall::{Pause, ShortKey, Shortfalls};
pub use statement::{LineKind, Period, Statement, StatementLine, Sums};
pub use story::{Named, Story, StoryAttempt, StoryCost};
pub use usage::{
    Group, LineKey, Quantity, Span, UsageError, UsageLine, UsageOf, UsagePage, UsageReports,
};

/// Why money was not moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// The ledger refused or failed.
    #[error(transparent)]
    Ledger(#[from] Error),
    /// More was asked back than is left of what the request was charged.
    #[error("{left} units are left to refund")]
    TooMuch {
        /// In units; 0 when nothing was charged, or all of it was given back.
        left: i64,
    },
}

/// Moves money beside calls. See the module's contract.
#[async_trait]
pub trait Movements: Send + Sync + fmt::Debug {
    /// Gives back what a settled request was charged, whole or in part, once per key.
    ///
    /// # Errors
    /// [`MoveError::TooMuch`]; [`Error::HoldUnknown`] when the app has no such settled request;
    /// [`Error::Conflict`] for other content under the same key; [`Error::Unavailable`].
    async fn refund(&self, refund: Refund) -> Result<Refunded, MoveError>;

    /// Gives an app promotional credit, once per id.
    ///
    /// # Errors
    /// [`Error::Conflict`] for other content under the same id; [`Error::Unavailable`].
    async fn grant(&self, grant: Grant) -> Result<Granted, Error>;

    /// Posts back what has expired by `now` and no open call has reserved. What was posted back,
    /// by grant. To be called again and again; several nodes may.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; what was posted before it stays.
    async fn expire_promo(&self, now: Timestamp) -> Result<Vec<ExpiredCredit>, Error>;
}

/// Reads the books. Amounts of different currencies are never added up.
#[async_trait]
pub trait Reports: Send + Sync + fmt::Debug {
    /// An app's grants, the first to expire first.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn grants(&self, app: &str, currency: Currency) -> Result<Vec<GrantState>, Error>;

    /// What moved on an app's wallet in a period. Reads everything posted since its start, so that
    /// it takes the longer the more lies between then and now.
    ///
    /// # Errors
    /// [`Error::Refused`] when opening and movements do not give the closing balance, which takes
    /// damaged books; [`Error::Unavailable`].
    async fn statement(&self, period: Period) -> Result<Statement, Error>;

    /// What we owe each provider, by channel and currency, and for how long.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn payables(&self, now: Timestamp) -> Result<Vec<Payable>, Error>;

    /// The oldest estimated costs that no report has confirmed.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn estimates(&self, of: EstimatesOf) -> Result<Vec<Estimate>, Error>;

    /// A request as it was recorded. `None` when there is none, or it is not over.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn request(&self, id: Uuid) -> Result<Option<Request>, Error>;

    /// What calls earned: sales, what was given back, costs.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn margin(&self, of: MarginOf) -> Result<Vec<MarginLine>, Error>;

    /// The trial balance as it was just before `at`, to the millisecond.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn trial_balance_at(&self, at: Timestamp) -> Result<Vec<TrialLine>, Error>;
}

/// Reads one request.
#[async_trait]
pub trait Stories: Send + Sync + fmt::Debug {
    /// All that stands about a request, also while it is open. `None` when nothing was ever held.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn story(&self, id: Uuid) -> Result<Option<Story>, Error>;
}

/// All of them.
pub trait Money: Invoices + Movements + Reports + Shortfalls + Stories + UsageReports {}

impl<T> Money for T where T: Invoices + Movements + Reports + Shortfalls + Stories + UsageReports {}

/// The books of one database.
pub(crate) enum Books {
    /// A SQLite file whose schema is up to date.
    Sqlite(PathBuf),
    /// A PostgreSQL database whose schema is up to date.
    Postgres(Pool),
}

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres(_) => f.debug_tuple("Postgres").finish_non_exhaustive(),
        }
    }
}

impl Books {
    pub(super) async fn run<W: Work>(&self, work: W) -> Result<W::Output, Error> {
        match self {
            Self::Postgres(pool) => session::on_postgres(pool, &work).await,
            Self::Sqlite(path) => {
                let path = path.clone();
                let working = tokio::task::spawn_blocking(move || {
                    let opened = match W::MODE {
                        Mode::Read => sqlite::open_reader(&path),
                        Mode::Write => sqlite::open(&path),
                    };
                    let mut connection = opened.map_err(|e| Error::Unavailable(e.to_string()))?;
                    session::on_sqlite(&mut connection, &work)
                });
                working.await.unwrap_or_else(|e| Err(Error::Unavailable(e.to_string())))
            }
        }
    }
}

#[async_trait]
impl Movements for Books {
    async fn refund(&self, refund: Refund) -> Result<Refunded, MoveError> {
        self.run(refund).await?
    }

    async fn grant(&self, grant: Grant) -> Result<Granted, Error> {
        grant.check()?;
        self.run(grant).await
    }

    async fn expire_promo(&self, now: Timestamp) -> Result<Vec<ExpiredCredit>, Error> {
        let mut expired = Vec::new();
        let mut due = promo::Due { now, after: (Timestamp::from_micros(i64::MIN), Uuid::nil()) };
        loop {
            let page = self.run(due.clone()).await?;
            let Some(last) = page.last() else { return Ok(expired) };
            due.after = (last.expires_at, last.id);
            for grant in page {
                expired.extend(self.run(promo::Expire { grant, now }).await?);
            }
        }
    }
}

#[async_trait]
impl Reports for Books {
    async fn grants(&self, app: &str, currency: Currency) -> Result<Vec<GrantState>, Error> {
        self.run(promo::Grants { app: app.into(), currency }).await
    }

    async fn statement(&self, period: Period) -> Result<Statement, Error> {
        self.run(period).await
    }

    async fn payables(&self, now: Timestamp) -> Result<Vec<Payable>, Error> {
        self.run(payables::Payables { now }).await
    }

    async fn estimates(&self, of: EstimatesOf) -> Result<Vec<Estimate>, Error> {
        self.run(estimates::ByCall(of)).await
    }

    async fn request(&self, id: Uuid) -> Result<Option<Request>, Error> {
        self.run(request::ById(id)).await
    }

    async fn margin(&self, of: MarginOf) -> Result<Vec<MarginLine>, Error> {
        self.run(of).await
    }

    async fn trial_balance_at(&self, at: Timestamp) -> Result<Vec<TrialLine>, Error> {
        self.run(trial::TrialAt { at }).await
    }
}

#[async_trait]
impl Stories for Books {
    async fn story(&self, id: Uuid) -> Result<Option<Story>, Error> {
        self.run(story::StoryOf(id)).await
    }
}

/// The lowest id that a journal posted at `at` may have: ids of journals begin with the
/// millisecond in which they were posted.
fn first_journal(at: Timestamp) -> Uuid {
    let millis = u128::try_from(at.millis()).unwrap_or(0);
    Uuid::from_u128(millis << 80)
}

fn currency_of(code: &str) -> Result<Currency, Error> {
    let damaged = |e| Error::Refused(format!("a stored row cannot be read: {code}: {e}"));
    Currency::parse(code).map_err(damaged)
}

/// A sum as it fits an amount.
fn units(sum: i128) -> Result<i64, Error> {
    i64::try_from(sum).map_err(|wide| Error::Refused(format!("a sum leaves 64 bits: {wide}")))
}
