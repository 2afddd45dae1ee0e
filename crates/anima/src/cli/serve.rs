//! `anima serve`: a node with the settings given.
//!
//! Makes no rows but the first admin token, which is printed this once. Invariant: the address is
//! printed when the node can serve, not before.

use crate::boot;
use crate::settings::Flags;

use super::{Exit, prepare, process};

/// Serves until a signal.
pub(super) fn run(flags: &Flags) -> Result<(), Exit> {
    let (settings, _log) = prepare(flags)?;
    process::run(settings.worker_threads, async {
        let shutdown = process::shutdown()?;
        let node = boot::node(&settings).await.map_err(Exit::Usage)?;
        let minted = boot::ensure_admin_token(&node, &settings).await.map_err(Exit::Failed)?;
        let listener = process::listen(settings.listen).await?;
        let address = listener.local_addr().map_err(|e| Exit::Failed(e.to_string()))?;
        println!("Anima listens on http://{address}");
        println!("  API     http://{address}/v1");
        println!("  admin   http://{address}/api/admin/v1");
        if let Some(token) = minted {
            println!("  The first admin token, shown this once: {}", token.as_str());
        }
        node.serve(listener, shutdown).await;
        Ok(())
    })
}
