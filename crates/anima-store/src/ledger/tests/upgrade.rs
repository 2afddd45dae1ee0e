//! Calls that began under an older schema and are ended under this one, on both databases.
//!
//! Invariant: an upgrade loses nothing of what is known of a call that runs.

use std::time::Duration;

use uuid::Uuid;

use anima_core::ledger::Phase;

use super::fixtures::*;
use crate::ledger::LedgerStore;

/// The schema before version 16, which writes less about a hold that is closed.
pub(super) const BEFORE: i32 = 15;

/// How many closed holds say nothing any more of where they went and how far they came.
pub(super) const SILENT: &str = "
    SELECT count(*) FROM hold
    WHERE state = 'SETTLED' AND channel IS NULL AND cost_cap IS NULL AND cost_currency IS NULL
      AND cost_price_id IS NULL AND upstream_ref IS NULL AND trail IS NULL
      AND COALESCE(phase, 0) = 0 AND COALESCE(progress, 0) = 0";

/// Two calls that run, and what is known of one of them.
pub(super) async fn begin(ledger: &dyn LedgerStore) {
    ledger.register(registration(1, Duration::ZERO)).await.unwrap();
    ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    for n in [1, 2] {
        ledger.hold(hold(n, "acme", 100)).await.unwrap();
    }
    ledger.checkpoint(vec![checkpoint(&hold(1, "acme", 100), 40)]).await.unwrap();
}

/// They and a third one are taken over and closed by another node.
pub(super) async fn end(ledger: &dyn LedgerStore) {
    let hour = Duration::from_hours(1);
    ledger.register(registration(2, hour)).await.unwrap();
    let mut claimed = ledger.claim_orphans(10, hour).await.unwrap();
    claimed.sort_by_key(|one| one.hold);
    let known: Vec<_> = claimed.iter().map(|one| (one.phase, one.progress)).collect();
    assert_eq!(known, [(Phase::Streaming, 40), (Phase::Intent, 0)]);
    assert!(claimed.iter().all(|one| one.exposure == Some(exposure())));
    assert_eq!(claimed[0].ended.len(), 1);
    ledger.hold(hold(3, "acme", 100)).await.unwrap();
    for n in [1, 2, 3] {
        ledger.settle(settle(&hold(n, "acme", 100), 90)).await.unwrap();
    }
    assert!(ledger.settle(settle(&hold(1, "acme", 100), 90)).await.unwrap().replayed);
    assert_eq!(wallet(ledger, "acme").await, (730, 0, 0));
    assert_eq!(ledger.unresolved(10).await.unwrap(), []);
    assert!(!ledger.postings(Uuid::from_u128(1)).await.unwrap().is_empty());
    assert_clean(ledger).await;
}
