//! Leases, running calls, and holds whose owner is gone: the contract of [`Leases`] and
//! [`OpenHolds`], on both backends, with several nodes on one database.
//!
//! The holds of the fixtures expired in September 2026, so that a node without a lease counts as
//! gone; one with a lease does not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use uuid::Uuid;

use anima_core::ledger::{
    Attempt, AttemptCost, Component, EntryKind, Hold, Phase, Settlement, recovery,
};

use super::fixtures::*;
use crate::ledger::{Correction, Error, LeaseState, LedgerStore, SaleCorrection, Settled, TruedUp};

type Ledger = Arc<dyn LedgerStore>;

/// Opens the same database as another node.
pub(super) struct Nodes {
    pub(super) open: Box<dyn Fn(Uuid) -> Ledger + Send + Sync>,
    #[expect(dead_code, reason = "dropped with the nodes: the file or the database")]
    pub(super) place: Box<dyn std::any::Any + Send + Sync>,
}

impl Nodes {
    pub(super) fn open(&self, node: u128) -> Ledger {
        (self.open)(Uuid::from_u128(node))
    }
}

const MINUTE: Duration = Duration::from_mins(1);

async fn funded(nodes: &Nodes, node: u128, amount: i64) -> Ledger {
    let ledger = nodes.open(node);
    ledger.post(topup(9, "acme", amount)).await.unwrap();
    ledger
}

/// What a recovery books that found nothing out.
fn lost(hold: &Hold) -> Settlement {
    let unseen = Attempt {
        outcome: recovery::OUTCOME,
        cost: Some(AttemptCost { estimate: true, ..attempt(1, false, 80).cost.unwrap() }),
        ..attempt(1, false, 80)
    };
    Settlement { attempts: vec![unseen], ..release(hold) }
}

pub(super) async fn an_orphan_belongs_to_who_claimed_it(nodes: &Nodes) {
    let first = funded(nodes, 1, 1_000).await;
    let hold = hold(2, "acme", 100);
    first.hold(hold.clone()).await.unwrap();
    let second = nodes.open(2);
    let claimed = second.claim_orphans(10, MINUTE).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let one = &claimed[0];
    assert_eq!((one.hold, one.amount, one.phase), (hold.id, 100, Phase::Intent));
    assert_eq!((&one.app, &one.kid, &one.alias), (&hold.app, &hold.kid, &hold.alias));
    assert_eq!((&one.sale_price, one.multiplier), (&hold.sale_price, hold.multiplier));
    assert_eq!((&one.exposure, one.created_at), (&hold.exposure, hold.created_at));
    assert_eq!(one.fx, hold.fx);
    assert!(one.resolve_by > hold.expires_at && one.ended.is_empty() && one.running.is_none());
    assert_eq!(second.claim_orphans(10, MINUTE).await.unwrap(), []);
    assert_eq!(second.unresolved(10).await.unwrap(), claimed);
    // Who was only slow can do nothing with it any more.
    assert_eq!(first.settle(settle(&hold, 60)).await, Err(Error::Fenced));
    assert_eq!(first.extend(extension(&hold, 200)).await, Err(Error::Fenced));
    first.checkpoint(vec![checkpoint(&hold, 5)]).await.unwrap();
    assert_eq!(second.unresolved(10).await.unwrap(), claimed);
    assert_eq!(wallet(&*first, "acme").await, (1_000, 100, 0));
    let settled = second.settle(settle(&hold, 60)).await.unwrap();
    assert_eq!(settled, Settled { charged: 60, uncollected: 0, replayed: false });
    assert!(first.settle(settle(&hold, 60)).await.unwrap().replayed);
    assert_eq!(second.unresolved(10).await.unwrap(), []);
    assert_eq!(wallet(&*first, "acme").await, (940, 0, 0));
}

