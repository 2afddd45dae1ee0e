//! What all connections of a process to one server have in common: they are given up together.
//!
//! A connection that fell silent may have lost a reply. Nothing ends the wait for it, and whoever
//! used the connection next would wait behind it. So when the server is found down every
//! connection ends, also one that is being made, and whoever waits on it is told. Not here: who
//! finds it down. Invariant: no connection outlives the finding, and none is made until the server
//! has answered again.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use deadpool_postgres::Connect;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What connecting comes to.
type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

/// What is known of the server.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// How often it was found down, or to have lost replies.
    outages: u64,
    is_down: bool,
}

/// Shared by the pools of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link(watch::Sender<State>);

impl Link {
    /// The server is down: ends every connection.
    pub(crate) fn give_up(&self) {
        self.0.send_if_modified(|state| {
            let is_news = !state.is_down;
            state.outages = state.outages.wrapping_add(u64::from(is_news));
            state.is_down = true;
            is_news
        });
    }

    /// Ends every connection of a server that answers, for replies on them may be lost.
    pub(crate) fn end(&self) {
        self.0.send_modify(|state| state.outages = state.outages.wrapping_add(1));
    }

    /// The server answers: connections may be made.
    pub(crate) fn restore(&self) {
        self.0.send_if_modified(|state| std::mem::take(&mut state.is_down));
    }

    /// Waits for the next time that the server is found down.
    pub(crate) fn given_up(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut seen = self.0.subscribe();
        let before = seen.borrow_and_update().outages;
        async move {
            // Without a sender the pools are gone, and nobody will find anything.
            if seen.wait_for(|state| state.outages != before).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether it is known to be down.
    pub(super) fn is_down(&self) -> bool {
        self.0.borrow().is_down
    }
}

/// Makes the connections of a pool, on its process's link.
pub(super) struct Linked {
    pub(super) connector: MakeRustlsConnect,
    pub(super) link: Link,
}

impl Connect for Linked {
    fn connect(&self, config: &Config) -> Connecting<'_> {
        let config = config.clone();
        Box::pin(async move {
            // Before the look: what happens after it is not missed.
            let mut given_up = Box::pin(self.link.given_up());
            if self.link.is_down() {
                return refuse().await;
            }
            let (client, connection) = tokio::select! {
                connected = config.connect(self.connector.clone()) => connected?,
                () = &mut given_up => return refuse().await,
            };
            let driver = tokio::spawn(async move {
                tokio::select! {
                    ended = connection => if let Err(error) = ended {
                        let error = super::Chain(&error).to_string();
                        tracing::warn!(error, "a connection to the database has ended");
                    },
                    // Dropped with everything that waits for an answer on it.
                    () = given_up => {}
                }
            });
            Ok((client, driver))
        })
    }
}

/// The driver makes its errors itself: this one out of a stream that cannot be used.
async fn refuse() -> Result<(Client, JoinHandle<()>), Error> {
    let mut config = Config::new();
    config.user("nobody").ssl_mode(SslMode::Disable);
    let (client, _) = config.connect_raw(GivenUp, NoTls).await?;
    Ok((client, tokio::spawn(std::future::ready(()))))
}

/// A stream to a server that is known to be down.
struct GivenUp;

fn is_down<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::NotConnected, "it is known to be down")))
}

impl AsyncRead for GivenUp {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        is_down()
    }
}

impl AsyncWrite for GivenUp {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        is_down()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        is_down()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        is_down()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anima_simulator::proxy::{Mode, Proxy};
    use deadpool_postgres::{Object, Pool};
    use tokio::time::timeout;

    use super::*;
    use crate::tests::Scratch;

    /// Longer than anything here takes that does not hang.
    const SOON: Duration = Duration::from_secs(4);

    struct Place {
        _scratch: Scratch,
        proxy: Proxy,
        pool: Pool,
        link: Link,
    }

    async fn place() -> Option<Place> {
        let scratch = crate::tests::postgres().await?;
        let (proxy, there) = crate::tests::behind_proxy(&scratch).await;
        let link = Link::default();
        let pool = crate::postgres::pool(&there, 1, &link).unwrap();
        Some(Place { _scratch: scratch, proxy, pool, link })
    }

    async fn pid(client: &Object) -> i32 {
        client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
    }

    #[tokio::test]
    async fn whoever_waits_for_a_lost_reply_is_told_and_the_connection_is_not_used_again() {
        let Some(place) = place().await else { return };
        let client = place.pool.get().await.unwrap();
        let before = pid(&client).await;
        place.proxy.set(Mode::Deaf);
        let (asked, ()) = tokio::join!(timeout(SOON, client.batch_execute("SELECT 1")), async {
            tokio::task::yield_now().await;
            place.link.give_up();
        });
        asked.expect("told at once").expect_err("not known");
        drop(client);
        let refused = timeout(SOON, place.pool.get()).await.expect("told at once").unwrap_err();
        let words = crate::postgres::Chain(&refused).to_string();
        assert!(words.contains("known to be down"), "{words}");
        place.proxy.set(Mode::Open);
        place.link.restore();
        let client = timeout(SOON, place.pool.get()).await.unwrap().unwrap();
        assert_ne!(pid(&client).await, before);
    }

    #[tokio::test]
    async fn whoever_connects_to_a_silent_server_is_told() {
        let Some(place) = place().await else { return };
        place.proxy.set(Mode::Silent);
        let (connected, ()) = tokio::join!(timeout(SOON, place.pool.get()), async {
            tokio::task::yield_now().await;
            place.link.give_up();
        });
        connected.expect("told at once").expect_err("not connected");
    }

    #[tokio::test]
    async fn an_outage_that_is_found_twice_ends_connections_once() {
        let link = Link::default();
        link.give_up();
        link.restore();
        let given_up = link.given_up();
        link.restore();
        assert!(timeout(Duration::ZERO, given_up).await.is_err());
        let given_up = link.given_up();
        link.give_up();
        link.restore();
        timeout(SOON, given_up).await.expect("an outage that is over counts");
        link.give_up();
        let given_up = link.given_up();
        link.give_up();
        assert!(timeout(Duration::ZERO, given_up).await.is_err());
    }
}
