//! Writes a plan's rows on PostgreSQL: one statement per table, all sent together with `COMMIT`.
//!
//! Rows travel as one array per column. The statements are prepared before the transaction begins:
//! preparing one waits for the server, and nothing may wait between the writes and `COMMIT`.
//! Invariant: a hold that is extended or closed was open, ours and of the amount that was judged in
//! this very transaction, or it fails: balances are moved by that amount.

use deadpool_postgres::Object;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Statement};
use uuid::Uuid;

use anima_core::clock::Timestamp;

use super::lookup::LOCK;
use super::quick::Move;
use crate::ledger::digest::source_name;
use crate::ledger::plan::{Known, Plan, Wallet, day, ppm};

const OPEN: &str = "
    INSERT INTO hold (id, app, kid, alias, account_id, amount, currency, price_id, created_at,
                      expires_at, multiplier, channel, cost_cap, cost_currency, cost_price_id,
                      fx_id, node)
    SELECT u.*, $17
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[],
                $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::text[],
                $13::bigint[], $14::text[], $15::bigint[], $16::bigint[]) AS u";

const EXTEND: &str = "
    WITH extended AS (
        UPDATE hold h SET amount = u.amount
        FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS u (id, amount, was)
        WHERE h.id = u.id AND h.node = $4 AND h.state IN ('HELD', 'UNKNOWN')
          AND h.amount = u.was
        RETURNING 1
    )
    SELECT expect_rows((SELECT count(*) FROM extended), cardinality($1::uuid[]))";

/// A batch that was given up may commit after a later one: what tells of less is not written.
const CHECKPOINT: &str = "
    UPDATE hold h
    SET phase = u.phase, progress = u.progress, upstream_ref = u.upstream_ref, trail = u.trail,
        expires_at = u.expires_at
    FROM unnest($1::uuid[], $2::smallint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[],
                $8::smallint[])
         AS u (id, phase, progress, upstream_ref, trail, expires_at, attempt)
    WHERE h.id = u.id AND h.node = $7 AND h.state = 'HELD'
      AND (u.attempt, u.phase, u.progress)
          >= (COALESCE((h.trail::json -> 'running' ->> 'n')::smallint, 0), COALESCE(h.phase, 0),
              COALESCE(h.progress, 0))";

/// What only others need who would have to end the call goes.
const CLOSE: &str = "
    WITH closed AS (
        UPDATE hold h
        SET state = CASE WHEN u.settled IS NULL THEN 'RELEASED' ELSE 'SETTLED' END,
            settled = u.settled, uncollected = u.uncollected, digest = u.digest,
            closed_at = u.closed_at, phase = NULL, progress = NULL, trail = NULL,
            upstream_ref = NULL, channel = NULL, cost_cap = NULL, cost_currency = NULL,
            cost_price_id = NULL
        FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bigint[],
                    $6::bigint[])
             AS u (id, settled, uncollected, digest, closed_at, amount)
        WHERE h.id = u.id AND h.node = $7 AND h.state IN ('HELD', 'UNKNOWN')
          AND h.amount = u.amount
        RETURNING 1
    )
    SELECT expect_rows((SELECT count(*) FROM closed), cardinality($1::uuid[]))";

const JOURNAL: &str = "
    INSERT INTO journal (id, kind, subject, seq, at, estimate, digest, reference, posted_at)
    SELECT u.*, $9
    FROM unnest($1::uuid[], $2::smallint[], $3::uuid[], $4::smallint[], $5::bigint[],
                $6::boolean[], $7::bytea[], $8::text[]) AS u";

