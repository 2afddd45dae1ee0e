//! The suite on PostgreSQL, and what only PostgreSQL can be asked.

use std::sync::Arc;

use super::damage::{self, Place};
use super::documented;
use super::fixtures::*;
use super::outages;
use super::recovery::Nodes;
use super::upgrade;
use crate::database::Opener;
use crate::ledger::money;
use crate::ledger::postgres::{PostgresLedger, open};
use crate::ledger::{Error, LeaseState, Leases as _, LedgerStore, OpenHolds as _};
use crate::postgres::{Link, migrate, migrate_to, pool};
use crate::tests::{Scratch, postgres};

crate::ledger::tests::suite!(books);
crate::ledger::tests::recovery::suite!(nodes);

#[test]
fn random_sequences_agree_with_the_books_in_memory() {
    crate::ledger::tests::differential::run(nodes, 16);
}

async fn nodes() -> Option<Nodes> {
    let place = Arc::new(postgres().await?);
    migrate(&pool(&place.url(), 1, &Link::default()).unwrap()).await.unwrap();
    let there = Arc::clone(&place);
    let open = move |node| -> Arc<dyn LedgerStore> {
        Arc::new(opened(&there, &Opener { node, ..opener() }))
    };
    Some(Nodes { open: Box::new(open), place: Box::new(place) })
}

async fn books() -> Option<Books> {
    let place = postgres().await?;
    migrate(&pool(&place.url(), 1, &Link::default()).unwrap()).await.unwrap();
    let ledger = opened(&place, &opener());
    Some(Books { ledger: Arc::new(ledger), place: Box::new(place) })
}

fn opened(place: &Scratch, opener: &Opener) -> PostgresLedger {
    let link = Link::default();
    open(&place.url(), pool(&place.url(), 4, &link).unwrap(), opener, &link).unwrap()
}

/// A database with a settled hold, an open one and a top-up.
async fn used() -> Option<Scratch> {
    let place = postgres().await?;
    migrate(&pool(&place.url(), 1, &Link::default()).unwrap()).await.unwrap();
    let ledger = opened(&place, &opener());
    ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    let (first, second) = (hold(1, "acme", 100), hold(2, "acme", 50));
    ledger.hold(first.clone()).await.unwrap();
    ledger.settle(settle(&first, 90)).await.unwrap();
    ledger.hold(second).await.unwrap();
    Some(place)
}

async fn execute(place: &Scratch, statements: &str) -> Result<(), String> {
    let client = pool(&place.url(), 1, &Link::default()).unwrap().get().await.unwrap();
    client
        .batch_execute(statements)
        .await
        .map_err(|e| e.as_db_error().map_or_else(|| e.to_string(), |e| e.message().to_owned()))
}

#[tokio::test]
async fn calls_of_the_schema_before_are_ended_under_this_one() {
    let Some(place) = postgres().await else { return };
    let one = pool(&place.url(), 1, &Link::default()).unwrap();
    migrate_to(&one, upgrade::BEFORE).await;
    let node = |n| Opener { node: uuid::Uuid::from_u128(n), ..opener() };
    upgrade::begin(&opened(&place, &node(1))).await;
    migrate(&one).await.unwrap();
    upgrade::end(&opened(&place, &node(2))).await;
    let silent = one.get().await.unwrap().query_one(upgrade::SILENT, &[]).await.unwrap();
    assert_eq!(silent.get::<_, i64>(0), 3);
}

#[tokio::test]
async fn a_hold_outlives_the_process_and_is_fenced_from_the_next_one() {
    let Some(place) = used().await else { return };
    let next = Opener { node: uuid::Uuid::from_u128(0xB), ..opener() };
    let next = opened(&place, &next);
    let open_hold = hold(2, "acme", 50);
    assert_eq!(next.settle(settle(&open_hold, 5)).await, Err(Error::Fenced));
    assert_eq!(wallet(&next, "acme").await, (910, 50, 0));
    let same = opened(&place, &opener());
    assert_eq!(same.settle(settle(&open_hold, 5)).await.unwrap().charged, 5);
    assert!(next.settle(settle(&open_hold, 5)).await.unwrap().replayed);
    assert_clean(&next).await;
}

