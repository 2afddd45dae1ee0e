//! `anima serve`: a node with the settings given.
//!
//! Makes no rows but the first admin token, which is printed this once. Invariant: the address is
//! printed when the node can serve, not before.

use crate::boot;
use crate::settings::Flags;

use super::{Exit, prepare, process, say};

fn tell(token: &str) -> Result<(), Exit> {
    say(&format_args!("  The first admin token, shown this once: {token}"))
}

/// Serves until a signal.
pub(super) fn run(flags: &Flags) -> Result<(), Exit> {
    let (settings, _log) = prepare(flags)?;
    process::run(settings.worker_threads, async {
        let shutdown = process::shutdown()?;
        let mut node = boot::node(&settings).await.map_err(Exit::Usage)?;
        let minted = if node.is_open() {
            boot::ensure_admin_token(&node, &settings).await.map_err(Exit::Failed)?
        } else {
            None
        };
        let listener = process::listen(settings.listen).await?;
        let address = listener.local_addr().map_err(|e| Exit::Failed(e.to_string()))?;
        say(&format_args!("Anima listens on http://{address}"))?;
        say(&format_args!("  API     http://{address}/v1"))?;
        say(&format_args!("  admin   http://{address}/api/admin/v1"))?;
        if let Some(token) = minted {
            tell(&token)?;
        }
        if let Some(late) = node.late_token.take() {
            tokio::spawn(async move { late.await.ok().map(|token| tell(&token)) });
        }
        node.serve(listener, shutdown).await;
        Ok(())
    })
}