pub(super) async fn an_orphan_without_an_upstream_is_claimed_too(nodes: &Nodes) {
    let first = nodes.open(1);
    let bare = Hold { exposure: None, ..hold(1, "acme", 0) };
    first.hold(bare.clone()).await.unwrap();
    let claimed = nodes.open(2).claim_orphans(1, MINUTE).await.unwrap();
    assert_eq!((claimed[0].hold, &claimed[0].exposure), (bare.id, &None));
}

pub(super) async fn a_checkpoint_is_what_an_heir_knows(nodes: &Nodes) {
    let first = funded(nodes, 1, 1_000).await;
    let (hold, other) = (hold(1, "acme", 100), hold(2, "acme", 50));
    first.hold(hold.clone()).await.unwrap();
    first.hold(other.clone()).await.unwrap();
    first.settle(release(&other)).await.unwrap();
    let points = [checkpoint(&hold, 20), checkpoint(&other, 1), checkpoint(&hold, 40)];
    first.checkpoint(points.to_vec()).await.unwrap();
    first.extend(extension(&hold, 130)).await.unwrap();
    let second = nodes.open(2);
    // Neither one that is closed nor another node's is touched.
    second.checkpoint(vec![checkpoint(&hold, 99)]).await.unwrap();
    let claimed = second.claim_orphans(10, MINUTE).await.unwrap();
    let wanted = checkpoint(&hold, 40);
    assert_eq!(claimed.len(), 1);
    assert_eq!((claimed[0].phase, claimed[0].progress), (wanted.phase, wanted.progress));
    assert_eq!((&claimed[0].ended, &claimed[0].running), (&wanted.ended, &wanted.running));
    assert_eq!(claimed[0].amount, 130);
    // One that was taken over is no longer checkpointed, by nobody.
    second.checkpoint(vec![checkpoint(&hold, 99)]).await.unwrap();
    assert_eq!(second.unresolved(1).await.unwrap(), claimed);
    second.settle(settle(&hold, 40)).await.unwrap();
}

pub(super) async fn nothing_is_taken_from_a_node_that_lives(nodes: &Nodes) {
    let first = funded(nodes, 1, 1_000).await;
    first.register(registration(1, MINUTE)).await.unwrap();
    let hold = hold(1, "acme", 100);
    first.hold(hold.clone()).await.unwrap();
    let second = nodes.open(2);
    assert_eq!(second.claim_orphans(10, MINUTE).await.unwrap(), []);
    first.renew(MINUTE).await.unwrap();
    first.settle(settle(&hold, 60)).await.unwrap();
}

pub(super) async fn what_a_node_leaves_at_its_end_is_taken_over_at_once(nodes: &Nodes) {
    let first = funded(nodes, 1, 1_000).await;
    first.register(registration(1, MINUTE)).await.unwrap();
    let mut late = hold(1, "acme", 100);
    // Far from its expiry.
    late.expires_at = late.created_at.plus_millis(400 * 86_400_000);
    first.hold(late.clone()).await.unwrap();
    let up = &first.leases().await.unwrap()[0];
    assert_eq!((up.node, up.state, up.open_holds), (Uuid::from_u128(1), LeaseState::Up, 1));
    assert_eq!(up.host, "here");
    assert!(up.expires_at > up.started_at);
    first.release().await.unwrap();
    assert_eq!(first.leases().await.unwrap()[0].state, LeaseState::Dead);
    assert_eq!(first.renew(MINUTE).await, Err(Error::Fenced));
    assert_eq!(first.hold(hold(2, "acme", 1)).await, Err(Error::Fenced));
    let second = nodes.open(2);
    second.register(registration(2, MINUTE)).await.unwrap();
    assert_eq!(second.claim_orphans(10, MINUTE).await.unwrap().len(), 1);
    let leases = second.leases().await.unwrap();
    let states: Vec<_> = leases.iter().map(|l| (l.node.as_u128(), l.state)).collect();
    assert_eq!(states, [(2, LeaseState::Up), (1, LeaseState::Recovered)]);
    second.settle(release(&late)).await.unwrap();
    second.release().await.unwrap();
    assert_eq!(second.leases().await.unwrap()[0].state, LeaseState::Recovered);
}