#[tokio::test]
async fn a_node_that_was_missed_is_fenced_and_does_not_know_it_yet() {
    let Some(place) = used().await else { return };
    let (now, hour) = (std::time::Duration::ZERO, std::time::Duration::from_hours(1));
    let slow = opened(&place, &opener());
    slow.register(registration(0xA11A, now)).await.unwrap();
    // Late, and nobody has missed it.
    slow.renew(now).await.unwrap();
    slow.hold(hold(3, "acme", 5)).await.unwrap();
    let other = opened(&place, &Opener { node: uuid::Uuid::from_u128(2), ..opener() });
    other.register(registration(2, hour)).await.unwrap();
    assert_eq!(other.claim_orphans(1, hour).await.unwrap().len(), 1);
    assert_eq!(slow.hold(hold(4, "acme", 5)).await, Err(Error::Fenced));
    assert_eq!(slow.renew(hour).await, Err(Error::Fenced));
    assert_eq!(slow.claim_orphans(10, hour).await, Err(Error::Fenced));
    // The hold that was not taken yet is still its own to settle, and then gone for the other.
    let left = [hold(2, "acme", 50), hold(3, "acme", 5)];
    let taken = other.unresolved(10).await.unwrap()[0].hold;
    let (taken, left): (Vec<_>, Vec<_>) = left.into_iter().partition(|hold| hold.id == taken);
    slow.settle(release(&left[0])).await.unwrap();
    assert_eq!(other.claim_orphans(10, hour).await, Ok(Vec::new()));
    assert_eq!(slow.settle(release(&taken[0])).await, Err(Error::Fenced));
    other.settle(release(&taken[0])).await.unwrap();
    let states: Vec<_> = other.leases().await.unwrap().iter().map(|l| l.state).collect();
    assert_eq!(states, [LeaseState::Up, LeaseState::Recovered]);
    assert_clean(&other).await;
}

#[tokio::test]
async fn what_is_written_stays_as_it_was_written() {
    let Some(place) = used().await else { return };
    for statement in [
        "UPDATE leg SET amount = 1",
        "DELETE FROM leg",
        "TRUNCATE leg",
        "UPDATE journal SET reference = 'x'",
        "DELETE FROM journal",
        "UPDATE attempt SET cost = 0",
        "DELETE FROM attempt",
        "UPDATE correction SET owed = 0",
        "DELETE FROM corrected_attempt",
        "DELETE FROM hold",
        "UPDATE hold SET state = 'HELD', settled = NULL, digest = NULL, closed_at = NULL",
        "UPDATE gated_balance SET held = 2000",
        "UPDATE hold SET state = 'SETTLED' WHERE state = 'HELD'",
    ] {
        let why = execute(&place, statement).await.unwrap_err();
        let guards = ["append-only", "hold is closed", "check constraint"];
        assert!(guards.iter().any(|guard| why.contains(guard)), "{statement}: {why}");
    }
}

impl Place for Scratch {
    fn books(&self) -> money::Books {
        money::Books::Postgres(pool(&self.url(), 1, &Link::default()).unwrap())
    }

    fn ledger(&self) -> Arc<dyn LedgerStore> {
        Arc::new(opened(self, &opener()))
    }

    async fn force(&self, statements: &str) {
        let unguarded = format!("SET session_replication_role = 'replica'; {statements}");
        execute(self, &unguarded).await.unwrap();
    }

