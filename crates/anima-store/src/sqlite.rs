//! Connections to a SQLite file, and its schema.
//!
//! Not here: what is read and written. The pragmas are the durability promise: WAL with
//! `synchronous=FULL` means that a commit which returned survives power loss (`reliability` 1.9).
//! Invariant: every connection enforces foreign keys and waits for the other writer.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::database::OpenError;

pub(crate) mod connections;

mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

/// How long a writer waits for the other one. A transaction takes milliseconds, so a longer wait
/// means that somebody holds the file open in a transaction.
const BUSY: Duration = Duration::from_secs(5);

/// Page cache of one connection, in KiB, negative as SQLite wants it for a size in bytes.
const CACHE_KIB: i64 = -32_768;

/// What a reader maps instead of copying, in bytes. Writers do not map: an I/O error under a map is
/// a signal and not an error code.
const MAP_BYTES: i64 = 256 * 1024 * 1024;

/// Opens the file for writing. When absent it is made, with the folders on its way, for its owner
/// alone.
///
/// # Errors
/// [`OpenError::Unreachable`].
pub(crate) fn open(path: &Path) -> Result<Connection, OpenError> {
    create(path).map_err(|e| OpenError::Unreachable(format!("{}: {e}", path.display())))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    connect(path, flags, 0)
}

/// Opens a file that [`open`] has opened before, for reading only.
///
/// # Errors
/// [`OpenError::Unreachable`].
pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    connect(path, flags, MAP_BYTES)
}

/// Brings the schema up to date. All missing migrations are one transaction.
///
/// # Errors
/// [`OpenError::Migration`].
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    embedded::migrations::runner()
        .set_grouped(true)
        .run(connection)
        .map(|_| ())
        .map_err(|e| OpenError::Migration(e.to_string()))
}

fn connect(path: &Path, flags: OpenFlags, map_bytes: i64) -> Result<Connection, OpenError> {
    let failed = |e: rusqlite::Error| OpenError::Unreachable(format!("{}: {e}", path.display()));
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    pragmas(&connection, map_bytes).map_err(failed)?;
    Ok(connection)
}

fn pragmas(connection: &Connection, map_bytes: i64) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    if !connection.is_readonly("main")? {
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    connection.pragma_update_and_check(None, "mmap_size", map_bytes, |_| Ok(()))
}

fn create(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(folder) = path.parent()
        && !folder.as_os_str().is_empty()
    {
        create_folder(folder)?;
    }
    create_file(path)
}

#[cfg(unix)]
fn create_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)
}

/// SQLite gives the WAL and its index the mode of the file itself.
fn create_file(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(|_| ())
}

/// Brings the schema to an older version.
#[cfg(test)]
pub(crate) fn migrate_to(connection: &mut Connection, version: i32) {
    let target = refinery::Target::Version(version);
    embedded::migrations::runner().set_target(target).run(connection).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_on_disk_and_foreign_keys_hold() {
        let folder = tempfile::tempdir().unwrap();
        let connection = open(&folder.path().join("a.db")).unwrap();
        let read = |name: &str| -> String {
            connection
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
                .map(|value| format!("{value:?}"))
                .unwrap()
        };
        assert_eq!(read("journal_mode"), "Text(\"wal\")");
        assert_eq!(read("synchronous"), "Integer(2)");
        assert_eq!(read("foreign_keys"), "Integer(1)");
        assert_eq!(read("busy_timeout"), "Integer(5000)");
    }

    #[test]
    fn migrating_twice_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = open(&folder.path().join("a.db")).unwrap();
        migrate(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
    }

    #[test]
    fn states_of_holds_are_checked_without_a_table_in_files_of_before_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let mut writer = open(&path).unwrap();
        migrate_to(&mut writer, 5);
        let other = open(&path).unwrap();
        assert!(opcodes(&other).contains(&"OpenEphemeral".to_owned()));
        migrate(&mut writer).unwrap();
        for connection in [&writer, &other, &open(&path).unwrap()] {
            let refused = connection.execute(SET_STATE, ["GONE"]).unwrap_err().to_string();
            assert!(refused.contains("CHECK constraint failed: state = 'HELD'"), "{refused}");
            assert!(!opcodes(connection).contains(&"OpenEphemeral".to_owned()));
        }
        let sound: String = writer.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
        assert_eq!(sound, "ok");
    }

    const SET_STATE: &str = "
        INSERT INTO hold (state, id, app, kid, alias, account_id, node, amount, currency, price_id,
                          created_at, expires_at)
        VALUES (?1, zeroblob(16), 'a', 'k', 'm', 1, zeroblob(16), 1, 'USD', 1, 1, 1)";

    fn opcodes(connection: &Connection) -> Vec<String> {
        let mut explained = connection.prepare(&format!("EXPLAIN {SET_STATE}")).unwrap();
        let opcodes = explained.query_map(["HELD"], |row| row.get(1)).unwrap();
        opcodes.map(Result::unwrap).collect()
    }

    #[test]
    fn a_reader_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let mut writer = open(&path).unwrap();
        migrate(&mut writer).unwrap();
        let reader = open_reader(&path).unwrap();
        assert!(reader.execute("DELETE FROM config_head", []).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_and_its_folders_are_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/a.db");
        let mut connection = open(&path).unwrap();
        migrate(&mut connection).unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&path.with_extension("db-wal")), 0o600);
        assert_eq!(mode(&folder.path().join("deep")), 0o700);
        assert_eq!(mode(&folder.path().join("deep/er")), 0o700);
    }

    #[test]
    fn a_path_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plain");
        std::fs::write(&path, "x").unwrap();
        let error = open(&path.join("a.db")).unwrap_err().to_string();
        assert!(error.contains("a.db"), "{error}");
    }
}
