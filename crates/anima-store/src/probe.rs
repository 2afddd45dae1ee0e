//! Asks a database for a sign of life.
//!
//! Not here: what follows from the answer. Invariant: a process that was not run for a while does
//! not take its own sleep for the database's silence ([`lived`]).

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::config::ConfigStore;

/// Time is counted in such steps, each of which counts as one however long it was.
const STEP: Duration = Duration::from_millis(50);

/// Asks a database for a sign of life, apart from everybody who works with it.
#[async_trait]
pub trait Probe: Send + Sync + fmt::Debug {
    /// Whether it gives one within this time.
    ///
    /// # Errors
    /// When it cannot be reached or refuses: why, in words for an operator.
    async fn answers(&self, within: Duration) -> Result<bool, String>;

    /// The database was found down: ends every connection to it, with everything that waits there
    /// for a reply that may be lost. None is made until it has answered. A file has none.
    fn give_up(&self) {}
}

/// SQLite: a file is there or not, and a small read tells.
#[derive(Debug)]
pub(crate) struct FileProbe(pub(crate) Arc<dyn ConfigStore>);

#[async_trait]
impl Probe for FileProbe {
    async fn answers(&self, within: Duration) -> Result<bool, String> {
        match lived(within, self.0.rev()).await {
            Some(read) => read.map(|_| true).map_err(|error| error.to_string()),
            None => Ok(false),
        }
    }
}

/// What `work` comes to, if it ends within so much time as this process has lived through. On a
/// machine that is too busy to run it, an answer may have come in that it could not look at yet.
pub(crate) async fn lived<T>(within: Duration, work: impl Future<Output = T>) -> Option<T> {
    let steps = within.as_millis().div_ceil(STEP.as_millis());
    let passing = async {
        for _ in 0..steps {
            tokio::time::sleep(STEP).await;
        }
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = passing => None,
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{Instant, advance, sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_its_time() {
        let began = Instant::now();
        assert_eq!(lived(SECOND, pending::<()>()).await, None);
        assert!(began.elapsed() < SECOND + SECOND / 10, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_this_process_was_not_run_does_not_count() {
        let stopped = async {
            advance(SECOND * 10).await;
            // The answer came meanwhile and is looked at a moment later.
            sleep(STEP * 2).await;
        };
        assert_eq!(lived(SECOND, stopped).await, Some(()));
    }
}
