//! The members that every write may carry beside the resource's own.
//!
//! They are taken out first, so that the rest is the body and its type judges what is unknown.
//! Invariant: what is left in `body` was written by the caller and by nobody else.

use serde_json::{Map, Value};

use anima_core::clock::Timestamp;
use anima_core::config::Version;

use super::problem::{Code, Problem};

/// A member that may be absent, null or given: three different wishes in a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member<T> {
    Absent,
    Null,
    Given(T),
}

/// A write, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    /// What names the row, as far as it was written: `code`, or `kid` and `app`.
    pub(crate) identity: Vec<(&'static str, String)>,
    /// The version that the writer read.
    pub(crate) version_no: Option<i64>,
    /// Start of the window.
    pub(crate) effective_from: Member<Timestamp>,
    /// End of the window.
    pub(crate) effective_to: Member<Timestamp>,
    /// The live switch.
    pub(crate) enabled: Option<bool>,
    /// What becomes of what streams through a row that is switched off.
    pub(crate) running: Option<Running>,
    /// Why; goes to the audit record.
    pub(crate) reason: Option<String>,
    /// The resource's own members.
    pub(crate) body: Map<String, Value>,
}

/// What becomes of what streams through something that is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Running {
    /// It goes on to its end. What happens when nothing is said.
    Finish,
    /// It ends now, with its format's error event; what was delivered is booked.
    Cut,
}

impl Running {
    /// Reads the word.
    pub(crate) fn parse(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "finish" => Some(Self::Finish),
            "cut" => Some(Self::Cut),
            _ => None,
        }
    }
}

/// A reason is a sentence or a ticket number, not a document.
const REASON_CHARS_MAX: usize = 1_000;

