//! The truth log: what the provider got, did and would bill, call by call.
//!
//! A call enters the log before the first byte of its answer and is completed when the answer ends,
//! however it ends. It is what reconciliation tests compare the gateway's ledger with, so it never
//! depends on what the caller was told. It lives in memory up to a cap and, if asked for, in a file
//! of JSON lines that survives a kill (`truth/journal.rs`).

mod journal;
mod record;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::script::Endpoint;
use crate::usage::{Reported, Usage};
use journal::Journal;

pub use journal::read_file;
pub(crate) use record::Record;

/// Calls kept in memory when nobody says otherwise; about half a gigabyte when it is full.
const CAP_DEFAULT: usize = 1_000_000;

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Whether calls are kept at all; benchmarks turn it off.
    pub enabled: bool,
    /// The most calls kept in memory; older ones are forgotten.
    pub cap: usize,
    /// A file to which every entry is appended, once at its start and once at its end.
    pub file: Option<PathBuf>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { enabled: true, cap: CAP_DEFAULT, file: None }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has not ended.
    Open,
    /// The whole answer was handed to the connection.
    Answered,
    /// An error status.
    Refused,
    /// An error inside a 200.
    Failed,
    /// The provider closed the connection inside the body.
    Cut,
    /// The provider fell silent; the caller or a shutdown ended the call.
    Silent,
    /// The provider reset the connection instead of answering.
    Reset,
    /// The caller was gone before the answer was.
    Left,
    /// The simulator was stopped inside the answer.
    Stopped,
}

/// One call, as the provider knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// From 1, in order of arrival; goes on in a log file that already has calls.
    pub number: u64,
    /// `simcall_` and 16 hex digits; in `x-request-id`, and at the end of the completion's id.
    pub id: String,
    /// Arrival, Unix time in milliseconds.
    pub received_ms: u64,
    /// The caller's `x-anima-attempt-id`.
    pub attempt_id: Option<String>,
    /// The caller's `x-anima-request-id`.
    pub request_id: Option<String>,
    /// The last four characters of the bearer key.
    pub key_tail: Option<String>,
    /// What was called.
    pub endpoint: Endpoint,
    /// The model as the caller named it; empty when the body was not understood.
    pub model: String,
    /// Whether the caller asked for a stream.
    pub stream: bool,
    /// The index of the script's rule that took the call.
    pub rule: Option<usize>,
    /// The HTTP status; `None` when there is no head.
    pub status: Option<u16>,
    /// What the provider would bill, so far.
    pub billed: Usage,
    /// What the caller was told, once it was sent.
    pub reported: Option<Reported>,
    /// The pictures that the request showed: the start of their base64, or their address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pictures: Vec<String>,
    /// Content chunks of a stream that were handed to the connection.
    pub chunks: u64,
    /// Whether the caller closed the connection before the answer had ended.
    pub caller_left: bool,
    /// How it ended.
    pub outcome: Outcome,
}

/// The log of one simulator.
#[derive(Debug)]
pub(crate) struct Log {
    settings: LogSettings,
    next: AtomicU64,
    open: AtomicU64,
    idle: Notify,
    stopping: AtomicBool,
    kept: Mutex<VecDeque<Call>>,
    journal: Option<Journal>,
}

impl Log {
    pub(crate) fn open(settings: LogSettings) -> io::Result<Arc<Self>> {
        let (journal, last) = match &settings.file {
            Some(path) if settings.enabled => {
                let (journal, last) = Journal::open(path)?;
                (Some(journal), last)
            }
            Some(_) | None => (None, 0),
        };
        Ok(Arc::new(Self { journal, next: AtomicU64::new(last), ..Self::in_memory(settings) }))
    }

    /// A log without a file.
    pub(crate) fn in_memory(settings: LogSettings) -> Self {
        Self {
            settings,
            next: AtomicU64::new(0),
            open: AtomicU64::new(0),
            idle: Notify::new(),
            stopping: AtomicBool::new(false),
            kept: Mutex::new(VecDeque::new()),
            journal: None,
        }
    }

    pub(crate) fn enabled(&self) -> bool {
        self.settings.enabled
    }

    /// The number of the next call.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Calls that arrived since the start, whether kept or not.
    pub(crate) fn arrived(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Enters a call. Numbers may arrive slightly out of order; the log stays sorted.
    fn enter(&self, call: Call) {
        let mut kept = self.kept.lock();
        let later = kept.iter().rev().take_while(|other| other.number > call.number).count();
        let place = kept.len().saturating_sub(later);
        kept.insert(place, call);
        while kept.len() > self.settings.cap {
            kept.pop_front();
        }
    }

    /// Changes an entry, unless it was forgotten since.
    fn amend(&self, number: u64, change: impl FnOnce(&mut Call)) {
        let mut kept = self.kept.lock();
        let found = kept.binary_search_by_key(&number, |call| call.number);
        if let Some(call) = found.ok().and_then(|place| kept.get_mut(place)) {
            change(call);
        }
    }

    /// Entries that could not be written to the file.
    pub(crate) fn lost(&self) -> u64 {
        self.journal.as_ref().map_or(0, Journal::lost)
    }

    /// The kept calls with a higher number, in order.
    pub(crate) fn after(&self, number: u64) -> Vec<Call> {
        let kept = self.kept.lock();
        let start = kept.partition_point(|call| call.number <= number);
        kept.range(start..).cloned().collect()
    }

    /// The kept calls with this id: the log's own, an attempt's or a request's, in order.
    pub(crate) fn find(&self, id: &str) -> Vec<Call> {
        let kept = self.kept.lock();
        let is = |theirs: &Option<String>| theirs.as_deref() == Some(id);
        let found = kept.iter().filter(|c| c.id == id || is(&c.attempt_id) || is(&c.request_id));
        found.cloned().collect()
    }

    /// Whether every call that ever arrived is still kept, so that one that is not found never was.
    pub(crate) fn remembers_all(&self) -> bool {
        let kept = self.kept.lock();
        let first = kept.front().map_or_else(|| self.arrived().saturating_add(1), |c| c.number);
        self.enabled() && first == 1
    }

    /// Forgets the kept calls; the file and the numbering go on.
    pub(crate) fn clear(&self) {
        self.kept.lock().clear();
    }

    /// From now on calls that end early were stopped, not left.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Waits until no call is open.
    pub(crate) async fn idle(&self) {
        loop {
            let notified = self.idle.notified();
            if self.open.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests;
