//! The configuration's contract, as functions over the traits, run against both databases.
//!
//! `rows` and `more` hold the rules, `random` looks for a sequence that breaks one, `refused` goes
//! past the store to see that the database itself refuses. Time is a parameter: nothing here waits.

use std::future::Future;
use std::sync::Arc;

use serde_json::{Value, json};

use anima_core::clock::Timestamp;
use anima_core::config::Resource;

use super::postgres::PostgresConfig;
use super::publish::PublishStore;
use super::sqlite::SqliteConfig;
use super::{Actor, Change, ConfigStore, Error, NewVersion, Page, Row};
use crate::keys::KeyStore;
use crate::keys::postgres::PostgresKeys;
use crate::keys::sqlite::SqliteKeys;
use crate::sqlite::connections::Connections;

mod more;
mod random;
mod refused;
mod rows;

/// The capabilities on one database.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) config: Arc<dyn ConfigStore>,
    pub(crate) keys: Arc<dyn KeyStore>,
    pub(crate) publish: Arc<dyn PublishStore>,
}

/// Runs a rule on a new SQLite file.
pub(crate) async fn on_sqlite<F: Future<Output = ()>>(rule: impl FnOnce(Pair) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let connections = Arc::new(Connections::open(&folder.path().join("a.db")).unwrap());
    let config = Arc::new(SqliteConfig(Arc::clone(&connections)));
    let publish = config.clone();
    rule(Pair { config, keys: Arc::new(SqliteKeys(connections)), publish }).await;
}

/// Runs a rule on a new PostgreSQL database, if there is a server.
pub(crate) async fn on_postgres<F: Future<Output = ()>>(rule: impl FnOnce(Pair) -> F) {
    let Some(scratch) = crate::tests::postgres().await else {
        return;
    };
    let pool = crate::postgres::pool(&scratch.url(), 4, &crate::postgres::Link::default()).unwrap();
    crate::postgres::migrate(&pool).await.unwrap();
    let config = Arc::new(PostgresConfig(pool.clone()));
    let publish = config.clone();
    rule(Pair { config, keys: Arc::new(PostgresKeys(pool)), publish }).await;
}

/// One test per rule and database.
macro_rules! on_both {
    ($($rules:ident::$rule:ident,)*) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $rule() {
                $crate::config::tests::on_sqlite(super::$rules::$rule).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $rule() {
                $crate::config::tests::on_postgres(super::$rules::$rule).await;
            })*
        }
    };
}
pub(crate) use on_both;

on_both! {
    rows::a_new_row_is_in_force_at_once,
    rows::a_code_exists_once,
    rows::a_stale_version_is_refused_with_the_latest,
    rows::of_parallel_writers_of_one_version_one_wins,
    rows::revisions_have_no_gap,
    rows::scheduled_versions_take_over_at_their_instants,
    rows::a_change_ends_where_the_next_scheduled_version_begins,
    rows::a_window_over_a_scheduled_version_is_refused,
    rows::a_scheduled_version_is_corrected_by_one_of_the_same_start,
    rows::changes_in_one_microsecond_do_not_collide,
    rows::a_switch_is_of_the_row_and_not_of_a_version,
    rows::deleting_ends_the_row_and_keeps_its_history,
    rows::a_deleted_code_is_made_again_with_the_next_number,
    more::prices_of_one_scope_are_never_in_force_together,
    more::a_list_has_pages_and_shows_one_version_per_row,
    more::keys_are_listed_by_app,
    more::every_change_is_audited_without_secrets,
    more::tables_have_every_resource_with_its_type,
    more::a_body_that_cannot_be_read_is_named,
    random::no_sequence_leaves_two_versions_in_force,
}

/// The instant at which the tests begin.
pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// So many seconds after the beginning.
pub(crate) const fn later(seconds: i64) -> Timestamp {
    NOW.plus_millis(seconds * 1_000)
}

/// Who writes.
pub(crate) fn actor() -> Actor {
    Actor { name: "ada".to_owned(), reason: "because".to_owned() }
}

/// An alias's body that says `model`.
pub(crate) fn body(model: &str) -> Value {
    json!({"kind": "chat", "routes": [{"channel": "c", "model": model}]})
}

/// A version of `resource`, in force from now on.
pub(crate) fn draft(resource: Resource, code: &str, body: Value) -> NewVersion {
    NewVersion {
        resource,
        code: code.to_owned(),
        app: None,
        body,
        scope: None,
        effective_from: None,
        effective_to: None,
        secret_hash: None,
    }
}

impl Pair {
    pub(crate) async fn create(&self, version: NewVersion, now: Timestamp) -> Result<Row, Error> {
        self.config.change(Change::Create(version), &actor(), now).await
    }

    pub(crate) async fn add(
        &self,
        read: i64,
        version: NewVersion,
        now: Timestamp,
    ) -> Result<Row, Error> {
        let change = Change::Add { version, read, action: "change" };
        self.config.change(change, &actor(), now).await
    }

    pub(crate) async fn switch(
        &self,
        resource: Resource,
        code: &str,
        enabled: bool,
        now: Timestamp,
    ) -> Result<Row, Error> {
        let change = Change::Switch { resource, code: code.to_owned(), enabled, cut: false };
        self.config.change(change, &actor(), now).await
    }

    pub(crate) async fn delete(
        &self,
        resource: Resource,
        code: &str,
        read: Option<i64>,
        now: Timestamp,
    ) -> Result<Row, Error> {
        let change = Change::Delete { resource, code: code.to_owned(), read };
        self.config.change(change, &actor(), now).await
    }

    /// The codes and version numbers that a list shows.
    pub(crate) async fn listed(
        &self,
        resource: Resource,
        app: Option<&str>,
        after: Option<&str>,
        now: Timestamp,
    ) -> Vec<(String, i64)> {
        let page = Page { resource, app, after, limit: 2 };
        let rows = self.config.list(page, now).await.unwrap();
        rows.into_iter().map(|r| (r.code, r.version_no)).collect()
    }
}
