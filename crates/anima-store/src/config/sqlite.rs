//! The configuration's store on SQLite.
//!
//! The contract is in `config`, the decisions are in `decide`; this reads and writes. Times are
//! microseconds, bodies are JSON text.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use rusqlite::{OptionalExtension as _, ToSql, Transaction, params};
use serde::de::DeserializeOwned;
use serde_json::Value;

use anima_core::clock::Timestamp;
use anima_core::config::{Resource, Tables, Version};

use super::decide::{Found, Head, Rival, Window, Writes, decide};
use super::publish::sqlite::announce;
use super::rows::{audit_record, damaged, typed, without_secrets};
use super::{
    Actor, AuditRecord, Batch, Change, Committed, ConfigStore, Error, Page, Rejected, Row, Step,
    sql,
};
use crate::sqlite::connections::Connections;

/// The configuration in a SQLite file.
#[derive(Debug)]
pub(crate) struct SqliteConfig(pub(crate) Arc<Connections>);

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        let text = error.to_string();
        if text.contains("overlapping window") {
            return Self::Overlap("the database refused it".to_owned());
        }
        let damaged = matches!(
            error,
            E::FromSqlConversionFailure(..)
                | E::IntegralValueOutOfRange(..)
                | E::InvalidColumnType(..)
        );
        if damaged { Self::Damaged(text) } else { Self::Unavailable(text) }
    }
}

#[async_trait]
impl ConfigStore for SqliteConfig {
    async fn tables(&self, now: Timestamp) -> Result<Tables, Error> {
        self.0
            .read(move |tx| {
                Ok(Tables {
                    rev: rev(tx)?,
                    channels: in_force(tx, Resource::Channel, now)?,
                    aliases: in_force(tx, Resource::Alias, now)?,
                    prices: in_force(tx, Resource::Price, now)?,
                    quotas: in_force(tx, Resource::Quota, now)?,
                    token_groups: in_force(tx, Resource::TokenGroup, now)?,
                    fx_rates: in_force(tx, Resource::FxRate, now)?,
                })
            })
            .await
    }

    async fn rev(&self) -> Result<i64, Error> {
        self.0.read(rev).await
    }

    async fn list(&self, page: Page<'_>, now: Timestamp) -> Result<Vec<Row>, Error> {
        let (resource, limit) = (page.resource, page.limit);
        let app = page.app.map(str::to_owned);
        let after = page.after.unwrap_or_default().to_owned();
        self.0
            .read(move |tx| {
                let values = params![now.micros(), app, after, limit];
                rows(tx, resource, sql::list(resource), values)
            })
            .await
    }

    async fn versions(&self, resource: Resource, code: &str) -> Result<Vec<Row>, Error> {
        let code = code.to_owned();
        self.0.read(move |tx| rows(tx, resource, sql::versions(resource), params![code])).await
    }

    async fn commit(
        &self,
        batch: Batch,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Committed, Rejected> {
        let (actor, at) = (actor.clone(), Arc::new(AtomicUsize::new(0)));
        let index = Arc::clone(&at);
        let write = move |tx: &Transaction<'_>| commit(tx, &batch, (&actor, now), &index);
        let committed = self.0.write(write).await;
        committed.map_err(|error| Rejected { index: at.load(Ordering::Relaxed), error })
    }

    async fn record(&self, record: AuditRecord) -> Result<(), Error> {
        self.0.write(move |tx| insert_audit(tx, record, None)).await
    }

    async fn audit(&self, before: Option<i64>, limit: u32) -> Result<Vec<AuditRecord>, Error> {
        self.0.read(move |tx| audit(tx, before.unwrap_or(i64::MAX), limit)).await
    }
}

fn rev(tx: &Transaction<'_>) -> Result<i64, Error> {
    Ok(tx.query_row(sql::REV, [], |row| row.get(0))?)
}

pub(super) fn rows(
    tx: &Transaction<'_>,
    resource: Resource,
    text: &'static str,
    values: &[&dyn ToSql],
) -> Result<Vec<Row>, Error> {
    let mut statement = tx.prepare_cached(text)?;
    let mut found = statement.query(values)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push(read_row(resource, row)?);
    }
    Ok(rows)
}

fn row(
    tx: &Transaction<'_>,
    resource: Resource,
    text: &'static str,
    values: &[&dyn ToSql],
) -> Result<Option<Row>, Error> {
    Ok(rows(tx, resource, text, values)?.pop())
}

