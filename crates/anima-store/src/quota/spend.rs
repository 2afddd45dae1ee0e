//! What the ledger says was spent, on both databases.
//!
//! By when a call came in, which is also how counters count: a call belongs to the day on which it
//! was admitted. Invariant: the sum is never less than what was spent, so that a purse that is
//! seeded with it never lets more through than its limit; calls that still run count with all they
//! hold, and keys that were ever in a token group count for it.

use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::Pool;
use rusqlite::{OptionalExtension as _, params};
use tokio_postgres::IsolationLevel;
use uuid::Uuid;

use anima_core::quota::{Counter, Scope, Span, Tag};

use super::Spend;
use crate::config::Error;
use crate::sqlite::connections::Connections;

// Holds are found by their wallet's account, which is shorter in the index than the app's code.

/// What a hold counts with: all of it while it is open, then what was charged. What was released
/// may have been sold by a correction: an answer that was given while the database was away. A
/// correction's sale legs are those of component 1 between the customer's accounts (money 2010,
/// credit 2020) and others.
macro_rules! of_hold {
    () => {
        "CASE h.state WHEN 'SETTLED' THEN h.settled WHEN 'RELEASED' THEN coalesce((
             SELECT sum(CASE WHEN d.class IN (2010, 2020) THEN l.amount ELSE -l.amount END)
             FROM journal j
             JOIN leg l ON l.journal = j.id
             JOIN account d ON d.id = l.debit_id
             WHERE j.subject = h.id AND j.kind = 10 AND l.component = 1), 0)
         ELSE h.amount END"
    };
}

/// Of an app: app, currency, from, to.
const OF_APP: &str = concat!(
    "SELECT CAST(coalesce(sum(",
    of_hold!(),
    "), 0) AS TEXT)
    FROM hold h
    WHERE h.account_id = (SELECT id FROM account WHERE code = 'wallet:' || $1 AND currency = $2)
      AND h.created_at >= $3 AND h.created_at < $4"
);

/// Of a key: app, currency, from, to, key.
const OF_KEY: &str = concat!(
    "SELECT CAST(coalesce(sum(",
    of_hold!(),
    "), 0) AS TEXT)
    FROM hold h
    WHERE h.account_id = (SELECT id FROM account WHERE code = 'wallet:' || $1 AND currency = $2)
      AND h.created_at >= $3 AND h.created_at < $4 AND h.kid = $5"
);

/// Of a token group: group, currency, from, to.
const OF_GROUP: &str = concat!(
    "SELECT CAST(coalesce(sum(",
    of_hold!(),
    "), 0) AS TEXT)
    FROM (SELECT DISTINCT k.code AS kid, k.app AS app
          FROM user_api_key k JOIN app a ON a.code = k.app
          WHERE k.cancelled_at IS NULL AND a.cancelled_at IS NULL
            AND coalesce(k.body ->> 'token_group', a.body ->> 'token_group') = $1) m
    JOIN account w ON w.code = 'wallet:' || m.app AND w.currency = $2
    JOIN hold h ON h.account_id = w.id AND h.kid = m.kid
    WHERE h.created_at >= $3 AND h.created_at < $4"
);

/// Of one call: id, from, to. SQLite.
const OF_CALL: &str = concat!(
    "SELECT ",
    of_hold!(),
    " FROM hold h WHERE h.id = $1 AND h.created_at >= $2 AND h.created_at < $3"
);

/// Of some calls: ids, from, to. PostgreSQL.
const OF_CALLS: &str = concat!(
    "SELECT CAST(coalesce(sum(",
    of_hold!(),
    "), 0) AS TEXT)
    FROM hold h WHERE h.id = ANY($1) AND h.created_at >= $2 AND h.created_at < $3"
);

/// Nodes that may place holds.
const NODES: &str = "SELECT count(*) FROM node_lease WHERE state = 'UP'";

/// What a counter sums up.
struct Wanted {
    /// App or token group.
    code: Arc<str>,
    currency: String,
    from: i64,
    to: i64,
    kid: Option<Arc<str>>,
    text: &'static str,
}

