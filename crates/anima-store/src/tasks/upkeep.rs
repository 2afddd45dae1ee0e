//! What keeps the table in order: orphans, what waited too long, refunds, what is forgotten.
//!
//! The contract is in `tasks`. Every node does all of it; whoever comes second finds nothing to do.
//! Invariant: nothing here runs a task.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::money::Currency;
use anima_core::task::State;

use super::read::how;
use super::{Ending, Orphan, RefundDue, TaskBooks, TaskUpkeep, sql};
use crate::config::Error;
use crate::ledger::session::Record;

fn state(record: &Record, n: usize) -> Result<State, Error> {
    let word = record.text(n)?;
    State::of(word).ok_or_else(|| Error::Damaged(format!("state {word}")))
}

fn orphan(record: &Record) -> Result<Orphan, Error> {
    let closed_at = record.maybe_int(5)?.map(Timestamp::from_micros);
    Ok(Orphan {
        id: record.id(0)?,
        run: record.int(1)?,
        state: state(record, 2)?,
        call: record.id(3)?,
        hold: record.maybe_text(4)?.map(|word| (word.to_owned(), closed_at)),
    })
}

fn refund(record: &Record) -> Result<RefundDue, Error> {
    let currency = Currency::parse(record.text(3)?);
    Ok(RefundDue {
        id: record.id(0)?,
        call: record.id(1)?,
        app: record.text(2)?.into(),
        currency: currency.map_err(|error| Error::Damaged(error.to_string()))?,
    })
}

#[async_trait]
impl TaskUpkeep for TaskBooks {
    async fn orphans(&self, now: Timestamp) -> Result<Vec<Orphan>, Error> {
        self.execute(sql::DOUBT, vec![now.micros().into()]).await?;
        self.read(sql::ORPHANS, vec![]).await?.iter().map(orphan).collect()
    }

    async fn expire(&self, ending: Ending) -> Result<u64, Error> {
        self.execute(sql::EXPIRE, how(&ending)).await
    }

    async fn cancel_of(&self, kid: &str, ending: Ending) -> Result<u64, Error> {
        let mut parameters = how(&ending);
        parameters.push(kid.into());
        self.execute(sql::CANCEL_OF, parameters).await
    }

    async fn open(&self) -> Result<Vec<(Arc<str>, State, u64)>, Error> {
        let counted = |record: &Record| {
            let count = u64::try_from(record.int(2)?).unwrap_or(0);
            Ok((record.text(0)?.into(), state(record, 1)?, count))
        };
        self.read(sql::OPEN, vec![]).await?.iter().map(counted).collect()
    }

    async fn refunds(&self, after: Option<Uuid>) -> Result<Vec<RefundDue>, Error> {
        self.read(sql::REFUNDS, vec![after.into()]).await?.iter().map(refund).collect()
    }

    async fn refunded(&self, id: Uuid) -> Result<(), Error> {
        self.execute(sql::REFUNDED, vec![id.into()]).await?;
        Ok(())
    }

    async fn sweep(&self, now: Timestamp, gone: Timestamp) -> Result<u64, Error> {
        let forgotten = self.execute(sql::FORGET, vec![now.micros().into()]).await?;
        let deleted = self.execute(sql::DELETE, vec![gone.micros().into()]).await?;
        Ok(forgotten.saturating_add(deleted))
    }
}
