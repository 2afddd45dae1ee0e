//! `anima migrate`: brings the schema up to date and ends.
//!
//! Every start does the same; this is for operators who want it done before. It needs no master key
//! and listens nowhere.

use anima_store::database;

use crate::boot;
use crate::settings::Flags;

use super::{Exit, prepare, process, say};

/// Migrates the database of the settings.
pub(super) fn run(flags: &Flags) -> Result<(), Exit> {
    let (settings, _log) = prepare(flags)?;
    let location = boot::location(&settings).map_err(Exit::Usage)?;
    process::run(1, async {
        database::migrate(&location).await.map_err(|e| Exit::Failed(e.to_string()))?;
        say(&"The schema is up to date.")
    })
}
