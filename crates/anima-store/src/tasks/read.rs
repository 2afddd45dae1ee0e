//! Tasks as their callers and operators see them.
//!
//! The contract is in `tasks`. Invariant: a row that cannot be read is an error, never a guess.

use async_trait::async_trait;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::task::State;

use super::{Accepted, Created, Ending, Filter, HookState, Task, TaskBooks, Tasks, sql};
use crate::config::Error;
use crate::ledger::session::{Record, Value};

/// A task as the statements of `columns!` give it, from column 0 on.
pub(super) fn task(record: &Record) -> Result<Task, Error> {
    let at = |n| record.int(n).map(Timestamp::from_micros);
    let maybe_at = |n| record.maybe_int(n).map(|us| us.map(Timestamp::from_micros));
    let owned = |n| record.maybe_text(n).map(|text| text.map(str::to_owned));
    let word = record.text(7)?;
    let state = State::of(word).ok_or_else(|| Error::Damaged(format!("state {word}")))?;
    let tries = u32::try_from(record.int(17)?).unwrap_or(u32::MAX);
    let error = owned(18)?;
    Ok(Task {
        id: record.id(0)?,
        kid: record.text(1)?.into(),
        app: record.text(2)?.into(),
        kind: record.text(3)?.to_owned(),
        endpoint: record.text(4)?.to_owned(),
        alias: record.text(5)?.into(),
        currency: record.text(6)?.to_owned(),
        state,
        run: record.int(8)?,
        call: record.maybe_id(9)?,
        created_at: at(10)?,
        expires_at: at(11)?,
        ended_at: maybe_at(12)?,
        keep_until: maybe_at(13)?,
        error: owned(14)?.zip(owned(15)?),
        hook: owned(16)?.map(|word| HookState { word, tries, error }),
    })
}

/// How tasks end, as parameters 1 to 7 of the statements of `end!`.
pub(super) fn how(ending: &Ending) -> Vec<Value> {
    let (code, message) = match &ending.error {
        Some((code, message)) => (Some(code.as_str()), Some(message.as_str())),
        None => (None, None),
    };
    vec![
        ending.state.word().into(),
        ending.result.as_deref().into(),
        code.into(),
        message.into(),
        ending.at.micros().into(),
        ending.keep_until.micros().into(),
        ending.refund.then_some("DUE").into(),
    ]
}

#[async_trait]
impl Tasks for TaskBooks {
    async fn create(&self, task: Accepted) -> Result<Created, Error> {
        let key_hash = task.key_hash;
        let parameters = vec![
            task.id.into(),
            (&*task.kid).into(),
            (&*task.app).into(),
            task.endpoint.into(),
            (&*task.alias).into(),
            task.currency.code().into(),
            task.request.as_slice().into(),
            key_hash.as_ref().map(<[u8; 32]>::as_slice).into(),
            task.content_hash.as_slice().into(),
            task.webhook.as_deref().into(),
            task.webhook.is_some().then_some("WAITING").into(),
            task.at.micros().into(),
            task.expires_at.micros().into(),
            i64::try_from(task.most).unwrap_or(i64::MAX).into(),
        ];
        // Counted and stored in turn with the other calls of the key.
        if self.execute_in_turn(&task.kid, self.text(sql::CREATE), parameters).await? > 0 {
            return Ok(Created::Fresh);
        }
        let Some(hash) = key_hash else { return Ok(Created::Full) };
        let known = vec![(&*task.kid).into(), hash.as_slice().into()];
        let known = self.change(sql::KNOWN, known).await?;
        let Some(known) = known.first() else { return Ok(Created::Full) };
        let content_hash = known.bytes(1)?.try_into().unwrap_or([0; 32]);
        Ok(Created::Known { id: known.id(0)?, content_hash })
    }

    async fn task(&self, id: Uuid) -> Result<Option<Task>, Error> {
        self.read(sql::TASK, vec![id.into()]).await?.first().map(task).transpose()
    }

    async fn result(&self, id: Uuid) -> Result<Option<Vec<u8>>, Error> {
        let found = self.read(sql::RESULT, vec![id.into()]).await?;
        let Some(record) = found.first() else { return Ok(None) };
        Ok(record.maybe_bytes(0)?.map(<[u8]>::to_vec))
    }

    async fn list(&self, filter: Filter) -> Result<Vec<Task>, Error> {
        let (kid, app) = (filter.kid.as_deref(), filter.app.as_deref());
        let state = filter.state.map(State::word);
        let (text, by) = match (kid, app, state) {
            (Some(_), _, _) => (sql::LIST_OF_KEY, kid),
            (None, Some(_), _) => (sql::LIST_OF_APP, app),
            (None, None, Some(_)) => (sql::LIST_OF_STATE, state),
            (None, None, None) => (sql::LIST, None),
        };
        let parameters = vec![
            by.into(),
            app.into(),
            state.into(),
            filter.before.into(),
            i64::from(filter.limit).into(),
        ];
        self.read(text, parameters).await?.iter().map(task).collect()
    }

    async fn cancel(&self, id: Uuid, ending: Ending) -> Result<bool, Error> {
        let mut parameters = how(&ending);
        parameters.push(id.into());
        Ok(self.execute(sql::CANCEL, parameters).await? > 0)
    }

    async fn replay(&self, id: Uuid, at: Timestamp) -> Result<bool, Error> {
        Ok(self.execute(sql::REPLAY, vec![at.micros().into(), id.into()]).await? > 0)
    }
}