fn read_row(resource: Resource, row: &rusqlite::Row<'_>) -> Result<Row, Error> {
    let (code, version_no): (String, i64) = (row.get(0)?, row.get(2)?);
    let text: String = row.get(6)?;
    let body = serde_json::from_str(&text).map_err(|e| damaged(resource, &code, version_no, &e))?;
    Ok(Version {
        code,
        app: row.get(1)?,
        version_no,
        effective_from: Timestamp::from_micros(row.get(3)?),
        effective_to: time(row, 4)?,
        enabled: row.get(5)?,
        body,
    })
}

pub(super) fn time(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_micros))
}

pub(super) fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::micros)
}

fn in_force<B: DeserializeOwned>(
    tx: &Transaction<'_>,
    resource: Resource,
    now: Timestamp,
) -> Result<Vec<Version<B>>, Error> {
    let rows = rows(tx, resource, sql::in_force(resource), params![now.micros()])?;
    rows.into_iter().map(|row| typed(resource, row)).collect()
}

/// `at` is left at the change that was refused.
fn commit(
    tx: &Transaction<'_>,
    batch: &Batch,
    (actor, now): (&Actor, Timestamp),
    at: &AtomicUsize,
) -> Result<Committed, Error> {
    tx.execute_batch(sql::SAVEPOINT)?;
    let rev = raise_rev(tx)?;
    let mut steps = Vec::with_capacity(batch.changes.len());
    for (index, change) in batch.changes.iter().enumerate() {
        at.store(index, Ordering::Relaxed);
        steps.push(apply(tx, change, (actor, now), rev)?);
    }
    if batch.rehearsal {
        tx.execute_batch(sql::TAKE_BACK)?;
    } else {
        let notices: Vec<_> = batch.changes.iter().map(Change::notice).collect();
        announce(tx, rev, &notices, now)?;
    }
    Ok(Committed { rev, steps })
}

/// The next number of a change.
pub(super) fn raise_rev(tx: &Transaction<'_>) -> Result<i64, Error> {
    Ok(tx.query_row(sql::RAISE_REV, [], |row| row.get(0))?)
}

fn apply(
    tx: &Transaction<'_>,
    change: &Change,
    (actor, now): (&Actor, Timestamp),
    rev: i64,
) -> Result<Step, Error> {
    let (resource, code) = change.target();
    let as_of = || row(tx, resource, sql::as_of(resource), params![now.micros(), code]);
    let before = as_of()?;
    let found = find(tx, change, now)?;
    let writes = decide(change, &found, now)?;
    write_versions(tx, change, &writes, actor, now)?;
    write_head(tx, change, &writes, now)?;
    let after = match writes.answer {
        Some(n) => row(tx, resource, sql::version(resource), params![code, n])?,
        None => as_of()?,
    };
    let after = after.ok_or_else(|| damaged(resource, code, writes.head.version_no, &"missing"))?;
    let record = audit_record(resource, &writes, actor, (before.as_ref(), &after), now);
    insert_audit(tx, record, Some(rev))?;
    Ok(Step { before, after })
}

fn find(tx: &Transaction<'_>, change: &Change, now: Timestamp) -> Result<Found, Error> {
    let (resource, code) = change.target();
    let head = head(tx, resource, code)?;
    let latest = match &head {
        Some(head) => row(tx, resource, sql::version(resource), params![code, head.version_no])?,
        None => None,
    };
    let mut statement = tx.prepare_cached(sql::windows(resource))?;
    let windows = statement.query_map(params![code, now.micros()], |row| {
        let from = Timestamp::from_micros(row.get(1)?);
        Ok(Window { version_no: row.get(0)?, from, to: time(row, 2)? })
    })?;
    let windows = windows.collect::<Result<_, _>>()?;
    let version = change.version();
    let app_exists = match version.and_then(|v| v.app.as_deref()) {
        Some(app) => self::head(tx, Resource::App, app)?.is_some_and(|h| h.deleted_at.is_none()),
        None => false,
    };
    let rivals = match version.and_then(|v| v.scope.as_deref()) {
        Some(scope) => rivals(tx, scope, code, now)?,
        None => Vec::new(),
    };
    Ok(Found { head, windows, latest, rivals, app_exists })
}

