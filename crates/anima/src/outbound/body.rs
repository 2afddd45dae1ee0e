//! The body of an upstream's answer, which owns its connection until it has been read.
//!
//! Read to its end, it gives the connection back for the next call. Dropped before, it gives it
//! back only if nothing is left to read; otherwise the connection is closed, which is how a call is
//! cancelled. Invariant: one connection has one owner.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::link::Link;
use super::pool::{Boarded, Home};

/// See the module.
#[derive(Debug)]
pub struct Body {
    /// `None` once it has been read or has broken off.
    incoming: Option<Incoming>,
    /// `None` on HTTP/2, where many bodies share a connection that has a task of its own.
    link: Option<(Box<Link>, Home)>,
    /// The place on such a connection.
    boarded: Option<Boarded>,
    /// The connection knows that somebody reads: it hands nothing over before it was asked once.
    asked: bool,
}

impl Body {
    pub(super) fn new(incoming: Incoming, link: (Box<Link>, Home)) -> Self {
        Self { incoming: Some(incoming), link: Some(link), boarded: None, asked: false }
    }

    /// On a connection that others use too.
    pub(super) fn boarded(incoming: Incoming, place: Boarded) -> Self {
        Self { incoming: Some(incoming), link: None, boarded: Some(place), asked: false }
    }

    /// Nothing more will be read: the connection goes home if it is at rest.
    fn release(&mut self) {
        self.incoming = None;
        self.boarded = None;
        if let Some((mut link, home)) = self.link.take()
            && link.is_at_rest()
        {
            home.welcome(link);
        }
    }

    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let mut incoming = Pin::new(incoming);
        let Some((link, _)) = &mut self.link else {
            return incoming.poll_frame(cx);
        };
        if !std::mem::replace(&mut self.asked, true)
            && let Poll::Ready(frame) = incoming.as_mut().poll_frame(cx)
        {
            return Poll::Ready(frame);
        }
        link.drive(cx);
        incoming.poll_frame(cx)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = self.poll_incoming(cx);
        let over = match &frame {
            Poll::Ready(Some(Ok(_))) => self.incoming.as_ref().is_none_or(Incoming::is_end_stream),
            Poll::Ready(Some(Err(_)) | None) => true,
            Poll::Pending => false,
        };
        if over {
            self.release();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // What is left may already be here, the end of a chunked body for one.
        let mut cx = Context::from_waker(Waker::noop());
        if self.link.is_some()
            && let Poll::Ready(None) = self.poll_incoming(&mut cx)
        {
            self.release();
        }
    }
}
