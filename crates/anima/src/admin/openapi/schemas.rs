//! The document's schemas: for each resource what is created, changed and shown, and the replies
//! that are not rows.
//!
//! What a resource's own members are is in `payloads`. Invariant: what is shown has no secret.

use serde_json::{Map, Value, json};

use anima_core::config::Resource;

use super::payloads::{Payload, payload};
use super::{problem_codes, reference};

/// A text.
pub(super) fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

/// One of a few words.
pub(super) fn word(allowed: &[&str], description: &str) -> Value {
    json!({ "type": "string", "enum": allowed, "description": description })
}

/// The code of another row.
pub(super) fn code(description: &str) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": 64, "description": description })
}

/// A whole number.
pub(super) fn integer(minimum: u64, description: &str) -> Value {
    json!({ "type": "integer", "minimum": minimum, "description": description })
}

/// A decimal in a string.
pub(super) fn amount(description: &str) -> Value {
    json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?$", "description": description })
}

/// A list.
pub(super) fn list(items: Value, description: &str) -> Value {
    let mut list = json!({ "type": "array", "description": description });
    if let Value::Object(members) = &mut list {
        members.insert("items".to_owned(), items);
    }
    list
}

/// A time.
pub(super) fn instant(description: &str) -> Value {
    json!({ "type": "string", "format": "date-time", "description": description })
}

/// A version's number.
pub(super) fn version_no() -> Value {
    integer(1, "Counts up with every change of the row")
}

