//! The contract of reports, run against both databases.

use uuid::Uuid;

use super::*;
use crate::database::{Location, Opener, open};
use crate::ledger::BatchObserver;

#[derive(Debug)]
struct Deaf;

impl BatchObserver for Deaf {
    fn committed(&self, _holds: usize, _settlements: usize, _seconds: f64) {}
    fn failed(&self) {}
}

async fn keeps_reports(location: Location) {
    let opener = Opener { node: Uuid::from_u128(7), observer: Arc::new(Deaf) };
    let nodes = open(&location, &opener).await.unwrap().nodes;
    let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
    nodes.publish("b", at(1), "old".to_owned()).await.unwrap();
    nodes.publish("a", at(2), "first".to_owned()).await.unwrap();
    nodes.publish("b", at(3), "second".to_owned()).await.unwrap();
    assert_eq!(nodes.list(at(0)).await.unwrap(), ["first", "second"]);
    assert_eq!(nodes.list(at(3)).await.unwrap(), ["second"], "what is older is removed");
    nodes.remove("b").await.unwrap();
    nodes.remove("b").await.unwrap();
    assert!(nodes.list(at(0)).await.unwrap().is_empty());
}

#[tokio::test]
async fn reports_replace_one_another_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    keeps_reports(Location::Sqlite(folder.path().join("a.db"))).await;
}

#[tokio::test]
async fn reports_replace_one_another_on_postgres() {
    let Some(scratch) = crate::tests::postgres().await else { return };
    keeps_reports(Location::Postgres(scratch.url())).await;
}
