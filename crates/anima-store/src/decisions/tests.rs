//! The contract of decision records, run against both databases.

use anima_core::clock::{SeededRng, mint_id};

use super::*;
use crate::database::{Location, Opener, open};
use crate::ledger::BatchObserver;

#[derive(Debug)]
struct Deaf;

impl BatchObserver for Deaf {
    fn committed(&self, _holds: usize, _settlements: usize, _seconds: f64) {}
    fn failed(&self) {}
}

async fn keeps_records(location: Location) {
    let opener = Opener { node: Uuid::from_u128(7), observer: Arc::new(Deaf) };
    let decisions = open(&location, &opener).await.unwrap().decisions;
    let rng = SeededRng::new(1);
    let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
    let ids: Vec<Uuid> = (0..10).map(|n| mint_id(at(1_000 + n), &rng)).collect();
    let records = ids.iter().map(|id| (*id, format!("{{\"id\":\"{id}\"}}")));
    decisions.write(records.collect()).await.unwrap();
    decisions.write(vec![(ids[0], "again".to_owned())]).await.unwrap();
    decisions.write(vec![]).await.unwrap();
    let first = decisions.read(ids[0]).await.unwrap().unwrap();
    assert_eq!(first, format!("{{\"id\":\"{}\"}}", ids[0]), "the first one stays");
    assert_eq!(decisions.read(Uuid::nil()).await.unwrap(), None);
    assert_eq!(decisions.sweep(at(1_004), 3).await.unwrap(), 3, "no more than was asked");
    assert_eq!(decisions.sweep(at(1_004), 3).await.unwrap(), 1);
    assert_eq!(decisions.sweep(at(1_004), 3).await.unwrap(), 0);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(decisions.read(*id).await.unwrap().is_some(), n >= 4, "record {n}");
    }
}

#[tokio::test]
async fn records_are_kept_until_their_time_is_over_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    keeps_records(Location::Sqlite(folder.path().join("a.db"))).await;
}

#[tokio::test]
async fn records_are_kept_until_their_time_is_over_on_postgres() {
    let Some(scratch) = crate::tests::postgres().await else { return };
    keeps_records(Location::Postgres(scratch.url())).await;
}
