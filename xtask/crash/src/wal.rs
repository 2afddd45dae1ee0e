//! SQLite's write-ahead log as a file: when a transaction begins to be written, and whether the
//! last one in it was finished.
//!
//! Not a reader of the log's content; checksums are SQLite's business. Invariant: the log is only
//! looked at, never written. Source: <https://www.sqlite.org/fileformat2.html#walformat>, read
//! 2026-11-23.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Bytes before the first frame, and before each frame's page.
const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Between two looks: a fraction of what a commit takes.
const LOOK: Duration = Duration::from_micros(50);

/// Kills that were aimed at a commit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Aimed {
    /// The process was killed right after it had begun to write.
    pub(crate) kills: usize,
    /// Of these, a transaction stands in the log without its end.
    pub(crate) unfinished: usize,
}

/// The log beside a database.
pub(crate) fn beside(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// Waits until something is written to the log. `false` when nothing was within `within`. Blocks.
pub(crate) fn until_written(log: &Path, within: Duration) -> bool {
    let (state, until) = (written(log), Instant::now() + within);
    while Instant::now() < until {
        if written(log) != state {
            return true;
        }
        thread::park_timeout(LOOK);
    }
    false
}

fn written(log: &Path) -> Option<(u64, SystemTime)> {
    let meta = fs::metadata(log).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

/// Whether the log ends within a transaction.
pub(crate) fn is_unfinished(log: &Path) -> bool {
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| file.read_to_end(&mut bytes));
    read.is_ok() && ends_within(&bytes)
}

/// Frames of an earlier round have other salts; the last frame of a transaction says how many
/// pages the database has then, the others 0.
fn ends_within(log: &[u8]) -> bool {
    let number = |at: usize| {
        let bytes: [u8; 4] = log.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    };
    let (Some(page), Some(salts)) = (number(8), log.get(16..24)) else { return false };
    let frame = FRAME_HEADER + usize::try_from(page).unwrap_or(0);
    let mut at = HEADER;
    let mut pages = None;
    while log.get(at + 8..at + 16) == Some(salts) {
        // A frame that is cut short is not the end of a transaction.
        pages = if at + frame <= log.len() { number(at + 4) } else { Some(0) };
        at += frame;
    }
    pages == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of frames with pages of four bytes: the salt and the number of pages.
    fn log(frames: &[(u8, u32)]) -> Vec<u8> {
        let mut log = vec![0; HEADER];
        log[11] = 4;
        log[16..24].fill(7);
        for (salt, pages) in frames {
            log.extend([0; 4]);
            log.extend(pages.to_be_bytes());
            log.extend([*salt; 8]);
            log.extend([0; 8 + 4]);
        }
        log
    }

    #[test]
    fn a_transaction_ends_with_a_frame_that_says_so() {
        assert!(!ends_within(b"") && !ends_within(&log(&[])));
        assert!(!ends_within(&log(&[(7, 0), (7, 3)])));
        assert!(ends_within(&log(&[(7, 3), (7, 0)])));
        // What is left of an earlier round does not count.
        assert!(!ends_within(&log(&[(7, 3), (6, 0)])));
        let whole = log(&[(7, 3), (7, 4)]);
        assert!(ends_within(&whole[..whole.len() - 1]));
    }

    #[test]
    fn a_log_is_beside_its_database() {
        assert_eq!(beside(Path::new("/x/anima.db")), Path::new("/x/anima.db-wal"));
    }

    #[test]
    fn what_is_written_by_sqlite_is_finished() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("a.db");
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE a (b)").unwrap();
        let log = beside(&file);
        assert!(fs::metadata(&log).unwrap().len() > 0 && !is_unfinished(&log));
        let bytes = fs::read(&log).unwrap();
        assert!(ends_within(&bytes[..bytes.len() - 1]));
    }
}
