//! Decides what a change of the configuration writes. Pure: no database, no clock.
//!
//! Both backends read a [`Found`] under the lock of the revision, decide here, and write the
//! [`Writes`] in the same transaction. Invariant: no window that has begun is changed but for its
//! end, which is never moved to before `now`.

use anima_core::clock::Timestamp;
use anima_core::config::Resource;

use super::{Change, Error, NewVersion, Row};

/// What the database holds about the row that is to change.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// `None` when there never was such a row.
    pub(super) head: Option<Head>,
    /// Windows that end after now and were not cancelled, in order.
    pub(super) windows: Vec<Window>,
    /// The version with the highest number.
    pub(super) latest: Option<Row>,
    /// For a price, the windows of other prices of its scope that end after now.
    pub(super) rivals: Vec<Rival>,
    /// For a key, whether its app exists.
    pub(super) app_exists: bool,
}

/// What is the same for all versions of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// For a key, its app.
    pub(super) app: Option<String>,
    /// Number of the latest version.
    pub(super) version_no: i64,
    /// The live switch.
    pub(super) enabled: bool,
    /// The earliest instant at which a further change may start. Ahead of `now` when another node's
    /// clock is, and then the change starts there: writes of one row never go back in time.
    pub(super) changed_at: Timestamp,
    /// `None` while the row exists.
    pub(super) deleted_at: Option<Timestamp>,
}

/// When a version is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) version_no: i64,
    pub(super) from: Timestamp,
    pub(super) to: Option<Timestamp>,
}

impl Window {
    fn holds(&self, at: Timestamp) -> bool {
        self.from <= at && self.to.is_none_or(|to| at < to)
    }
}

/// When another price of the same scope is in force.
#[derive(Debug, Clone)]
pub(super) struct Rival {
    pub(super) code: String,
    pub(super) from: Timestamp,
    pub(super) to: Option<Timestamp>,
}

/// What is to be written, beside the revision and the audit record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Writes {
    /// The word for the audit record.
    pub(super) action: &'static str,
    /// The head as it will be.
    pub(super) head: Head,
    /// Versions that will never be in force. To be written first.
    pub(super) cancel: Vec<i64>,
    /// A version, and when it now ends. To be written second.
    pub(super) close: Option<(i64, Option<Timestamp>)>,
    /// The new version. To be written third.
    pub(super) insert: Option<Window>,
    /// The hashes of the key's secrets go.
    pub(super) forget_secrets: bool,
    /// The version that answers the writer; `None` is the one of now.
    pub(super) answer: Option<i64>,
}

/// Decides. See the contract at the top of `config`.
///
/// # Errors
/// Whatever the change is refused with.
pub(super) fn decide(change: &Change, found: &Found, now: Timestamp) -> Result<Writes, Error> {
    match change {
        Change::Create(version) => create(version, found, now),
        Change::Add { version, read, action } => {
            let head = live(found, version.resource)?;
            unchanged(head, found, *read)?;
            write(version, head.clone(), found, now, action)
        }
        Change::Switch { resource, enabled, .. } => {
            let head = Head { enabled: *enabled, ..live(found, *resource)?.clone() };
            Ok(Writes::of("switch", head))
        }
        Change::Cancel { resource, version_no, read, .. } => {
            let head = live(found, *resource)?;
            unchanged(head, found, read.unwrap_or(head.version_no))?;
            cancel(*version_no, head, found, now).ok_or(Error::NotFound(*resource))?
        }
        Change::Delete { resource, read, .. } => {
            let head = live(found, *resource)?;
            unchanged(head, found, read.unwrap_or(head.version_no))?;
            Ok(delete(head, found, now))
        }
    }
}

impl Writes {
    /// Nothing but the head.
    fn of(action: &'static str, head: Head) -> Self {
        Self {
            action,
            head,
            cancel: Vec::new(),
            close: None,
            insert: None,
            forget_secrets: false,
            answer: None,
        }
    }
}

fn live(found: &Found, resource: Resource) -> Result<&Head, Error> {
    found.head.as_ref().filter(|h| h.deleted_at.is_none()).ok_or(Error::NotFound(resource))
}

fn unchanged(head: &Head, found: &Found, read: i64) -> Result<(), Error> {
    if head.version_no == read {
        return Ok(());
    }
    match &found.latest {
        Some(row) => Err(Error::VersionConflict(Box::new(row.clone()))),
        None => Err(Error::Damaged(format!("version {} is missing", head.version_no))),
    }
}

