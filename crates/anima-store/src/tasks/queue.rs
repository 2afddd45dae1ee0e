//! Tasks as workers see them: claimed, begun, given back, ended.
//!
//! The contract is in `tasks`. Invariant: what a run says changes the task only while it is that
//! run's.

use async_trait::async_trait;
use uuid::Uuid;

use anima_core::clock::Timestamp;

use super::read::how;
use super::{Claim, Claimed, Ending, TaskBooks, TaskQueue, sql};
use crate::config::Error;
use crate::ledger::session::Record;

fn claimed(record: &Record) -> Result<Claimed, Error> {
    Ok(Claimed {
        id: record.id(0)?,
        run: record.int(1)?,
        kid: record.text(2)?.into(),
        created_at: Timestamp::from_micros(record.int(3)?),
        expires_at: Timestamp::from_micros(record.int(4)?),
        request: record.bytes(5)?.to_vec(),
    })
}

#[async_trait]
impl TaskQueue for TaskBooks {
    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>, Error> {
        // Text always serialises.
        let skip = serde_json::to_string(&claim.skip).unwrap_or_else(|_| "[]".to_owned());
        let parameters = vec![
            claim.now.micros().into(),
            i64::from(claim.most).into(),
            skip.as_str().into(),
            claim.node.into(),
            claim.lease_until.micros().into(),
        ];
        self.change(self.text(sql::CLAIM), parameters).await?.iter().map(claimed).collect()
    }

    async fn begin(&self, id: Uuid, run: i64, call: Uuid) -> Result<bool, Error> {
        let parameters = vec![call.into(), id.into(), run.into()];
        Ok(self.execute(sql::BEGIN, parameters).await? > 0)
    }

    async fn renew(&self, node: Uuid, lease_until: Timestamp) -> Result<(), Error> {
        self.execute(sql::RENEW, vec![lease_until.micros().into(), node.into()]).await?;
        Ok(())
    }

    async fn give_back(&self, id: Uuid, run: i64, due_at: Timestamp) -> Result<bool, Error> {
        let parameters = vec![due_at.micros().into(), id.into(), run.into()];
        Ok(self.execute(sql::GIVE_BACK, parameters).await? > 0)
    }

    async fn end(&self, id: Uuid, run: i64, ending: Ending) -> Result<bool, Error> {
        let mut parameters = how(&ending);
        parameters.extend([id.into(), run.into()]);
        Ok(self.execute(sql::END, parameters).await? > 0)
    }
}
