//! Rules about many rows: prices of one scope, lists, the audit, the tables as a whole.

use super::*;
use crate::config::AuditRecord;

fn price(code: &str, scope: &str) -> NewVersion {
    let body = json!({
        "side": "sale", "alias": scope, "currency": "USD",
        "meters": [{"meter": "requests", "amount": "1.5"}],
    });
    NewVersion { scope: Some(format!("sale|{scope}|")), ..draft(Resource::Price, code, body) }
}

pub(super) async fn prices_of_one_scope_are_never_in_force_together(pair: Pair) {
    const PRICE: Resource = Resource::Price;
    pair.create(price("p1", "x"), NOW).await.unwrap();
    pair.create(price("p2", "y"), NOW).await.unwrap();
    let Err(Error::Overlap(text)) = pair.create(price("p3", "x"), later(1)).await else {
        panic!("not refused");
    };
    assert!(text.contains("p1"), "{text}");
    let ahead = NewVersion { effective_from: Some(later(50)), ..price("p3", "x") };
    assert!(matches!(pair.create(ahead.clone(), later(1)).await, Err(Error::Overlap(_))));
    // A change of what a price is for is judged as well.
    assert!(matches!(pair.add(1, price("p2", "x"), later(1)).await, Err(Error::Overlap(_))));
    assert_eq!(pair.config.rev().await.unwrap(), 2);
    // With an end, the next one may follow, whatever its code.
    let ends = NewVersion { effective_to: Some(later(50)), ..price("p1", "x") };
    pair.add(1, ends, later(2)).await.unwrap();
    pair.create(ahead, later(3)).await.unwrap();
    // A deleted price is in nobody's way.
    pair.delete(PRICE, "p3", None, later(4)).await.unwrap();
    let back = NewVersion { effective_from: Some(later(60)), ..price("p4", "x") };
    pair.create(back, later(5)).await.unwrap();
    // The same scope under the same code is the ordinary case.
    pair.add(1, price("p2", "y"), later(6)).await.unwrap();
}

pub(super) async fn a_list_has_pages_and_shows_one_version_per_row(pair: Pair) {
    const QUOTA: Resource = Resource::Quota;
    let quota = |code: &str| draft(QUOTA, code, json!({"limits": []}));
    for code in ["b", "a", "C", "d"] {
        pair.create(quota(code), NOW).await.unwrap();
    }
    let named = |code: &str, n: i64| (code.to_owned(), n);
    // Codes are ordered by byte on every database.
    assert_eq!(pair.listed(QUOTA, None, None, NOW).await, [named("C", 1), named("a", 1)]);
    assert_eq!(pair.listed(QUOTA, None, Some("a"), NOW).await, [named("b", 1), named("d", 1)]);
    assert_eq!(pair.listed(QUOTA, None, Some("d"), NOW).await, []);
    // In force, else next, else last.
    let ahead = NewVersion { effective_from: Some(later(20)), ..quota("a") };
    let further = NewVersion { effective_from: Some(later(30)), ..quota("a") };
    pair.add(1, ahead.clone(), NOW).await.unwrap();
    pair.add(2, further, NOW).await.unwrap();
    let seen = async |seconds| pair.listed(QUOTA, None, Some("C"), later(seconds)).await[0].1;
    assert_eq!((seen(19).await, seen(20).await, seen(30).await), (1, 2, 3));
    let ends = NewVersion { effective_to: Some(later(10)), ..quota("a") };
    pair.add(3, ends, later(5)).await.unwrap();
    assert_eq!((seen(9).await, seen(10).await), (4, 2));
    let last = NewVersion { effective_to: Some(later(41)), ..quota("a") };
    pair.add(4, last, later(40)).await.unwrap();
    assert_eq!(seen(50).await, 5);
}

pub(super) async fn keys_are_listed_by_app(pair: Pair) {
    const KEY: Resource = Resource::UserApiKey;
    for app in ["one", "two"] {
        pair.create(draft(Resource::App, app, json!({})), NOW).await.unwrap();
    }
    for (kid, app) in [("k1", "one"), ("k2", "two"), ("k3", "one")] {
        let key = NewVersion { app: Some(app.to_owned()), ..draft(KEY, kid, json!({})) };
        let row = pair.create(key, NOW).await.unwrap();
        assert_eq!(row.app.as_deref(), Some(app));
    }
    let named = |code: &str| (code.to_owned(), 1);
    assert_eq!(pair.listed(KEY, Some("one"), None, NOW).await, [named("k1"), named("k3")]);
    assert_eq!(pair.listed(KEY, Some("two"), None, NOW).await, [named("k2")]);
    assert_eq!(pair.listed(KEY, None, Some("k1"), NOW).await, [named("k2"), named("k3")]);
    // A key of an app that is not there would be nobody's.
    let orphan = NewVersion { app: Some("three".to_owned()), ..draft(KEY, "k4", json!({})) };
    assert_eq!(pair.create(orphan, NOW).await, Err(Error::NotFound(Resource::App)));
    // A kid never changes hands, not even after its deletion.
    pair.delete(KEY, "k1", None, later(1)).await.unwrap();
    let stolen = NewVersion { app: Some("two".to_owned()), ..draft(KEY, "k1", json!({})) };
    assert_eq!(pair.create(stolen, later(2)).await, Err(Error::Exists(KEY)));
}

