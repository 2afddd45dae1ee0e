//! The configuration's statements. Both engines understand each of them as it stands.
//!
//! Parameters are written `$1`, `$2`, …: numbers to PostgreSQL, but names to SQLite, which numbers
//! them as they first appear. Invariant, held by a test: they first appear in order.

use anima_core::config::Resource;

/// One text per resource.
macro_rules! per_table {
    ($text:ident, $resource:expr) => {
        match $resource {
            Resource::Channel => $text!("channel", plain),
            Resource::Alias => $text!("alias", plain),
            Resource::Price => $text!("price", scope),
            Resource::Quota => $text!("quota", plain),
            Resource::TokenGroup => $text!("token_group", plain),
            Resource::App => $text!("app", plain),
            Resource::UserApiKey => $text!("user_api_key", app),
            Resource::FxRate => $text!("fx_rate", scope),
        }
    };
}

/// A version with its row's head. A cancelled version has an empty window.
macro_rules! select_rows {
    ($table:literal) => {
        concat!(
            "SELECT v.code, h.app, v.version_no, v.effective_from,
                CASE WHEN v.cancelled_at IS NULL THEN v.effective_to ELSE v.effective_from END,
                h.enabled, v.body
            FROM ",
            $table,
            " v JOIN config_head h ON h.resource = '",
            $table,
            "' AND h.code = v.code "
        )
    };
}

/// Picks the version in force at `$1`, else the next, else the last.
macro_rules! where_as_of {
    ($table:literal) => {
        concat!(
            "WHERE v.version_no = (
                SELECT o.version_no FROM ",
            $table,
            " o WHERE o.code = h.code AND o.cancelled_at IS NULL
                ORDER BY CASE WHEN o.effective_from > $1 THEN 1
                              WHEN o.effective_to <= $1 THEN 2 ELSE 0 END,
                         CASE WHEN o.effective_from > $1 THEN o.effective_from END,
                         o.effective_from DESC
                LIMIT 1) AND h.deleted_at IS NULL "
        )
    };
}

macro_rules! in_force_text {
    ($table:literal, $own:ident) => {
        concat!(
            select_rows!($table),
            "WHERE h.deleted_at IS NULL AND v.cancelled_at IS NULL
                AND (v.effective_to IS NULL OR v.effective_to > $1)
            ORDER BY v.code, v.effective_from"
        )
    };
}

macro_rules! list_text {
    ($table:literal, $own:ident) => {
        concat!(
            select_rows!($table),
            where_as_of!($table),
            "AND (CAST($2 AS TEXT) IS NULL OR h.app = $2) AND h.code > $3 ORDER BY h.code LIMIT $4"
        )
    };
}

macro_rules! as_of_text {
    ($table:literal, $own:ident) => {
        concat!(select_rows!($table), where_as_of!($table), "AND h.code = $2")
    };
}

macro_rules! version_text {
    ($table:literal, $own:ident) => {
        concat!(select_rows!($table), "WHERE v.code = $1 AND v.version_no = $2")
    };
}

macro_rules! versions_text {
    ($table:literal, $own:ident) => {
        concat!(select_rows!($table), "WHERE v.code = $1 ORDER BY v.version_no DESC")
    };
}

macro_rules! windows_text {
    ($table:literal, $own:ident) => {
        concat!(
            "SELECT version_no, effective_from, effective_to FROM ",
            $table,
            " WHERE code = $1 AND cancelled_at IS NULL
                AND (effective_to IS NULL OR effective_to > $2)
            ORDER BY effective_from"
        )
    };
}

macro_rules! insert_text {
    ($table:literal, plain) => {
        concat!(
            "INSERT INTO ",
            $table,
            " (code, version_no, effective_from, effective_to, body, created_at, created_by)
            VALUES ($1, $2, $3, $4, $5, $6, $7)"
        )
    };
    ($table:literal, $own:ident) => {
        concat!(
            "INSERT INTO ",
            $table,
            " (code, version_no, effective_from, effective_to, body, created_at, created_by, ",
            stringify!($own),
            ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        )
    };
}

macro_rules! cancel_text {
    ($table:literal, $own:ident) => {
        concat!("UPDATE ", $table, " SET cancelled_at = $1 WHERE code = $2 AND version_no = $3")
    };
}

macro_rules! close_text {
    ($table:literal, $own:ident) => {
        concat!("UPDATE ", $table, " SET effective_to = $1 WHERE code = $2 AND version_no = $3")
    };
}

/// Versions in force at `$1` or later.
pub(super) const fn in_force(resource: Resource) -> &'static str {
    per_table!(in_force_text, resource)
}

/// Rows as of `$1`, of app `$2` if given, after code `$3`, at most `$4`.
pub(super) const fn list(resource: Resource) -> &'static str {
    per_table!(list_text, resource)
}

/// The row `$2` as of `$1`.
pub(super) const fn as_of(resource: Resource) -> &'static str {
    per_table!(as_of_text, resource)
}

/// Version `$2` of row `$1`.
pub(super) const fn version(resource: Resource) -> &'static str {
    per_table!(version_text, resource)
}