const LEG: &str = "
    INSERT INTO leg (journal, n, debit_id, credit_id, amount, currency, component, attempt,
                     price_id, estimate)
    SELECT u.*
    FROM unnest($1::uuid[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[],
                $7::smallint[], $8::smallint[], $9::bigint[], $10::boolean[]) AS u";

const ATTEMPT: &str = "
    INSERT INTO attempt (hold, n, channel, credential, model, outcome, served, usage_source, usage,
                         cost, cost_currency, cost_price_id, cost_estimate, upstream_ref,
                         started_at, first_byte_at, ended_at)
    SELECT u.hold, u.n, u.channel, u.credential, u.model, u.outcome, u.served, u.usage_source,
           u.usage::jsonb, u.cost, u.cost_currency, u.cost_price_id, u.cost_estimate,
           u.upstream_ref, u.started_at, u.first_byte_at, u.ended_at
    FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::text[],
                $7::boolean[], $8::text[], $9::text[], $10::bigint[], $11::text[], $12::bigint[],
                $13::boolean[], $14::text[], $15::bigint[], $16::bigint[], $17::bigint[])
         AS u (hold, n, channel, credential, model, outcome, served, usage_source, usage, cost,
               cost_currency, cost_price_id, cost_estimate, upstream_ref, started_at,
               first_byte_at, ended_at)";

const WALLET: &str = "
    WITH written AS (
        UPDATE gated_balance g
        SET debits = u.debits, credits = u.credits, held = u.held, floor = u.floor,
            promo = u.promo
        FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[],
                    $6::bigint[])
             AS u (account_id, debits, credits, held, floor, promo)
        WHERE g.account_id = u.account_id
        RETURNING 1
    )
    SELECT expect_rows((SELECT count(*) FROM written), cardinality($1::bigint[]))";

/// What a batch without locks does to balances, whatever they are by now. The table's checks refuse
/// what would take one below its floor.
const MOVE: &str = "
    WITH written AS (
        UPDATE gated_balance g
        SET debits = g.debits + u.debits, held = g.held + u.held
        FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS u (account_id, debits, held)
        WHERE g.account_id = u.account_id
        RETURNING 1
    )
    SELECT expect_rows((SELECT count(*) FROM written), cardinality($1::bigint[]))";

const HOUSE: &str = "
    INSERT INTO balance_delta (account_id, debits, credits, day)
    SELECT u.account_id, u.debits::bigint, u.credits::bigint, $4
    FROM unnest($1::bigint[], $2::text[], $3::text[]) AS u (account_id, debits, credits)";

/// One array, or one value for all rows.
type Column<'a> = &'a (dyn ToSql + Sync);

/// The statements, compiled on one connection.
#[derive(Debug)]
pub(super) struct Statements {
    open: Statement,
    extend: Statement,
    checkpoint: Statement,
    close: Statement,
    journal: Statement,
    leg: Statement,
    attempt: Statement,
    wallet: Statement,
    lock: Statement,
    shift: Statement,
    house: Statement,
}

/// Compiles them, or finds them compiled.
pub(super) async fn prepare(client: &Object) -> Result<Statements, Error> {
    Ok(Statements {
        open: client.prepare_cached(OPEN).await?,
        extend: client.prepare_cached(EXTEND).await?,
        checkpoint: client.prepare_cached(CHECKPOINT).await?,
        close: client.prepare_cached(CLOSE).await?,
        journal: client.prepare_cached(JOURNAL).await?,
        leg: client.prepare_cached(LEG).await?,
        attempt: client.prepare_cached(ATTEMPT).await?,
        wallet: client.prepare_cached(WALLET).await?,
        lock: client.prepare_cached(LOCK).await?,
        shift: client.prepare_cached(MOVE).await?,
        house: client.prepare_cached(HOUSE).await?,
    })
}

/// What one batch writes, and with what.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    pub(super) client: &'a Object,
    pub(super) statements: &'a Statements,
    pub(super) plan: &'a Plan<'a>,
    pub(super) known: &'a Known,
    /// What is added to balances that are not under lock; `None` where they are, and are replaced.
    pub(super) moves: Option<&'a [Move]>,
    pub(super) node: Uuid,
    pub(super) posted_at: Timestamp,
}

