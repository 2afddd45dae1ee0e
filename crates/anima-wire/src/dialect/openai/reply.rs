//! One chunk of a stream or one whole answer: what the gateway needs to know, in one pass.
//!
//! Borrowed from the bytes, nothing is copied but the text that a tally keeps. Members are read
//! wherever they stand; a chunk without choices need not be the usage chunk (Azure's filter
//! results, xAI's citations). Invariant: a second `usage` makes the report suspect, so that no
//! count can hide behind another. Sources: `a-inbound` A.1.4, `b-outbound-chat` B.2 and B.4.

use std::ops::Range;

use super::choice::{self, Choices, Tally};
use super::fault;
use super::usage::{self, Report};
use crate::json::{Cursor, Error, Kind, Text, Value};

/// What a chunk or an answer says.
#[derive(Debug, Default)]
pub struct Reply<'a> {
    /// `None` when `choices` is missing or no array.
    pub choices: Option<Choices>,
    /// Whether `data` is there and an array (embeddings).
    pub has_embeddings: bool,
    /// What was consumed, from wherever it was reported.
    pub report: Report,
    /// Whether the member `usage` holds an object.
    pub has_usage: bool,
    /// The member `usage` with one comma: the bytes to leave out for a client that did not ask.
    pub usage_place: Option<Range<usize>>,
    /// The provider's id of the answer.
    pub id: Option<Text<'a>>,
    /// The tier that was really used.
    pub service_tier: Option<Text<'a>>,
    /// Whether this is an error and not an answer.
    pub is_fault: bool,
}

impl<'a> Reply<'a> {
    /// Reads a document. One that is not an object says nothing and is malformed.
    ///
    /// # Errors
    /// When it is not one JSON object.
    pub fn read(bytes: &'a [u8], tally: &mut Tally) -> Result<Self, Error> {
        let mut reply = Self::default();
        let mut cursor = Cursor::new(bytes);
        let mut spare = Report::default();
        let mut before = None;
        let mut open_place = false;
        let is_object = cursor.members(|cursor, name| {
            let name_at = cursor.name_offset();
            if let (true, Some(place)) = (open_place, &mut reply.usage_place) {
                place.end = name_at;
                open_place = false;
            }
            if name.raw() == b"usage" {
                if reply.usage_place.is_some() {
                    // The answer is good and paid for; only its report is not to be believed.
                    usage::read(cursor)?;
                    reply.report.suspect = true;
                    before = Some(cursor.offset());
                    return Ok(());
                }
                reply.has_usage = cursor.kind()? == Kind::Object;
                reply.report = usage::read(cursor)?;
                open_place = before.is_none();
                reply.usage_place = Some(before.unwrap_or(name_at)..cursor.offset());
            } else {
                reply.member(name, cursor, tally, &mut spare)?;
            }
            before = Some(cursor.offset());
            Ok(())
        })?;
        cursor.end()?;
        if !is_object {
            return Err(Error::Unexpected { offset: 0 });
        }
        if reply.report == Report::default() {
            let inner = reply.choices.map(|choices| choices.report).unwrap_or_default();
            reply.report = if spare == Report::default() { inner } else { spare };
        }
        Ok(reply)
    }

    /// Whether the chunk carries usage and nothing else that a client waits for: the last word
    /// on usage.
    pub fn stands_alone(&self) -> bool {
        self.has_usage && self.choices.is_none_or(|choices| choices.count == 0)
    }

    /// Whether this is an answer that ended because the provider failed.
    pub fn has_failed(&self) -> bool {
        self.choices.is_some_and(|choices| choices.failed)
    }

    /// Reads the value of a member other than `usage`.
    fn member(
        &mut self,
        name: Text<'a>,
        cursor: &mut Cursor<'a>,
        tally: &mut Tally,
        spare: &mut Report,
    ) -> Result<(), Error> {
        match name.raw() {
            b"choices" => self.choices = choice::read(cursor, tally)?,
            b"data" => self.has_embeddings = cursor.value()?.kind == Kind::Array,
            b"id" => self.id = cursor.value()?.text(),
            b"service_tier" => self.service_tier = cursor.value()?.text(),
            b"error" => self.is_fault |= is_told(&cursor.value()?),
            b"object" => {
                let object = cursor.value()?.text();
                self.is_fault |= object.is_some_and(|text| text.raw() == b"error");
            }
            b"base_resp" => self.is_fault |= fault::is_business_fault(cursor)?,
            b"x_groq" => {
                cursor.members(|cursor, name| match name.raw() {
                    b"usage" => {
                        *spare = usage::read(cursor)?;
                        Ok(())
                    }
                    _ => cursor.value().map(|_| ()),
                })?;
            }
            _ => {
                cursor.value()?;
            }
        }
        Ok(())
    }
}