/// Four changes of a channel with credentials, and one record of something else.
async fn leave_traces(pair: &Pair) {
    const CHANNEL: Resource = Resource::Channel;
    let channel = |url: &str| {
        let credentials = json!([{"code": "main", "sealed": "HIDDEN", "secret": "HIDDEN"}]);
        draft(CHANNEL, "c", json!({"base_url": url, "credentials": credentials}))
    };
    pair.create(channel("u1"), NOW).await.unwrap();
    let change = Change::Add { version: channel("u2"), read: 1, action: "restore" };
    pair.config.change(change, &actor(), later(1)).await.unwrap();
    pair.switch(CHANNEL, "c", false, later(2)).await.unwrap();
    pair.delete(CHANNEL, "c", None, later(3)).await.unwrap();
    let beside = AuditRecord {
        id: 0,
        at: later(4),
        actor: "bob".to_owned(),
        action: "topup".to_owned(),
        resource: "app".to_owned(),
        code: "acme".to_owned(),
        reason: String::new(),
        before: None,
        after: Some(json!({"amount": "10", "secret": "HIDDEN"})),
    };
    pair.config.record(beside).await.unwrap();
    assert_eq!(pair.config.rev().await.unwrap(), 4);
}

pub(super) async fn every_change_is_audited_without_secrets(pair: Pair) {
    leave_traces(&pair).await;
    let records = pair.config.audit(None, 10).await.unwrap();
    let text = format!("{records:?}");
    assert!(!text.contains("HIDDEN") && !text.contains("secret"), "{text}");
    let actions: Vec<_> = records.iter().map(|r| r.action.as_str()).collect();
    assert_eq!(actions, ["topup", "delete", "switch", "restore", "create"]);
    let url = |v: &Option<Value>| v.as_ref().map(|v| v["body"]["base_url"].clone());
    let [topup, delete, switch, restore, create] = &records[..] else { panic!("{text}") };
    assert_eq!(topup.after, Some(json!({"amount": "10"})));
    assert_eq!((topup.actor.as_str(), topup.at), ("bob", later(4)));
    assert_eq!((url(&delete.before), &delete.after), (Some(json!("u2")), &None));
    let enabled = |v: &Option<Value>| v.as_ref().unwrap()["enabled"].clone();
    assert_eq!((enabled(&switch.before), enabled(&switch.after)), (json!(true), json!(false)));
    assert_eq!((url(&restore.before), url(&restore.after)), (Some(json!("u1")), Some(json!("u2"))));
    assert_eq!((&create.before, url(&create.after)), (&None, Some(json!("u1"))));
    assert_eq!((create.actor.as_str(), create.reason.as_str()), ("ada", "because"));
    assert_eq!((create.resource.as_str(), create.code.as_str()), ("channel", "c"));

    let page = pair.config.audit(Some(switch.id), 1).await.unwrap();
    assert_eq!(page, std::slice::from_ref(restore));
}

pub(super) async fn tables_have_every_resource_with_its_type(pair: Pair) {
    let channel = json!({"provider": "openai", "base_url": "https://h/v1", "credentials": []});
    pair.create(draft(Resource::Channel, "c", channel), NOW).await.unwrap();
    pair.create(draft(Resource::Alias, "a", body("m")), NOW).await.unwrap();
    pair.create(price("p", "a"), NOW).await.unwrap();
    let limits = json!({"limits": [{"kind": "requests", "window": "1s", "limit": 5}]});
    pair.create(draft(Resource::Quota, "q", limits), NOW).await.unwrap();
    let group = json!({"aliases": ["*"], "multiplier": "0.5"});
    pair.create(draft(Resource::TokenGroup, "g", group), NOW).await.unwrap();
    let tables = pair.config.tables(NOW).await.unwrap();
    assert_eq!(tables.rev, 5);
    assert_eq!(tables.channels[0].body.provider, "openai");
    assert_eq!(tables.aliases[0].body.routes[0].model, "m");
    assert_eq!(tables.prices[0].body.meters[0].amount, "1.5");
    assert_eq!(tables.quotas[0].body.limits.len(), 1);
    assert_eq!(tables.token_groups[0].body.multiplier, "0.5");
}

pub(super) async fn a_body_that_cannot_be_read_is_named(pair: Pair) {
    pair.create(draft(Resource::Alias, "odd", json!({"kind": "chat"})), NOW).await.unwrap();
    let Err(Error::Damaged(text)) = pair.config.tables(NOW).await else { panic!("was read") };
    assert!(text.contains("alias `odd` version 1"), "{text}");
}