fn head(tx: &Transaction<'_>, resource: Resource, code: &str) -> Result<Option<Head>, Error> {
    let head = tx.query_row(sql::HEAD, params![resource.name(), code], |row| {
        Ok(Head {
            app: row.get(0)?,
            version_no: row.get(1)?,
            enabled: row.get(2)?,
            changed_at: Timestamp::from_micros(row.get(3)?),
            deleted_at: time(row, 4)?,
        })
    });
    Ok(head.optional()?)
}

fn rivals(
    tx: &Transaction<'_>,
    scope: &str,
    code: &str,
    now: Timestamp,
) -> Result<Vec<Rival>, Error> {
    let mut statement = tx.prepare_cached(sql::RIVALS)?;
    let rivals = statement.query_map(params![scope, code, now.micros()], |row| {
        let from = Timestamp::from_micros(row.get(1)?);
        Ok(Rival { code: row.get(0)?, from, to: time(row, 2)? })
    })?;
    Ok(rivals.collect::<Result<_, _>>()?)
}

fn write_versions(
    tx: &Transaction<'_>,
    change: &Change,
    writes: &Writes,
    actor: &Actor,
    now: Timestamp,
) -> Result<(), Error> {
    let (resource, code) = change.target();
    for version_no in &writes.cancel {
        tx.execute(sql::cancel(resource), params![now.micros(), code, version_no])?;
    }
    if let Some((version_no, end)) = writes.close {
        tx.execute(sql::close(resource), params![micros(end), code, version_no])?;
    }
    if let (Some(version), Some(window)) = (change.version(), writes.insert) {
        let (from, to) = (window.from.micros(), micros(window.to));
        let (body, at) = (version.body.to_string(), now.micros());
        let mut values: Vec<&dyn ToSql> =
            vec![&code, &window.version_no, &from, &to, &body, &at, &actor.name];
        match resource {
            Resource::Price | Resource::FxRate => values.push(&version.scope),
            Resource::UserApiKey => values.push(&writes.head.app),
            Resource::Channel
            | Resource::Alias
            | Resource::Quota
            | Resource::TokenGroup
            | Resource::App => {}
        }
        tx.execute(sql::insert(resource), values.as_slice())?;
    }
    Ok(())
}

fn write_head(
    tx: &Transaction<'_>,
    change: &Change,
    writes: &Writes,
    now: Timestamp,
) -> Result<(), Error> {
    let (resource, code) = change.target();
    let head = &writes.head;
    tx.execute(
        sql::WRITE_HEAD,
        params![
            resource.name(),
            code,
            head.app,
            head.version_no,
            head.enabled,
            now.micros(),
            head.changed_at.micros(),
            micros(head.deleted_at),
        ],
    )?;
    if resource != Resource::UserApiKey {
        return Ok(());
    }
    if writes.forget_secrets {
        tx.execute(sql::FORGET_SECRETS, params![code])?;
    }
    if let Some(hash) = change.version().and_then(|v| v.secret_hash) {
        tx.execute(sql::INSERT_SECRET, params![code, hash, now.micros()])?;
    }
    Ok(())
}

pub(super) fn insert_audit(
    tx: &Transaction<'_>,
    record: AuditRecord,
    rev: Option<i64>,
) -> Result<(), Error> {
    let clean = |value: Option<Value>| value.map(|v| without_secrets(v).to_string());
    tx.execute(
        sql::INSERT_AUDIT,
        params![
            record.at.micros(),
            record.actor,
            record.action,
            record.resource,
            record.code,
            record.reason,
            clean(record.before),
            clean(record.after),
            rev,
        ],
    )?;
    Ok(())
}

fn audit(tx: &Transaction<'_>, before: i64, limit: u32) -> Result<Vec<AuditRecord>, Error> {
    let mut statement = tx.prepare_cached(sql::AUDIT)?;
    let mut found = statement.query(params![before, limit])?;
    let mut records = Vec::new();
    while let Some(row) = found.next()? {
        let id: i64 = row.get(0)?;
        records.push(AuditRecord {
            id,
            at: Timestamp::from_micros(row.get(1)?),
            actor: row.get(2)?,
            action: row.get(3)?,
            resource: row.get(4)?,
            code: row.get(5)?,
            reason: row.get(6)?,
            before: value(row.get(7)?, id)?,
            after: value(row.get(8)?, id)?,
        });
    }
    Ok(records)
}

fn value(text: Option<String>, id: i64) -> Result<Option<Value>, Error> {
    let parsed = text.map(|t| serde_json::from_str(&t)).transpose();
    parsed.map_err(|e| Error::Damaged(format!("audit record {id}: {e}")))
}
