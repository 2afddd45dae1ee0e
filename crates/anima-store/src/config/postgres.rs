//! The configuration's store on PostgreSQL.
//!
//! The contract is in `config`, the decisions are in `decide`; this reads and writes. A change
//! takes the lock of the revision's one row first, so changes of all nodes come one after another.

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Pool, Transaction};
use serde::de::DeserializeOwned;
use tokio_postgres::IsolationLevel;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use anima_core::clock::Timestamp;
use anima_core::config::{Resource, Tables, Version};

use super::decide::{Found, Head, Rival, Window, Writes, decide};
use super::publish::postgres::announce;
use super::rows::{audit_record, damaged, typed, without_secrets};
use super::{
    Actor, AuditRecord, Batch, Change, Committed, ConfigStore, Error, Page, Rejected, Row, Step,
    sql,
};
use crate::postgres::{At, Chain};

/// The configuration in a PostgreSQL database.
#[derive(Clone)]
pub(crate) struct PostgresConfig(pub(crate) Pool);

impl std::fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PostgresConfig").field(&self.0.status()).finish()
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if error.code() == Some(&SqlState::EXCLUSION_VIOLATION) {
            return Self::Overlap("the database refused it".to_owned());
        }
        Self::Unavailable(Chain(&error).to_string())
    }
}

impl From<deadpool_postgres::PoolError> for Error {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        Self::Unavailable(Chain(&error).to_string())
    }
}

#[async_trait]
impl ConfigStore for PostgresConfig {
    async fn tables(&self, now: Timestamp) -> Result<Tables, Error> {
        let mut client = self.0.get().await?;
        // One snapshot for all seven statements.
        let tx = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let tables = Tables {
            rev: number(&tx, sql::REV).await?,
            channels: in_force(&tx, Resource::Channel, now).await?,
            aliases: in_force(&tx, Resource::Alias, now).await?,
            prices: in_force(&tx, Resource::Price, now).await?,
            quotas: in_force(&tx, Resource::Quota, now).await?,
            token_groups: in_force(&tx, Resource::TokenGroup, now).await?,
            fx_rates: in_force(&tx, Resource::FxRate, now).await?,
        };
        tx.commit().await?;
        Ok(tables)
    }

    async fn rev(&self) -> Result<i64, Error> {
        number(&self.0.get().await?, sql::REV).await
    }

    async fn list(&self, page: Page<'_>, now: Timestamp) -> Result<Vec<Row>, Error> {
        let client = self.0.get().await?;
        let (after, limit) = (page.after.unwrap_or_default(), i64::from(page.limit));
        let text = sql::list(page.resource);
        rows(&client, text, &[&At(now), &page.app, &after, &limit]).await
    }

    async fn versions(&self, resource: Resource, code: &str) -> Result<Vec<Row>, Error> {
        let client = self.0.get().await?;
        rows(&client, sql::versions(resource), &[&code]).await
    }