impl Envelope {
    /// Takes the common members out of a body. `identity` says which members name the row here.
    ///
    /// # Errors
    /// The first common member that is of the wrong type.
    pub(crate) fn parse(
        mut body: Map<String, Value>,
        identity: &[&'static str],
    ) -> Result<Self, Problem> {
        let mut named = Vec::new();
        for name in identity {
            match body.remove(*name) {
                None => {}
                Some(Value::String(text)) => named.push((*name, text)),
                Some(_) => return Err(Problem::invalid(*name, "a string")),
            }
        }
        Ok(Self {
            identity: named,
            version_no: take(&mut body, "version_no", "a version_no of 1 or more", |v| {
                v.as_i64().filter(|n| *n >= 1)
            })?,
            effective_from: instant(&mut body, "effective_from")?,
            effective_to: instant(&mut body, "effective_to")?,
            enabled: take(&mut body, "enabled", "true or false", Value::as_bool)?,
            running: take(&mut body, "running", "`finish` or `cut`", Running::parse)?,
            reason: take(&mut body, "reason", "a text of up to 1000 characters", |v| {
                v.as_str().filter(|t| t.chars().count() <= REASON_CHARS_MAX).map(str::to_owned)
            })?,
            body,
        })
    }

    /// Whether what streams ends now.
    ///
    /// # Errors
    /// When `running` stands beside anything but `"enabled": false`.
    pub(crate) fn cut(&self) -> Result<bool, Problem> {
        match (self.running, self.enabled) {
            (Some(_), None | Some(true)) => {
                Err(Problem::invalid("running", "it only beside `\"enabled\": false`"))
            }
            (running, _) => Ok(running == Some(Running::Cut)),
        }
    }

    /// Whether a version must be written.
    pub(crate) fn changes_version(&self) -> bool {
        !self.body.is_empty()
            || self.effective_from != Member::Absent
            || self.effective_to != Member::Absent
    }

    /// The window of the version to be written; `None` as its start is now, as its end is open.
    ///
    /// A start that merely repeats the origin's is no wish, so that a row can be sent back as it
    /// was read. An end that is not mentioned stays what it was.
    ///
    /// # Errors
    /// A start in the past; an end that is not after the start.
    pub(crate) fn window<B>(
        &self,
        now: Timestamp,
        origin: Option<&Version<B>>,
    ) -> Result<(Option<Timestamp>, Option<Timestamp>), Problem> {
        let from = match self.effective_from {
            Member::Absent | Member::Null => None,
            Member::Given(at) if at >= now => Some(at),
            Member::Given(at) if origin.is_some_and(|row| row.effective_from == at) => None,
            Member::Given(_) => {
                return Err(Problem::invalid("effective_from", "a time that is not in the past"));
            }
        };
        let start = from.unwrap_or(now);
        let to = match self.effective_to {
            Member::Null => None,
            Member::Absent => origin.and_then(|row| row.effective_to).filter(|end| *end > start),
            Member::Given(end) if end > start => Some(end),
            Member::Given(_) => {
                return Err(Problem::invalid("effective_to", "a time after the window's start"));
            }
        };
        Ok((from, to))
    }

    /// The version that the write states, from the body or the `If-Match` header.
    ///
    /// # Errors
    /// When both are there and differ, or neither is.
    pub(crate) fn stated_version(&self, if_match: Option<i64>) -> Result<i64, Problem> {
        match (self.version_no, if_match) {
            (Some(member), Some(header)) if member != header => {
                Err(Problem::invalid("version_no", "the same version as in If-Match"))
            }
            (Some(version), _) | (None, Some(version)) => Ok(version),
            (None, None) => Err(Problem::member(
                Code::VersionRequired,
                "version_no",
                "state the version that you read, here or as If-Match: \"<version_no>\"",
            )),
        }
    }
}

fn take<T>(
    body: &mut Map<String, Value>,
    name: &'static str,
    expected: &str,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let Some(value) = body.remove(name) else {
        return Ok(None);
    };
    read(&value).map(Some).ok_or_else(|| Problem::invalid(name, expected))
}

fn instant(
    body: &mut Map<String, Value>,
    name: &'static str,
) -> Result<Member<Timestamp>, Problem> {
    let expected = "an RFC 3339 time such as 2026-01-31T00:00:00Z, or null";
    match body.remove(name) {
        None => Ok(Member::Absent),
        Some(Value::Null) => Ok(Member::Null),
        Some(value) => value
            .as_str()
            .and_then(Timestamp::parse)
            .map(Member::Given)
            .ok_or_else(|| Problem::invalid(name, expected)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn envelope(value: &Value) -> Result<Envelope, Problem> {
        Envelope::parse(value.as_object().unwrap().clone(), &["code"])
    }

    #[test]
    fn common_members_are_taken_out_and_the_rest_is_the_body() {
        let read = envelope(&json!({"code": "a", "version_no": 3, "enabled": false, "reason": "r",
            "effective_from": "2030-01-01T00:00:00Z", "effective_to": null, "name": "x"}));
        let read = read.unwrap();
        assert_eq!(read.identity, [("code", "a".to_owned())]);
        assert_eq!((read.version_no, read.enabled), (Some(3), Some(false)));
        assert_eq!(read.effective_to, Member::Null);
        assert_eq!(Value::Object(read.body), json!({"name": "x"}));
    }

    #[test]
    fn a_common_member_of_the_wrong_type_is_named() {
        for (name, value) in [
            ("code", json!(1)),
            ("version_no", json!("1")),
            ("version_no", json!(0)),
            ("effective_from", json!("tomorrow")),
            ("effective_to", json!(5)),
            ("enabled", json!("no")),
            ("enabled", json!(null)),
            ("reason", json!("x".repeat(1_001))),
        ] {
            let problem = envelope(&json!({name: value})).err().unwrap();
            assert_eq!(problem.member.as_deref(), Some(name));
        }
    }

    #[test]
    fn only_a_body_or_a_window_needs_a_version() {
        let needs = |value: Value| envelope(&value).unwrap().changes_version();
        assert!(!needs(json!({"enabled": true, "reason": "r", "version_no": 2})));
        assert!(needs(json!({"enabled": false, "name": "x"})));
        assert!(needs(json!({"enabled": false, "effective_to": null})));
    }

    #[test]
    fn a_window_starts_now_or_later_and_keeps_the_end_it_had() {
        let now = Timestamp::from_micros(1_000_000);
        let at = |millis: i64| now.plus_millis(millis);
        let origin = Version {
            code: "a".to_owned(),
            app: None,
            version_no: 1,
            effective_from: at(-500),
            effective_to: Some(at(500)),
            enabled: true,
            body: (),
        };
        let window = |value: Value| envelope(&value).unwrap().window(now, Some(&origin));
        assert_eq!(window(json!({})), Ok((None, Some(at(500)))));
        assert_eq!(window(json!({"effective_to": null})), Ok((None, None)));
        let round = json!({"effective_from": at(-500), "effective_to": at(500)});
        assert_eq!(window(round), Ok((None, Some(at(500)))));
        assert_eq!(window(json!({"effective_from": at(700)})), Ok((Some(at(700)), None)));
        let past = window(json!({"effective_from": at(-400)})).err().unwrap();
        assert_eq!(past.member.as_deref(), Some("effective_from"));
        let empty = window(json!({"effective_from": at(9), "effective_to": at(9)})).err().unwrap();
        assert_eq!(empty.member.as_deref(), Some("effective_to"));
    }
}