fn create(version: &NewVersion, found: &Found, now: Timestamp) -> Result<Writes, Error> {
    let resource = version.resource;
    if resource == Resource::UserApiKey && !found.app_exists {
        return Err(Error::NotFound(Resource::App));
    }
    let has_scope = matches!(resource, Resource::Price | Resource::FxRate);
    if has_scope && version.scope.is_none() {
        return Err(Error::Damaged(format!("`{}` has no scope", version.code)));
    }
    let fresh = |version_no, changed_at| Head {
        app: version.app.clone(),
        version_no,
        enabled: true,
        changed_at,
        deleted_at: None,
    };
    let head = match &found.head {
        None => fresh(0, now),
        Some(old) if old.deleted_at.is_some() && old.app == version.app => {
            fresh(old.version_no, old.changed_at)
        }
        Some(_) => return Err(Error::Exists(resource)),
    };
    write(version, head, found, now, "create")
}

/// Adds a version to a row: `head` is as it was before.
fn write(
    version: &NewVersion,
    head: Head,
    found: &Found,
    now: Timestamp,
    action: &'static str,
) -> Result<Writes, Error> {
    let floor = now.max(head.changed_at);
    let version_no = head.version_no.saturating_add(1);
    let mut writes = Writes::of(action, Head { version_no, changed_at: floor, ..head });
    let mut start = version.effective_from.unwrap_or(floor).max(floor);
    let mut current = found.windows.iter().find(|w| w.holds(start));
    if current.is_some_and(|w| w.from == start && w.from <= floor) {
        // The version in force began in this microsecond, and no window may be empty.
        start = after(start);
        writes.head.changed_at = start;
        current = found.windows.iter().find(|w| w.holds(start));
    }
    match current {
        Some(w) if w.from < start => writes.close = Some((w.version_no, Some(start))),
        // A scheduled version of the same start is replaced, which is how a schedule is corrected.
        Some(w) => writes.cancel.push(w.version_no),
        None => {}
    }
    let next = found.windows.iter().find(|w| w.from > start);
    let end = version.effective_to.or_else(|| next.map(|w| w.from));
    fits(start, end, next)?;
    apart(start, end, &found.rivals)?;
    writes.insert = Some(Window { version_no, from: start, to: end });
    writes.answer = Some(version_no);
    Ok(writes)
}

fn fits(start: Timestamp, end: Option<Timestamp>, next: Option<&Window>) -> Result<(), Error> {
    let Some(end) = end else { return Ok(()) };
    if end <= start {
        return Err(Error::Overlap(format!("it ends at {end}, which is not after {start}")));
    }
    match next {
        Some(w) if w.from < end => {
            let (no, from) = (w.version_no, w.from);
            Err(Error::Overlap(format!("version {no} is scheduled from {from}")))
        }
        _ => Ok(()),
    }
}

fn apart(start: Timestamp, end: Option<Timestamp>, rivals: &[Rival]) -> Result<(), Error> {
    let meets = |r: &&Rival| {
        end.is_none_or(|end| r.from < end) && r.to.is_none_or(|rival_end| start < rival_end)
    };
    match rivals.iter().find(meets) {
        Some(r) => {
            let (code, from) = (&r.code, r.from);
            Err(Error::Overlap(format!("price `{code}` is for the same from {from}")))
        }
        None => Ok(()),
    }
}

/// `None` when no such version lies ahead.
fn cancel(
    version_no: i64,
    head: &Head,
    found: &Found,
    now: Timestamp,
) -> Option<Result<Writes, Error>> {
    let ahead = |w: &&Window| w.version_no == version_no && w.from > now.max(head.changed_at);
    let window = found.windows.iter().find(ahead)?;
    if found.windows.len() == 1 {
        let detail = format!("version {version_no} is all there is of the row: delete the row");
        return Some(Err(Error::Overlap(detail)));
    }
    let mut writes = Writes::of("cancel", head.clone());
    writes.cancel.push(version_no);
    // The version before it was made to end at its start.
    let before = found.windows.iter().find(|w| w.to == Some(window.from));
    writes.close = before.map(|w| (w.version_no, window.to));
    Some(Ok(writes))
}

fn delete(head: &Head, found: &Found, now: Timestamp) -> Writes {
    let mut end = now.max(head.changed_at);
    let mut writes = Writes::of("delete", head.clone());
    writes.forget_secrets = true;
    writes.answer = Some(head.version_no);
    for window in &found.windows {
        if window.from > end {
            writes.cancel.push(window.version_no);
        } else if window.holds(end) {
            if window.from == end {
                end = after(end);
            }
            writes.close = Some((window.version_no, Some(end)));
            writes.answer = Some(window.version_no);
        }
    }
    writes.head.changed_at = end;
    writes.head.deleted_at = Some(end);
    writes
}

/// The next microsecond, the smallest step there is.
const fn after(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(at.micros().saturating_add(1))
}

#[cfg(test)]
mod tests;