/// Whether the value of `error` tells of one: proxies also send it empty next to an answer.
fn is_told(value: &Value<'_>) -> bool {
    !matches!(value.kind, Kind::Null | Kind::False) && !matches!(value.raw, b"\"\"" | b"{}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> (Reply<'_>, Tally) {
        let mut tally = Tally::keeping(1000);
        let reply = Reply::read(json.as_bytes(), &mut tally).unwrap();
        (reply, tally)
    }

    #[test]
    fn the_usage_member_leaves_valid_json_behind_wherever_it_stands() {
        for json in [
            r#"{"a":1,"usage":null}"#,
            r#"{"usage":null,"a":1}"#,
            r#"{ "usage" : {"x":[1]} , "a":1}"#,
            r#"{"a":1 , "usage":null , "b":2}"#,
            r#"{"usage":null}"#,
            r#"{"usage":null }"#,
        ] {
            let place = read(json).0.usage_place.unwrap();
            let mut left = json.to_owned();
            left.replace_range(place, "");
            let mut expected: serde_json::Value = serde_json::from_str(json).unwrap();
            expected.as_object_mut().unwrap().remove("usage");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&left).unwrap(), expected);
        }
    }

    #[test]
    fn a_second_usage_makes_the_report_suspect() {
        let json = br#"{"usage":null,"usage":null}"#;
        assert!(Reply::read(json, &mut Tally::default()).unwrap().report.suspect);
    }

    #[test]
    fn a_role_is_not_content_and_everything_shown_is() {
        let content = |delta: &str| {
            let json = format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#);
            let (_, tally) = read(Box::leak(json.into_boxed_str()));
            (tally.content, tally.text)
        };
        let none = (false, String::new());
        assert_eq!(content(r#"{"role":"assistant","content":""}"#), none);
        assert_eq!(
            content(r#"{"role":"assistant","content":null,"refusal":null,"tool_calls":[]}"#),
            none
        );
        assert_eq!(content(r#"{"content":"a\n"}"#), (true, "a\n".into()));
        assert_eq!(content(r#"{"refusal":"no"}"#), (true, "no".into()));
        assert_eq!(content(r#"{"reasoning_content":"hm"}"#), (true, "hm".into()));
        assert_eq!(
            content(
                r#"{"tool_calls":[{"index":0,"id":"c",
                "function":{"name":"f","arguments":"{\"a\":1}"}}]}"#
            ),
            (true, "f{\"a\":1}".into())
        );
        assert_eq!(
            content(
                r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"x"}]},
                {"type":"text","text":"y"}]}"#
            ),
            (true, "xy".into())
        );
        assert_eq!(content(r#"{"audio":{"data":"AAAA","transcript":"hi"}}"#), (true, "hi".into()));
    }

    #[test]
    fn usage_is_found_in_odd_places() {
        let usage = r#"{"prompt_tokens":3,"completion_tokens":2}"#;
        for json in [
            format!(r#"{{"choices":[],"usage":{usage}}}"#),
            format!(r#"{{"choices":[{{"delta":{{}},"usage":{usage}}}]}}"#),
            format!(r#"{{"choices":[],"x_groq":{{"id":"r","usage":{usage}}}}}"#),
        ] {
            let (reply, _) = read(Box::leak(json.into_boxed_str()));
            assert_eq!(reply.report.usage.unwrap().input_tokens(), 3);
        }
    }

    #[test]
    fn errors_are_told_from_empty_error_members() {
        for json in [
            r#"{"error":{"message":"x"}}"#,
            r#"{"error":"x"}"#,
            r#"{"object":"error"}"#,
            r#"{"base_resp":{"status_code":1008,"status_msg":"x"}}"#,
        ] {
            assert!(read(json).0.is_fault, "{json}");
        }
        for json in [
            r#"{"error":null}"#,
            r#"{"error":{}}"#,
            r#"{"error":""}"#,
            r#"{"base_resp":{"status_code":0}}"#,
        ] {
            assert!(!read(json).0.is_fault, "{json}");
        }
    }
}