impl Writing<'_> {
    /// Writes everything and commits.
    pub(super) async fn commit(&self) -> Result<(), Error> {
        // Polled in this order, so sent in this order, without waiting in between. An error of any
        // one makes the server roll back instead of committing, so all of them are looked at.
        let results = tokio::join!(
            biased;
            self.whole_holds(),
            self.journals(),
            self.legs(),
            self.attempts(),
            self.house(),
            self.balances(),
            self.client.batch_execute("COMMIT"),
        );
        let (holds, journals, legs, attempts, house, wallets, committed) = results;
        holds.and(journals).and(legs).and(attempts).and(house).and(wallets)?;
        committed
    }

    async fn send(&self, statement: &Statement, columns: &[Column<'_>]) -> Result<(), Error> {
        self.client.execute(statement, columns).await.map(|_| ())
    }

    /// In this order: a hold may be placed, extended and closed in one transaction, and then its
    /// checkpoints have no effect.
    async fn whole_holds(&self) -> Result<(), Error> {
        let (holds, extensions, closings, checkpoints) = tokio::join!(
            biased;
            // One column per array makes it large.
            Box::pin(self.holds()),
            self.extensions(),
            self.closings(),
            self.checkpoints(),
        );
        holds.and(extensions).and(closings).and(checkpoints)
    }

    async fn extensions(&self) -> Result<(), Error> {
        let rows = &self.plan.extensions;
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = rows.keys().collect();
        let amounts: Vec<_> = rows.values().map(|(_, amount)| amount).collect();
        let before: Vec<_> = rows.values().map(|(was, _)| was).collect();
        self.send(&self.statements.extend, &[&ids, &amounts, &before, &self.node]).await
    }

    async fn checkpoints(&self) -> Result<(), Error> {
        let all = || self.plan.checkpoints.values();
        if self.plan.checkpoints.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = all().map(|c| c.checkpoint.hold).collect();
        let phases: Vec<_> = all().map(|c| c.checkpoint.phase.number()).collect();
        let progress: Vec<_> = all().map(|c| c.checkpoint.progress).collect();
        let references: Vec<_> = all().map(|c| c.upstream_ref()).collect();
        let trails: Vec<_> = all().map(|c| c.trail.as_str()).collect();
        let expires: Vec<_> = all().map(|c| c.checkpoint.expires_at.micros()).collect();
        let attempts: Vec<_> = all().map(|c| c.attempt()).collect();
        self.send(
            &self.statements.checkpoint,
            &[&ids, &phases, &progress, &references, &trails, &expires, &self.node, &attempts],
        )
        .await
    }

    async fn holds(&self) -> Result<(), Error> {
        let rows = &self.plan.holds;
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = rows.iter().map(|r| r.hold.id).collect();
        let apps: Vec<_> = rows.iter().map(|r| &*r.hold.app).collect();
        let kids: Vec<_> = rows.iter().map(|r| &*r.hold.kid).collect();
        let aliases: Vec<_> = rows.iter().map(|r| &*r.hold.alias).collect();
        let accounts: Vec<_> = rows.iter().map(|r| r.account_id).collect();
        let amounts: Vec<_> = rows.iter().map(|r| r.hold.amount).collect();
        let currencies: Vec<_> = rows.iter().map(|r| r.hold.currency.code()).collect();
        let prices: Vec<_> = rows.iter().map(|r| r.price_id).collect();
        let created: Vec<_> = rows.iter().map(|r| r.hold.created_at.micros()).collect();
        let expires: Vec<_> = rows.iter().map(|r| r.hold.expires_at.micros()).collect();
        let multipliers: Vec<_> = rows.iter().map(|r| ppm(r.hold.multiplier)).collect();
        let exposures = || rows.iter().map(|r| r.hold.exposure.as_ref());
        let channels: Vec<_> = exposures().map(|e| e.map(|e| &*e.channel)).collect();
        let caps: Vec<_> = exposures().map(|e| e.map(|e| e.amount)).collect();
        let cap_currencies: Vec<_> = exposures().map(|e| e.map(|e| e.currency.code())).collect();
        let cost_prices: Vec<_> = rows.iter().map(|r| r.cost_price_id).collect();
        let rates: Vec<_> = rows.iter().map(|r| r.fx_id).collect();
        self.send(
            &self.statements.open,
            &[
                &ids,
                &apps,
                &kids,
                &aliases,
                &accounts,
                &amounts,
                &currencies,
                &prices,
                &created,
                &expires,
                &multipliers,
                &channels,
                &caps,
                &cap_currencies,
                &cost_prices,
                &rates,
                &self.node,
            ],
        )
        .await
    }

    async fn closings(&self) -> Result<(), Error> {
        let rows = &self.plan.closings;
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = rows.iter().map(|r| r.id).collect();
        let settled: Vec<_> = rows.iter().map(|r| r.settled).collect();
        let uncollected: Vec<_> = rows.iter().map(|r| r.uncollected).collect();
        let digests: Vec<_> = rows.iter().map(|r| r.digest.as_slice()).collect();
        let at: Vec<_> = rows.iter().map(|r| r.at.micros()).collect();
        let amounts: Vec<_> = rows.iter().map(|r| r.amount).collect();
        self.send(
            &self.statements.close,
            &[&ids, &settled, &uncollected, &digests, &at, &amounts, &self.node],
        )
        .await
    }

    async fn journals(&self) -> Result<(), Error> {
        let rows = &self.plan.journals;
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = rows.iter().map(|r| r.id).collect();
        let subjects: Vec<_> = rows.iter().map(|r| r.key.0).collect();
        let kinds: Vec<_> = rows.iter().map(|r| r.key.1).collect();
        let seqs: Vec<_> = rows.iter().map(|r| r.key.2).collect();
        let at: Vec<_> = rows.iter().map(|r| r.at.micros()).collect();
        let estimates: Vec<_> = rows.iter().map(|r| r.estimate).collect();
        let digests: Vec<_> = rows.iter().map(|r| r.digest.as_slice()).collect();
        let references: Vec<_> = rows.iter().map(|r| r.reference).collect();
        let posted_at = self.posted_at.micros();
        self.send(
            &self.statements.journal,
            &[&ids, &kinds, &subjects, &seqs, &at, &estimates, &digests, &references, &posted_at],
        )
        .await
    }

    async fn legs(&self) -> Result<(), Error> {
        let rows = &self.plan.legs;
        if rows.is_empty() {
            return Ok(());
        }
        let journals: Vec<_> = rows.iter().map(|r| r.journal).collect();
        let numbers: Vec<_> = rows.iter().map(|r| r.n).collect();
        let debits: Vec<_> = rows.iter().map(|r| r.debit_id).collect();
        let credits: Vec<_> = rows.iter().map(|r| r.credit_id).collect();
        let amounts: Vec<_> = rows.iter().map(|r| r.amount).collect();
        let currencies: Vec<_> = rows.iter().map(|r| r.currency.code()).collect();
        let components: Vec<_> = rows.iter().map(|r| r.component).collect();
        let attempts: Vec<_> = rows.iter().map(|r| r.attempt).collect();
        let prices: Vec<_> = rows.iter().map(|r| r.price_id).collect();
        let estimates: Vec<_> = rows.iter().map(|r| r.estimate).collect();
        self.send(
            &self.statements.leg,
            &[
                &journals,
                &numbers,
                &debits,
                &credits,
                &amounts,
                &currencies,
                &components,
                &attempts,
                &prices,
                &estimates,
            ],
        )
        .await
    }

    async fn attempts(&self) -> Result<(), Error> {
        let rows = &self.plan.attempts;
        if rows.is_empty() {
            return Ok(());
        }
        let all = || rows.iter().map(|row| row.attempt);
        let costs = || all().map(|a| a.cost.as_ref());
        let holds: Vec<_> = rows.iter().map(|r| r.hold).collect();
        let numbers: Vec<_> = all().map(|a| a.n).collect();
        let channels: Vec<_> = all().map(|a| &*a.channel).collect();
        let credentials: Vec<_> = all().map(|a| &*a.credential).collect();
        let models: Vec<_> = all().map(|a| &*a.model).collect();
        let outcomes: Vec<_> = all().map(|a| a.outcome).collect();
        let served: Vec<_> = all().map(|a| a.served).collect();
        let sources: Vec<_> = all().map(|a| source_name(a.usage_source)).collect();
        let usages: Vec<_> = rows.iter().map(|r| r.usage).collect();
        let amounts: Vec<_> = costs().map(|c| c.map(|c| c.amount)).collect();
        let currencies: Vec<_> = costs().map(|c| c.map(|c| c.currency.code())).collect();
        let prices: Vec<_> = rows.iter().map(|r| r.cost_price_id).collect();
        let estimates: Vec<_> = costs().map(|c| c.map(|c| c.estimate)).collect();
        let references: Vec<_> = all().map(|a| a.upstream_ref.as_deref()).collect();
        let started: Vec<_> = all().map(|a| a.started_at.micros()).collect();
        let first: Vec<_> = all().map(|a| a.first_byte_at.map(Timestamp::micros)).collect();
        let ended: Vec<_> = all().map(|a| a.ended_at.micros()).collect();
        self.send(
            &self.statements.attempt,
            &[
                &holds,
                &numbers,
                &channels,
                &credentials,
                &models,
                &outcomes,
                &served,
                &sources,
                &usages,
                &amounts,
                &currencies,
                &prices,
                &estimates,
                &references,
                &started,
                &first,
                &ended,
            ],
        )
        .await
    }

    /// Last of all, so that a lock that is only taken here is held for as short as can be.
    async fn balances(&self) -> Result<(), Error> {
        let Some(moves) = self.moves else { return self.wallets().await };
        if moves.is_empty() {
            return Ok(());
        }
        let accounts: Vec<_> = moves.iter().map(|m| m.account_id).collect();
        let debits: Vec<_> = moves.iter().map(|m| m.debits).collect();
        let held: Vec<_> = moves.iter().map(|m| m.held).collect();
        let locked: [Column<'_>; 1] = [&accounts];
        let added: [Column<'_>; 3] = [&accounts, &debits, &held];
        let (locked, added) = tokio::join!(
            biased;
            self.send(&self.statements.lock, &locked),
            self.send(&self.statements.shift, &added),
        );
        locked.and(added)
    }

    async fn wallets(&self) -> Result<(), Error> {
        let changed = || self.known.wallets.iter().filter(|(_, wallet)| wallet.changed);
        let accounts: Vec<_> = changed().map(|(account_id, _)| *account_id).collect();
        if accounts.is_empty() {
            return Ok(());
        }
        let column = |of: fn(&Wallet) -> i64| changed().map(|(_, w)| of(w)).collect::<Vec<_>>();
        let (debits, credits) = (column(|w| w.debits), column(|w| w.credits));
        let (held, floors) = (column(|w| w.held), column(|w| w.floor));
        let promo = column(|w| w.promo);
        let columns: [Column<'_>; 6] = [&accounts, &debits, &credits, &held, &floors, &promo];
        self.send(&self.statements.wallet, &columns).await
    }

    async fn house(&self) -> Result<(), Error> {
        let rows = &self.plan.house;
        if rows.is_empty() {
            return Ok(());
        }
        let accounts: Vec<_> = rows.keys().copied().collect();
        // As text: a sum that leaves 64 bits is for the server to refuse.
        let debits: Vec<_> = rows.values().map(|(debits, _)| debits.to_string()).collect();
        let credits: Vec<_> = rows.values().map(|(_, credits)| credits.to_string()).collect();
        let today = i32::try_from(day(self.posted_at)).unwrap_or(i32::MAX);
        self.send(&self.statements.house, &[&accounts, &debits, &credits, &today]).await
    }
}
