//! Calls that came to more than hold and wallet covered, and keys that were paused for them.
//!
//! Read from the holds themselves, so that it does not matter who settled or what a process forgot.
//! Not here: the switch of a key, which is configuration. Invariant: a call counts towards one
//! pause of its key at most. Source: `reliability` 1.6, row 20.

use std::sync::Arc;

use async_trait::async_trait;

use anima_core::clock::Timestamp;
use anima_core::config::Resource;

use super::Books;
use crate::ledger::Error;
use crate::ledger::session::{Failed, Mode, Session, Work};

/// A key whose calls came up short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortKey {
    /// Its public id.
    pub kid: Arc<str>,
    /// Its app.
    pub app: Arc<str>,
    /// How many calls, since it was paused last.
    pub calls: i64,
    /// Whether it may be used.
    pub enabled: bool,
}

/// Why a key was paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Its public id.
    pub kid: Arc<str>,
    /// Its app.
    pub app: Arc<str>,
    /// When.
    pub at: Timestamp,
    /// How many calls came up short.
    pub calls: i64,
    /// In words.
    pub reason: String,
}

/// Finds keys that come up short, and remembers their pauses.
#[async_trait]
pub trait Shortfalls: Send + Sync + std::fmt::Debug {
    /// Keys of which at least `most` calls that ended since `since`, and since they were paused
    /// last, came up short. A hundred at most.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn short_keys(&self, since: Timestamp, most: u32) -> Result<Vec<ShortKey>, Error>;

    /// Remembers a pause, in the place of an earlier one of the same key.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn remember_pause(&self, pause: Pause) -> Result<(), Error>;

    /// The last pause of a key. The key may have been switched on again since.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn pause(&self, kid: &str) -> Result<Option<Pause>, Error>;
}

#[async_trait]
impl Shortfalls for Books {
    async fn short_keys(&self, since: Timestamp, most: u32) -> Result<Vec<ShortKey>, Error> {
        self.run(Short { since, most }).await
    }

    async fn remember_pause(&self, pause: Pause) -> Result<(), Error> {
        self.run(pause).await
    }

    async fn pause(&self, kid: &str) -> Result<Option<Pause>, Error> {
        self.run(PauseOf(kid.to_owned())).await
    }
}

/// The table of keys, the time, how many.
const SHORT: &str = "
    SELECT h.kid, h.app, count(*), CASE WHEN k.enabled THEN 1 ELSE 0 END
    FROM hold h
    JOIN config_head k ON k.resource = $1 AND k.code = h.kid AND k.deleted_at IS NULL
    LEFT JOIN key_pause p ON p.kid = h.kid
    WHERE h.uncollected > 0 AND h.closed_at >= $2
      AND (p.paused_at IS NULL OR h.closed_at > p.paused_at)
    GROUP BY h.kid, h.app, k.enabled
    HAVING count(*) >= $3
    ORDER BY h.kid
    LIMIT 100";

#[derive(Clone)]
struct Short {
    since: Timestamp,
    most: u32,
}

impl Work for Short {
    type Output = Vec<ShortKey>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let table = Resource::UserApiKey.name();
        let parameters = [table.into(), self.since.micros().into(), i64::from(self.most).into()];
        let records = session.query(SHORT, &parameters).await?;
        let key = |record: &crate::ledger::session::Record| {
            Ok(ShortKey {
                kid: record.text(0)?.into(),
                app: record.text(1)?.into(),
                calls: record.int(2)?,
                enabled: record.int(3)? == 1,
            })
        };
        Ok(records.iter().map(key).collect::<Result<_, Error>>()?)
    }
}

const REMEMBER: &str = "
    INSERT INTO key_pause (kid, app, paused_at, calls, reason) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (kid) DO UPDATE SET
        app = excluded.app, paused_at = excluded.paused_at, calls = excluded.calls,
        reason = excluded.reason";

impl Work for Pause {
    type Output = ();

    const MODE: Mode = Mode::Write;

    async fn run(&self, session: &mut Session<'_>) -> Result<(), Failed> {
        let (kid, app, reason) = (&*self.kid, &*self.app, self.reason.as_str());
        let (at, calls) = (self.at.micros().into(), self.calls.into());
        session.execute(REMEMBER, &[kid.into(), app.into(), at, calls, reason.into()]).await?;
        Ok(())
    }
}

const PAUSE: &str = "SELECT app, paused_at, calls, reason FROM key_pause WHERE kid = $1";

#[derive(Clone)]
struct PauseOf(String);

impl Work for PauseOf {
    type Output = Option<Pause>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let Some(record) = session.first(PAUSE, &[self.0.as_str().into()]).await? else {
            return Ok(None);
        };
        Ok(Some(Pause {
            kid: self.0.as_str().into(),
            app: record.text(0)?.into(),
            at: Timestamp::from_micros(record.int(1)?),
            calls: record.int(2)?,
            reason: record.text(3)?.to_owned(),
        }))
    }
}
