//! Extensions, checkpoints and corrections on their way to the writer.
//!
//! Invariant: what no store could accept is refused here.

use anima_core::ledger::{Checkpoint, Extension};

use super::{Operation, PreparedCheckpoint, PreparedCorrection, PreparedSettlement, clean};
use crate::ledger::{Correction, Error, SaleCorrection, digest, trail};

/// Checks an extension.
pub(in crate::ledger) fn extend(extension: Extension) -> Result<Operation, Error> {
    if extension.amount < 0 || extension.floor > 0 {
        return Err(Error::Refused("an extension is below 0 or its floor above".into()));
    }
    Ok(Operation::Extend(extension))
}

/// Works out what a correction rests on.
pub(in crate::ledger) fn true_up(correction: Correction) -> Result<Operation, Error> {
    let Correction { settlement, sale, report, reference } = correction;
    let is_report = report.is_some();
    if sale == SaleCorrection::Keep && !is_report {
        return Err(Error::Refused("a correction without a sale is no report".into()));
    }
    let mut settle = PreparedSettlement::of(settlement)?;
    if let Some(id) = report {
        settle.digest = digest::of_report(id, &settle.digest);
    }
    Ok(Operation::TrueUp(Box::new(PreparedCorrection { settle, sale, is_report, reference })))
}

/// Writes a checkpoint's upstream calls as text.
pub(in crate::ledger) fn checkpoint(mut checkpoint: Checkpoint) -> Result<Operation, Error> {
    if checkpoint.progress < 0 {
        return Err(Error::Refused("a checkpoint's progress is below 0".into()));
    }
    let ended = checkpoint.ended.iter_mut().filter_map(|a| a.upstream_ref.as_mut());
    let running = checkpoint.running.iter_mut().filter_map(|r| r.upstream_ref.as_mut());
    ended.chain(running).for_each(clean);
    let trail = trail::write(&checkpoint)?;
    Ok(Operation::Checkpoint(Box::new(PreparedCheckpoint { checkpoint, trail })))
}
