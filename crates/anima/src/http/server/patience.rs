//! A socket that waits for its peer only so long.
//!
//! Not a bound on answers, which the relay has. Invariant: a connection fails when its protocol is
//! not known in time, when a head of HTTP/1 that has begun does not end in time, and when a write
//! has waited too long for the peer to take one byte; a socket that is never waited for pays for no
//! timer. Source: `reliability` 7.2.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::activity::Activity;

/// What an HTTP/2 connection begins with (RFC 9113, 3.4). hyper-util reads up to the first byte
/// that differs to tell the versions apart, and has no clock while it does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a peer is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the first look at the socket until it shows which protocol it speaks.
    pub(super) opening: Duration,
    /// From the first byte of a request of HTTP/1 that is waited for until its head is there.
    pub(super) head: Duration,
    /// For a waiting write to move on by a byte.
    pub(super) write: Duration,
}

/// A socket with bounds. See the module.
#[derive(Debug)]
pub(super) struct Patient<S> {
    socket: S,
    patience: Patience,
    /// How much of the preface has come; `None` when the protocol is known.
    preface: Option<usize>,
    activity: Arc<Activity>,
    /// Requests there had been when the head began that is being read. `None` between requests,
    /// and always on HTTP/2.
    head: Option<u64>,
    is_http2: bool,
    opening: Option<Pin<Box<Sleep>>>,
    reading: Option<Pin<Box<Sleep>>>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(socket: S, patience: Patience, activity: Arc<Activity>) -> Self {
        Self {
            socket,
            patience,
            preface: Some(0),
            activity,
            head: None,
            is_http2: false,
            opening: None,
            reading: None,
            stalled: None,
        }
    }

    /// Takes note of bytes that came while the protocol was not known.
    fn note(&mut self, came: &[u8]) {
        let Some(seen) = self.preface else { return };
        let left = PREFACE.get(seen..).unwrap_or_default();
        let undecided = !came.is_empty() && came.len() < left.len() && left.starts_with(came);
        self.is_http2 = !came.is_empty() && came.starts_with(left);
        self.preface = undecided.then_some(seen + came.len());
        if !undecided {
            self.opening = None;
        }
    }

    /// Takes note of bytes of HTTP/1 that came while nothing was served: a head has begun.
    fn note_head(&mut self, came: usize) {
        if came > 0 && self.head.is_none() && !self.is_http2 && !self.activity.is_busy() {
            self.head = Some(self.activity.begun());
        }
    }

    /// Counts the time of a head that has begun, until a request has come of it.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.head.is_some_and(|begun| begun == self.activity.begun()) {
            return expired(&mut self.reading, self.patience.head, cx, "the head does not end");
        }
        self.head = None;
        self.reading = None;
        Poll::Pending
    }

    /// Counts the time of a write that waits, and passes the result of one that does not.
    fn moved(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        expired(&mut self.stalled, self.patience.write, cx, "the peer stopped reading")
    }
}

/// Starts the timer if it does not run, and fails when it has run out.
fn expired<T>(
    timer: &mut Option<Pin<Box<Sleep>>>,
    within: Duration,
    cx: &mut Context<'_>,
    what: &'static str,
) -> Poll<io::Result<T>> {
    let start = || Box::pin(tokio::time::sleep_until(Instant::now() + within));
    ready!(timer.get_or_insert_with(start).as_mut().poll(cx));
    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.socket).poll_read(cx, buffer) {
            Poll::Ready(result) => {
                let came = buffer.filled().get(before..).unwrap_or_default();
                this.note(came);
                if this.preface.is_none() {
                    this.note_head(came.len());
                }
                Poll::Ready(result)
            }
            Poll::Pending if this.preface.is_some() => {
                expired(&mut this.opening, this.patience.opening, cx, "the peer sent no request")
            }
            Poll::Pending => this.poll_head(cx),
        }
    }
}

/// A TCP socket's flush and shutdown never wait, so only writes are bounded.
impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.moved(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write_vectored(cx, slices);
        this.moved(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::{sleep, timeout};

    use super::*;

    const OPENING: Duration = Duration::from_secs(10);
    const WRITE: Duration = Duration::from_mins(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn pair() -> (Patient<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(64);
        let patience = Patience { opening: OPENING, head: OPENING, write: WRITE };
        (Patient::new(near, patience, Arc::default()), far)
    }

    /// Reads until the peer has sent enough or is given up.
    async fn read_all(near: &mut Patient<DuplexStream>) -> io::ErrorKind {
        let mut buffer = [0; 64];
        loop {
            if let Err(error) = near.read(&mut buffer).await {
                return error.kind();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_show_its_protocol_is_given_up() {
        for sent in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
            let (mut near, mut far) = pair();
            let start = Instant::now();
            far.write_all(sent.as_bytes()).await.unwrap();
            assert_eq!(read_all(&mut near).await, io::ErrorKind::TimedOut, "{sent:?}");
            assert_eq!(start.elapsed().as_secs(), OPENING.as_secs(), "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickled_preface_gets_no_more_time_than_a_silent_peer() {
        let (mut near, mut far) = pair();
        let start = Instant::now();
        tokio::spawn(async move {
            for byte in PREFACE {
                far.write_u8(*byte).await.unwrap();
                sleep(SECOND).await;
            }
        });
        assert_eq!(read_all(&mut near).await, io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), OPENING.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_has_begun_ends_in_time_or_the_peer_is_given_up() {
        for sent in ["G", "PX", "GET / HTTP/1.1\r\nhost"] {
            let (mut near, mut far) = pair();
            let start = Instant::now();
            far.write_all(sent.as_bytes()).await.unwrap();
            assert_eq!(read_all(&mut near).await, io::ErrorKind::TimedOut, "{sent:?}");
            assert_eq!(start.elapsed().as_secs(), OPENING.as_secs(), "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_peer_between_requests_is_not_given_up_here() {
        let (mut near, mut far) = pair();
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        near.read_exact(&mut [0; 18]).await.unwrap();
        drop(near.activity.serve());
        assert!(timeout(OPENING * 10, read_all(&mut near)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn on_http2_a_quiet_peer_is_left_to_hyper() {
        for sent in [PREFACE, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n+settings"] {
            let (mut near, mut far) = pair();
            far.write_all(sent).await.unwrap();
            let read = timeout(OPENING * 10, read_all(&mut near)).await;
            assert!(read.is_err(), "{sent:?}: {read:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stops_reading_is_given_up() {
        let (mut near, _far) = pair();
        let start = Instant::now();
        let written = near.write_all(&[0; 65]).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), WRITE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_is_waited_for() {
        let (mut near, mut far) = pair();
        let start = Instant::now();
        tokio::spawn(async move {
            let mut buffer = [0; 32];
            loop {
                sleep(WRITE.checked_sub(SECOND).unwrap()).await;
                far.read_exact(&mut buffer).await.unwrap();
            }
        });
        near.write_all(&[0; 64 + 10 * 32]).await.unwrap();
        assert!(start.elapsed() > WRITE * 9);
    }
}
