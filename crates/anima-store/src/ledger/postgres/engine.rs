//! One transaction of a batch on PostgreSQL: two round trips.
//!
//! `BEGIN` and reads go out together; the verdicts are made here; the writes and `COMMIT` go out
//! together. Judging in the program and not in SQL is safe because all that a verdict depends on is
//! locked, or is met by the database when it is written (`quick`), and it is the same judge that
//! SQLite has. If any statement fails, the server turns the `COMMIT` that is already on its way
//! into a rollback.
//! Invariant: a connection that may be inside a transaction never goes back to the pool.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::Error;

use anima_core::clock::Timestamp;

use super::failure::Next;
use super::lookup::Reading;
use super::{Shared, booked, corrections, credit, intern, lookup, quick, rows};
use crate::ledger::batch::caught::caught;
use crate::ledger::batch::{self, Failure};
use crate::ledger::directory::{Directory, Missing};
use crate::ledger::epoch::Node;
use crate::ledger::judge::Judge;
use crate::ledger::operation::{Item, Verdict};
use crate::ledger::plan::{Known, Plan, Wallet};
use crate::postgres::Chain;

/// Until a batch that does not end is given up, with its connection. It is made again with the same
/// ids. A batch takes milliseconds; what takes seconds is a dead server or a lock held elsewhere.
const DEADLINE: Duration = Duration::from_secs(3);

/// What [`batch`] waits at a time for callers who are on their way; with the system's slack half as
/// much again. A batch takes 2 to 4 ms.
const MOMENT: Duration = Duration::from_micros(150);

/// How often a transaction that met another one is made again before the batch counts as lost.
const AGAIN: usize = 5;

/// A writer.
#[derive(Debug)]
pub(super) struct Engine {
    shared: Arc<Shared>,
    directory: Directory,
    /// Wallets whose batches are judged under lock from the start.
    tight: HashSet<i64>,
}

/// A batch after its verdicts.
#[derive(Debug)]
struct Judged<'a> {
    posted_at: Timestamp,
    /// The wallets as they were read.
    before: BTreeMap<i64, Wallet>,
    known: Known,
    plan: Plan<'a>,
    verdicts: Vec<Verdict>,
}

#[expect(clippy::disallowed_methods, reason = "on a thread that may block")]
fn doze() {
    std::thread::sleep(MOMENT);
}

impl batch::Engine for Engine {
    /// What concerns wallets that are judged under lock goes into a transaction of its own, the
    /// last one, so that one empty wallet does not hold up all others.
    fn split(&self, batch: Vec<Item>) -> Vec<Vec<Item>> {
        if self.tight.is_empty() {
            return vec![batch];
        }
        let (tight, roomy): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|item| self.is_tight(item));
        [tight, roomy].into_iter().filter(|part| !part.is_empty()).collect()
    }

    fn reset(&mut self) {
        self.directory.forget();
    }

    async fn pause(&mut self) {
        // The runtime's own timer waits for one to two milliseconds at least.
        let slept = tokio::task::spawn_blocking(doze).await;
        debug_assert!(slept.is_ok(), "a thread that only sleeps does not panic");
    }

    async fn commit(&mut self, items: &[Item]) -> Result<Vec<Verdict>, Failure> {
        let mut met = String::new();
        let mut reading =
            if quick::may_be_quick(items) { Reading::Unlocked } else { Reading::Locked };
        for _ in 0..AGAIN {
            match self.transaction(items, reading).await {
                Ok(verdicts) => return Ok(verdicts),
                // Under lock it may well be written, or it is known what is wrong with it.
                Err(Next::Fail(Failure::Refused(why))) if reading == Reading::Unlocked => met = why,
                Err(Next::Fail(failure)) => return Err(failure),
                Err(Next::Again(why)) => met = why,
            }
            reading = Reading::Locked;
        }
        Err(Failure::Lost(met))
    }
}

