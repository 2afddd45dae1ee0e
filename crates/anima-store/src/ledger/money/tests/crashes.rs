//! A transaction that ends between any two of its writes leaves nothing, and what is repeated under
//! the same key then happens once.
//!
//! A trigger that refuses a write stands for the crash: in both cases the database rolls back what
//! came before it. SQLite only; PostgreSQL's transactions are no different.

use rusqlite::Connection;

use super::*;
use crate::ledger::tests::fixtures::{hold, settle, topup};

/// Every write that a movement or a settlement with credit makes.
const WRITES: &[(&str, &str)] = &[
    ("INSERT", "account"),
    ("INSERT", "journal"),
    ("INSERT", "leg"),
    ("INSERT", "house_balance"),
    ("UPDATE", "gated_balance"),
    ("INSERT", "promo_grant"),
    ("UPDATE", "promo_grant"),
    ("INSERT", "promo_use"),
    ("UPDATE", "promo_use"),
    ("INSERT", "refund"),
    ("UPDATE", "hold"),
];

/// Lets `act` meet a crash at each of the writes that it makes, then lets it pass.
async fn crashing<T, E>(
    (desk, path): (&Desk, &std::path::Path),
    writes: &[usize],
    mut act: impl AsyncFnMut() -> Result<T, E>,
) {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    let books = async || {
        let trial = desk.ledger.trial_balance().await.unwrap();
        (trial, wallet(desk, "acme").await)
    };
    let before = books().await;
    for (verb, table) in writes.iter().map(|n| WRITES[*n]) {
        let crash = format!(
            "CREATE TRIGGER crash AFTER {verb} ON {table} BEGIN SELECT RAISE(ABORT, 'crash'); END"
        );
        connection.execute_batch(&crash).unwrap();
        let done = act().await;
        connection.execute_batch("DROP TRIGGER crash").unwrap();
        assert!(done.is_err(), "{verb} {table} is not among its writes");
        assert_eq!(books().await, before, "{verb} {table}");
        assert_clean(&*desk.ledger).await;
    }
    assert!(act().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_any_two_writes_leaves_nothing_and_the_retry_happens_once() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.db");
    let stores = database::open(&Location::Sqlite(path.clone()), &fixtures::opener()).await;
    let desk = Desk::from(stores.unwrap());
    let at = (&desk, path.as_path());
    desk.ledger.post(topup(9, "acme", 100)).await.unwrap();
    crashing(at, &[0, 1, 2, 3, 4, 5], async || desk.money.grant(grant(51, "acme", 30, 1)).await)
        .await;
    assert_eq!(wallet(&desk, "acme").await, (100, 30, 0));
    let open = hold(1, "acme", 50);
    desk.ledger.hold(open.clone()).await.unwrap();
    let writes = [1, 2, 3, 4, 6, 7, 10];
    crashing(at, &writes, async || desk.ledger.settle(settle(&open, 50)).await).await;
    assert_eq!(wallet(&desk, "acme").await, (80, 0, 0));
    let writes = [0, 1, 2, 3, 4, 6, 8, 9];
    crashing(at, &writes, async || desk.money.refund(refund(1, "acme", Some(45), 1)).await).await;
    assert_eq!(wallet(&desk, "acme").await, (100, 25, 0));
    let later = NOON.plus_millis(7_200_000);
    crashing(at, &[1, 2, 4, 6], async || desk.money.expire_promo(later).await).await;
    assert_eq!(wallet(&desk, "acme").await, (100, 0, 0));
    assert_clean(&*desk.ledger).await;
}
