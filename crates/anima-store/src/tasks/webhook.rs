//! Ends of tasks that somebody is to be told of.
//!
//! The contract is in `tasks`. Invariant: a try is counted before it is made, so that a worker that
//! dies at it every time comes to the end of the tries, too.

use async_trait::async_trait;
use uuid::Uuid;

use anima_core::clock::Timestamp;

use super::read::task;
use super::{Hook, TaskBooks, TaskHooks, sql};
use crate::config::Error;
use crate::ledger::session::Record;

/// Bytes of a stored reason.
const WHY_CHARS_MAX: usize = 300;

fn hook(record: &Record) -> Result<Hook, Error> {
    Ok(Hook {
        task: task(record)?,
        url: record.bytes(19)?.to_vec(),
        result: record.maybe_bytes(20)?.map(<[u8]>::to_vec),
    })
}

#[async_trait]
impl TaskHooks for TaskBooks {
    async fn due(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        most: u32,
    ) -> Result<Vec<Hook>, Error> {
        let bounds = [lease_until.micros(), now.micros(), most.into()];
        let taken = self.change(sql::HOOKS, bounds.map(Into::into).to_vec()).await?;
        taken.iter().map(hook).collect()
    }

    async fn delivered(&self, id: Uuid, tries: u32) -> Result<(), Error> {
        let none: Option<&str> = None;
        let how = ["DELIVERED".into(), 0_i64.into(), none.into()];
        let which = [id.into(), i64::from(tries).into()];
        self.execute(sql::HOOK_ENDED, how.into_iter().chain(which).collect()).await?;
        Ok(())
    }

    async fn failed(
        &self,
        id: Uuid,
        tries: u32,
        why: &str,
        next_at: Option<Timestamp>,
    ) -> Result<(), Error> {
        let word = if next_at.is_some() { "PENDING" } else { "DEAD" };
        let why: String = why.chars().take(WHY_CHARS_MAX).collect();
        let due = next_at.map_or(0, Timestamp::micros);
        let how = [word.into(), due.into(), why.as_str().into()];
        let which = [id.into(), i64::from(tries).into()];
        self.execute(sql::HOOK_ENDED, how.into_iter().chain(which).collect()).await?;
        Ok(())
    }
}
