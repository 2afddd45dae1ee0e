//! Configuration as a file: what is wanted, what of it is there already, and what has to be done.
//!
//! A file names rows and says all of each: members left out have their defaults. Rows that it does
//! not name are left alone, and so is a live switch that it does not mention: an old file must not
//! turn on again what was switched off. All of a file is judged before anything is written, and
//! written in one transaction. Keys are not declared: their secrets are made here and shown once.
//! Invariant: a file that was applied is applied again without a change.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use anima_core::clock::Timestamp;
use anima_core::config::{Fallbacks, Resource};
use anima_store::config::{Actor, Batch, Change, NewVersion, Rejected, Row};
use anima_store::database::Stores;

use super::Admin;
use super::collection::{Collection, Draft};
use super::endpoints::COLLECTIONS;
use super::envelope::{Envelope, Member};
use super::problem::{Code, Problem};
use super::rows::difference::{self, Difference};
use super::rows::{Creation, Place, create_intent, is_ahead, origin_version};

mod export;
mod overlay;
pub(crate) mod price_import; // published prices

pub use export::export;
use overlay::Overlay;

/// What a file comes to.
#[derive(Debug)]
pub struct Plan {
    /// Each row that the file names, in the order in which they are written.
    pub rows: Vec<PlannedRow>,
    changes: Vec<Change>,
    /// For each change, whose it is.
    owners: Vec<usize>,
}

/// What becomes of one row.
#[derive(Debug)]
pub struct PlannedRow {
    /// The section of the file: `channels`, `token_groups`.
    pub section: String,
    /// The row's code.
    pub code: String,
    /// What has to be done.
    pub action: Action,
    /// Member by member.
    differences: Vec<Difference>,
}

/// What has to be done about a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is not there.
    Create,
    /// It says something else.
    Change,
    /// It says just that.
    Nothing,
}

/// Why a file is refused: each row that is wrong, with its place.
#[derive(Debug)]
pub struct Refused {
    /// `channels[2] (main): …`.
    pub faults: Vec<String>,
    /// The file is right, but the database would not or could not take it now.
    pub is_late: bool,
}