    async fn commit(
        &self,
        batch: Batch,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Committed, Rejected> {
        let mut at = 0;
        let committed = commit(&self.0, &batch, (actor, now), &mut at).await;
        committed.map_err(|error| Rejected { index: at, error })
    }

    async fn record(&self, record: AuditRecord) -> Result<(), Error> {
        let mut client = self.0.get().await?;
        let tx = client.transaction().await?;
        insert_audit(&tx, record, None).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn audit(&self, before: Option<i64>, limit: u32) -> Result<Vec<AuditRecord>, Error> {
        let client = self.0.get().await?;
        let statement = client.prepare_cached(sql::AUDIT).await?;
        let values: [&(dyn ToSql + Sync); 2] = [&before.unwrap_or(i64::MAX), &i64::from(limit)];
        let rows = client.query(&statement, &values).await?;
        rows.iter().map(read_audit).collect()
    }
}

pub(super) async fn number(client: &impl GenericClient, text: &'static str) -> Result<i64, Error> {
    let statement = client.prepare_cached(text).await?;
    Ok(client.query_one(&statement, &[]).await?.try_get(0)?)
}

pub(super) async fn rows(
    client: &impl GenericClient,
    text: &'static str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Error> {
    let statement = client.prepare_cached(text).await?;
    client.query(&statement, values).await?.iter().map(read_row).collect()
}

async fn row(
    tx: &Transaction<'_>,
    text: &'static str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Option<Row>, Error> {
    Ok(rows(tx, text, values).await?.pop())
}

pub(super) async fn execute(
    tx: &Transaction<'_>,
    text: &'static str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<(), Error> {
    let statement = tx.prepare_cached(text).await?;
    tx.execute(&statement, values).await?;
    Ok(())
}

fn read_row(row: &tokio_postgres::Row) -> Result<Row, Error> {
    Ok(Version {
        code: row.try_get(0)?,
        app: row.try_get(1)?,
        version_no: row.try_get(2)?,
        effective_from: row.try_get::<_, At>(3)?.0,
        effective_to: time(row, 4)?,
        enabled: row.try_get(5)?,
        body: row.try_get(6)?,
    })
}

fn read_audit(row: &tokio_postgres::Row) -> Result<AuditRecord, Error> {
    Ok(AuditRecord {
        id: row.try_get(0)?,
        at: row.try_get::<_, At>(1)?.0,
        actor: row.try_get(2)?,
        action: row.try_get(3)?,
        resource: row.try_get(4)?,
        code: row.try_get(5)?,
        reason: row.try_get(6)?,
        before: row.try_get(7)?,
        after: row.try_get(8)?,
    })
}

pub(super) fn time(row: &tokio_postgres::Row, column: usize) -> Result<Option<Timestamp>, Error> {
    Ok(row.try_get::<_, Option<At>>(column)?.map(|at| at.0))
}

async fn in_force<B: DeserializeOwned>(
    tx: &Transaction<'_>,
    resource: Resource,
    now: Timestamp,
) -> Result<Vec<Version<B>>, Error> {
    let rows = rows(tx, sql::in_force(resource), &[&At(now)]).await?;
    rows.into_iter().map(|row| typed(resource, row)).collect()
}

/// `at` is left at the change that was refused.
async fn commit(
    pool: &Pool,
    batch: &Batch,
    (actor, now): (&Actor, Timestamp),
    at: &mut usize,
) -> Result<Committed, Error> {
    let mut client = pool.get().await?;
    let tx = client.transaction().await?;
    let rev = number(&tx, sql::RAISE_REV).await?;
    let mut steps = Vec::with_capacity(batch.changes.len());
    for (index, change) in batch.changes.iter().enumerate() {
        *at = index;
        steps.push(apply(&tx, change, (actor, now), rev).await?);
    }
    if batch.rehearsal {
        tx.rollback().await?;
    } else {
        let notices: Vec<_> = batch.changes.iter().map(Change::notice).collect();
        announce(&tx, rev, &notices, now).await?;
        tx.commit().await?;
    }
    Ok(Committed { rev, steps })
}

async fn apply(
    tx: &Transaction<'_>,
    change: &Change,
    (actor, now): (&Actor, Timestamp),
    rev: i64,
) -> Result<Step, Error> {
    let (resource, code) = change.target();
    let before = row(tx, sql::as_of(resource), &[&At(now), &code]).await?;
    let found = find(tx, change, now).await?;
    let writes = decide(change, &found, now)?;
    write_versions(tx, change, &writes, actor, now).await?;
    write_head(tx, change, &writes, now).await?;
    let after = match writes.answer {
        Some(n) => row(tx, sql::version(resource), &[&code, &n]).await?,
        None => row(tx, sql::as_of(resource), &[&At(now), &code]).await?,
    };
    let after = after.ok_or_else(|| damaged(resource, code, writes.head.version_no, &"missing"))?;
    let record = audit_record(resource, &writes, actor, (before.as_ref(), &after), now);
    insert_audit(tx, record, Some(rev)).await?;
    Ok(Step { before, after })
}

async fn find(tx: &Transaction<'_>, change: &Change, now: Timestamp) -> Result<Found, Error> {
    let (resource, code) = change.target();
    let head = head(tx, resource, code).await?;
    let latest = match &head {
        Some(head) => row(tx, sql::version(resource), &[&code, &head.version_no]).await?,
        None => None,
    };
    let version = change.version();
    let app_exists = match version.and_then(|v| v.app.as_deref()) {
        Some(app) => {
            let head = self::head(tx, Resource::App, app).await?;
            head.is_some_and(|h| h.deleted_at.is_none())
        }
        None => false,
    };
    let rivals = match version.and_then(|v| v.scope.as_deref()) {
        Some(scope) => rivals(tx, scope, code, now).await?,
        None => Vec::new(),
    };
    let windows = windows(tx, resource, code, now).await?;
    Ok(Found { head, windows, latest, rivals, app_exists })
}

async fn head(tx: &Transaction<'_>, resource: Resource, code: &str) -> Result<Option<Head>, Error> {
    let statement = tx.prepare_cached(sql::HEAD).await?;
    let Some(row) = tx.query_opt(&statement, &[&resource.name(), &code]).await? else {
        return Ok(None);
    };
    Ok(Some(Head {
        app: row.try_get(0)?,
        version_no: row.try_get(1)?,
        enabled: row.try_get(2)?,
        changed_at: row.try_get::<_, At>(3)?.0,
        deleted_at: time(&row, 4)?,
    }))
}

async fn windows(
    tx: &Transaction<'_>,
    resource: Resource,
    code: &str,
    now: Timestamp,
) -> Result<Vec<Window>, Error> {
    let statement = tx.prepare_cached(sql::windows(resource)).await?;
    let rows = tx.query(&statement, &[&code, &At(now)]).await?;
    let window = |row: &tokio_postgres::Row| {
        let from = row.try_get::<_, At>(1)?.0;
        Ok(Window { version_no: row.try_get(0)?, from, to: time(row, 2)? })
    };
    rows.iter().map(window).collect()
}

async fn rivals(
    tx: &Transaction<'_>,
    scope: &str,
    code: &str,
    now: Timestamp,
) -> Result<Vec<Rival>, Error> {
    let statement = tx.prepare_cached(sql::RIVALS).await?;
    let rows = tx.query(&statement, &[&scope, &code, &At(now)]).await?;
    let rival = |row: &tokio_postgres::Row| {
        let from = row.try_get::<_, At>(1)?.0;
        Ok(Rival { code: row.try_get(0)?, from, to: time(row, 2)? })
    };
    rows.iter().map(rival).collect()
}

async fn write_versions(
    tx: &Transaction<'_>,
    change: &Change,
    writes: &Writes,
    actor: &Actor,
    now: Timestamp,
) -> Result<(), Error> {
    let (resource, code) = change.target();
    for version_no in &writes.cancel {
        execute(tx, sql::cancel(resource), &[&At(now), &code, version_no]).await?;
    }
    if let Some((version_no, end)) = writes.close {
        execute(tx, sql::close(resource), &[&end.map(At), &code, &version_no]).await?;
    }
    if let (Some(version), Some(window)) = (change.version(), writes.insert) {
        let (from, to, at) = (At(window.from), window.to.map(At), At(now));
        let mut values: Vec<&(dyn ToSql + Sync)> =
            vec![&code, &window.version_no, &from, &to, &version.body, &at, &actor.name];
        match resource {
            Resource::Price | Resource::FxRate => values.push(&version.scope),
            Resource::UserApiKey => values.push(&writes.head.app),
            Resource::Channel
            | Resource::Alias
            | Resource::Quota
            | Resource::TokenGroup
            | Resource::App => {}
        }
        execute(tx, sql::insert(resource), &values).await?;
    }
    Ok(())
}

async fn write_head(
    tx: &Transaction<'_>,
    change: &Change,
    writes: &Writes,
    now: Timestamp,
) -> Result<(), Error> {
    let (resource, code) = change.target();
    let head = &writes.head;
    let values: [&(dyn ToSql + Sync); 8] = [
        &resource.name(),
        &code,
        &head.app,
        &head.version_no,
        &head.enabled,
        &At(now),
        &At(head.changed_at),
        &head.deleted_at.map(At),
    ];
    execute(tx, sql::WRITE_HEAD, &values).await?;
    if resource != Resource::UserApiKey {
        return Ok(());
    }
    if writes.forget_secrets {
        execute(tx, sql::FORGET_SECRETS, &[&code]).await?;
    }
    if let Some(hash) = change.version().and_then(|v| v.secret_hash) {
        execute(tx, sql::INSERT_SECRET, &[&code, &hash.as_slice(), &At(now)]).await?;
    }
    Ok(())
}

pub(super) async fn insert_audit(
    tx: &Transaction<'_>,
    record: AuditRecord,
    rev: Option<i64>,
) -> Result<(), Error> {
    let values: [&(dyn ToSql + Sync); 9] = [
        &At(record.at),
        &record.actor,
        &record.action,
        &record.resource,
        &record.code,
        &record.reason,
        &record.before.map(without_secrets),
        &record.after.map(without_secrets),
        &rev,
    ];
    execute(tx, sql::INSERT_AUDIT, &values).await
}
