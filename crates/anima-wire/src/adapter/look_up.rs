//! What became of a call: the question to a provider that can be asked, and its answer.
//!
//! Of real providers of chats none answers by an id of ours; the simulated one does
//! (`docs/simulator.md`, "Look-up"), and a channel says so by `call_look_up` in its settings. Not
//! here: what follows for a hold (`anima-core`, `ledger::recovery`). Invariant: what cannot be read
//! is never taken for "no such call".

use anima_core::ledger::recovery::LookUp;
use anima_core::usage::Usage;

use crate::dialect::openai::usage;
use crate::json::{Cursor, Error, Value};

/// The member of a channel's `settings` that says that the provider can be asked.
pub const SETTING: &str = "call_look_up";

/// A call that the provider knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The id of the attempt that we gave it, if it kept that.
    pub attempt_id: Option<String>,
    /// The model, as the provider calls it.
    pub model: String,
    /// The provider's own id.
    pub id: Option<String>,
    /// How it stands: running, or over and what it is charged for.
    pub state: LookUp,
}

/// What a provider says when it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Every call that was made for the request. Empty when none was.
    Calls(Vec<Found>),
    /// It does not know, and will not: it cannot be asked, or has forgotten.
    Never,
    /// Nothing that can be relied on; it may say more when it is asked again.
    Unclear,
}

/// The path below a channel's base URL at which the calls of a request are asked for.
pub fn path(request_id: &str) -> String {
    format!("/calls/{request_id}")
}

/// Reads the answer.
pub fn read(status: u16, body: &[u8]) -> Answer {
    match status {
        200 => calls(body).map_or(Answer::Unclear, Answer::Calls),
        404 | 405 | 410 => Answer::Never,
        _ => Answer::Unclear,
    }
}

fn calls(body: &[u8]) -> Option<Vec<Found>> {
    let mut found = Vec::new();
    let (mut state, mut listed) = (None, false);
    let mut cursor = Cursor::new(body);
    let read = cursor.members(|cursor, name| {
        match name.raw() {
            b"state" => state = text(&cursor.value()?),
            b"calls" => {
                listed = true;
                cursor.elements(|cursor| {
                    found.push(call(cursor)?);
                    Ok::<(), Error>(())
                })?;
            }
            _ => {
                cursor.value()?;
            }
        }
        Ok::<(), Error>(())
    });
    // What follows a document says that something else is wrong with it, too.
    let read = read.and_then(|_| cursor.end());
    let known = matches!(state.as_deref(), Some("unknown" | "running" | "finished"));
    let agrees = (state.as_deref() == Some("unknown")) == found.is_empty();
    let whole: Option<Vec<Found>> = found.into_iter().collect();
    whole.filter(|_| read.is_ok() && listed && known && agrees)
}

/// One call; `None` when it does not say how it stands.
fn call(cursor: &mut Cursor<'_>) -> Result<Option<Found>, Error> {
    let (mut id, mut attempt_id, mut model, mut state) = (None, None, None, None);
    let mut report = usage::Report::default();
    cursor.members(|cursor, name| {
        if name.raw() == b"usage" {
            report = usage::read(cursor)?;
            return Ok(());
        }
        let value = cursor.value()?;
        match name.raw() {
            b"id" => id = text(&value),
            b"attempt_id" => attempt_id = text(&value),
            b"model" => model = text(&value),
            b"state" => state = text(&value),
            _ => {}
        }
        Ok::<(), Error>(())
    })?;
    let state = match state.as_deref() {
        Some("running") => LookUp::Running,
        // All zero is a bill of nothing.
        Some("finished") if !report.suspect || report.usage.is_some_and(|u| u.is_empty()) => {
            LookUp::Over { usage: report.usage.unwrap_or_else(Usage::default), tier: None }
        }
        _ => return Ok(None),
    };
    Ok(model.map(|model| Found { attempt_id, model, id, state }))
}

fn text(value: &Value<'_>) -> Option<String> {
    value.text().map(|text| text.decode().into_owned())
}

#[cfg(test)]
mod tests {
    use anima_core::usage::Meter;

    use super::*;

    fn answer(state: &str, calls: &str) -> Vec<u8> {
        format!(r#"{{"object":"call.lookup","id":"a","state":"{state}","calls":[{calls}]}}"#).into()
    }

    fn a_call(state: &str, completion: u64) -> String {
        format!(
            r#"{{"id":"simcall_1","request_id":"a","attempt_id":"a-2","model":"m","state":"{state}",
            "status":200,"usage":{{"prompt_tokens":9,"completion_tokens":{completion},
            "total_tokens":{},"prompt_tokens_details":{{"cached_tokens":4}},
            "completion_tokens_details":{{"reasoning_tokens":0}}}}}}"#,
            9 + completion
        )
    }

    #[test]
    fn a_bill_is_read_in_disjoint_meters() {
        let found = calls(&answer("finished", &a_call("finished", 16))).unwrap();
        let [found] = &found[..] else { panic!("{found:?}") };
        assert_eq!(found.attempt_id.as_deref(), Some("a-2"));
        let usage = Usage::default()
            .with(Meter::InputTokens, 5)
            .with(Meter::CachedInputTokens, 4)
            .with(Meter::OutputTokens, 16);
        assert_eq!(found.state, LookUp::Over { usage, tier: None });
    }

    #[test]
    fn nothing_known_is_told_from_nothing_made() {
        assert_eq!(read(200, &answer("unknown", "")), Answer::Calls(Vec::new()));
        let running = calls(&answer("running", &a_call("running", 1))).unwrap();
        assert_eq!(running[0].state, LookUp::Running);
        assert_eq!(read(404, &answer("unknown", "")), Answer::Never);
        assert_eq!(read(410, br#"{"error":{"message":"forgotten"}}"#), Answer::Never);
        for (status, body) in [
            (401, answer("unknown", "")),
            (503, answer("unknown", "")),
            (200, b"{}".to_vec()),
            (200, b"<html>".to_vec()),
            (200, answer("unknown", "")[..40].to_vec()),
            (200, answer("finished", "")),
            (200, answer("finished", &a_call("odd", 1))),
            (200, [answer("finished", &a_call("finished", 1)), b"0".to_vec()].concat()),
        ] {
            let said = String::from_utf8_lossy(&body);
            assert_eq!(read(status, &body), Answer::Unclear, "{said}");
        }
    }

    #[test]
    fn a_refused_call_is_a_bill_of_nothing() {
        let zeros = r#"{"id":"s","attempt_id":"a-1","model":"m","state":"finished","usage":
            {"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}"#;
        let found = calls(&answer("finished", zeros)).unwrap();
        assert_eq!(found[0].state, LookUp::Over { usage: Usage::default(), tier: None });
    }
}