impl PlannedRow {
    /// As `--json` shows it.
    pub fn to_json(&self) -> Value {
        let action = match self.action {
            Action::Create => "create",
            Action::Change => "change",
            Action::Nothing => "nothing",
        };
        json!({
            "section": self.section,
            "code": self.code,
            "action": action,
            "difference": self.differences.iter().map(Difference::to_json).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for PlannedRow {
    /// A line for the row and one for each member, as `diff` marks them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.action {
            Action::Create => '+',
            Action::Change => '~',
            Action::Nothing => '=',
        };
        write!(f, "{mark} {} {}", self.section, self.code)?;
        for difference in &self.differences {
            let Difference { member, before, after } = difference;
            match (before, after) {
                (Some(before), Some(after)) => write!(f, "\n    ~ {member}: {before} -> {after}")?,
                (None, Some(after)) => write!(f, "\n    + {member}: {after}")?,
                (Some(before), None) => write!(f, "\n    - {member}: {before}")?,
                (None, None) => {}
            }
        }
        Ok(())
    }
}

impl Plan {
    /// Whether anything has to be done.
    pub fn changes_anything(&self) -> bool {
        !self.changes.is_empty()
    }
}

/// The section of a file that holds a collection's rows.
fn section(collection: &dyn Collection) -> String {
    collection.path().replace('-', "_")
}

/// The collections whose rows can be declared.
fn declarable() -> impl Iterator<Item = &'static dyn Collection> {
    // In the order in which rows may name one another.
    let order = Resource::ALL.iter().filter(|resource| **resource != Resource::UserApiKey);
    order.filter_map(|resource| COLLECTIONS.iter().copied().find(|c| c.resource() == *resource))
}

/// Judges a whole file against what is stored.
///
/// # Errors
/// Everything that is wrong with it.
pub async fn plan(admin: &Admin, actor: &Actor, document: Value) -> Result<Plan, Refused> {
    let wrong = |fault: String| Refused { faults: vec![fault], is_late: false };
    let Value::Object(mut sections) = document else {
        return Err(wrong("expected sections such as `channels` with lists of rows".to_owned()));
    };
    let mut wanted = Vec::new();
    let mut faults = Vec::new();
    for collection in declarable() {
        let name = section(collection);
        match sections.remove(&name) {
            None | Some(Value::Null) => {}
            Some(Value::Array(rows)) => collect(collection, &name, rows, &mut wanted, &mut faults),
            Some(_) => faults.push(format!("{name}: expected a list of rows")),
        }
    }
    let known: Vec<_> = declarable().map(section).collect();
    faults.extend(
        sections
            .keys()
            .map(|name| format!("{name}: is not a section: expected {}", known.join(", "))),
    );
    let declared = wanted.iter().map(|row| (row.collection.resource(), row.code.clone())).collect();
    let mut judge = with_overlay(admin, declared);
    judge.declared_chains = Arc::new(wanted.iter().filter_map(chain_of).collect());
    let mut plan = Plan { rows: Vec::new(), changes: Vec::new(), owners: Vec::new() };
    let mut is_late = false;
    for row in wanted {
        let place = row.place.clone();
        match judged((admin, &judge), actor, row).await {
            Ok((row, changes)) => {
                plan.owners.extend(changes.iter().map(|_| plan.rows.len()));
                plan.changes.extend(changes);
                plan.rows.push(row);
            }
            Err(problem) => {
                is_late |= problem.code.status().is_server_error();
                faults.push(format!("{place}: {}", told(&problem)));
            }
        }
    }
    if faults.is_empty() { Ok(plan) } else { Err(Refused { faults, is_late }) }
}

/// Writes a plan in one transaction, or rehearses it, and puts it in force.
///
/// # Errors
/// Which row the database refused, and why; nothing is written then.
pub async fn apply(
    admin: &Admin,
    actor: &Actor,
    plan: &Plan,
    rehearsal: bool,
) -> Result<(), Refused> {
    if plan.changes.is_empty() {
        return Ok(());
    }
    let batch = Batch { changes: plan.changes.clone(), rehearsal };
    let committed = admin.stores.config.commit(batch, actor, admin.clock.now()).await;
    match committed {
        Ok(_) => Ok(()),
        Err(Rejected { index, error }) => {
            let row = plan.owners.get(index).and_then(|owner| plan.rows.get(*owner));
            let place = row.map(|row| format!("{} {}: ", row.section, row.code));
            let problem = Problem::from(error);
            let fault = format!("{}{}", place.unwrap_or_default(), told(&problem));
            // Between the plan and this somebody else wrote, or the database went away.
            Err(Refused { faults: vec![fault], is_late: true })
        }
    }
}

/// One row as the file has it.
struct Wanted {
    collection: &'static dyn Collection,
    /// For a fault.
    place: String,
    section: String,
    code: String,
    body: Map<String, Value>,
}

fn collect(
    collection: &'static dyn Collection,
    section: &str,
    rows: Vec<Value>,
    wanted: &mut Vec<Wanted>,
    faults: &mut Vec<String>,
) {
    let mut codes = BTreeSet::new();
    for (n, row) in rows.into_iter().enumerate() {
        let Value::Object(body) = row else {
            faults.push(format!("{section}[{n}]: expected a row with a `code`"));
            continue;
        };
        let Some(code) = body.get("code").and_then(Value::as_str).map(str::to_owned) else {
            faults.push(format!("{section}[{n}]: `code`: is required, as a text"));
            continue;
        };
        if !codes.insert(code.clone()) {
            faults.push(format!("{section}[{n}] ({code}): is there twice"));
            continue;
        }
        let place = format!("{section}[{n}] ({code})");
        wanted.push(Wanted { collection, place, section: section.to_owned(), code, body });
    }
}

/// Where an alias that a file declares leads; what cannot be read is refused with its row.
fn chain_of(row: &Wanted) -> Option<(String, Fallbacks)> {
    let is_alias = row.collection.resource() == Resource::Alias;
    let told = || row.body.get("fallbacks").cloned().unwrap_or_default();
    let chain = || serde_json::from_value(told()).unwrap_or_default();
    is_alias.then(|| (row.code.clone(), chain()))
}

/// An admin who sees the file's own rows as if they were there, so that rows may name one another.
fn with_overlay(admin: &Admin, declared: BTreeSet<(Resource, String)>) -> Admin {
    let inner = Arc::clone(&admin.stores.config);
    let config = Arc::new(Overlay { inner, declared, clock: Arc::clone(&admin.clock) });
    Admin { stores: Stores { config, ..admin.stores.clone() }, ..admin.clone() }
}

/// Judges one row. `judge` sees the file's own rows beside what is stored.
async fn judged(
    (admin, judge): (&Admin, &Admin),
    actor: &Actor,
    mut wanted: Wanted,
) -> Result<(PlannedRow, Vec<Change>), Problem> {
    let place = Place { collection: wanted.collection, app: None };
    drop_past_start(&mut wanted.body, admin.clock.now());
    match place.existing(admin, &wanted.code).await {
        Ok(history) => return changed((admin, judge), &history, wanted).await,
        Err(problem) if problem.code == Code::NotFound => {}
        Err(problem) => return Err(problem),
    }
    let Wanted { section, code, body, .. } = wanted;
    let creation = Creation { place, minted: None };
    let intent = create_intent(judge, actor, creation, body).await?;
    let created = intent.changes.iter().find_map(Change::version).map(|version| &version.body);
    let differences = difference::between(None, created);
    let row = PlannedRow { section, code, action: Action::Create, differences };
    Ok((row, intent.changes))
}

/// A start that has passed says no more than that the row is in force.
fn drop_past_start(body: &mut Map<String, Value>, now: Timestamp) {
    let start = body.get("effective_from").and_then(Value::as_str).and_then(Timestamp::parse);
    if start.is_some_and(|at| at <= now) {
        body.remove("effective_from");
    }
}

/// What has to be done about a row that is there.
async fn changed(
    (admin, judge): (&Admin, &Admin),
    history: &[Row],
    wanted: Wanted,
) -> Result<(PlannedRow, Vec<Change>), Problem> {
    let Wanted { section, code, body, collection, .. } = wanted;
    let envelope = Envelope::parse(body, &["code"])?;
    if envelope.version_no.is_some() {
        return Err(Problem::invalid("version_no", "none: a file says what shall be"));
    }
    envelope.cut()?;
    let now = admin.clock.now();
    let start = match envelope.effective_from {
        Member::Given(at) => at,
        Member::Absent | Member::Null => now,
    };
    let scheduled = |row: &&Row| row.effective_from == start && is_ahead(row, now);
    let origin = history.iter().find(scheduled).or_else(|| origin_version(history, start));
    let Some(origin) = origin else { return Err(Problem::not_found(collection.resource().name())) };
    let (effective_from, effective_to) = envelope.window(now, Some(origin))?;
    collection.vet(&envelope.body)?;
    let draft = |body| Draft { code: &code, body, origin: Some(&origin.body), history };
    let prepared = collection.prepare(judge, draft(Value::Object(envelope.body.clone()))).await?;
    // What is stored, in today's shape: members that came later have their defaults.
    let stored = collection.prepare(judge, draft(origin.body.clone())).await;
    let stored = stored.map_or_else(|_| origin.body.clone(), |prepared| prepared.body);
    let mut differences = difference::between(Some(&stored), Some(&prepared.body));
    let ends = envelope.effective_to != Member::Absent && effective_to != origin.effective_to;
    if ends {
        let (before, after) = (origin.effective_to, effective_to);
        differences.push(Difference::of("effective_to", json!(before), json!(after)));
    }
    let mut changes = Vec::new();
    if !differences.is_empty() {
        let read = history.first().map_or(0, |row| row.version_no);
        let version = NewVersion {
            resource: collection.resource(),
            code: code.clone(),
            app: None,
            body: prepared.body,
            scope: prepared.scope,
            effective_from,
            effective_to,
            secret_hash: None,
        };
        changes.push(Change::Add { version, read, action: "change" });
    }
    if let Some(enabled) = envelope.enabled.filter(|enabled| *enabled != origin.enabled) {
        let resource = collection.resource();
        changes.push(Change::Switch { resource, code: code.clone(), enabled, cut: false });
        differences.push(Difference::of("enabled", json!(origin.enabled), json!(enabled)));
    }
    let action = if changes.is_empty() { Action::Nothing } else { Action::Change };
    Ok((PlannedRow { section, code, action, differences }, changes))
}

/// A problem as one line.
fn told(problem: &Problem) -> String {
    match &problem.member {
        Some(member) => format!("`{member}`: {}", problem.detail),
        None => problem.detail.clone(),
    }
}

#[cfg(test)]
mod tests;