impl Engine {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, directory: Directory::default(), tight: HashSet::new() }
    }

    fn is_tight(&self, item: &Item) -> bool {
        let mut is_tight = false;
        item.operation.each_wallet(|account, currency| {
            let account = self.directory.account(account, currency);
            is_tight |= account.is_some_and(|account| self.tight.contains(&account));
        });
        is_tight
    }

    async fn transaction(
        &mut self,
        items: &[Item],
        reading: Reading,
    ) -> Result<Vec<Verdict>, Next> {
        let lost = |why: String| Next::Fail(Failure::Lost(why));
        let pooled = self.shared.pool.get().await;
        let client = pooled.map_err(|e| lost(Chain(&e).to_string()))?;
        // Boxed once per batch: held by value, every caller up the line would copy it.
        let attempt = caught(Box::pin(self.attempt(&client, items, reading)));
        let failed = match tokio::time::timeout(DEADLINE, attempt).await {
            Ok(Ok(Ok(verdicts))) => return Ok(verdicts),
            Ok(Ok(Err(failed))) => Some(failed),
            Ok(Err(why)) => {
                // In the middle of anything: the server rolls back what it has not committed.
                drop(Object::take(client));
                return Err(Next::Fail(Failure::Panicked(why)));
            }
            Err(_) => None,
        };
        if failed.is_none() || !is_rolled_back(&client).await {
            drop(Object::take(client));
        }
        Err(failed.unwrap_or_else(|| lost("the database does not answer".to_owned())))
    }

    async fn attempt(
        &mut self,
        client: &Object,
        items: &[Item],
        reading: Reading,
    ) -> Result<Vec<Verdict>, Next> {
        let node = self.shared.epoch.node();
        let missing = self.directory.missing(items);
        self.intern(client, missing).await?;
        let statements = rows::prepare(client).await?;
        let named = lookup::Named::of(items, &self.directory, node);
        let is_tight = named.accounts.iter().any(|account| self.tight.contains(account));
        let reading = if is_tight { Reading::Locked } else { reading };
        let mut judged = self.judge(client, items, (&named, node, reading)).await?;
        let mut moves = None;
        if reading == Reading::Unlocked {
            moves = quick::moves(&judged.before, &judged.known.wallets, &judged.verdicts);
            if moves.is_none() {
                let again = Reading::LockedAgain;
                judged = self.judge(client, items, (&named, node, again)).await?;
            }
        }
        let Judged { posted_at, before, known, plan, verdicts } = judged;
        let short = quick::short(items, &verdicts, &self.directory);
        quick::learn(&mut self.tight, &before, &known.wallets, &short);
        credit::write(client, &plan).await?;
        corrections::write(client, &plan).await?;
        let writing = rows::Writing {
            client,
            statements: &statements,
            plan: &plan,
            known: &known,
            moves: moves.as_deref(),
            node: node.id,
            posted_at,
        };
        writing.commit().await?;
        self.shared.unfolded.store(true, Ordering::Relaxed);
        Ok(verdicts)
    }

    /// Reads what the batch names, and judges it.
    async fn judge<'a>(
        &mut self,
        client: &Object,
        items: &'a [Item],
        (named, node, reading): (&lookup::Named, Node, Reading),
    ) -> Result<Judged<'a>, Next> {
        let (posted_at, mut known) = lookup::read(client, named, reading).await?;
        credit::load(client, &mut known).await?;
        known.booked = booked::load(client, &named.corrected, &mut self.directory).await?;
        let before = known.wallets.clone();
        let (directory, node, plan) = (&self.directory, node.id, Plan::default());
        let mut judge = Judge { directory, node, posted_at, known: &mut known, plan };
        let verdicts = judge.judge(items);
        let plan = judge.plan;
        Ok(Judged { posted_at, before, known, plan, verdicts })
    }

    /// Makes sure that every account and price of the batch has its id.
    async fn intern(&mut self, client: &Object, missing: Missing) -> Result<(), Error> {
        if !missing.accounts.is_empty() {
            let ids = intern::accounts(client, &missing).await?;
            self.directory.learn_accounts(&missing.accounts, &ids);
        }
        if !missing.prices.is_empty() {
            let ids = intern::prices(client, &missing).await?;
            self.directory.learn_prices(&missing.prices, &ids);
        }
        Ok(())
    }
}

async fn is_rolled_back(client: &Object) -> bool {
    let answer = tokio::time::timeout(DEADLINE, client.batch_execute("ROLLBACK")).await;
    matches!(answer, Ok(Ok(())))
}
