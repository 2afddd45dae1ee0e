//! Every bad member is refused with its path, whatever and wherever it is, and nothing is stored.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::*;

#[tokio::test]
async fn each_rule_names_its_member() {
    let desk = Desk::furnished().await;
    let with = |n: usize, pointer: &str, value: Value| {
        let (path, mut payload) = payloads::examples()[n].clone();
        payload["code"] = json!("fresh");
        *payload.pointer_mut(pointer).unwrap() = value;
        (path, payload)
    };
    for ((path, payload), code, member) in [
        (with(0, "/base_url", json!("ftp://x")), "invalid_member", "base_url"),
        (with(0, "/timeouts/connect_ms", json!(0)), "invalid_member", "timeouts.connect_ms"),
        (with(0, "/breaker/slow_rate", json!(101)), "invalid_member", "breaker.slow_rate"),
        (with(0, "/max_concurrency", json!(0)), "invalid_member", "max_concurrency"),
        (with(0, "/credentials/0/secret", json!("")), "invalid_member", "credentials[0].secret"),
        (with(0, "/credentials/0/code", json!("a b")), "invalid_member", "credentials[0].code"),
        (with(1, "/routes", json!([])), "invalid_member", "routes"),
        (with(1, "/routes/0/weight", json!(0)), "invalid_member", "routes[0].weight"),
        (with(1, "/routes/0/channel", json!("no")), "unknown_reference", "routes[0].channel"),
        (with(1, "/kind", json!("chats")), "invalid_member", "kind"),
        (with(2, "/limits/1/window", json!("2m")), "invalid_member", "limits[1].window"),
        (with(2, "/limits/2/limit", json!(5)), "invalid_member", "limits[2].limit"),
        (with(3, "/multiplier", json!("x")), "invalid_member", "multiplier"),
        (with(3, "/quota", json!("no")), "unknown_reference", "quota"),
        (with(4, "/meters/0/amount", json!("-1")), "invalid_member", "meters[0].amount"),
        (with(4, "/meters/0/per", json!(3)), "invalid_member", "meters[0].per"),
        (with(4, "/meters/0/meter", json!("smiles")), "invalid_member", "meters[0].meter"),
        (with(4, "/channel", json!("no")), "unknown_reference", "channel"),
        (with(4, "/currency", json!("usd")), "invalid_member", "currency"),
        (with(5, "/alias", json!("no")), "unknown_reference", "alias"),
        (with(5, "/token_group", json!("no")), "unknown_reference", "token_group"),
        (with(6, "/credit_limit", json!("-1")), "invalid_member", "credit_limit"),
        (with(6, "/token_group", json!("no")), "unknown_reference", "token_group"),
        (with(6, "/code", json!("UPPER")), "invalid_member", "code"),
        (with(6, "/code", json!(null)), "invalid_member", "code"),
    ] {
        let refused = desk.post(path, payload).await;
        assert_eq!((refused.refusal().1, refused.refusal().2), (code, member), "{}", refused.text);
    }
    let bare = desk.post("/apps", json!({"name": "x"})).await;
    assert_eq!(bare.refusal(), (400, "invalid_member", "code"));
    let numbered = desk.post("/apps", json!({"code": "x", "version_no": 3})).await;
    assert_eq!(numbered.refusal(), (400, "unknown_member", "version_no"));
    let key = desk.post("/apps/acme/keys", json!({"allowed_ips": ["10.0.0.0/99"]})).await;
    assert_eq!(key.refusal(), (400, "invalid_member", "allowed_ips[0]"));
}

/// Every place in a payload, as a JSON pointer and as the path that a refusal would name. What lies
/// below `settings` is the provider's own.
fn places(value: &Value, pointer: &str, path: &str, found: &mut Vec<(String, String)>) {
    found.push((pointer.to_owned(), path.to_owned()));
    if path == "settings" {
        return;
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        places(member, &format!("{pointer}/{name}"), &path, found);
    }
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        places(item, &format!("{pointer}/{n}"), &format!("{path}[{n}]"), found);
    }
}

fn runner() -> TestRunner {
    TestRunner::new(Config { cases: 128, failure_persistence: None, ..Config::default() })
}

#[test]
fn an_unknown_member_is_named_wherever_it_is() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let desk = runtime.block_on(Desk::open());
    let rows = payloads::examples();
    let strategy = (0..rows.len() - 1, any::<prop::sample::Index>(), "[a-z_]{1,8}");
    let tried = runner().run(&strategy, |(n, place, name)| {
        let (path, mut payload) = rows[n].clone();
        let mut found = Vec::new();
        places(&payload, "", "", &mut found);
        found.retain(|(pointer, path)| {
            path != "settings" && payload.pointer(pointer).unwrap().is_object()
        });
        let (pointer, parent) = &found[place.index(found.len())];
        let name = format!("x_{name}");
        payload.pointer_mut(pointer).unwrap()[&name] = json!(1);
        let refused = runtime.block_on(desk.post(path, payload));
        let member = if parent.is_empty() { name } else { format!("{parent}.{name}") };
        prop_assert_eq!(refused.refusal(), (400, "unknown_member", member.as_str()));
        Ok::<(), TestCaseError>(())
    });
    tried.unwrap();
    let stored = runtime.block_on(desk.row("/audit"));
    assert_eq!(stored["items"], json!([]));
}

#[test]
fn a_member_of_any_wrong_shape_is_refused_by_name_or_accepted_never_broken() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let desk = runtime.block_on(Desk::open());
    let rows = payloads::examples();
    let odd = prop_oneof![
        Just(json!(null)),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[]])),
        Just(json!("")),
        Just(json!("\u{0}")),
        Just(json!(true)),
        Just(json!(1.5)),
        Just(json!(-1)),
        Just(json!(u64::MAX)),
        "\\PC{0,40}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
    ];
    let strategy = (0..rows.len() - 1, any::<prop::sample::Index>(), odd);
    let tried = runner().run(&strategy, |(n, place, value)| {
        let (path, mut payload) = rows[n].clone();
        let mut found = Vec::new();
        places(&payload, "", "", &mut found);
        let (pointer, _) = &found[1..][place.index(found.len() - 1)];
        *payload.pointer_mut(pointer).unwrap() = value;
        let answer = runtime.block_on(desk.post(path, payload));
        let (status, code, member) = answer.refusal();
        let named = [400, 422].contains(&status) && !member.is_empty();
        prop_assert!(named || [201, 409].contains(&status), "{} {} {}", status, code, answer.text);
        Ok::<(), TestCaseError>(())
    });
    tried.unwrap();
}