pub(super) fn nullable(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

/// Every schema, by name.
pub(super) fn all() -> Value {
    let mut schemas = Map::new();
    for resource in Resource::ALL {
        rows(*resource, &mut schemas);
    }
    let replies = [
        ("StatedVersion", stated_version()),
        ("Problem", problem()),
        ("Verification", verification()),
        ("AuditPage", page(&audit_record())),
        ("CircuitPage", page(&super::routing::channel())),
        ("NodePage", page(&super::routing::node())),
        ("RequestRecord", super::requests::record()),
        ("QueuePage", page(&super::limits::queue())),
        ("LimitPage", page(&super::limits::limit())),
        ("UsagePage", super::usage::page()),
        ("Task", super::tasks::task()),
        ("TaskPage", page(&reference("Task"))),
        ("Reason", super::tasks::reason()),
    ];
    let all = replies.into_iter().chain(super::money::all()).chain(super::hatches::all());
    schemas.extend(all.map(|(name, schema)| (name.to_owned(), schema)));
    Value::Object(schemas)
}

fn rows(resource: Resource, schemas: &mut Map<String, Value>) {
    let payload = payload(resource);
    let name = payload.name;
    let minted = resource == Resource::UserApiKey;
    let identity = if minted { &["kid", "app"][..] } else { &["code"][..] };
    let shown = shown(&payload, identity);
    if minted {
        let mut with_secret = shown.clone();
        if let Some(Value::Object(members)) = with_secret.get_mut("properties") {
            let secret = text("The whole key, here and never again");
            members.insert("secret".to_owned(), secret);
        }
        schemas.insert(format!("Minted{name}"), with_secret);
    }
    schemas.insert(name.to_owned(), shown);
    schemas.insert(format!("{name}Page"), page(&reference(name)));
    let written = if minted { &[][..] } else { identity };
    schemas.insert(format!("New{name}"), created(&payload, written));
    schemas.insert(format!("{name}Change"), changed(&payload, identity));
}

/// What every write may carry.
fn envelope() -> Map<String, Value> {
    let members = json!({
        "effective_from": nullable(&instant("In force from here on; null or absent is now")),
        "effective_to": nullable(&instant("In force until just before here; null is open")),
        "enabled": { "type": "boolean", "description": "The live switch of all versions" },
        "running": super::hatches::running(),
        "reason": { "type": "string", "maxLength": 1000, "description": "For the audit record" },
    });
    members.as_object().cloned().unwrap_or_default()
}

fn created(payload: &Payload, identity: &[&str]) -> Value {
    let mut members = payload.members.as_object().cloned().unwrap_or_default();
    members.extend(identity.iter().map(|name| ((*name).to_owned(), code("The row's name"))));
    members.extend(envelope());
    let required: Vec<&str> = identity.iter().chain(payload.required).copied().collect();
    json!({ "type": "object", "properties": members, "required": required,
        "additionalProperties": false })
}

fn changed(payload: &Payload, identity: &[&str]) -> Value {
    let mut members = Map::new();
    for (name, schema) in payload.members.as_object().into_iter().flatten() {
        let needed = payload.required.contains(&name.as_str());
        let schema = if needed { schema.clone() } else { nullable(schema) };
        members.insert(name.clone(), schema);
    }
    let same = "As in the path";
    members.extend(identity.iter().map(|name| ((*name).to_owned(), text(same))));
    members.extend(envelope());
    members.insert("version_no".to_owned(), version_no());
    json!({
        "type": "object",
        "description": "Members given replace, objects merge, null resets (RFC 7396). Needs \
            `version_no` or If-Match, unless only `enabled` is given.",
        "properties": members,
        "additionalProperties": false,
    })
}

fn shown(payload: &Payload, identity: &[&str]) -> Value {
    let mut members = payload.members.as_object().cloned().unwrap_or_default();
    let secret = members
        .get_mut("credentials")
        .and_then(|list| list.pointer_mut("/items/properties"))
        .and_then(Value::as_object_mut);
    if let Some(credential) = secret {
        credential.remove("secret");
    }
    members.extend(identity.iter().map(|name| ((*name).to_owned(), code("The row's name"))));
    members.insert("version_no".to_owned(), version_no());
    members.insert("effective_from".to_owned(), instant("In force from here on"));
    let end = nullable(&instant("In force until just before here; null is open"));
    members.insert("effective_to".to_owned(), end);
    members.insert("enabled".to_owned(), json!({ "type": "boolean" }));
    if payload.name == "Key" {
        members.insert("pause".to_owned(), key_pause());
    }
    let fixed = ["version_no", "effective_from", "effective_to", "enabled"];
    let required: Vec<&str> =
        identity.iter().chain(payload.required).chain(&fixed).copied().collect();
    json!({ "type": "object", "properties": members, "required": required })
}

fn key_pause() -> Value {
    json!({
        "type": "object",
        "description": "Of one key that is read and is switched off: why this gateway paused it",
        "properties": {
            "at": instant("When"),
            "calls": integer(1, "How many calls came to more than the wallet covers"),
            "reason": text("In words"),
        },
        "required": ["at", "calls", "reason"],
    })
}

pub(super) fn page(item: &Value) -> Value {
    json!({
        "type": "object",
        "properties": {
            "items": { "type": "array", "items": item },
            "next": {
                "type": ["string", "integer", "null"],
                "description": "Cursor of the next page; null on the last",
            },
        },
        "required": ["items", "next"],
    })
}

fn stated_version() -> Value {
    json!({
        "type": "object",
        "properties": { "version_no": version_no(), "reason": text("For the audit record") },
        "additionalProperties": false,
    })
}

fn problem() -> Value {
    json!({
        "type": "object",
        "properties": {
            "type": text("Where it is explained"),
            "title": text("The same for every problem of this code"),
            "status": { "type": "integer" },
            "detail": text("What to do about it"),
            "code": word(&problem_codes(), "What went wrong"),
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "member": text("Path, such as `meters[0].amount`"),
                        "detail": text("What it should be"),
                    },
                    "required": ["member", "detail"],
                },
            },
            "current": {
                "type": "object",
                "description": "For version_conflict: the latest version of the row",
            },
        },
        "required": ["type", "title", "status", "detail", "code"],
    })
}

/// An object whose members are all there.
pub(super) fn closed(members: &Value) -> Value {
    let names: Vec<&String> = members.as_object().into_iter().flat_map(Map::keys).collect();
    json!({ "type": "object", "properties": members, "required": names })
}

fn verification() -> Value {
    let finding = json!({
        "invariant": text("`I1` to `I14`"),
        "statement": text("What it says"),
        "checked": integer(0, "Rows looked at"),
        "ok": { "type": "boolean" },
        "breaches": list(text("In words"), "Empty when it holds"),
    });
    let members = json!({
        "ok": { "type": "boolean", "description": "No breach" },
        "findings": { "type": "array", "items": closed(&finding) },
    });
    closed(&members)
}

fn audit_record() -> Value {
    let members = json!({
        "id": { "type": "integer" },
        "at": instant("When"),
        "actor": text("Name of the admin token"),
        "action": text(
            "`create`, `change`, `switch`, `delete`, `restore`, `topup`, `refund`, `adjust`, \
             `grant`, …"
        ),
        "resource": text("Which kind of thing"),
        "code": text("Which one"),
        "reason": text("Why; may be empty"),
        "before": { "type": ["object", "null"], "description": "As it was, without secrets" },
        "after": { "type": ["object", "null"], "description": "As it is, without secrets" },
    });
    closed(&members)
}
