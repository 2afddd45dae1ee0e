//! One bound over everything that connecting takes: name, TCP and TLS.
//!
//! The connectors bound TCP at most, and a peer that accepts and says nothing would hold a call for
//! ever. Invariant: what runs out of time here is a failure to connect: nothing was sent.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use tower::{BoxError, Service};

/// A connector with a bound. See the module.
#[derive(Debug, Clone)]
pub(super) struct Bounded<C> {
    connector: C,
    within: Duration,
}

impl<C> Bounded<C> {
    pub(super) fn new(connector: C, within: Duration) -> Self {
        Self { connector, within }
    }
}

impl<C> Service<Uri> for Bounded<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.within, self.connector.call(uri));
        Box::pin(async move {
            connecting.await.unwrap_or_else(|_elapsed| {
                let what = "no connection within `connect_ms`";
                Err(io::Error::new(io::ErrorKind::TimedOut, what).into())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use anima_core::failure::Failure;
    use http::Request;
    use tokio::net::TcpListener;

    use crate::outbound::{Outbound, Policy, Segments};

    #[tokio::test(start_paused = true)]
    async fn a_server_that_accepts_and_never_shakes_hands_is_a_failure_to_connect() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silent = tokio::spawn(async move {
            let accepted = listener.accept().await.unwrap();
            std::future::pending::<()>().await;
            drop(accepted);
        });
        let outbound = Outbound::new().unwrap();
        let policy = Policy { private: true, connect_ms: 300 };
        let request = Request::get(format!("https://{address}/")).body(Segments::default());
        let start = tokio::time::Instant::now();
        let error = outbound.send(policy, request.unwrap()).await.unwrap_err();
        assert_eq!(error.failure, Failure::ConnectFailed, "{error:?}");
        assert!(error.detail.contains("connect_ms"), "{error:?}");
        assert_eq!(start.elapsed().as_millis() / 100, 3);
        silent.abort();
    }
}
