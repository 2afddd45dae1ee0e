//! The stored configuration with a file's rows in it, for judging what names them.
//!
//! Reads only: a row that the file declares and that is not there looks as if it were, so that
//! references to it hold. Invariant: what is stored is shown first and as it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use anima_core::clock::{Clock, Timestamp};
use anima_core::config::{Resource, Tables, Version};
use anima_store::config::{
    Actor, AuditRecord, Batch, Committed, ConfigStore, Error, Page, Rejected, Row,
};

use crate::admin::rows::is_ahead;

/// See the module.
#[derive(Debug)]
pub(super) struct Overlay {
    pub(super) inner: Arc<dyn ConfigStore>,
    pub(super) declared: BTreeSet<(Resource, String)>,
    pub(super) clock: Arc<dyn Clock>,
}

#[async_trait]
impl ConfigStore for Overlay {
    async fn tables(&self, now: Timestamp) -> Result<Tables, Error> {
        self.inner.tables(now).await
    }

    async fn rev(&self) -> Result<i64, Error> {
        self.inner.rev().await
    }

    async fn list(&self, page: Page<'_>, now: Timestamp) -> Result<Vec<Row>, Error> {
        self.inner.list(page, now).await
    }

    async fn versions(&self, resource: Resource, code: &str) -> Result<Vec<Row>, Error> {
        let mut versions = self.inner.versions(resource, code).await?;
        let now = self.clock.now();
        let is_declared = self.declared.contains(&(resource, code.to_owned()));
        if is_declared && !versions.iter().any(|row| is_ahead(row, now)) {
            versions.push(Version {
                code: code.to_owned(),
                app: None,
                version_no: 0,
                effective_from: now,
                effective_to: None,
                enabled: true,
                body: Value::Null,
            });
        }
        Ok(versions)
    }

    async fn commit(
        &self,
        batch: Batch,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Committed, Rejected> {
        self.inner.commit(batch, actor, now).await
    }

    async fn record(&self, record: AuditRecord) -> Result<(), Error> {
        self.inner.record(record).await
    }

    async fn audit(&self, before: Option<i64>, limit: u32) -> Result<Vec<AuditRecord>, Error> {
        self.inner.audit(before, limit).await
    }
}
