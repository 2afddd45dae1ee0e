//! That the document says what the handlers do.

use std::collections::BTreeSet;

use anima_core::config::{Alias, App, Channel, FxRate, Key, Price, Quota, Resource, TokenGroup};
use serde::de::DeserializeOwned;

use super::*;
use crate::admin::typed::typed;

fn parsed() -> Value {
    serde_json::from_str(&document()).unwrap()
}

#[test]
fn the_document_is_the_one_that_is_checked_in() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    let text = document() + "\n";
    if checked_in != text {
        std::fs::write(&path, text).unwrap();
        panic!("docs/openapi.json was stale and has been written anew: check it in");
    }
}

#[test]
fn the_document_is_sound_openapi() {
    let document: utoipa::openapi::OpenApi = serde_json::from_str(&document()).unwrap();
    assert_eq!(document.paths.paths.len(), parsed()["paths"].as_object().unwrap().len());
}

#[test]
fn every_endpoint_is_documented_and_nothing_else() {
    let document = parsed();
    let documented: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
        })
        .collect();
    let served: BTreeSet<String> = endpoints::all()
        .iter()
        .map(|e| format!("{} {}", e.method.as_str().to_ascii_lowercase(), e.path))
        .collect();
    assert_eq!(documented, served);
    assert_eq!(served.len(), endpoints::all().len());
}

#[test]
fn operation_ids_are_unique_and_references_lead_somewhere() {
    let document = parsed();
    let mut ids = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()));
        }
    }
    let text = document.to_string();
    for part in text.split("\"$ref\":\"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

/// The members that a type takes, as its own refusal lists them.
fn accepted<B: DeserializeOwned>(mut value: Value, pointer: &str) -> BTreeSet<String> {
    value.pointer_mut(pointer).unwrap()["no such member"] = json!(1);
    let detail = typed::<B>(value).err().unwrap().detail;
    detail.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn documented(resource: Resource, pointer: &str) -> BTreeSet<String> {
    let members = payload(resource).members;
    let members = if pointer.is_empty() { &members } else { members.pointer(pointer).unwrap() };
    members.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_schemas_have_exactly_the_members_that_the_types_take() {
    use Resource as R;
    let channel = json!({"provider": "p", "base_url": "u", "credentials": [{"code": "c"}],
        "timeouts": {}, "breaker": {}});
    let mut credential = documented(R::Channel, "/credentials/items/properties");
    credential.insert("sealed".to_owned()); // Taken from the store alone.
    let alias = json!({"kind": "chat", "routes": [{"channel": "c", "model": "m"}],
        "fallbacks": {}, "retry": {}});
    let price = json!({"side": "sale", "currency": "USD",
        "meters": [{"meter": "images", "amount": "1", "when": {}}]});
    let quota = json!({"limits": [{"kind": "requests", "limit": 1}]});
    let fx_rate = json!({"from": "USD", "to": "EUR", "rate": "0.9"});
    let meters = "/meters/items/properties";
    for (accepted, documented) in [
        (accepted::<Channel>(channel.clone(), ""), documented(R::Channel, "")),
        (accepted::<Channel>(channel.clone(), "/credentials/0"), credential),
        (
            accepted::<Channel>(channel.clone(), "/timeouts"),
            documented(R::Channel, "/timeouts/properties"),
        ),
        (accepted::<Channel>(channel, "/breaker"), documented(R::Channel, "/breaker/properties")),
        (accepted::<Alias>(alias.clone(), ""), documented(R::Alias, "")),
        (
            accepted::<Alias>(alias.clone(), "/routes/0"),
            documented(R::Alias, "/routes/items/properties"),
        ),
        (
            accepted::<Alias>(alias.clone(), "/fallbacks"),
            documented(R::Alias, "/fallbacks/properties"),
        ),
        (accepted::<Alias>(alias, "/retry"), documented(R::Alias, "/retry/properties")),
        (accepted::<Price>(price.clone(), ""), documented(R::Price, "")),
        (accepted::<Price>(price.clone(), "/meters/0"), documented(R::Price, meters)),
        (
            accepted::<Price>(price, "/meters/0/when"),
            documented(R::Price, &format!("{meters}/when/properties")),
        ),
        (accepted::<Quota>(quota.clone(), ""), documented(R::Quota, "")),
        (accepted::<Quota>(quota, "/limits/0"), documented(R::Quota, "/limits/items/properties")),
        (accepted::<TokenGroup>(json!({}), ""), documented(R::TokenGroup, "")),
        (accepted::<App>(json!({}), ""), documented(R::App, "")),
        (accepted::<Key>(json!({}), ""), documented(R::UserApiKey, "")),
        (accepted::<FxRate>(fx_rate, ""), documented(R::FxRate, "")),
    ] {
        assert_eq!(accepted, documented);
    }
}
