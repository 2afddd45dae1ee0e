//! JSON to types, with the path of the first bad member.
//!
//! Serde's messages quote the value that was sent, which may be a secret in the wrong place: what
//! is shown here is only what was expected. Source of the paths: `serde_path_to_error`.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::{Code, Problem};

/// Gives a JSON value its type.
///
/// # Errors
/// The first member that is unknown, missing or of the wrong type, by path.
pub(crate) fn typed<B: DeserializeOwned>(value: Value) -> Result<B, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { "" } else { path.as_str() };
        explain(path, &error.inner().to_string())
    })
}

/// Reads a body as a JSON object.
///
/// # Errors
/// [`Code::InvalidBody`].
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Problem::new(Code::InvalidBody, format!("expected a JSON object ({place})"))
    })?;
    members(value)
}

/// The members of a body that must be a JSON object.
///
/// # Errors
/// [`Code::InvalidBody`].
pub(crate) fn members(body: Value) -> Result<Map<String, Value>, Problem> {
    if let Some(path) = nul_in(&body, "") {
        return Err(Problem::invalid(path, "a text without U+0000"));
    }
    match body {
        Value::Object(members) => Ok(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Problem::new(Code::InvalidBody, "expected a JSON object"))
        }
    }
}

/// The path of the first text that holds U+0000, which PostgreSQL cannot store.
fn nul_in(value: &Value, path: &str) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(|| path.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(n, item)| nul_in(item, &format!("{path}[{n}]")))
        }
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if name.contains('\0') { Some(path) } else { nul_in(member, &path) }
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn explain(path: &str, message: &str) -> Problem {
    if let Some(rest) = message.strip_prefix("missing field `") {
        let name = rest.split('`').next().unwrap_or_default();
        let member = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        return Problem::member(Code::InvalidMember, member, "is required");
    }
    if message.starts_with("unknown field `") {
        let known = after_expected(message).unwrap_or_else(|| "no member here".to_owned());
        let detail = format!("is not a member here: expected {known}");
        return Problem::member(Code::UnknownMember, path, detail);
    }
    let detail = if message.starts_with("data did not match any variant") {
        "expected a whole number, or a decimal in a string".to_owned()
    } else if let Some(expected) = after_expected(message) {
        format!("expected {expected}")
    } else {
        message.to_owned()
    };
    let member = if path.is_empty() { "." } else { path };
    Problem::member(Code::InvalidMember, member, detail)
}

/// What follows the last `, expected `: everything before it may quote what was sent.
fn after_expected(message: &str) -> Option<String> {
    message.rsplit_once(", expected ").map(|(_, expected)| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use anima_core::config::{Channel, Price, Quota};
    use serde_json::json;

    use super::*;

    fn refused<B: DeserializeOwned>(value: Value) -> (Code, String, String) {
        let problem = typed::<B>(value).err().unwrap();
        (problem.code, problem.member.unwrap(), problem.detail)
    }

    #[test]
    fn the_path_of_a_bad_member_is_named() {
        let price = json!({"side": "sale", "alias": "a", "currency": "USD",
            "meters": [{"meter": "input_tokens", "amount": 2.5}]});
        let (code, member, detail) = refused::<Price>(price);
        assert_eq!((code, member.as_str()), (Code::InvalidMember, "meters[0].amount"));
        assert_eq!(detail, "expected a string");
    }

    #[test]
    fn an_unknown_member_is_named_with_its_path() {
        let price = json!({"side": "sale", "alias": "a", "currency": "USD",
            "meters": [{"meter": "input_tokens", "amount": "2.5", "when": {"moon": "full"}}]});
        let (code, member, detail) = refused::<Price>(price);
        assert_eq!((code, member.as_str()), (Code::UnknownMember, "meters[0].when.moon"));
        assert!(detail.contains("service_tier"), "{detail}");
        let (code, member, _) = refused::<Channel>(json!({"provder": "openai"}));
        assert_eq!((code, member.as_str()), (Code::UnknownMember, "provder"));
    }

    #[test]
    fn a_missing_member_is_named() {
        let (_, member, detail) = refused::<Channel>(json!({"base_url": "https://x"}));
        assert_eq!((member.as_str(), detail.as_str()), ("provider", "is required"));
        let (_, member, _) = refused::<Channel>(
            json!({"provider": "p", "base_url": "u", "credentials": [{"secret": "s"}]}),
        );
        assert_eq!(member, "credentials[0].code");
    }

    #[test]
    fn what_was_sent_is_not_echoed() {
        let canary = "sk-canary, expected nothing";
        let (_, member, detail) =
            refused::<Channel>(json!({"provider": "p", "base_url": "u", "credentials": canary}));
        assert_eq!(member, "credentials");
        assert!(!detail.contains("canary"), "{detail}");
    }

    #[test]
    fn a_text_that_no_database_can_hold_is_named() {
        let body = json!({"settings": {"list": ["fine", "not\u{0}"]}});
        let refused = members(body).err().unwrap();
        assert_eq!(refused.member.as_deref(), Some("settings.list[1]"));
    }

    #[test]
    fn an_amount_of_neither_shape_is_explained() {
        let quota = json!({"limits": [{"kind": "requests", "window": "1s", "limit": -1}]});
        let (_, member, detail) = refused::<Quota>(quota);
        assert_eq!(member, "limits[0].limit");
        assert!(detail.contains("whole number"), "{detail}");
    }
}