    fn price(&self, code: &str, body: &str) -> String {
        format!(
            "INSERT INTO price (code, scope, version_no, effective_from, body, created_at,
                                created_by)
             VALUES ('{code}', '{code}', 3, to_timestamp(0), '{body}', to_timestamp(0), 'test')"
        )
    }

    fn own(&self, _sqlite: &'static str, postgres: &'static str) -> &'static str {
        postgres
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verification_finds_what_was_damaged() {
    damage::each_damage_is_found(place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verification_finds_what_was_damaged_of_a_correction() {
    damage::each_damage_of_a_correction_is_found(place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_queries_give_the_documents_figures() {
    let Some(place) = place().await else { return };
    documented::each_query_gives_what_the_document_says(&place).await;
}

/// An empty database.
async fn place() -> Option<Scratch> {
    let place = postgres().await?;
    migrate(&pool(&place.url(), 1, &Link::default()).unwrap()).await.unwrap();
    Some(place)
}

#[tokio::test]
async fn folding_moves_deltas_and_changes_no_balance() {
    let Some(place) = used().await else { return };
    let ledger = opened(&place, &opener());
    let before = ledger.trial_balance().await.unwrap();
    execute(&place, "SELECT fold_balances()").await.unwrap();
    let left = "DO $$ BEGIN
        IF EXISTS (SELECT 1 FROM balance_delta) OR NOT EXISTS (SELECT 1 FROM folded_balance)
        THEN RAISE EXCEPTION 'not folded'; END IF; END $$";
    execute(&place, left).await.unwrap();
    assert_eq!(ledger.trial_balance().await.unwrap(), before);
    assert_clean(&ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folding_loses_nothing_while_batches_are_written() {
    let Some(place) = used().await else { return };
    let ledger = Arc::new(opened(&place, &opener()));
    ledger.post(topup(10, "acme", 1_000_000)).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for caller in 1..=8_u128 {
        let ledger = Arc::clone(&ledger);
        calls.spawn(async move {
            for n in 0..50 {
                let hold = hold(caller * 1_000 + n, "acme", 100);
                ledger.hold(hold.clone()).await.unwrap();
                ledger.settle(settle(&hold, 90)).await.unwrap();
            }
        });
    }
    // Two nodes that fold as often as they can.
    let folding = async || {
        let client = pool(&place.url(), 1, &Link::default()).unwrap().get().await.unwrap();
        loop {
            client.batch_execute("SELECT fold_balances()").await.unwrap();
        }
    };
    tokio::select! {
        _ = calls.join_all() => {}
        () = folding() => {}
        () = folding() => {}
    }
    // Every account is what its legs say (I3).
    assert_clean(&*ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_a_wallet_and_never_overdraw_it() {
    let Some(place) = used().await else { return };
    let mut calls = tokio::task::JoinSet::new();
    for node in 0..3_u128 {
        let opener = Opener { node: uuid::Uuid::from_u128(node), ..opener() };
        let ledger = Arc::new(opened(&place, &opener));
        for n in 0..200 {
            let ledger = Arc::clone(&ledger);
            let hold = hold(1_000 * (node + 1) + n, "acme", 10);
            calls.spawn(async move {
                ledger.hold(hold.clone()).await?;
                ledger.settle(settle(&hold, 10)).await
            });
        }
    }
    let results = calls.join_all().await;
    // 910 are posted and 50 of them held.
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 86, "{results:?}");
    let ledger = opened(&place, &opener());
    assert_eq!(wallet(&ledger, "acme").await, (50, 50, 0));
    assert_clean(&ledger).await;
}

/// A transaction that was given up with its connection may still commit, while the same is written
/// again. What was read before that commit must not move the balance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_up_and_commits_later_is_not_counted_twice() {
    let Some(place) = used().await else { return };
    let ledger = Arc::new(opened(&place, &opener()));
    ledger.post(topup(10, "acme", 1_000_000)).await.unwrap();
    for (n, in_the_end) in [(2_u128, (1_000_910, 200)), (3, (1_000_905, 200))] {
        let held = hold(n, "acme", 50);
        ledger.hold(held.clone()).await.unwrap();
        let ghost = pool(&place.url(), 1, &Link::default()).unwrap().get().await.unwrap();
        let extended = format!(
            "BEGIN; UPDATE hold SET amount = 200 WHERE id = '{}';
             UPDATE gated_balance SET held = held + 150",
            held.id
        );
        ghost.batch_execute(&extended).await.unwrap();
        let (again, acme) = (Arc::clone(&ledger), held.clone());
        let again = tokio::spawn(async move {
            if n == 2 {
                again.extend(extension(&acme, 200)).await
            } else {
                again.settle(settle(&acme, 5)).await.map(|_| ())
            }
        });
        while blocked(&place).await == 0 {}
        ghost.batch_execute("COMMIT").await.unwrap();
        again.await.unwrap().unwrap();
        let (posted, held, _) = wallet(&*ledger, "acme").await;
        assert_eq!((posted, held), in_the_end, "{n}");
        assert_clean(&*ledger).await;
    }
}

/// Sessions that wait for a lock.
async fn blocked(place: &Scratch) -> i64 {
    const BLOCKED: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let client = pool(&place.url(), 1, &Link::default()).unwrap().get().await.unwrap();
    client.query_one(BLOCKED, &[]).await.unwrap().get(0)
}

/// One empty wallet does not hold up the others, and is still judged to the last unit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_wallets_beside_a_full_one_are_judged_apart() {
    let Some(place) = used().await else { return };
    let ledger = Arc::new(opened(&place, &opener()));
    ledger.post(topup(10, "rich", 1_000_000)).await.unwrap();
    ledger.post(topup(11, "poor", 55)).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..300_u128 {
        let ledger = Arc::clone(&ledger);
        calls.spawn(async move {
            let app = if n % 3 == 0 { "poor" } else { "rich" };
            (app, ledger.hold(hold(1_000 + n, app, 10)).await.is_ok())
        });
    }
    let accepted = calls.join_all().await;
    let of = |app: &str| accepted.iter().filter(|(of, ok)| *of == app && *ok).count();
    assert_eq!((of("poor"), of("rich")), (5, 200));
    assert_clean(&*ledger).await;
}

/// As a caller does: what was refused is forgotten.
async fn hold_and_release(ledger: &dyn LedgerStore, hold: &anima_core::ledger::Hold) {
    if ledger.hold(hold.clone()).await.is_ok() {
        ledger.settle(release(hold)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_survives_the_loss_of_every_connection() {
    let Some(place) = used().await else { return };
    let ledger = Arc::new(opened(&place, &opener()));
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    ledger.post(topup(20, "acme", 10_000)).await.unwrap();
    let mut ids = 100..;
    for _ in 0..10 {
        // Each try is another hold: one that was answered with an error is not used again.
        let held = loop {
            let hold = hold(ids.next().unwrap(), "acme", 10);
            match ledger.hold(hold.clone()).await {
                Ok(()) => break hold,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let calls = {
            let (ledger, other) = (Arc::clone(&ledger), hold(ids.next().unwrap(), "acme", 10));
            tokio::spawn(async move {
                let settled = ledger.settle(settle(&held, 10));
                tokio::join!(settled, hold_and_release(&*ledger, &other)).0
            })
        };
        execute(&place, others).await.unwrap();
        assert_eq!(calls.await.unwrap().unwrap().charged, 10);
    }
    // Written after every release that waits: no hold stays that its caller believes refused.
    while ledger.post(topup(21, "acme", 1)).await.is_err() {}
    // The pool of readers learns of a lost connection when it uses it.
    while ledger.balance("acme", anima_core::money::Currency::USD).await.is_err() {}
    assert_eq!(wallet(&*ledger, "acme").await, (10_811, 50, 0));
    while ledger.verify(NOON).await.is_err() {}
    assert_clean(&*ledger).await;
}

#[tokio::test]
async fn a_settlement_is_written_without_a_text_that_the_database_refuses() {
    let Some(place) = used().await else { return };
    let picky = "ALTER TABLE attempt ADD CHECK (upstream_ref IS NULL) NOT VALID";
    execute(&place, picky).await.unwrap();
    let ledger = opened(&place, &opener());
    let settlement = settle(&hold(2, "acme", 50), 50);
    assert!(!ledger.settle(settlement.clone()).await.unwrap().replayed);
    // It is the same settlement still.
    assert!(ledger.settle(settlement).await.unwrap().replayed);
    assert_clean(&ledger).await;
}

#[tokio::test]
async fn a_text_that_no_database_can_hold_is_cut() {
    let Some(place) = used().await else { return };
    let ledger = opened(&place, &opener());
    let mut settlement = settle(&hold(2, "acme", 50), 50);
    settlement.attempts[0].upstream_ref = Some(format!("a\0{}", "x".repeat(500)));
    ledger.settle(settlement).await.unwrap();
    let cut = "DO $$ BEGIN
        IF NOT EXISTS (SELECT 1 FROM attempt WHERE upstream_ref = 'a' || repeat('x', 127))
        THEN RAISE EXCEPTION 'not cut'; END IF; END $$";
    execute(&place, cut).await.unwrap();
}

#[tokio::test]
async fn a_node_is_unwell_while_its_ledger_cannot_write() {
    let Some(place) = used().await else { return };
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER full_disk BEFORE UPDATE ON hold EXECUTE FUNCTION full_disk()";
    execute(&place, full).await.unwrap();
    let location = crate::database::Location::Postgres(place.url());
    let stores = crate::database::open(&location, &opener()).await.unwrap();
    stores.ping().await.unwrap();
    let settlement = settle(&hold(2, "acme", 50), 50);
    let ledger = Arc::clone(&stores.ledger);
    let settling = tokio::spawn(async move { ledger.settle(settlement).await });
    while stores.ping().await.is_ok() {}
    // What reads the configuration does not notice.
    stores.config.rev().await.unwrap();
    execute(&place, "DROP TRIGGER full_disk ON hold").await.unwrap();
    settling.await.unwrap().unwrap();
    stores.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_loses_nothing_that_was_acknowledged() {
    let Some(place) = place().await else { return };
    outages::a_panic_loses_nothing_that_was_acknowledged(|observer| {
        Arc::new(opened(&place, &Opener { observer, ..opener() }))
    })
    .await;
}
