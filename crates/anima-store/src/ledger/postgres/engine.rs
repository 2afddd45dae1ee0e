//! One transaction of a batch on PostgreSQL: two round trips.
//!
//! `BEGIN`, lock and read go out together; the verdicts are made here, from the rows under lock; the
//! writes and `COMMIT` go out together. Judging in the program and not in SQL is safe because all
//! that is judged is locked, and it is the same judge that SQLite has. If any statement fails, the
//! server turns the `COMMIT` that is already on its way into a rollback.
//! Invariant: a connection that is not known to be outside a transaction never goes back to the pool.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::Error;

use anima_core::ledger::{Account, Normal, PriceRef};
use anima_core::money::Currency;

use super::failure::{Next, next};
use super::{Shared, lookup, rows};
use crate::ledger::batch::{self, Failure};
use crate::ledger::directory::Missing;
use crate::ledger::judge::Judge;
use crate::ledger::operation::{Item, Verdict};
use crate::ledger::plan::Plan;
use crate::postgres::Chain;

/// Until a batch that does not end is given up, with its connection. It is made again with the same
/// ids. A batch takes milliseconds; what takes seconds is a dead server or a lock held elsewhere.
const DEADLINE: Duration = Duration::from_secs(3);

/// How often a transaction that met another one is made again before the batch counts as lost.
const AGAIN: usize = 5;

/// A writer.
#[derive(Debug)]
pub(super) struct Engine(pub(super) Arc<Shared>);

impl batch::Engine for Engine {
    async fn commit(&mut self, items: &[Item]) -> Result<Vec<Verdict>, Failure> {
        let mut met = String::new();
        for _ in 0..AGAIN {
            match self.transaction(items).await {
                Ok(verdicts) => return Ok(verdicts),
                Err(Next::Fail(failure)) => return Err(failure),
                Err(Next::Again(why)) => met = why,
            }
        }
        Err(Failure::Lost(met))
    }
}

impl Engine {
    async fn transaction(&self, items: &[Item]) -> Result<Vec<Verdict>, Next> {
        let lost = |why: String| Next::Fail(Failure::Lost(why));
        let client = self
            .0
            .pool
            .get()
            .await
            .map_err(|e| lost(Chain(&e).to_string()))?;
        let ended = tokio::time::timeout(DEADLINE, self.attempt(&client, items)).await;
        let error = match ended {
            Ok(Ok(verdicts)) => return Ok(verdicts),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        if error.is_none() || !is_rolled_back(&client).await {
            drop(Object::take(client));
        }
        Err(error.map_or_else(
            || lost("the database does not answer".to_owned()),
            |e| next(&e),
        ))
    }

    async fn attempt(&self, client: &Object, items: &[Item]) -> Result<Vec<Verdict>, Error> {
        let missing = self.0.directory.lock().missing(items);
        self.intern(client, missing).await?;
        let statements = rows::prepare(client).await?;
        let named = lookup::Named::of(items, &self.0.directory.lock());
        let (posted_at, mut known) = lookup::lock_and_read(client, named).await?;
        let (verdicts, plan) = {
            let directory = self.0.directory.lock();
            let node = self.0.node;
            let (directory, known, plan) = (&directory, &mut known, Plan::default());
            let mut judge = Judge {
                directory,
                node,
                posted_at,
                known,
                plan,
            };
            (judge.judge(items), judge.plan)
        };
        let writing = rows::Writing {
            client,
            statements: &statements,
            plan: &plan,
            known: &known,
            node: self.0.node,
            posted_at,
        };
        writing.commit().await?;
        self.0.unfolded.store(true, Ordering::Relaxed);
        Ok(verdicts)
    }

    /// Makes sure that every account and price of the batch has its id. In transactions of its own,
    /// so that no batch ever waits for another one's new account; an account without postings that
    /// is left by a batch that failed does no harm.
    async fn intern(&self, client: &Object, missing: Missing) -> Result<(), Error> {
        for (account, currency) in missing.accounts {
            let id = account_id(client, &account, currency).await?;
            self.0.directory.lock().learn_account(account, currency, id);
        }
        for price in missing.prices {
            let id = price_id(client, &price).await?;
            self.0.directory.lock().learn_price(price, id);
        }
        Ok(())
    }
}

async fn is_rolled_back(client: &Object) -> bool {
    let answer = tokio::time::timeout(DEADLINE, client.batch_execute("ROLLBACK")).await;
    matches!(answer, Ok(Ok(())))
}

async fn account_id(client: &Object, account: &Account, currency: Currency) -> Result<i64, Error> {
    const CURRENCY: &str =
        "INSERT INTO currency (code, scale) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    const MAKE: &str = "
        INSERT INTO account (code, class, normal, currency) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING";
    const GATE: &str = "
        INSERT INTO gated_balance (account_id)
        SELECT id FROM account WHERE code = $1 AND currency = $2
        ON CONFLICT DO NOTHING";
    const FIND: &str = "
        SELECT a.id FROM account a
        WHERE a.code = $1 AND a.currency = $2
          AND (NOT $3 OR EXISTS (SELECT 1 FROM gated_balance g WHERE g.account_id = a.id))";
    let (code, money, is_gated) = (account.to_string(), currency.code(), account.is_gated());
    let find = client.prepare_cached(FIND).await?;
    if let Some(row) = client.query_opt(&find, &[&code, &money, &is_gated]).await? {
        return row.try_get(0);
    }
    let normal = match account.normal() {
        Normal::Debit => "D",
        Normal::Credit => "C",
    };
    let scale = i16::from(currency.scale());
    let (known, make) = (
        client.prepare_cached(CURRENCY).await?,
        client.prepare_cached(MAKE).await?,
    );
    let gate = client.prepare_cached(GATE).await?;
    client.execute(&known, &[&money, &scale]).await?;
    client
        .execute(&make, &[&code, &account.class(), &normal, &money])
        .await?;
    if is_gated {
        client.execute(&gate, &[&code, &money]).await?;
    }
    client
        .query_one(&find, &[&code, &money, &is_gated])
        .await?
        .try_get(0)
}

async fn price_id(client: &Object, price: &PriceRef) -> Result<i64, Error> {
    const MAKE: &str = "
        INSERT INTO price_ref (code, version_no) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    const FIND: &str = "SELECT id FROM price_ref WHERE code = $1 AND version_no = $2";
    let key: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&&*price.code, &price.version_no];
    let (make, find) = (
        client.prepare_cached(MAKE).await?,
        client.prepare_cached(FIND).await?,
    );
    if let Some(row) = client.query_opt(&find, &key).await? {
        return row.try_get(0);
    }
    client.execute(&make, &key).await?;
    client.query_one(&find, &key).await?.try_get(0)
}
