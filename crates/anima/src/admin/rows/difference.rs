//! What tells two versions of a row apart, member by member.
//!
//! Paths are written as in problems: `timeouts.idle_ms`, `routes[0].weight`. Invariant: no secret
//! is shown; that a sealed one is another is said, and nothing about either.

use serde_json::{Map, Value, json};

use anima_store::config::Row;

/// One member that differs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Difference {
    /// Its path.
    pub(crate) member: String,
    /// As it is; `None` when it is not there.
    pub(crate) before: Option<Value>,
    /// As it would be; `None` when it goes.
    pub(crate) after: Option<Value>,
}

impl Difference {
    /// One member that is there before and after.
    pub(crate) fn of(member: &str, before: Value, after: Value) -> Self {
        Self { member: member.to_owned(), before: Some(before), after: Some(after) }
    }

    /// The difference as members of JSON.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "member": self.member, "before": self.before, "after": self.after })
    }
}

/// The difference of two rows, in JSON.
pub(crate) fn of_rows(before: Option<&Row>, after: Option<&Row>) -> Value {
    let found = between(before.map(whole).as_ref(), after.map(whole).as_ref());
    found.iter().map(Difference::to_json).collect()
}

/// Body, window and switch in one.
fn whole(row: &Row) -> Value {
    let mut members = match &row.body {
        Value::Object(body) => body.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    members.insert("enabled".to_owned(), json!(row.enabled));
    members.insert("effective_from".to_owned(), json!(row.effective_from));
    members.insert("effective_to".to_owned(), json!(row.effective_to));
    Value::Object(members)
}

/// Every member that differs, by path.
pub(crate) fn between(before: Option<&Value>, after: Option<&Value>) -> Vec<Difference> {
    let mut found = Vec::new();
    walk("", before, after, &mut found);
    found
}

fn walk(path: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Difference>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            members(path, old, new, found);
        }
        (None, Some(Value::Object(new))) => members(path, &Map::new(), new, found),
        (Some(Value::Object(old)), None) => members(path, old, &Map::new(), found),
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for n in 0..old.len().max(new.len()) {
                walk(&format!("{path}[{n}]"), old.get(n), new.get(n), found);
            }
        }
        _ => found.push(veiled(path, before, after)),
    }
}

fn members(
    path: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    found: &mut Vec<Difference>,
) {
    let added = new.keys().filter(|name| !old.contains_key(*name));
    for name in old.keys().chain(added) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        walk(&path, old.get(name), new.get(name), found);
    }
}

/// A leaf, without what nobody may read.
fn veiled(path: &str, before: Option<&Value>, after: Option<&Value>) -> Difference {
    let Some(stem) = path.strip_suffix(".sealed") else {
        let (before, after) = (before.map(without_seals), after.map(without_seals));
        return Difference { member: path.to_owned(), before, after };
    };
    let shown = |value: Option<&Value>, word: &str| value.map(|_| json!(word));
    let word = if before.is_some() { "(another secret)" } else { "(a secret)" };
    let member = format!("{stem}.secret");
    Difference { member, before: shown(before, "(a secret)"), after: shown(after, word) }
}

fn without_seals(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter(|(name, _)| *name != "sealed" && *name != "secret");
            kept.map(|(name, member)| (name.clone(), without_seals(member))).collect()
        }
        Value::Array(items) => items.iter().map(without_seals).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(before: &Value, after: &Value) -> Vec<(String, Option<Value>, Option<Value>)> {
        let found = between(Some(before), Some(after));
        found.into_iter().map(|d| (d.member, d.before, d.after)).collect()
    }

    #[test]
    fn members_are_compared_by_path() {
        let before = json!({"a": 1, "b": {"c": [1, {"d": 2}], "e": null}, "gone": true});
        let after = json!({"a": 1, "b": {"c": [1, {"d": 3}, 4], "e": null}, "more": "x"});
        let expected = [
            ("b.c[1].d".to_owned(), Some(json!(2)), Some(json!(3))),
            ("b.c[2]".to_owned(), None, Some(json!(4))),
            ("gone".to_owned(), Some(json!(true)), None),
            ("more".to_owned(), None, Some(json!("x"))),
        ];
        assert_eq!(found(&before, &after), expected);
        assert!(found(&after, &after).is_empty());
    }

    #[test]
    fn that_a_secret_changed_is_said_and_nothing_about_it() {
        let row = |sealed: &str| json!({"credentials": [{"code": "main", "sealed": sealed}]});
        let text = format!("{:?}", found(&row("canary-1"), &row("canary-2")));
        assert!(text.contains("credentials[0].secret") && !text.contains("canary"), "{text}");
        let fresh = format!("{:?}", between(Some(&json!({})), Some(&row("canary"))));
        assert!(fresh.contains("main") && !fresh.contains("canary"), "{fresh}");
    }
}