/// `None` for what money is never counted by.
fn wanted(counter: &Counter, tag: &Tag, span: Span) -> Option<Wanted> {
    let (text, code, kid) = match (counter.scope, tag) {
        (Scope::Key, Tag::App(app)) => (OF_KEY, app, Some(Arc::clone(&counter.code))),
        (Scope::App, Tag::App(app)) => (OF_APP, app, None),
        (Scope::TokenGroup, Tag::TokenGroup(group)) => (OF_GROUP, group, None),
        (Scope::Key | Scope::App | Scope::TokenGroup | Scope::Channel, _) => return None,
    };
    let currency = counter.rule.currency?.code().to_owned();
    let (from, to) = (span.from.micros(), span.to.micros());
    Some(Wanted { code: Arc::clone(code), currency, from, to, kid, text })
}

fn sum(text: &str, besides: i128) -> Result<i64, Error> {
    let sum: i128 = text.parse().map_err(|_odd| Error::Damaged(format!("a sum: {text}")))?;
    Ok(i64::try_from(sum - besides).unwrap_or(i64::MAX))
}

/// The ledger in a SQLite file.
#[derive(Debug)]
pub(crate) struct SqliteSpend(pub(crate) Arc<Connections>);

#[async_trait]
impl Spend for SqliteSpend {
    async fn spent(&self, counter: &Counter, tag: &Tag, span: Span) -> Result<i64, Error> {
        self.spent_besides((counter, tag, span), &[]).await
    }

    async fn spent_besides(
        &self,
        (counter, tag, span): (&Counter, &Tag, Span),
        calls: &[Uuid],
    ) -> Result<i64, Error> {
        let Some(wanted) = wanted(counter, tag, span) else { return Ok(0) };
        let calls = calls.to_vec();
        let read = self.0.read(move |tx| {
            let Wanted { code, currency, from, to, kid, text } = wanted;
            let mut statement = tx.prepare_cached(text)?;
            let column = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
            let all = match kid {
                Some(kid) => {
                    statement.query_row(params![&*code, currency, from, to, &*kid], column)?
                }
                None => statement.query_row(params![&*code, currency, from, to], column)?,
            };
            let mut of_call = tx.prepare_cached(OF_CALL)?;
            let mut besides = 0_i128;
            for call in calls {
                let units = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
                let found = of_call.query_row(params![call.as_bytes(), from, to], units);
                besides += i128::from(found.optional()?.unwrap_or(0));
            }
            Ok((all, besides))
        });
        let (all, besides) = read.await?;
        sum(&all, besides)
    }

    /// One process at a time serves the file.
    async fn nodes(&self) -> Result<i64, Error> {
        Ok(1)
    }
}

/// The ledger in a PostgreSQL database.
#[derive(Clone)]
pub(crate) struct PostgresSpend(pub(crate) Pool);

impl std::fmt::Debug for PostgresSpend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PostgresSpend").field(&self.0.status()).finish()
    }
}

#[async_trait]
impl Spend for PostgresSpend {
    async fn spent(&self, counter: &Counter, tag: &Tag, span: Span) -> Result<i64, Error> {
        self.spent_besides((counter, tag, span), &[]).await
    }

    async fn spent_besides(
        &self,
        (counter, tag, span): (&Counter, &Tag, Span),
        calls: &[Uuid],
    ) -> Result<i64, Error> {
        let Some(wanted) = wanted(counter, tag, span) else { return Ok(0) };
        let Wanted { code, currency, from, to, kid, text } = wanted;
        let mut client = self.0.get().await?;
        // Both sums are of one instant.
        let tx = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
        let tx = tx.read_only(true).start().await?;
        let statement = tx.prepare_cached(text).await?;
        let row = match kid {
            Some(kid) => {
                tx.query_one(&statement, &[&&*code, &currency, &from, &to, &&*kid]).await?
            }
            None => tx.query_one(&statement, &[&&*code, &currency, &from, &to]).await?,
        };
        let mut besides = 0;
        if !calls.is_empty() {
            let statement = tx.prepare_cached(OF_CALLS).await?;
            let found = tx.query_one(&statement, &[&calls, &from, &to]).await?;
            besides = i128::from(sum(&found.try_get::<_, String>(0)?, 0)?);
        }
        tx.commit().await?;
        sum(&row.try_get::<_, String>(0)?, besides)
    }

    async fn nodes(&self) -> Result<i64, Error> {
        let client = self.0.get().await?;
        let statement = client.prepare_cached(NODES).await?;
        Ok(client.query_one(&statement, &[]).await?.try_get(0)?)
    }
}