pub(super) async fn a_node_goes_on_under_a_new_id(nodes: &Nodes) {
    let ledger = funded(nodes, 1, 1_000).await;
    ledger.register(registration(1, MINUTE)).await.unwrap();
    let (old, new) = (hold(1, "acme", 10), hold(2, "acme", 10));
    ledger.hold(old.clone()).await.unwrap();
    ledger.release().await.unwrap();
    let again = ledger.register(registration(1, MINUTE)).await;
    assert!(matches!(again, Err(Error::Refused(_))), "{again:?}");
    ledger.register(registration(3, MINUTE)).await.unwrap();
    ledger.hold(new.clone()).await.unwrap();
    ledger.settle(settle(&new, 10)).await.unwrap();
    // What was placed under the old id is an orphan like any other.
    assert_eq!(ledger.settle(settle(&old, 10)).await, Err(Error::Fenced));
    assert_eq!(ledger.claim_orphans(10, MINUTE).await.unwrap().len(), 1);
    ledger.settle(settle(&old, 10)).await.unwrap();
}

pub(super) async fn a_node_takes_over_its_own_hold_that_nobody_settles(nodes: &Nodes) {
    let ledger = funded(nodes, 1, 1_000).await;
    ledger.register(registration(1, MINUTE)).await.unwrap();
    let (refused, running) = (hold(1, "acme", 100), hold(2, "acme", 10));
    let mut current = hold(3, "acme", 10);
    current.expires_at = current.created_at.plus_millis(400 * 86_400_000);
    for hold in [&refused, &running, &current] {
        ledger.hold(hold.clone()).await.unwrap();
    }
    ledger.checkpoint(vec![checkpoint(&refused, 40)]).await.unwrap();
    let spared = || BTreeSet::from([running.id]);
    assert_eq!(ledger.claim_orphans(10, MINUTE).await.unwrap(), []);
    assert_eq!(nodes.open(2).claim_overdue(BTreeSet::new(), MINUTE).await.unwrap(), 0);
    assert_eq!(ledger.claim_overdue(spared(), MINUTE).await.unwrap(), 1);
    assert_eq!(ledger.claim_overdue(spared(), MINUTE).await.unwrap(), 0);
    let claimed = ledger.unresolved(10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!((claimed[0].hold, claimed[0].progress), (refused.id, 40));
    assert!(claimed[0].resolve_by > refused.expires_at);
    for hold in [&refused, &running, &current] {
        ledger.settle(settle(hold, 10)).await.unwrap();
    }
    assert_eq!(wallet(&*ledger, "acme").await, (970, 0, 0));
    ledger.release().await.unwrap();
    assert_eq!(ledger.claim_overdue(BTreeSet::new(), MINUTE).await, Err(Error::Fenced));
}

pub(super) async fn concurrent_claims_get_different_holds(nodes: &Nodes) {
    let first = funded(nodes, 1, 10_000).await;
    for n in 0..60 {
        first.hold(hold(100 + n, "acme", 10)).await.unwrap();
    }
    let mut claims = JoinSet::new();
    for node in 2..5 {
        let ledger = nodes.open(node);
        claims.spawn(async move {
            let mut claimed = Vec::new();
            loop {
                let more = ledger.claim_orphans(7, MINUTE).await.unwrap();
                if more.is_empty() && ledger.balance("acme", eur()).await.is_ok() {
                    break;
                }
                claimed.extend(more.into_iter().map(|c| c.hold));
            }
            let open = ledger.unresolved(100).await.unwrap();
            assert_eq!(open.len(), claimed.len());
            for one in &open {
                let id = one.hold.as_u128();
                ledger.settle(release(&hold(id, "acme", 10))).await.unwrap();
            }
            claimed
        });
    }
    let claimed = claims.join_all().await;
    // A claim that found everything locked may have ended early; somebody takes the rest.
    let rest = first.claim_orphans(100, MINUTE).await.unwrap();
    assert_eq!(rest, []);
    let all: Vec<_> = claimed.into_iter().flatten().collect();
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (60, 60));
    assert_eq!(wallet(&*first, "acme").await, (10_000, 0, 0));
}

