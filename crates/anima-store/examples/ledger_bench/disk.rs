//! What the disk itself takes: the baseline beside which the latency of a hold is read.
//!
//! The least a log can do that makes records durable at the same pace: all that is due is written
//! in one go, over blocks that exist, and synced once. Invariant: in the folder of the databases.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use tokio::time::Instant;

use super::Failure;
use super::load::at;

/// A page and its frame's header in SQLite's log.
const RECORD: [u8; 4096 + 24] = [7; 4096 + 24];

/// Records after which the log begins anew.
const ROUND: u32 = 1_000;

/// Writes `per_second` records a second for so many seconds. Gives p50, p99 and p99.9 of what each
/// took from when it was due until it was on disk, in milliseconds. It blocks its thread.
#[expect(clippy::disallowed_methods, reason = "a thread of its own, which paces itself")]
pub(super) fn open_loop(folder: &Path, per_second: u32, seconds: u32) -> Result<[f64; 3], Failure> {
    let path = folder.join("log");
    let mut log = File::create(&path)?;
    for _ in 0..ROUND {
        log.write_all(&RECORD)?;
    }
    log.sync_all()?;
    let every = Duration::from_secs(1) / per_second;
    let (begin, all) = (Instant::now(), per_second * seconds);
    let mut waits = Vec::new();
    let mut written = 0;
    while written < all {
        sleep((begin + every * written).saturating_duration_since(Instant::now()));
        let first = written;
        while written < all && begin + every * written <= Instant::now() {
            if written % ROUND == 0 {
                log.seek(SeekFrom::Start(0))?;
            }
            log.write_all(&RECORD)?;
            written += 1;
        }
        log.sync_data()?;
        waits.extend((first..written).map(|n| (begin + every * n).elapsed()));
    }
    drop(log);
    std::fs::remove_file(&path)?;
    waits.sort_unstable();
    Ok([500, 990, 999].map(|part| at(&waits, part)))
}
