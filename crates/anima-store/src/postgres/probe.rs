//! Asks a server for a sign of life over connections of its own.
//!
//! One connection is kept and asked each time. When it is late a second one is made beside it: a
//! connection can be lost alone, and a server that is slow to let anybody in still answers those
//! who are in. A question that was not answered in time goes on, and its answer counts for the next
//! look: a login that takes long is not begun again each time. Invariant: a server is silent only
//! when neither answers; when the kept one alone never does, replies got lost on the way, and the
//! process's other connections, which may wait for such replies, end too.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::{JoinError, JoinSet};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Chain, Link, connection};
use crate::database::{OpenError, Probe};
use crate::probe::lived;

const QUESTION: &str = "SELECT 1";

/// When an answer is late, and a second connection asks beside the first.
const LATE: Duration = Duration::from_millis(500);

/// When a reply on a connection that has answered before is lost. A reply on it takes milliseconds.
const LOST: Duration = Duration::from_millis(1_500);

/// Until a connection that is being made is given up.
const MAKING: Duration = Duration::from_secs(5);

/// A connection, which is driven by whoever asks on it and by nobody in between.
struct Line {
    client: Client,
    driver: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>,
}

/// What a question came to.
enum Asked {
    Answered(Line),
    /// The connection ended, or was not made.
    Ended(Error),
    /// No answer came in its time.
    Lost,
}

/// The questions that are not answered yet, apart by what their connections have shown.
#[derive(Default)]
struct Questions {
    kept: Option<Line>,
    /// On connections that have answered before.
    proven: JoinSet<Asked>,
    /// On connections that are being made for them.
    fresh: JoinSet<Asked>,
}

/// Asks one server.
pub(crate) struct ServerProbe {
    config: Config,
    connector: MakeRustlsConnect,
    /// What everybody else's connections are on.
    others: Link,
    questions: Mutex<Questions>,
}

impl std::fmt::Debug for ServerProbe {
    /// Leaves out how to connect: it may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerProbe").finish_non_exhaustive()
    }
}

impl ServerProbe {
    /// # Errors
    /// [`OpenError::Unreachable`] when the URL is wrong.
    pub(crate) fn new(url: &str, others: &Link) -> Result<Self, OpenError> {
        let (config, connector) = connection(url)?;
        let questions = Mutex::default();
        Ok(Self { config, connector, others: others.clone(), questions })
    }

    /// Asks until an answer or a refusal.
    async fn ask(&self, questions: &mut Questions) -> Result<(), String> {
        self.sweep(questions);
        match questions.kept.take() {
            Some(line) => drop(questions.proven.spawn(ask_within(LOST, async { Ok(line) }))),
            None => self.ask_afresh(questions),
        }
        let mut late = std::pin::pin!(tokio::time::sleep(LATE));
        let mut is_late = false;
        loop {
            let (done, was_proven) = tokio::select! {
                Some(done) = questions.proven.join_next() => (asked(done), true),
                Some(done) = questions.fresh.join_next() => (asked(done), false),
                () = &mut late, if !is_late => {
                    is_late = true;
                    self.ask_afresh(questions);
                    continue;
                }
                else => return Err("the question was lost".to_owned()),
            };
            match done {
                Asked::Answered(line) => {
                    questions.kept = Some(line);
                    return Ok(());
                }
                Asked::Ended(error) if !was_proven => return self.refusal(&error),
                // It may have ended alone.
                Asked::Ended(_) => self.ask_afresh(questions),
                Asked::Lost => self.lost(was_proven),
            }
        }
    }

    fn ask_afresh(&self, questions: &mut Questions) {
        let (config, connector) = (self.config.clone(), self.connector.clone());
        questions.fresh.spawn(ask_within(MAKING, async move {
            let (client, connection) = config.connect(connector).await?;
            Ok(Line { client, driver: Box::pin(connection) })
        }));
    }

    /// Takes in what earlier questions have come to since: connections that can be asked now.
    fn sweep(&self, questions: &mut Questions) {
        while let Some(done) = questions.proven.try_join_next() {
            match asked(done) {
                Asked::Answered(line) => questions.kept = Some(line),
                Asked::Lost => self.lost(true),
                Asked::Ended(_) => {}
            }
        }
        while let Some(done) = questions.fresh.try_join_next() {
            if let Asked::Answered(line) = asked(done) {
                questions.kept = Some(line);
            }
        }
    }

    /// A reply is lost on a connection that worked: others may wait for such replies.
    fn lost(&self, was_proven: bool) {
        if was_proven {
            tracing::warn!(
                "a connection to the database has lost a reply; making all of them anew"
            );
            self.others.end();
        }
    }

    /// A server that lets nobody in any more still serves those who are in.
    fn refusal(&self, error: &Error) -> Result<(), String> {
        let is_full = error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS);
        if is_full && !self.others.is_down() {
            return Ok(());
        }
        Err(Chain(error).to_string())
    }
}

#[async_trait]
impl Probe for ServerProbe {
    async fn answers(&self, within: Duration) -> Result<bool, String> {
        let mut questions = self.questions.lock().await;
        let found = lived(within, self.ask(&mut questions)).await;
        if let Some(Ok(())) = found {
            // Whoever is still being let in is not needed.
            questions.fresh = JoinSet::new();
            self.others.restore();
        } else {
            // What never answers any more is given up with all others.
            questions.proven = JoinSet::new();
        }
        found.map_or(Ok(false), |answered| answered.map(|()| true))
    }

    fn give_up(&self) {
        self.others.give_up();
    }
}