pub(super) async fn a_settlement_and_a_claim_have_one_winner(nodes: &Nodes) {
    let first = funded(nodes, 1, 10_000).await;
    let second = nodes.open(2);
    let holds: Vec<_> = (0..60).map(|n| hold(100 + n, "acme", 10)).collect();
    for hold in &holds {
        first.hold(hold.clone()).await.unwrap();
    }
    let mut settling = JoinSet::new();
    for hold in holds.clone() {
        let first = Arc::clone(&first);
        settling.spawn(async move { first.settle(settle(&hold, 4)).await });
    }
    let mut claimed = 0;
    for _ in 0..20 {
        for orphan in second.claim_orphans(5, MINUTE).await.unwrap() {
            let hold = hold(orphan.hold.as_u128(), "acme", 10);
            second.settle(settle(&hold, 3)).await.unwrap();
            claimed += 1;
        }
    }
    let results = settling.join_all().await;
    let fenced = results.iter().filter(|r| **r == Err(Error::Fenced)).count();
    let settled = results.iter().filter(|r| r.is_ok()).count();
    assert_eq!((fenced, settled), (claimed, 60 - claimed), "{results:?}");
    let charged = i64::try_from(3 * claimed + 4 * settled).unwrap();
    assert_eq!(wallet(&*first, "acme").await, (10_000 - charged, 0, 0));
}

/// A node that took over is itself taken for gone while it makes up its mind, and the process that
/// was given up first wakes: all three close the hold at one instant.
pub(super) async fn an_orphan_that_three_nodes_close_is_closed_by_its_last_owner(nodes: &Nodes) {
    let zombie = funded(nodes, 1, 10_000).await;
    zombie.register(registration(1, MINUTE)).await.unwrap();
    let holds: Vec<_> = (0..30).map(|n| hold(100 + n, "acme", 10)).collect();
    for hold in &holds {
        zombie.hold(hold.clone()).await.unwrap();
    }
    zombie.release().await.unwrap();
    let first = nodes.open(2);
    first.register(registration(2, MINUTE)).await.unwrap();
    assert_eq!(first.claim_orphans(100, MINUTE).await.unwrap().len(), 30);
    first.release().await.unwrap();
    let second = nodes.open(3);
    second.register(registration(3, MINUTE)).await.unwrap();
    assert_eq!(second.claim_orphans(100, MINUTE).await.unwrap().len(), 30);
    let mut closing = JoinSet::new();
    for hold in &holds {
        for (n, (ledger, settlement)) in
            [(&zombie, settle(hold, 6)), (&first, lost(hold)), (&second, settle(hold, 4))]
                .into_iter()
                .enumerate()
        {
            let ledger = Arc::clone(ledger);
            closing.spawn(async move { (n, ledger.settle(settlement).await) });
        }
    }
    for (n, result) in closing.join_all().await {
        if n == 2 {
            let settled = Settled { charged: 4, uncollected: 0, replayed: false };
            assert_eq!(result, Ok(settled));
        } else {
            assert_eq!(result, Err(Error::Fenced), "{n}");
        }
    }
    assert_eq!(first.unresolved(100).await.unwrap(), []);
    assert_eq!(second.unresolved(100).await.unwrap(), []);
    assert_eq!(wallet(&*zombie, "acme").await, (10_000 - 4 * 30, 0, 0));
}

