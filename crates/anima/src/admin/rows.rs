//! The verbs that all resources share, and how a row is shown.
//!
//! One file per verb that carries logic. They work on a [`Place`] (which collection, for keys of
//! which app) and never on a particular resource. Invariant: whatever changed a row has told this
//! node's live configuration before it returns.

use serde_json::{Map, Value, json};

use anima_core::clock::Timestamp;
use anima_core::config::Resource;
use anima_store::config::{Actor, Batch, Change, Committed, Error, Page, Row};

use super::Admin;
use super::collection::{Codes, Collection};
use super::problem::{Code, Problem};

mod change;
mod create;
mod delete;
pub(crate) mod difference;
mod restore;

pub(crate) use change::{change, change_intent};
pub(crate) use create::{Creation, create, create_intent};
pub(crate) use delete::{cancel_intent, delete_intent};
pub(crate) use restore::restore_intent;

/// Where rows live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Which kind.
    pub(crate) collection: &'static dyn Collection,
    /// For keys, of which app.
    pub(crate) app: Option<&'a str>,
}

/// A row as it now is.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The version in force, or that was written.
    pub(crate) row: Row,
    /// The row's latest version: what a write must state. Higher when something is scheduled.
    pub(crate) latest: i64,
    /// The change is stored, but this node could not read it back yet.
    pub(crate) delayed: bool,
    /// The number of the change; `None` when nothing was written.
    pub(crate) rev: Option<i64>,
}

/// What a write comes to, judged and ready for the store.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    /// All about one row; made together or not at all.
    pub(crate) changes: Vec<Change>,
    /// Who, and why.
    pub(crate) actor: Actor,
}

/// Who writes, and which version they read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer<'a> {
    /// For the audit record.
    pub(crate) actor: &'a Actor,
    /// The version in the `If-Match` header.
    pub(crate) if_match: Option<i64>,
}

impl Writer<'_> {
    /// The actor with the body's own reason, if it has one.
    fn because(&self, reason: Option<String>) -> Actor {
        let name = self.actor.name.clone();
        Actor { name, reason: reason.unwrap_or_else(|| self.actor.reason.clone()) }
    }
}

impl Place<'_> {
    fn resource(&self) -> Resource {
        self.collection.resource()
    }

    /// The members that name a row here.
    fn identity(&self) -> &'static [&'static str] {
        match self.collection.codes() {
            Codes::Plain | Codes::ModelName => &["code"],
            Codes::Minted => &["kid", "app"],
        }
    }

    /// All versions of a row that is there, newest first. Never empty.
    ///
    /// # Errors
    /// [`Code::NotFound`], also for a row that was deleted; or the store's.
    pub(crate) async fn existing(&self, admin: &Admin, code: &str) -> Result<Vec<Row>, Problem> {
        let versions = self.history(admin, code).await?;
        let now = admin.clock.now();
        if !versions.iter().any(|row| is_ahead(row, now)) && self.is_deleted(admin, code).await? {
            return Err(Error::NotFound(self.resource()).into());
        }
        Ok(versions)
    }

    /// Whether a row whose windows have all passed was deleted, or merely ended.
    ///
    /// The store's contract tells the two apart in writes alone: a write to what was deleted finds
    /// nothing, a write from a version that never was is a conflict and changes nothing.
    async fn is_deleted(&self, admin: &Admin, code: &str) -> Result<bool, Problem> {
        let (resource, code) = (self.resource(), code.to_owned());
        let stale = Change::Delete { resource, code, read: Some(0) };
        let nobody = Actor { name: String::new(), reason: String::new() };
        match admin.stores.config.change(stale, &nobody, admin.clock.now()).await {
            Err(Error::NotFound(_)) => Ok(true),
            Err(Error::VersionConflict(_)) | Ok(_) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// All versions of a row, newest first, whether it was deleted or not. Never empty.
    ///
    /// # Errors
    /// [`Code::NotFound`], or the store's.
    pub(crate) async fn history(&self, admin: &Admin, code: &str) -> Result<Vec<Row>, Problem> {
        let versions = admin.stores.config.versions(self.resource(), code).await?;
        if versions.iter().all(|row| row.app.as_deref() != self.app) {
            return Err(Error::NotFound(self.resource()).into());
        }
        Ok(versions)
    }

    /// A row as members of JSON, without its secrets.
    pub(crate) fn show(&self, row: &Row) -> Value {
        let mut shown = Map::new();
        match self.collection.codes() {
            Codes::Plain | Codes::ModelName => {
                shown.insert("code".to_owned(), json!(row.code));
            }
            Codes::Minted => {
                shown.insert("kid".to_owned(), json!(row.code));
                shown.insert("app".to_owned(), json!(row.app));
            }
        }
        if let Value::Object(mut body) = row.body.clone() {
            self.collection.veil(&mut body);
            shown.extend(body);
        }
        shown.insert("version_no".to_owned(), json!(row.version_no));
        shown.insert("effective_from".to_owned(), json!(row.effective_from));
        shown.insert("effective_to".to_owned(), json!(row.effective_to));
        shown.insert("enabled".to_owned(), json!(row.enabled));
        Value::Object(shown)
    }

    /// A store's error, with the current row in its shown form.
    fn problem(&self, error: Error) -> Problem {
        let current = match &error {
            Error::VersionConflict(row) => Some(Box::new((self.show(row), row.version_no))),
            Error::NotFound(_)
            | Error::Exists(_)
            | Error::Overlap(_)
            | Error::Unavailable(_)
            | Error::Damaged(_) => None,
        };
        Problem { current, ..error.into() }
    }

    /// Applies what was intended and lets this node know.
    ///
    /// # Errors
    /// The store's, with the current row where it was a stale version.
    pub(crate) async fn apply(&self, admin: &Admin, intent: Intent) -> Result<Outcome, Problem> {
        let committed = self.commit(admin, intent, false).await?;
        let (first, last) = (committed.steps.first(), committed.steps.last());
        let (Some(first), Some(last)) = (first, last) else {
            return Err(nothing_to_change());
        };
        // A version may be followed by the switch of the same row.
        let row = Row { enabled: last.after.enabled, ..first.after.clone() };
        let delayed = !publish(admin, committed.rev).await;
        Ok(Outcome { latest: row.version_no, row, delayed, rev: Some(committed.rev) })
    }

    /// What would become of the row, and nothing is written.
    ///
    /// # Errors
    /// Whatever the change itself would be refused with.
    pub(crate) async fn rehearse(&self, admin: &Admin, intent: Intent) -> Result<Value, Problem> {
        let actions = intent.changes.iter().map(action_of).collect::<Vec<_>>();
        let is_deletion = intent.changes.iter().any(|c| matches!(c, Change::Delete { .. }));
        let committed = self.commit(admin, intent, true).await?;
        let (first, last) = (committed.steps.first(), committed.steps.last());
        let (Some(first), Some(last)) = (first, last) else {
            return Err(nothing_to_change());
        };
        let before = first.before.as_ref();
        let after = Row { enabled: last.after.enabled, ..first.after.clone() };
        let after = (!is_deletion).then_some(&after);
        Ok(json!({
            "dry_run": true,
            "actions": actions,
            "before": before.map(|row| self.show(row)),
            "after": after.map(|row| self.show(row)),
            "difference": difference::of_rows(before, after),
        }))
    }

    async fn commit(
        &self,
        admin: &Admin,
        intent: Intent,
        rehearsal: bool,
    ) -> Result<Committed, Problem> {
        let batch = Batch { changes: intent.changes, rehearsal };
        let committed = admin.stores.config.commit(batch, &intent.actor, admin.clock.now()).await;
        committed.map_err(|refused| self.problem(refused.error))
    }
}

/// Tells the other nodes of a change. Whether this one now works with it.
pub(crate) async fn publish(admin: &Admin, rev: i64) -> bool {
    admin.live.tell(rev).await;
    match admin.live.catch_up().await {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%error, "failed to put a stored change in force on this node");
            false
        }
    }
}