/// Asks on a connection as soon as it stands.
async fn ask_within(
    within: Duration,
    making: impl Future<Output = Result<Line, Error>> + Send,
) -> Asked {
    let asking = async {
        let mut line = match making.await {
            Ok(line) => line,
            Err(error) => return Asked::Ended(error),
        };
        let answer = tokio::select! {
            biased;
            Err(error) = &mut line.driver => Err(error),
            answer = line.client.batch_execute(QUESTION) => answer,
        };
        answer.map_or_else(Asked::Ended, |()| Asked::Answered(line))
    };
    lived(within, asking).await.unwrap_or(Asked::Lost)
}

/// A question that panicked is one without an answer.
fn asked(done: Result<Asked, JoinError>) -> Asked {
    done.unwrap_or(Asked::Lost)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use anima_simulator::proxy::{Mode, Proxy};
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::postgres::pool;
    use crate::tests::{Scratch, behind_proxy};

    /// What a node gives it.
    const WITHIN: Duration = Duration::from_millis(1_500);

    /// Longer than anything here takes that does not hang.
    const SOON: Duration = Duration::from_secs(10);

    struct Place {
        scratch: Scratch,
        proxy: Proxy,
        probe: Arc<ServerProbe>,
        link: Link,
    }

    impl Place {
        async fn answers(&self) -> Result<bool, String> {
            timeout(SOON, self.probe.answers(WITHIN)).await.expect("it never hangs")
        }

        /// Looks until an answer; how many looks that took.
        async fn looks(&self) -> usize {
            let mut looks = 1;
            while self.answers().await != Ok(true) {
                looks += 1;
                assert!(looks < 10, "it does not heal");
            }
            looks
        }

        async fn run(&self, statements: &str) {
            let pool = pool(&self.scratch.url(), 1, &Link::default()).unwrap();
            pool.get().await.unwrap().batch_execute(statements).await.unwrap();
        }
    }

    async fn place() -> Option<Place> {
        let scratch = crate::tests::postgres().await?;
        let (proxy, url) = behind_proxy(&scratch).await;
        let link = Link::default();
        let probe = Arc::new(ServerProbe::new(&url, &link).unwrap());
        Some(Place { scratch, proxy, probe, link })
    }

    #[tokio::test]
    async fn silence_is_found_in_its_time_and_its_end_at_the_next_look() {
        let Some(place) = place().await else { return };
        assert_eq!(place.answers().await, Ok(true));
        place.proxy.set(Mode::Silent);
        let began = Instant::now();
        assert_eq!(place.answers().await, Ok(false));
        assert!(began.elapsed() >= WITHIN, "{:?}", began.elapsed());
        place.probe.give_up();
        assert!(place.link.is_down());
        place.proxy.set(Mode::Open);
        assert_eq!(place.looks().await, 1);
        assert!(!place.link.is_down());
    }

    #[tokio::test]
    async fn a_reset_is_a_refusal_at_once() {
        let Some(place) = place().await else { return };
        assert_eq!(place.answers().await, Ok(true));
        place.proxy.set(Mode::Cut);
        let began = Instant::now();
        assert!(place.answers().await.is_err());
        assert!(began.elapsed() < LATE, "{:?}", began.elapsed());
        place.proxy.set(Mode::Open);
        assert_eq!(place.looks().await, 1);
    }

    #[tokio::test]
    async fn a_connection_that_ended_alone_is_not_an_outage() {
        const END: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let Some(place) = place().await else { return };
        assert_eq!(place.answers().await, Ok(true));
        place.run(END).await;
        assert_eq!(place.answers().await, Ok(true));
    }

    #[tokio::test]
    async fn a_short_silence_is_no_outage_and_ends_connections_whose_replies_were_lost() {
        let Some(place) = place().await else { return };
        assert_eq!(place.answers().await, Ok(true));
        let ended = place.link.given_up();
        place.proxy.set(Mode::Deaf);
        let (found, ()) = tokio::join!(place.answers(), async {
            tokio::time::sleep(LATE / 2).await;
            place.proxy.set(Mode::Open);
        });
        assert_eq!(found, Ok(true));
        let looking = async {
            loop {
                assert_eq!(place.answers().await, Ok(true));
                tokio::time::sleep(LATE / 2).await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = looking => {}
            () = tokio::time::sleep(SOON) => panic!("connections that lost replies stay"),
        }
        assert!(!place.link.is_down());
    }

    #[tokio::test]
    async fn a_login_that_takes_longer_than_a_look_is_not_begun_again_each_time() {
        let Some(place) = place().await else { return };
        place.proxy.set(Mode::Delayed(LATE));
        assert_eq!(place.answers().await, Ok(false));
        assert!(place.looks().await <= 2);
    }

    #[tokio::test]
    async fn a_full_server_is_up_for_those_who_are_in() {
        let Some(place) = place().await else { return };
        let role = format!("full_{}", place.proxy.address().port());
        let made = format!("CREATE ROLE {role} LOGIN PASSWORD 'full' CONNECTION LIMIT 0");
        place.run(&format!("DROP ROLE IF EXISTS {role}; {made}")).await;
        let (mut config, _) = connection(&place.scratch.url()).unwrap();
        config.user(&role).password("full");
        let probe =
            ServerProbe { config, ..ServerProbe::new(&place.scratch.url(), &place.link).unwrap() };
        assert_eq!(probe.answers(WITHIN).await, Ok(true));
        probe.give_up();
        let refused = probe.answers(WITHIN).await.unwrap_err();
        place.run(&format!("DROP ROLE {role}")).await;
        assert!(refused.contains("too many connections"), "{refused}");
    }
}
