//! Batches, events, acknowledgements and hatches, as functions run against both databases.

use serde_json::json;

use super::*;
use crate::config::tests::{NOW, Pair, actor, body, draft, later, on_both};
use crate::config::{Batch, Change, NewVersion, Rejected};

on_both! {
    rules::a_batch_is_written_whole_or_not_at_all,
    rules::a_rehearsal_says_what_would_be_and_writes_nothing,
    rules::every_change_leaves_one_event_without_a_gap,
    rules::a_node_acknowledges_what_it_has_in_force,
    rules::hatches_are_kept_audited_and_reset,
    rules::a_cancelled_schedule_lets_the_version_before_go_on,
    rules::a_version_that_has_begun_is_not_cancelled,
}

mod rules {
    use super::*;

    fn create(code: &str) -> Change {
        Change::Create(draft(Resource::Alias, code, body("m")))
    }

    fn cancel(code: &str, version_no: i64, read: Option<i64>) -> Change {
        Change::Cancel { resource: Resource::Alias, code: code.to_owned(), version_no, read }
    }

    async fn commit(pair: &Pair, changes: Vec<Change>, rehearsal: bool) -> Result<i64, Rejected> {
        let batch = Batch { changes, rehearsal };
        let committed = pair.config.commit(batch, &actor(), NOW).await?;
        assert!(committed.steps.iter().all(|step| step.before.is_none()));
        Ok(committed.rev)
    }

    pub(super) async fn a_batch_is_written_whole_or_not_at_all(pair: Pair) {
        let refused = commit(&pair, vec![create("a"), create("b"), create("a")], false).await;
        let error = Error::Exists(Resource::Alias);
        assert_eq!(refused, Err(Rejected { index: 2, error }));
        assert!(pair.config.versions(Resource::Alias, "b").await.unwrap().is_empty());
        assert_eq!(pair.config.rev().await.unwrap(), 0);
        let off = |enabled| Change::Switch {
            resource: Resource::Alias,
            code: "a".to_owned(),
            enabled,
            cut: true,
        };
        let batch = vec![create("a"), create("b"), off(false)];
        let batch = Batch { changes: batch, rehearsal: false };
        assert_eq!(pair.config.commit(batch, &actor(), NOW).await.unwrap().rev, 1);
        assert!(!pair.config.versions(Resource::Alias, "a").await.unwrap()[0].enabled);
    }

    pub(super) async fn a_rehearsal_says_what_would_be_and_writes_nothing(pair: Pair) {
        assert_eq!(commit(&pair, vec![create("a"), create("b")], true).await, Ok(1));
        assert!(commit(&pair, vec![create("a"), create("a")], true).await.is_err());
        assert_eq!(pair.config.rev().await.unwrap(), 0);
        assert!(pair.config.versions(Resource::Alias, "a").await.unwrap().is_empty());
        assert!(pair.publish.events(0, 10).await.unwrap().is_empty());
        assert!(pair.config.audit(None, 10).await.unwrap().is_empty());
        assert_eq!(commit(&pair, vec![create("a")], false).await, Ok(1));
    }

    pub(super) async fn every_change_leaves_one_event_without_a_gap(pair: Pair) {
        commit(&pair, vec![create("a"), create("b")], false).await.unwrap();
        let off = Change::Switch {
            resource: Resource::Alias,
            code: "a".to_owned(),
            enabled: false,
            cut: true,
        };
        pair.config.change(off, &actor(), later(1)).await.unwrap();
        assert!(pair.config.change(create("a"), &actor(), later(1)).await.is_err());
        let forget = Hatch::Forget { scope: "keys".to_owned() };
        assert_eq!(pair.publish.pull(forget, &actor(), later(2)).await.unwrap(), 3);
        let events = pair.publish.events(0, 10).await.unwrap();
        let row =
            |code: &str, cut| Notice::Row { resource: Resource::Alias, code: code.to_owned(), cut };
        let expected = [
            (1, NOW, vec![row("a", false), row("b", false)]),
            (2, later(1), vec![row("a", true)]),
            (3, later(2), vec![Notice::Forget { scope: "keys".to_owned() }]),
        ];
        let expected = expected.map(|(rev, at, notices)| Event { rev, at, notices });
        assert_eq!(events, expected);
        assert_eq!(pair.publish.events(2, 10).await.unwrap(), expected[2..]);
        // A week later they are gone.
        pair.config.change(create("c"), &actor(), later(8 * 24 * 3_600)).await.unwrap();
        let left = pair.publish.events(0, 10).await.unwrap();
        assert_eq!(left.iter().map(|event| event.rev).collect::<Vec<_>>(), [4]);
    }

