//! The contract of keys and admin tokens, run against both databases.

use serde_json::json;

use anima_core::clock::Timestamp;
use anima_core::config::Resource;

use super::{AdminToken, Role};
use crate::config::NewVersion;
use crate::config::tests::{NOW, Pair, draft, later, on_both};

const KEY: Resource = Resource::UserApiKey;

/// The rules, under a name that `on_both` can print.
mod rules {
    use super::*;

    fn key(name: &str, hash: Option<[u8; 32]>) -> NewVersion {
        NewVersion {
            app: Some("acme".to_owned()),
            secret_hash: hash,
            ..draft(KEY, "k", json!({"name": name}))
        }
    }

    async fn with_key(pair: &Pair) {
        let app = draft(Resource::App, "acme", json!({"name": "Acme"}));
        pair.create(app, NOW).await.unwrap();
        pair.create(key("first", Some([1; 32])), NOW).await.unwrap();
    }

    async fn look_up(pair: &Pair, now: Timestamp) -> super::super::KeyRecord {
        pair.keys.key("k", now).await.unwrap().unwrap()
    }

    pub(super) async fn a_key_comes_with_its_app_and_hashes(pair: Pair) {
        with_key(&pair).await;
        let record = look_up(&pair, later(1)).await;
        assert_eq!(record.secrets.len(), 1);
        assert_eq!((record.secrets[0].hash, record.secrets[0].expires_at), ([1; 32], None));
        let [version] = &record.key[..] else { panic!("{record:?}") };
        assert_eq!((version.body.name.as_str(), version.code.as_str()), ("first", "k"));
        assert_eq!((version.app.as_deref(), version.enabled), (Some("acme"), true));
        let [app] = &record.app[..] else { panic!("{record:?}") };
        assert_eq!((app.body.name.as_str(), app.code.as_str()), ("Acme", "acme"));
        assert!(pair.keys.key("unknown", NOW).await.unwrap().is_none());
    }

    pub(super) async fn versions_ahead_come_along_oldest_first(pair: Pair) {
        with_key(&pair).await;
        let ahead = NewVersion { effective_from: Some(later(10)), ..key("second", None) };
        pair.add(1, ahead, later(1)).await.unwrap();
        let now = pair.add(2, key("between", None), later(2)).await.unwrap();
        assert_eq!(now.effective_to, Some(later(10)));
        let names = async |now| -> Vec<String> {
            let record = look_up(&pair, now).await;
            record.key.into_iter().map(|v| v.body.name).collect()
        };
        assert_eq!(names(later(2)).await, ["between", "second"]);
        assert_eq!(names(later(10)).await, ["second"]);
    }

    pub(super) async fn both_switches_are_seen(pair: Pair) {
        with_key(&pair).await;
        pair.switch(KEY, "k", false, later(1)).await.unwrap();
        let record = look_up(&pair, later(1)).await;
        assert_eq!((record.key[0].enabled, record.app[0].enabled), (false, true));
        pair.switch(Resource::App, "acme", false, later(2)).await.unwrap();
        pair.switch(KEY, "k", true, later(2)).await.unwrap();
        let record = look_up(&pair, later(2)).await;
        assert_eq!((record.key[0].enabled, record.app[0].enabled), (true, false));
    }

    pub(super) async fn a_rotated_key_has_two_hashes(pair: Pair) {
        with_key(&pair).await;
        pair.add(1, key("rotated", Some([2; 32])), later(1)).await.unwrap();
        let record = look_up(&pair, later(1)).await;
        let hashes: Vec<_> = record.secrets.iter().map(|s| s.hash).collect();
        assert_eq!(hashes, [[1; 32], [2; 32]]);
    }

    pub(super) async fn a_deleted_key_is_gone_with_its_hashes(pair: Pair) {
        with_key(&pair).await;
        pair.delete(KEY, "k", None, later(1)).await.unwrap();
        assert!(pair.keys.key("k", later(1)).await.unwrap().is_none());
        // Not even a look-up with an old clock finds it.
        assert!(pair.keys.key("k", NOW).await.unwrap().is_none());
        pair.create(key("again", Some([3; 32])), later(2)).await.unwrap();
        let record = look_up(&pair, later(2)).await;
        assert_eq!(record.secrets.len(), 1);
        assert_eq!(record.secrets[0].hash, [3; 32]);
    }

    pub(super) async fn a_deleted_app_has_no_versions(pair: Pair) {
        with_key(&pair).await;
        pair.delete(Resource::App, "acme", None, later(1)).await.unwrap();
        let record = look_up(&pair, later(1)).await;
        assert!(record.app.is_empty());
        assert_eq!(record.key.len(), 1);
    }

    pub(super) async fn admin_tokens_are_found_by_hash_and_replaced_by_name(pair: Pair) {
        let token =
            |name: &str, role, byte| AdminToken { name: name.to_owned(), role, hash: [byte; 32] };
        assert_eq!(pair.keys.count_admin_tokens().await.unwrap(), 0);
        let found = async |byte: u8| pair.keys.admin_token(&[byte; 32]).await.unwrap();
        pair.keys.store_admin_token(token("root", Role::Admin, 1), NOW).await.unwrap();
        pair.keys.store_admin_token(token("eye", Role::Viewer, 2), NOW).await.unwrap();
        let root = found(1).await.unwrap();
        assert_eq!((root.name.as_str(), root.role), ("root", Role::Admin));
        pair.keys.store_admin_token(token("root", Role::Operator, 3), NOW).await.unwrap();
        assert!(found(1).await.is_none());
        assert_eq!(found(3).await.unwrap().role, Role::Operator);
        assert_eq!(pair.keys.count_admin_tokens().await.unwrap(), 2);
        // One hash is one token, under its last name.
        pair.keys.store_admin_token(token("boss", Role::Admin, 3), NOW).await.unwrap();
        assert_eq!(found(3).await.unwrap().name, "boss");
        assert_eq!(pair.keys.count_admin_tokens().await.unwrap(), 2);
    }
}

on_both! {
    rules::a_key_comes_with_its_app_and_hashes,
    rules::versions_ahead_come_along_oldest_first,
    rules::both_switches_are_seen,
    rules::a_rotated_key_has_two_hashes,
    rules::a_deleted_key_is_gone_with_its_hashes,
    rules::a_deleted_app_has_no_versions,
    rules::admin_tokens_are_found_by_hash_and_replaced_by_name,
}
