//! What a durable write costs on this disk: the unit in which latencies of billing are counted.
//!
//! A commit of either database is one append to a log and one `fdatasync`, so that is what is
//! timed.
//! Invariant: measured in the folder where the databases lie.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// One commit record of SQLite's log: a page and its frame header.
const RECORD_BYTES: usize = 4096 + 24;

/// The median of 200 appends, each made durable.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn durable_append(folder: &Path) -> Result<Duration> {
    let path = folder.join("append");
    let mut file = File::create(&path).context("failed to create a file")?;
    let record = [7_u8; RECORD_BYTES];
    let mut times = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        file.write_all(&record).and_then(|()| file.sync_data()).context("failed to append")?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("nothing was timed")
}