/// Two passes of one node, and a claim by another beside them: as when a pass outlives its time.
pub(super) async fn claims_beside_resolutions_close_each_hold_once(nodes: &Nodes) {
    let dead = funded(nodes, 1, 10_000).await;
    let holds: Vec<_> = (0..40).map(|n| hold(100 + n, "acme", 10)).collect();
    for hold in &holds {
        dead.hold(hold.clone()).await.unwrap();
    }
    let (heir, other) = (nodes.open(2), nodes.open(3));
    heir.register(registration(2, MINUTE)).await.unwrap();
    assert_eq!(heir.claim_orphans(100, MINUTE).await.unwrap().len(), 40);
    let mut passes = JoinSet::new();
    for n in 0..2 {
        let heir = Arc::clone(&heir);
        passes.spawn(async move {
            let mut closed = 0;
            for orphan in heir.unresolved(100).await.unwrap() {
                let hold = hold(orphan.hold.as_u128(), "acme", 10);
                match heir.settle(settle(&hold, 3 + n)).await {
                    Ok(settled) => closed += u32::from(!settled.replayed),
                    Err(Error::Conflict) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            closed
        });
    }
    for _ in 0..10 {
        // The heir lives: nothing of it is anybody else's.
        assert_eq!(other.claim_orphans(100, MINUTE).await.unwrap(), []);
    }
    assert_eq!(passes.join_all().await.iter().sum::<u32>(), 40);
    assert_eq!(heir.unresolved(100).await.unwrap(), []);
    let (posted, held, _) = wallet(&*heir, "acme").await;
    assert!(held == 0 && (10_000 - 4 * 40..=10_000 - 3 * 40).contains(&posted), "{posted}");
    heir.release().await.unwrap();
}

pub(super) async fn what_a_zombie_knows_is_booked_as_a_correction_once(nodes: &Nodes) {
    let first = funded(nodes, 1, 1_000).await;
    let hold = hold(1, "acme", 100);
    first.hold(hold.clone()).await.unwrap();
    let second = nodes.open(2);
    second.claim_orphans(10, MINUTE).await.unwrap();
    let mut known = settle(&hold, 60);
    known.attempts.push(attempt(2, false, 5));
    assert_eq!(first.settle(known.clone()).await, Err(Error::Fenced));
    // Not before the other node has made up its mind.
    assert_eq!(first.true_up(correction(known.clone())).await, Err(Error::Fenced));
    second.settle(lost(&hold)).await.unwrap();
    assert_eq!(first.settle(known.clone()).await, Err(Error::Fenced));
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let (first, correction) = (Arc::clone(&first), correction(known.clone()));
        calls.spawn(async move { first.true_up(correction).await.unwrap() });
    }
    let done = calls.join_all().await;
    assert_eq!(done.iter().filter(|d| !d.replayed).count(), 1);
    assert!(done.iter().all(|d| d.journal == done[0].journal && d.journal.is_some()));
    // The sale is never made up for; the costs are as if all had been known.
    let postings = shown(&*first, hold.id).await;
    assert_eq!(
        postings,
        [
            "exposure payable_estimated:openai 80 USD",
            "payable_estimated:openai payable:openai 7 USD",
            "cost_of_sales exposure 7 USD",
            "payable_estimated:openai exposure 73 USD",
            "wasted_cost payable_estimated:openai 5 USD",
        ]
    );
    let last = first.postings(hold.id).await.unwrap().pop().unwrap();
    assert_eq!((last.kind, last.reference.as_str()), (EntryKind::Trueup, "came late"));
    assert_eq!(last.component, Component::Waste);
    assert_eq!(wallet(&*first, "acme").await, (1_000, 0, 0));
    // The very settlement that was booked first changes nothing, whoever sends it.
    let replay = second.true_up(correction(lost(&hold))).await.unwrap();
    assert_eq!(replay, TruedUp { journal: None, given_back: 0, replayed: true });
}

pub(super) async fn later_knowledge_corrects_downward_and_again(nodes: &Nodes) {
    let ledger = funded(nodes, 1, 1_000).await;
    let hold = hold(1, "acme", 100);
    ledger.hold(hold.clone()).await.unwrap();
    let first = settle(&hold, 90);
    let unsettled = ledger.true_up(correction(first.clone())).await;
    assert!(matches!(unsettled, Err(Error::Refused(_))), "{unsettled:?}");
    ledger.settle(first).await.unwrap();
    let down = ledger.true_up(correction(settle(&hold, 70))).await.unwrap();
    assert_eq!((down.given_back, down.replayed), (20, false));
    assert_eq!(wallet(&*ledger, "acme").await, (930, 0, 0));
    let up = ledger.true_up(correction(settle(&hold, 80))).await.unwrap();
    assert_eq!(up, TruedUp { journal: None, given_back: 0, replayed: false });
    let sale = SaleCorrection::BothWays;
    let allowed = Correction { sale, ..correction(settle(&hold, 80)) };
    assert_eq!(ledger.true_up(allowed.clone()).await.unwrap().given_back, -10);
    assert!(ledger.true_up(allowed).await.unwrap().replayed);
    assert!(ledger.true_up(correction(settle(&hold, 70))).await.unwrap().replayed);
    assert_eq!(wallet(&*ledger, "acme").await, (920, 0, 0));
    // No further than the floor.
    let sale = SaleCorrection::BothWays;
    let much = Correction { sale, ..correction(settle(&hold, 5_000)) };
    assert_eq!(ledger.true_up(much).await.unwrap().given_back, -920);
    assert_eq!(wallet(&*ledger, "acme").await, (0, 0, 0));
}

pub(super) async fn what_was_closed_unsold_is_never_sold_later(nodes: &Nodes) {
    let ledger = funded(nodes, 1, 1_000).await;
    let hold = hold(1, "acme", 100);
    ledger.hold(hold.clone()).await.unwrap();
    ledger.settle(release(&hold)).await.unwrap();
    let sale = SaleCorrection::BothWays;
    let late = Correction { sale, ..correction(settle(&hold, 90)) };
    assert_eq!(ledger.true_up(late.clone()).await.unwrap().given_back, 0);
    assert_eq!(wallet(&*ledger, "acme").await, (1_000, 0, 0), "its key may have been used again");
    let cost = ledger.postings(hold.id).await.unwrap();
    assert!(!cost.is_empty(), "but what it cost is booked");
    assert_eq!(ledger.true_up(late).await.unwrap().given_back, 0);
}

/// What the spool of a node brings back that died with it, when another has closed its hold.
pub(super) async fn what_was_delivered_is_sold_after_its_hold_was_released(nodes: &Nodes) {
    let ledger = funded(nodes, 1, 1_000).await;
    let hold = hold(1, "acme", 100);
    ledger.hold(hold.clone()).await.unwrap();
    ledger.settle(lost(&hold)).await.unwrap();
    let late = Correction { sale: SaleCorrection::Delivered, ..correction(settle(&hold, 90)) };
    assert_eq!(ledger.true_up(late.clone()).await.unwrap().given_back, -90);
    assert_eq!(ledger.true_up(late).await.unwrap().given_back, -90, "once");
    assert_eq!(wallet(&*ledger, "acme").await, (910, 0, 0));
    assert_clean(&*ledger).await;
}

pub(super) async fn a_correction_needs_a_hold_of_its_wallet(nodes: &Nodes) {
    let ledger = funded(nodes, 1, 1_000).await;
    let hold = hold(1, "acme", 100);
    let unknown = ledger.true_up(correction(settle(&hold, 70))).await;
    assert_eq!(unknown, Err(Error::HoldUnknown));
    ledger.hold(hold.clone()).await.unwrap();
    ledger.settle(settle(&hold, 90)).await.unwrap();
    let mut foreign = settle(&hold, 70);
    foreign.app = "other".into();
    assert_eq!(ledger.true_up(correction(foreign)).await, Err(Error::Conflict));
    let mut negative = settle(&hold, 70);
    negative.attempts[0].cost.as_mut().unwrap().amount = -1;
    let negative = ledger.true_up(correction(negative)).await;
    assert!(matches!(negative, Err(Error::Refused(_))), "{negative:?}");
}

pub(super) async fn a_hold_grows_as_far_as_the_wallet_goes(nodes: &Nodes) {
    let ledger = funded(nodes, 1, 100).await;
    let hold = hold(1, "acme", 40);
    assert_eq!(ledger.extend(extension(&hold, 50)).await, Err(Error::HoldUnknown));
    ledger.hold(hold.clone()).await.unwrap();
    ledger.extend(extension(&hold, 70)).await.unwrap();
    ledger.extend(extension(&hold, 70)).await.unwrap();
    ledger.extend(extension(&hold, 50)).await.unwrap();
    assert_eq!(wallet(&*ledger, "acme").await, (100, 70, 0));
    let refused = ledger.extend(extension(&hold, 101)).await;
    assert_eq!(refused, Err(Error::InsufficientFunds { available: 30 }));
    assert_eq!(wallet(&*ledger, "acme").await, (100, 70, 0));
    let mut foreign = extension(&hold, 80);
    foreign.app = "other".into();
    assert_eq!(ledger.extend(foreign).await, Err(Error::Conflict));
    let negative = ledger.extend(extension(&hold, -1)).await;
    assert!(matches!(negative, Err(Error::Refused(_))), "{negative:?}");
    assert_eq!(ledger.settle(settle(&hold, 65)).await.unwrap().charged, 65);
    assert_eq!(ledger.extend(extension(&hold, 80)).await, Err(Error::HoldUnknown));
    assert_eq!(wallet(&*ledger, "acme").await, (35, 0, 0));
}

pub(super) async fn extensions_and_holds_never_overdraw_together(nodes: &Nodes) {
    let ledger = funded(nodes, 1, 1_000).await;
    let mut calls = JoinSet::new();
    for n in 0..40_u128 {
        let ledger = Arc::clone(&ledger);
        calls.spawn(async move {
            let hold = hold(100 + n, "acme", 20);
            ledger.hold(hold.clone()).await.ok()?;
            let mut total_held = 20;
            for total in [25, 30, 30, 40, 60] {
                match ledger.extend(extension(&hold, total)).await {
                    Ok(()) => total_held = total,
                    Err(Error::InsufficientFunds { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Some(total_held)
        });
    }
    let total_held: i64 = calls.join_all().await.into_iter().flatten().sum();
    assert_eq!(wallet(&*ledger, "acme").await, (1_000, total_held, 0));
    assert!((960..=1_000).contains(&total_held), "{total_held}");
}

/// The tests of this file, for a backend. `$open` gives [`Nodes`], or `None` to skip; each ends
/// with clean books.
macro_rules! suite {
    ($open:path; $($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let Some(nodes) = $open().await else { return };
            crate::ledger::tests::recovery::$name(&nodes).await;
            crate::ledger::tests::fixtures::assert_clean(&*nodes.open(99)).await;
        }
    )*};
    ($open:path) => {
        crate::ledger::tests::recovery::suite! { $open;
            an_orphan_belongs_to_who_claimed_it
            an_orphan_without_an_upstream_is_claimed_too
            a_checkpoint_is_what_an_heir_knows
            nothing_is_taken_from_a_node_that_lives
            what_a_node_leaves_at_its_end_is_taken_over_at_once
            a_node_goes_on_under_a_new_id
            a_node_takes_over_its_own_hold_that_nobody_settles
            concurrent_claims_get_different_holds
            a_settlement_and_a_claim_have_one_winner
            an_orphan_that_three_nodes_close_is_closed_by_its_last_owner
            claims_beside_resolutions_close_each_hold_once
            what_a_zombie_knows_is_booked_as_a_correction_once
            later_knowledge_corrects_downward_and_again
            what_was_closed_unsold_is_never_sold_later
            what_was_delivered_is_sold_after_its_hold_was_released
            a_correction_needs_a_hold_of_its_wallet
            a_hold_grows_as_far_as_the_wallet_goes
            extensions_and_holds_never_overdraw_together
        }
    };
}

pub(super) use suite;
