//! The log as a file of JSON lines.
//!
//! Every entry is one `write` of one whole line on a file opened for appending, so a killed process
//! leaves whole lines and at most one broken last one. There is no `fsync`: the file is to survive
//! the process, not the machine. A call has one line when it starts and one when it ends; the last
//! line of a number is the truth.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Call;

#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    lost: AtomicU64,
}

impl Journal {
    /// Opens or creates a file, and says the highest number in it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, u64)> {
        let last = if path.exists() { read_file(path)?.last().map_or(0, |c| c.number) } else { 0 };
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if last > 0 {
            // Ends the line that a kill may have broken.
            file.write_all(b"\n")?;
        }
        Ok((Self { file, lost: AtomicU64::new(0) }, last))
    }

    /// Appends an entry. A full disk does not stop the answers: the loss is counted instead.
    pub(super) fn append(&self, call: &Call) {
        let written = serde_json::to_vec(call).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            (&self.file).write_all(&line)
        });
        if written.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Reads a log file: the last state of every call, by number. Lines that are not whole are skipped,
/// and a call whose end was never written has the outcome `open`.
///
/// # Errors
///
/// The file cannot be read.
pub fn read_file(path: &Path) -> io::Result<Vec<Call>> {
    let text = std::fs::read(path)?;
    let lines = text.split(|byte| *byte == b'\n');
    let calls = lines.filter_map(|line| serde_json::from_slice::<Call>(line).ok());
    let last: BTreeMap<u64, Call> = calls.map(|call| (call.number, call)).collect();
    Ok(last.into_values().collect())
}
