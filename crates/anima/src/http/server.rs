//! Sockets, limits and graceful shutdown.
//!
//! Every accepted connection has Nagle off, a bound on its request head in size and time, and a cap
//! on concurrent HTTP/2 streams. Invariant: after the shutdown signal no new connection is taken,
//! and running ones end at the bound at the latest. Source: `reliability` 7.2, transport limits.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

/// A request's head must be complete within this.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers of one request.
const HEADERS_MAX: usize = 100;
/// Bytes of one request's head; hyper also reads bodies through this buffer.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a stream that was cut may take to be settled and to send its error event: as long as a
/// settlement is tried (`ledger/batch`).
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Concurrent HTTP/2 streams of one connection.
const H2_STREAMS_MAX: u32 = 200;

/// Serves until `shutdown`, then lets running requests finish within `grace`. What is still running
/// then is told to end by `cut`, and has [`LAST_WORDS`] to do so.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
    (grace, cut): (Duration, CancellationToken),
) {
    let builder = builder();
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, peer)) => connection(&builder, &graceful, &router, stream, peer),
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to be given back.
                tracing::warn!(%error, "failed to accept a connection");
                tokio::task::yield_now().await;
            }
        }
    }
    drop(listener);
    let mut closing = std::pin::pin!(graceful.shutdown());
    if tokio::time::timeout(grace, &mut closing).await.is_ok() {
        return;
    }
    tracing::warn!("calls were still running at the end of the shutdown; ending them");
    cut.cancel();
    if tokio::time::timeout(LAST_WORDS, closing).await.is_err() {
        tracing::error!("connections were still open at the end of the shutdown");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(32 * 1024)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    builder
}

fn connection(
    builder: &auto::Builder<TokioExecutor>,
    graceful: &GracefulShutdown,
    router: &Router,
    stream: TcpStream,
    peer: SocketAddr,
) {
    // Without this each small write of a stream waits for the peer's acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let router = router.clone();
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    let watched = graceful.watch(connection);
    tokio::spawn(async move {
        // A connection ends in an error whenever its peer leaves: nothing to do about it.
        drop(watched.await);
    });
}