/// All versions of row `$1`, newest first.
pub(super) const fn versions(resource: Resource) -> &'static str {
    per_table!(versions_text, resource)
}

/// Windows of row `$1` that end after `$2`, in order.
pub(super) const fn windows(resource: Resource) -> &'static str {
    per_table!(windows_text, resource)
}

/// A version: code, number, from, to, body, created at, by, and what the resource has of its own
/// (a price its scope, a key its app).
pub(super) const fn insert(resource: Resource) -> &'static str {
    per_table!(insert_text, resource)
}

/// Cancels, at `$1`, version `$3` of row `$2`.
pub(super) const fn cancel(resource: Resource) -> &'static str {
    per_table!(cancel_text, resource)
}

/// Ends, at `$1`, version `$3` of row `$2`.
pub(super) const fn close(resource: Resource) -> &'static str {
    per_table!(close_text, resource)
}

/// Windows of scope `$1` that end after `$3`, but for those of code `$2`.
pub(super) const RIVALS: &str = "
    SELECT code, effective_from, effective_to FROM price
    WHERE scope = $1 AND code <> $2 AND cancelled_at IS NULL
        AND (effective_to IS NULL OR effective_to > $3)
    ORDER BY effective_from";

/// The number of the last change.
pub(super) const REV: &str = "SELECT rev FROM config_rev";

/// The next number. The first statement of every change: its lock puts changes one after another.
pub(super) const RAISE_REV: &str = "UPDATE config_rev SET rev = rev + 1 RETURNING rev";

/// From here on a rehearsal is taken back. SQLite's alone.
pub(super) const SAVEPOINT: &str = "SAVEPOINT rehearsal";

/// Takes back everything since the savepoint. SQLite's alone.
pub(super) const TAKE_BACK: &str = "ROLLBACK TO rehearsal; RELEASE rehearsal";

/// The head of row `$2` of resource `$1`.
pub(super) const HEAD: &str = "
    SELECT app, version_no, enabled, changed_at, deleted_at FROM config_head
    WHERE resource = $1 AND code = $2";

/// Writes a head: resource, code, app, number, switch, created, changed and deleted at.
pub(super) const WRITE_HEAD: &str = "
    INSERT INTO config_head
        (resource, code, app, version_no, enabled, created_at, changed_at, deleted_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (resource, code) DO UPDATE SET version_no = excluded.version_no,
        enabled = excluded.enabled, changed_at = excluded.changed_at,
        deleted_at = excluded.deleted_at";

/// A further hash `$2` of the secret of key `$1`, made at `$3`.
pub(super) const INSERT_SECRET: &str = "
    INSERT INTO user_api_key_secret (kid, n, hash, created_at)
    VALUES ($1, (SELECT coalesce(max(n), 0) + 1 FROM user_api_key_secret WHERE kid = $1), $2, $3)";

/// All hashes of key `$1`.
pub(super) const FORGET_SECRETS: &str = "DELETE FROM user_api_key_secret WHERE kid = $1";

/// An audit record: at, actor, action, resource, code, reason, before, after, number of the change.
pub(super) const INSERT_AUDIT: &str = "
    INSERT INTO audit (at, actor, action, resource, code, reason, before_row, after_row, rev)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// At most `$2` audit records before id `$1`, newest first.
pub(super) const AUDIT: &str = "
    SELECT id, at, actor, action, resource, code, reason, before_row, after_row FROM audit
    WHERE id < $1 ORDER BY id DESC LIMIT $2";

#[cfg(test)]
mod tests {
    use super::*;

    /// Every statement, with how many parameters it takes.
    fn all() -> Vec<(&'static str, usize)> {
        let mut all = vec![
            (RIVALS, 3),
            (REV, 0),
            (RAISE_REV, 0),
            (HEAD, 2),
            (WRITE_HEAD, 8),
            (INSERT_SECRET, 3),
            (FORGET_SECRETS, 1),
            (INSERT_AUDIT, 9),
            (AUDIT, 2),
        ];
        for resource in Resource::ALL.iter().copied() {
            let own = matches!(resource, Resource::Price | Resource::FxRate | Resource::UserApiKey);
            all.extend([
                (in_force(resource), 1),
                (list(resource), 4),
                (as_of(resource), 2),
                (version(resource), 2),
                (versions(resource), 1),
                (windows(resource), 2),
                (insert(resource), 7 + usize::from(own)),
                (cancel(resource), 3),
                (close(resource), 3),
            ]);
        }
        all
    }

    #[test]
    fn sqlite_numbers_every_parameter_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = crate::sqlite::open(&folder.path().join("a.db")).unwrap();
        crate::sqlite::migrate(&mut connection).unwrap();
        for (text, count) in all() {
            let statement = connection.prepare(text).unwrap();
            let names: Vec<_> = (1..=statement.parameter_count())
                .map(|n| statement.parameter_name(n).unwrap().to_owned())
                .collect();
            let numbers: Vec<_> = (1..=count).map(|n| format!("${n}")).collect();
            assert_eq!(names, numbers, "{text}");
        }
    }
}
