//! One HTTP/1.1 connection to an upstream, driven by whoever reads from it.
//!
//! hyper gives a connection as a future beside the handle that sends; usually a task of its own
//! polls it, and every chunk crosses from that task to the reader. Here the reader polls it: a call
//! and its connection run in one task, and what the kernel has at once is read at once.
//! Invariant: a link that is not surely at rest is never used again; it is closed instead.

use std::future::Future as _;
use std::pin::{Pin, pin};
use std::task::{Context, Waker};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Segments;

/// What a connector gives.
pub(super) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// A connection and the handle that sends on it.
#[derive(Debug)]
pub(super) struct Link {
    sender: SendRequest<Segments>,
    /// `None` when it has ended.
    connection: Option<Connection<Stream, Segments>>,
}

impl Link {
    /// Takes over a fresh stream. Nothing is sent yet.
    pub(super) async fn open(stream: Stream) -> hyper::Result<Self> {
        let (sender, connection) = handshake(stream).await?;
        Ok(Self { sender, connection: Some(connection) })
    }

    /// Moves bytes in both directions as far as they go now.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(cx).is_ready()
        {
            // How it ended is told to whoever waits for an answer or a chunk.
            self.connection = None;
        }
    }

    /// Whether the last exchange is over and the peer has not closed.
    pub(super) fn is_at_rest(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// With the request, when it is certain that nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Segments>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Segments>>> {
        let mut sending = pin!(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        std::future::poll_fn(|cx| {
            if let Some(running) = connection
                && Pin::new(running).poll(cx).is_ready()
            {
                *connection = None;
            }
            sending.as_mut().poll(cx)
        })
        .await
    }
}
