//! The suite on SQLite, and what only SQLite can be asked.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::damage::{self, Place};
use super::documented;
use super::fixtures::*;
use super::outages;
use super::recovery::Nodes;
use super::upgrade;
use crate::database::Opener;
use crate::ledger::money;
use crate::ledger::sqlite::open;
use crate::ledger::{Error, Leases as _, LedgerStore, OpenHolds as _};
use crate::sqlite;

crate::ledger::tests::suite!(books);
crate::ledger::tests::recovery::suite!(nodes);

#[test]
fn random_sequences_agree_with_the_books_in_memory() {
    crate::ledger::tests::differential::run(nodes, 40);
}

async fn nodes() -> Option<Nodes> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.db");
    sqlite::migrate(&mut sqlite::open(&path).unwrap()).unwrap();
    let open = move |node| -> Arc<dyn LedgerStore> {
        Arc::new(open(&path, &Opener { node, ..opener() }).unwrap())
    };
    Some(Nodes { open: Box::new(open), place: Box::new(place) })
}

async fn books() -> Option<Books> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.db");
    sqlite::migrate(&mut sqlite::open(&path).unwrap()).unwrap();
    let ledger = open(&path, &opener()).unwrap();
    Some(Books { ledger: Arc::new(ledger), place: Box::new(place) })
}

/// A file with a settled hold, an open one and a top-up.
async fn used() -> (tempfile::TempDir, std::path::PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.db");
    sqlite::migrate(&mut sqlite::open(&path).unwrap()).unwrap();
    let ledger = open(&path, &opener()).unwrap();
    ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    let (first, second) = (hold(1, "acme", 100), hold(2, "acme", 50));
    ledger.hold(first.clone()).await.unwrap();
    ledger.settle(settle(&first, 90)).await.unwrap();
    ledger.hold(second).await.unwrap();
    (place, path)
}

#[tokio::test]
async fn calls_of_the_schema_before_are_ended_under_this_one() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.db");
    let mut connection = sqlite::open(&path).unwrap();
    sqlite::migrate_to(&mut connection, upgrade::BEFORE);
    let node = |n| Opener { node: uuid::Uuid::from_u128(n), ..opener() };
    upgrade::begin(&open(&path, &node(1)).unwrap()).await;
    sqlite::migrate(&mut connection).unwrap();
    upgrade::end(&open(&path, &node(2)).unwrap()).await;
    let silent = connection.query_row(upgrade::SILENT, [], |row| row.get::<_, i64>(0));
    assert_eq!(silent, Ok(3));
}

#[tokio::test]
async fn a_hold_outlives_the_process_and_is_fenced_from_the_next_one() {
    let (_place, path) = used().await;
    let mut next = opener();
    next.node = uuid::Uuid::from_u128(0xB);
    let next = open(&path, &next).unwrap();
    let open_hold = hold(2, "acme", 50);
    assert_eq!(next.settle(settle(&open_hold, 5)).await, Err(Error::Fenced));
    assert_eq!(wallet(&next, "acme").await, (910, 50, 0));
    let same = open(&path, &opener()).unwrap();
    assert_eq!(same.settle(settle(&open_hold, 5)).await.unwrap().charged, 5);
    let replay = next.settle(settle(&open_hold, 5)).await.unwrap();
    assert!(replay.replayed);
    assert_clean(&next).await;
}

#[tokio::test]
async fn a_second_process_is_refused_and_the_next_one_takes_over_at_once() {
    let (_place, path) = used().await;
    let hour = std::time::Duration::from_hours(1);
    let first = open(&path, &opener()).unwrap();
    first.register(registration(0xA11A, hour)).await.unwrap();
    let second = open(&path, &Opener { node: uuid::Uuid::from_u128(2), ..opener() }).unwrap();
    let refused = second.register(registration(2, hour)).await;
    assert!(matches!(&refused, Err(Error::Refused(why)) if why.contains("a.db")), "{refused:?}");
    first.hold(hold(3, "acme", 5)).await.unwrap();
    assert_eq!(second.claim_orphans(10, hour).await, Ok(Vec::new()));
    // As when the process ends, however it does.
    drop(first);
    second.register(registration(2, hour)).await.unwrap();
    let claimed = second.claim_orphans(10, hour).await.unwrap();
    assert_eq!(claimed.len(), 2);
    for orphan in claimed {
        let hold = hold(orphan.hold.as_u128(), "acme", orphan.amount);
        second.settle(release(&hold)).await.unwrap();
    }
    assert_eq!(wallet(&second, "acme").await, (910, 0, 0));
    assert_clean(&second).await;
}