fn nothing_to_change() -> Problem {
    Problem::new(Code::NothingToChange, "name at least one member")
}

const fn action_of(change: &Change) -> &'static str {
    match change {
        Change::Create(_) => "create",
        Change::Add { action, .. } => action,
        Change::Switch { .. } => "switch",
        Change::Cancel { .. } => "cancel",
        Change::Delete { .. } => "delete",
    }
}

/// Whether a version is in force now or will be. A cancelled one has an empty window.
pub(crate) fn is_ahead(row: &Row, now: Timestamp) -> bool {
    row.effective_to.is_none_or(|end| end > now && end > row.effective_from)
}

/// The version to show: in force, else the next, else the last.
pub(crate) fn shown_version(versions: &[Row], now: Timestamp) -> Option<&Row> {
    let ahead = versions.iter().filter(|row| is_ahead(row, now));
    // Whatever is ahead and earliest is in force, or the next to be.
    ahead.min_by_key(|row| row.effective_from).or_else(|| last_version(versions))
}

/// The version in force when a new one starts, else the last: what a change is made from.
pub(crate) fn origin_version(versions: &[Row], start: Timestamp) -> Option<&Row> {
    versions.iter().find(|row| row.is_effective(start)).or_else(|| last_version(versions))
}

/// The version whose window starts last, of those that were not cancelled.
fn last_version(versions: &[Row]) -> Option<&Row> {
    let kept = versions.iter().filter(|row| row.effective_to != Some(row.effective_from));
    kept.max_by_key(|row| row.effective_from).or_else(|| versions.first())
}

/// One row as of now.
///
/// # Errors
/// [`Code::NotFound`], or the store's.
pub(crate) async fn read(admin: &Admin, place: Place<'_>, code: &str) -> Result<Outcome, Problem> {
    let versions = place.existing(admin, code).await?;
    let latest = versions.first().map_or(0, |row| row.version_no);
    match shown_version(&versions, admin.clock.now()) {
        Some(row) => Ok(Outcome { row: row.clone(), latest, delayed: false, rev: None }),
        None => Err(Error::NotFound(place.resource()).into()),
    }
}

/// One page of rows as of now, by code, and the cursor of the next page.
///
/// # Errors
/// The store's.
pub(crate) async fn list(
    admin: &Admin,
    place: Place<'_>,
    after: Option<&str>,
    limit: u32,
) -> Result<(Vec<Row>, Option<String>), Problem> {
    let (resource, app) = (place.resource(), place.app);
    let page = Page { resource, app, after, limit: limit.saturating_add(1) };
    let mut rows = admin.stores.config.list(page, admin.clock.now()).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > wanted;
    rows.truncate(wanted);
    let next = rows.last().filter(|_| more).map(|row| row.code.clone());
    Ok((rows, next))
}

/// A version of a row by its number.
fn numbered(versions: &[Row], version_no: i64) -> Result<&Row, Problem> {
    versions
        .iter()
        .find(|row| row.version_no == version_no)
        .ok_or_else(|| Problem::new(Code::NotFound, "the row has no such version"))
}