    pub(super) async fn a_node_acknowledges_what_it_has_in_force(pair: Pair) {
        let publish = &pair.publish;
        for (node, rev, at) in [("n1", 3, 1), ("n2", 2, 1), ("n1", 3, 6), ("n1", 5, 8)] {
            publish.acknowledge(node, rev, later(at)).await.unwrap();
        }
        let state = |node: &str, rev, seen: i64, applied: Option<i64>| NodeState {
            node: node.to_owned(),
            rev,
            seen_at: later(seen),
            applied_at: applied.map(later),
        };
        let second = publish.acknowledged(2).await.unwrap();
        assert_eq!(second, [state("n1", 5, 8, Some(1)), state("n2", 2, 1, Some(1))]);
        let fourth = publish.acknowledged(4).await.unwrap();
        assert_eq!(fourth, [state("n1", 5, 8, Some(8)), state("n2", 2, 1, None)]);
    }

    pub(super) async fn hatches_are_kept_audited_and_reset(pair: Pair) {
        let publish = &pair.publish;
        assert_eq!(publish.hatches().await.unwrap(), Hatches::default());
        let circuit = |model: Option<&str>, state, expires_at| Hatch::Circuit {
            channel: "main".to_owned(),
            model: model.map(str::to_owned),
            state,
            expires_at,
        };
        let open = circuit(None, Some(Forced::Open), Some(later(60)));
        publish.pull(open, &actor(), NOW).await.unwrap();
        publish.pull(circuit(Some("m"), Some(Forced::Closed), None), &actor(), NOW).await.unwrap();
        let off = Hatch::Gateway { enabled: false, cut: true };
        assert_eq!(publish.pull(off, &actor(), NOW).await.unwrap(), 3);
        let hatches = publish.hatches().await.unwrap();
        assert_eq!((hatches.gateway.enabled, hatches.gateway.reason.as_str()), (false, "because"));
        assert_eq!(hatches.gateway.changed_at, Some(NOW));
        let shown: Vec<_> =
            hatches.circuits.iter().map(|c| (c.model.as_deref(), c.state)).collect();
        assert_eq!(shown, [(None, Forced::Open), (Some("m"), Forced::Closed)]);
        assert!(hatches.circuits[0].is_live(later(59)) && !hatches.circuits[0].is_live(later(60)));
        publish.pull(circuit(None, None, None), &actor(), later(1)).await.unwrap();
        assert!(publish.hatches().await.unwrap().circuits.is_empty());
        let audit = pair.config.audit(None, 10).await.unwrap();
        let words: Vec<_> = audit.iter().map(|r| (r.action.as_str(), r.code.as_str())).collect();
        let expected =
            [("reset", "main"), ("switch", "gateway"), ("close", "main/m"), ("open", "main")];
        assert_eq!(words, expected);
        assert_eq!(audit[1].after, Some(json!({"enabled": false, "cut": true})));
    }

    pub(super) async fn a_cancelled_schedule_lets_the_version_before_go_on(pair: Pair) {
        let alias = |start: Option<i64>, model: &str| NewVersion {
            effective_from: start.map(later),
            ..draft(Resource::Alias, "a", body(model))
        };
        pair.create(alias(None, "one"), NOW).await.unwrap();
        pair.add(1, alias(Some(10), "two"), NOW).await.unwrap();
        pair.add(2, alias(Some(20), "three"), NOW).await.unwrap();
        let ahead = pair.publish.scheduled(NOW).await.unwrap();
        let shown: Vec<_> = ahead.iter().map(|(r, row)| (*r, row.version_no)).collect();
        assert_eq!(shown, [(Resource::Alias, 2), (Resource::Alias, 3)]);
        let stale = pair.config.change(cancel("a", 2, Some(2)), &actor(), later(1)).await;
        assert!(matches!(stale, Err(Error::VersionConflict(_))), "{stale:?}");
        pair.config.change(cancel("a", 2, Some(3)), &actor(), later(1)).await.unwrap();
        let versions = pair.config.versions(Resource::Alias, "a").await.unwrap();
        assert_eq!(versions[2].effective_to, Some(later(20)), "one goes on until three");
        pair.config.change(cancel("a", 3, None), &actor(), later(2)).await.unwrap();
        let versions = pair.config.versions(Resource::Alias, "a").await.unwrap();
        assert_eq!(versions[2].effective_to, None);
        assert!(pair.publish.scheduled(NOW).await.unwrap().is_empty());
        let again = pair.config.change(cancel("a", 3, None), &actor(), later(2)).await;
        assert_eq!(again.unwrap_err(), Error::NotFound(Resource::Alias));
    }

    pub(super) async fn a_version_that_has_begun_is_not_cancelled(pair: Pair) {
        pair.create(draft(Resource::Alias, "a", body("one")), NOW).await.unwrap();
        let begun = pair.config.change(cancel("a", 1, None), &actor(), later(1)).await;
        assert_eq!(begun.unwrap_err(), Error::NotFound(Resource::Alias));
        let start = Some(later(10));
        let only = NewVersion { effective_from: start, ..draft(Resource::Alias, "b", body("x")) };
        pair.create(only, NOW).await.unwrap();
        let all = pair.config.change(cancel("b", 1, None), &actor(), later(1)).await;
        assert!(matches!(all, Err(Error::Overlap(_))), "{all:?}");
    }
}
