//! The entry of one call while it is being answered.
//!
//! Created before the first byte, told of every piece, and completed exactly once: by `finish`, or
//! by being dropped, which is how a caller's leaving shows (hyper drops the body or the service's
//! future). It keeps its own counts and touches the shared log only at both ends and when a silence
//! begins.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Call, Log, Outcome};
use crate::reply::{Piece, Truth};

/// An open entry of the log.
#[derive(Debug)]
pub(crate) struct Record {
    log: Arc<Log>,
    number: u64,
    truth: Truth,
    /// The whole entry, when it also goes to a file.
    copy: Option<Box<Call>>,
    tokens_sent: u64,
    chunks: u64,
    usage_sent: bool,
    silent: bool,
    finished: bool,
}

impl Record {
    /// Enters a call; `call` has what is known of it before the answer, and is only built when the
    /// log is enabled.
    pub(crate) fn open(
        log: &Arc<Log>,
        number: u64,
        truth: Truth,
        call: impl FnOnce(&Truth) -> Call,
    ) -> Self {
        log.open.fetch_add(1, Ordering::AcqRel);
        let mut copy = None;
        if log.enabled() {
            let call = call(&truth);
            if let Some(journal) = &log.journal {
                journal.append(&call);
                copy = Some(Box::new(call.clone()));
            }
            log.enter(call);
        }
        Self {
            log: Arc::clone(log),
            number,
            truth,
            copy,
            tokens_sent: 0,
            chunks: 0,
            usage_sent: false,
            silent: false,
            finished: false,
        }
    }

    /// A piece was handed to the connection.
    pub(crate) fn sent(&mut self, piece: &Piece) {
        self.tokens_sent = self.tokens_sent.saturating_add(piece.tokens);
        self.chunks = self.chunks.saturating_add(u64::from(piece.content));
        self.usage_sent |= piece.reports_usage;
    }

    /// The provider falls silent; the entry shows it while the connection is open.
    pub(crate) fn fell_silent(&mut self) {
        if !self.silent {
            self.silent = true;
            self.write(Outcome::Silent, false, false);
        }
    }

    /// The plan was played to its end.
    pub(crate) fn finish(&mut self) {
        self.complete(self.truth.outcome, false);
    }

    fn complete(&mut self, outcome: Outcome, caller_left: bool) {
        if !self.finished {
            self.finished = true;
            self.write(outcome, caller_left, true);
            if self.log.open.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.log.idle.notify_waiters();
            }
        }
    }

    fn write(&mut self, outcome: Outcome, caller_left: bool, last: bool) {
        if !self.log.enabled() {
            return;
        }
        let billed = self.truth.billed(self.tokens_sent);
        let reported = self.truth.reported.filter(|_| self.usage_sent);
        let chunks = self.chunks;
        let change = |call: &mut Call| {
            call.outcome = outcome;
            call.caller_left = caller_left;
            call.chunks = chunks;
            call.billed = billed;
            call.reported = reported;
        };
        self.log.amend(self.number, change);
        if let (Some(journal), Some(copy), true) = (&self.log.journal, &mut self.copy, last) {
            change(copy);
            journal.append(copy);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let stopped = self.log.stopping.load(Ordering::Relaxed);
        let outcome = match (self.silent, stopped) {
            (true, _) => Outcome::Silent,
            (false, true) => Outcome::Stopped,
            (false, false) => Outcome::Left,
        };
        self.complete(outcome, !stopped);
    }
}
