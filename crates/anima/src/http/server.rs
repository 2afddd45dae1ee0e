//! Sockets, limits and graceful shutdown.
//!
//! Every accepted connection has Nagle off, a bound on its request head in size and time, a bound
//! on a peer that stops reading, on one that asks for nothing, and a cap on concurrent HTTP/2
//! streams; there are only so many.
//! Invariant: after the shutdown signal no new connection is taken, and running ones end at the
//! bound at the latest. Source: `reliability` 7.2, transport limits.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

mod activity;
mod patience;

use activity::{Activity, Counted};
use patience::{Patience, Patient};

/// A request's head must be complete so long after its first byte; a connection must show as soon
/// which protocol it speaks.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that serves nothing is kept so long for the next request. Longer than the 60 s for
/// which nginx and load balancers keep theirs, so that they close first: who sends on a connection
/// that is being closed loses the request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// A peer that takes no byte of what waits for it is given up after this.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);
/// Connections open at once; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 10_000;
/// After a failed accept: long enough for a file descriptor to be given back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
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
    let graceful = GracefulShutdown::new();
    accept_all(listener, router, shutdown, (&graceful, CONNECTIONS_MAX)).await;
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

/// Takes connections, at most so many at once, until `shutdown`; then frees the address.
async fn accept_all(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
    (graceful, connections_max): (&GracefulShutdown, usize),
) {
    let builder = builder();
    let permits = Arc::new(Semaphore::new(connections_max));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = &mut shutdown => return,
        };
        match accepted {
            Ok(accepted) => connection(&builder, graceful, &router, accepted),
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to be given back.
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection, its peer, and the right to keep it open.
type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> io::Result<Accepted> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // hyper counts from the end of the last request; from the first byte is counted below.
        .header_read_timeout(IDLE_TIMEOUT + HEADER_TIMEOUT)
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
    (stream, peer, permit): Accepted,
) {
    // Without this each small write of a stream waits for the peer's acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (router, activity) = (router.clone(), Arc::new(Activity::default()));
    let counted = Arc::clone(&activity);
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let (serving, mut router) = (counted.serve(), router.clone());
        let answering = router.call(request);
        async move { Ok::<_, Infallible>(answering.await?.map(|body| Counted::new(body, serving))) }
    });
    let patience = Patience { opening: HEADER_TIMEOUT, head: HEADER_TIMEOUT, write: WRITE_TIMEOUT };
    let io = TokioIo::new(Patient::new(stream, patience, Arc::clone(&activity)));
    let connection = builder.serve_connection(io, service).into_owned();
    let watched = graceful.watch(connection);
    tokio::spawn(async move {
        tokio::select! {
            // A connection ends in an error whenever its peer leaves: nothing to do about it.
            _ended = watched => {}
            () = activity.idle(IDLE_TIMEOUT) => {}
        }
        drop(permit);
    });
}

#[cfg(test)]
mod tests;
