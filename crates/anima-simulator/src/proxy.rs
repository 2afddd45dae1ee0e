//! A TCP proxy that can fail: it cuts connections, falls silent, is slow, and loses answers.
//!
//! Between gateways and PostgreSQL or Redis, in tests and in the harnesses. A server whose answers
//! get lost has committed what its client will not know of, which is the case that replays must
//! survive. Invariant: what it passes on is in order, and unchanged but for `Mute`.

use std::io::Result;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// What happens to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    Open,
    /// They pass after a while, each way.
    Delayed(Duration),
    /// Those of the server are dropped.
    Deaf,
    /// Those of both sides are dropped, and connections stay open: the network in between is gone.
    Silent,
    /// They pass, but no message that is published on a Redis behind this proxy reaches anybody.
    Mute,
    /// Every connection is reset, also those that are opened now.
    Cut,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    /// Starts one in front of `server`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (mode, watched) = watch::channel(Mode::Open);
        tokio::spawn(accept(listener, server, watched));
        Ok(Self { address, mode })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens to bytes from here on, also on connections that are open.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Cuts everything for `closed`, after the server's answers got lost for `deaf`.
    pub async fn cut(&self, deaf: Duration, closed: Duration) {
        if !deaf.is_zero() {
            self.mode.send_replace(Mode::Deaf);
            sleep(deaf).await;
        }
        self.mode.send_replace(Mode::Cut);
        sleep(closed).await;
        self.mode.send_replace(Mode::Open);
    }
}

/// Ends with the proxy, whose watch it holds.
async fn accept(listener: TcpListener, server: SocketAddr, mut mode: watch::Receiver<Mode>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                tokio::spawn(connect(client, server, mode.clone()));
            },
            changed = mode.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// One connection, to its end. Errors are ends.
async fn connect(client: TcpStream, server: SocketAddr, mode: watch::Receiver<Mode>) {
    // Without it the proxy would add Nagle's delay; a failure only slows. The zero linger makes
    // every end of ours a reset.
    drop(client.set_nodelay(true));
    drop(client.set_zero_linger());
    if *mode.borrow() == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    drop(server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let up = pass(from_client, to_server, mode.clone(), |mode| mode == Mode::Silent);
    let loses = |mode| matches!(mode, Mode::Silent | Mode::Deaf);
    let down = pass(from_server, to_client, mode, loses);
    // Two tasks, so that a full buffer one way never stops the other way.
    let (up, down) = (tokio::spawn(up), tokio::spawn(down));
    let (stop_up, stop_down) = (up.abort_handle(), down.abort_handle());
    tokio::select! { _ = up => {} _ = down => {} }
    stop_up.abort();
    stop_down.abort();
}

/// Passes bytes one way until an end, a cut, or the end of the proxy; where `loses` says so they
/// vanish.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    loses: impl Fn(Mode) -> bool,
) {
    let now = mode.clone();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            read = from.read(&mut buffer) => {
                let bytes = match read {
                    Ok(count) if count > 0 => buffer.get_mut(..count).unwrap_or_default(),
                    Ok(_) | Err(_) => return,
                };
                let mode = *now.borrow();
                match mode {
                    Mode::Delayed(by) => sleep(by).await,
                    Mode::Mute => mute(bytes),
                    // What was sent after the cut goes nowhere, also where it was read first.
                    Mode::Cut => return,
                    Mode::Open | Mode::Deaf | Mode::Silent => {}
                }
                if !loses(mode) && to.write_all(bytes).await.is_err() {
                    return;
                }
            }
            () = cut(&mut mode) => return,
        }
    }
}

/// Makes each command that publishes one that asks whether a field is in a hash: as long, with as
/// many arguments, and answered with a number too, which says that nobody has heard.
fn mute(bytes: &mut [u8]) {
    const SAYS: &[u8] = b"\r\n$7\r\nPUBLISH\r\n";
    const ASKS: &[u8] = b"\r\n$7\r\nHEXISTS\r\n";
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..at + SAYS.len()) {
        if rest == SAYS {
            rest.copy_from_slice(ASKS);
        }
        at += 1;
    }
}

/// Waits until the proxy cuts or is gone: either way the connection ends.
async fn cut(mode: &mut watch::Receiver<Mode>) {
    drop(mode.wait_for(|mode| *mode == Mode::Cut).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with the next one.
    async fn counting() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(count(stream));
            }
        });
        address
    }

    async fn count(mut stream: TcpStream) {
        while let Ok(byte) = stream.read_u8().await {
            stream.write_u8(byte + 1).await.unwrap();
        }
    }

    #[tokio::test]
    async fn bytes_pass_until_they_are_cut_and_again_afterwards() {
        let proxy = Proxy::start(counting().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stream.write_u8(1).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 2);
        proxy.cut(Duration::ZERO, Duration::from_millis(1)).await;
        assert!(stream.read_u8().await.is_err());
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stream.write_u8(7).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 8);
    }

    #[test]
    fn a_muted_message_is_a_question_of_the_same_length() {
        let mut bytes =
            b"*1\r\n$4\r\nPING\r\n*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$1\r\n7\r\n".to_vec();
        mute(&mut bytes);
        let expected = b"*1\r\n$4\r\nPING\r\n*3\r\n$7\r\nHEXISTS\r\n$1\r\na\r\n$1\r\n7\r\n";
        assert_eq!(bytes, expected);
    }

    #[tokio::test]
    async fn a_silent_proxy_loses_both_and_keeps_the_connection() {
        let proxy = Proxy::start(counting().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.set(Mode::Silent);
        stream.write_u8(1).await.unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(20), stream.read_u8()).await;
        assert!(nothing.is_err());
        proxy.set(Mode::Open);
        stream.write_u8(3).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 4);
    }

    #[tokio::test]
    async fn a_deaf_proxy_loses_answers_and_not_questions() {
        let proxy = Proxy::start(counting().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.mode.send_replace(Mode::Deaf);
        stream.write_u8(1).await.unwrap();
        proxy.cut(Duration::from_millis(50), Duration::from_millis(1)).await;
        assert!(stream.read_u8().await.is_err(), "the answer is lost");
    }
}