#[tokio::test]
async fn what_is_written_stays_as_it_was_written() {
    let (_place, path) = used().await;
    let corrected = correction(settle(&hold(1, "acme", 100), 85));
    open(&path, &opener()).unwrap().true_up(corrected).await.unwrap();
    let connection = sqlite::open(&path).unwrap();
    for statement in [
        "UPDATE leg SET amount = 1",
        "DELETE FROM leg",
        "UPDATE journal SET reference = 'x'",
        "DELETE FROM journal",
        "UPDATE attempt SET cost = 0",
        "DELETE FROM attempt",
        "UPDATE correction SET owed = 0",
        "DELETE FROM corrected_attempt",
        "DELETE FROM hold",
        "UPDATE hold SET state = 'HELD', settled = NULL, digest = NULL, closed_at = NULL",
    ] {
        let error = connection.execute(statement, []).unwrap_err().to_string();
        assert!(error.contains("append-only") || error.contains("hold is"), "{statement}: {error}");
    }
    for (statement, constraint) in [
        ("UPDATE gated_balance SET held = 2000", "CHECK"),
        ("UPDATE hold SET state = 'SETTLED' WHERE state = 'HELD'", "CHECK"),
        ("INSERT INTO journal SELECT x'00112233445566778899aabbccddeeff', kind, subject, seq, at,
          posted_at, estimate, digest, reference FROM journal LIMIT 1", "UNIQUE"),
    ] {
        let error = connection.execute(statement, []).unwrap_err().to_string();
        assert!(error.contains(constraint), "{statement}: {error}");
    }
}

struct Damaged {
    path: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Place for Damaged {
    fn books(&self) -> money::Books {
        money::Books::Sqlite(self.path.clone())
    }

    fn ledger(&self) -> Arc<dyn LedgerStore> {
        Arc::new(open(&self.path, &opener()).unwrap())
    }

    async fn force(&self, statements: &str) {
        plant(&self.path, statements);
    }

    fn price(&self, code: &str, body: &str) -> String {
        format!(
            "INSERT INTO price (code, scope, version_no, effective_from, body, created_at,
                                created_by)
             VALUES ('{code}', '{code}', 3, 0, '{body}', 0, 'test')"
        )
    }

    fn own(&self, sqlite: &'static str, _postgres: &'static str) -> &'static str {
        sqlite
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
async fn place() -> Option<Damaged> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    sqlite::migrate(&mut sqlite::open(&path).unwrap()).unwrap();
    Some(Damaged { path, _folder: folder })
}

fn plant(path: &Path, damage: &str) {
    let connection = Connection::open(path).unwrap();
    let triggers: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for trigger in triggers {
        connection.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
    }
    connection
        .execute_batch("PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF")
        .unwrap();
    connection.execute_batch(damage).unwrap();
}

#[tokio::test]
async fn a_locked_file_refuses_holds_and_delays_settlements() {
    let (_place, path) = used().await;
    let ledger = Arc::new(open(&path, &opener()).unwrap());
    let other = sqlite::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let settling = {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move { ledger.settle(settle(&hold(2, "acme", 50), 50)).await })
    };
    // A reader is not in the way, and not held up.
    assert_eq!(wallet(&*ledger, "acme").await, (910, 50, 0));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(settling.await.unwrap().unwrap().charged, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_loses_nothing_that_was_acknowledged() {
    let Some(place) = place().await else { return };
    outages::a_panic_loses_nothing_that_was_acknowledged(|observer| {
        Arc::new(open(&place.path, &Opener { observer, ..opener() }).unwrap())
    })
    .await;
}
