//! What every long-running command needs: a runtime, a socket, and the end by signal.
//!
//! Invariant: the first SIGTERM or SIGINT asks for an orderly end, the second ends at once.
//! Not here: what an orderly end is (`boot`, `http::server`).

use std::future::Future;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Exit;

/// Runs a future on a runtime with this many threads; 0 is one per core.
pub(super) fn run<T>(
    threads: usize,
    future: impl Future<Output = Result<T, Exit>>,
) -> Result<T, Exit> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if threads > 0 {
        builder.worker_threads(threads);
    }
    let runtime = builder.enable_all().build().map_err(|e| Exit::Failed(e.to_string()))?;
    runtime.block_on(future)
}

/// Takes the address to listen on.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, Exit> {
    let wrong = |e: std::io::Error| Exit::Usage(format!("setting `listen`: {address}: {e}"));
    TcpListener::bind(address).await.map_err(wrong)
}

/// Cancelled by SIGTERM or SIGINT. A second signal ends the process at once.
pub(super) fn shutdown() -> Result<CancellationToken, Exit> {
    let token = CancellationToken::new();
    let failed = |e: std::io::Error| Exit::Failed(format!("failed to listen for signals: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let cancel = token.clone();
    tokio::spawn(async move {
        let mut one = async || {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        one().await;
        tracing::info!("shutting down; a second signal ends at once");
        cancel.cancel();
        one().await;
        leave_at_once();
    });
    Ok(token)
}

#[expect(clippy::disallowed_methods, clippy::exit, reason = "the second signal asks for just that")]
fn leave_at_once() -> ! {
    std::process::exit(130)
}
