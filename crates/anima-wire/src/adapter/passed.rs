//! Bodies that go out in the client's own dialect, without what another provider has left in them.
//!
//! After a fallback a client sends back thoughts that were signed elsewhere, under our tag. Who
//! did not sign them refuses the whole conversation, for good. Only bodies that hold such a mark
//! are read again; of these only the marked parts change, and the caller is told. Invariant: a
//! body without a mark leaves with the client's own bytes. Source: `c-conversion` C.5.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memmem;

use super::Encoded;
use crate::canonical::{Dropped, Issuer};
use crate::dialect::Dialect;
use crate::json::{Kind, Node, Outline};

/// What begins every tag of ours.
const TAG: &[u8] = b"anima.";

/// Signatures as clients of Anthropic's get them where there is none, however they write it.
const UNSIGNED: [&[u8]; 2] = [br#""signature":"""#, br#""signature": """#];

/// How the ids of items begin in an answer that was written here; `OpenAI`'s go on for long.
const ITEMS: [&str; 4] = ["rs_", "msg_", "fc_", "ig_"];
const ITEM_DIGITS_MAX: usize = 4;

/// What Google accepts in the place of a signature that got lost.
const SIGNATURE_LOST: &str = r#""skip_thought_signature_validator""#;

/// The members that hold a signature.
const SIGNATURES: [&str; 5] =
    ["signature", "data", "thoughtSignature", "thought_signature", "encrypted_content"];

/// What passes as it came, where it has no marks.
pub(super) fn passed(
    path: impl Into<Cow<'static, str>>,
    dialect: Dialect,
    segments: Vec<Bytes>,
) -> Encoded {
    if !segments.iter().any(|segment| is_marked(dialect, segment)) {
        return Encoded::new(path, segments);
    }
    let whole = segments.concat();
    let mut cleaner = Cleaner { dialect, dropped: Dropped::default() };
    match Outline::of_request(&whole).ok().and_then(|outline| cleaner.body(outline.root())) {
        Some(body) => {
            let encoded = Encoded::new(path, vec![Bytes::from(body)]);
            Encoded { dropped: cleaner.dropped, ..encoded }
        }
        None => Encoded::new(path, segments),
    }
}

/// Whether there may be something to take out.
fn is_marked(dialect: Dialect, text: &[u8]) -> bool {
    let has = |mark: &[u8]| memmem::find(text, mark).is_some();
    has(TAG)
        || match dialect {
            Dialect::Anthropic => UNSIGNED.into_iter().any(has),
            Dialect::Responses => ITEMS.iter().any(|prefix| has_item(text, prefix)),
            Dialect::OpenAiChat | Dialect::Gemini => false,
        }
}

/// Whether a string of the text is the id of an item of ours.
fn has_item(text: &[u8], prefix: &str) -> bool {
    memmem::find_iter(text, prefix).any(|at| {
        let starts = at.checked_sub(1).and_then(|before| text.get(before)) == Some(&b'"');
        let rest = text.get(at + prefix.len()..).unwrap_or_default();
        let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        starts && (1..=ITEM_DIGITS_MAX).contains(&end) && rest.get(end) == Some(&b'"')
    })
}

fn is_own_item(node: Node<'_, '_>) -> bool {
    ITEMS.iter().any(|prefix| has_item(node.raw().as_bytes(), prefix))
}

/// Whether a text is a signature under our tag.
fn is_tagged(node: Node<'_, '_>) -> bool {
    node.text().is_some_and(|text| Issuer::of_tag(&text).is_some())
}

struct Cleaner {
    dialect: Dialect,
    dropped: Dropped,
}

impl Cleaner {
    /// The body without foreign marks; `None` when it has none after all.
    fn body(&mut self, root: Node<'_, '_>) -> Option<String> {
        let turns = match self.dialect {
            Dialect::OpenAiChat | Dialect::Anthropic => "messages",
            Dialect::Gemini => "contents",
            Dialect::Responses => "input",
        };
        let node = root.get(turns)?;
        let cleaned = self.value(turns, node).unwrap_or(Cow::Borrowed("[]"));
        if self.dropped.is_empty() {
            return None;
        }
        let (start, end) = (node.range().start, node.range().end);
        let text = root.raw();
        let offset = root.range().start;
        let before = text.get(..start - offset)?;
        let after = text.get(end - offset..)?;
        Some([before, &cleaned, after].concat())
    }

    /// A value as it goes out; `None` for one that does not.
    fn value<'a>(&mut self, name: &str, node: Node<'_, 'a>) -> Option<Cow<'a, str>> {
        let raw = node.raw();
        let whole = Some(Cow::Borrowed(raw));
        if !is_marked(self.dialect, raw.as_bytes()) {
            return whole;
        }
        match node.kind() {
            Kind::String if SIGNATURES.contains(&name) && is_tagged(node) => {
                self.dropped.note("messages.content.signature");
                None
            }
            Kind::Object if self.is_foreign(node) => {
                self.dropped.note("messages.content.thinking");
                None
            }
            Kind::Object => self.object(node),
            Kind::Array => {
                let elements = node.elements();
                let kept: Vec<_> =
                    elements.map(|element| (element, self.value("", element))).collect();
                rebuilt(node, kept)
            }
            Kind::Null | Kind::False | Kind::True | Kind::Number | Kind::String => whole,
        }
    }

    fn object<'a>(&mut self, node: Node<'_, 'a>) -> Option<Cow<'a, str>> {
        let is_item = self.dialect == Dialect::Responses && node.get("type").is_some();
        let is_call = node.get("functionCall").or_else(|| node.get("function_call")).is_some();
        let mut kept = Vec::new();
        for (name, member) in node.members() {
            let raw = Cow::Borrowed(member.raw());
            let value = match &*name {
                // What a tool was given and what it said is nobody's signature.
                "input" | "args" | "response" | "arguments" | "output" => Some(raw),
                "id" if is_item && is_own_item(member) => {
                    self.dropped.note("input.id");
                    None
                }
                "thoughtSignature" | "thought_signature" if is_call && is_tagged(member) => {
                    self.dropped.note("messages.content.signature");
                    Some(Cow::Borrowed(SIGNATURE_LOST))
                }
                "content" | "parts" => Some(self.value(&name, member)?),
                _ => self.value(&name, member),
            };
            kept.push((member, value));
        }
        rebuilt(node, kept)
    }

    /// Whether an object is thoughts that another provider had.
    fn is_foreign(&self, node: Node<'_, '_>) -> bool {
        let kind = node.text_of("type").unwrap_or_default();
        let tagged = |name: &str| node.get(name).is_some_and(is_tagged);
        let is_thought = node.get("thought").and_then(|flag| flag.flag()) == Some(true);
        match &*kind {
            "thinking" if self.dialect == Dialect::Anthropic => {
                tagged("signature") || node.get("signature").is_none_or(|node| node.is(""))
            }
            "thinking" => tagged("signature"),
            "redacted_thinking" => tagged("data"),
            "reasoning" => tagged("encrypted_content") || node.get("id").is_some_and(is_own_item),
            _ => is_thought && (tagged("thoughtSignature") || tagged("thought_signature")),
        }
    }
}

/// A container with what is left of its values; `None` when nothing is. What stands between the
/// values stays with the one behind it.
fn rebuilt<'a>(
    node: Node<'_, 'a>,
    values: Vec<(Node<'_, 'a>, Option<Cow<'a, str>>)>,
) -> Option<Cow<'a, str>> {
    let raw = node.raw();
    let offset = node.range().start;
    if values.iter().all(|(child, value)| value.as_deref() == Some(child.raw())) {
        return Some(Cow::Borrowed(raw));
    }
    let mut out = String::with_capacity(raw.len());
    out.push_str(raw.get(..1)?);
    let mut at = 1;
    let mut is_first = true;
    for (child, value) in values {
        let range = child.range();
        let gap = raw.get(at..range.start - offset)?;
        at = range.end - offset;
        let Some(value) = value else { continue };
        let gap = if is_first { gap.trim_start().trim_start_matches(',') } else { gap };
        if !is_first && !gap.trim_start().starts_with(',') {
            out.push(',');
        }
        out.push_str(gap);
        out.push_str(&value);
        is_first = false;
    }
    out.push_str(raw.get(at..)?);
    (!is_first).then_some(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The body, and what is said of it.
    fn sent(dialect: Dialect, body: &Value) -> (Value, String) {
        let text = serde_json::to_string_pretty(body).unwrap();
        let (first, rest) = text.split_once(':').unwrap();
        let segments = vec![format!("{first}:").into(), rest.to_owned().into()];
        let encoded = passed("/", dialect, segments);
        let body = encoded.body.concat();
        assert_eq!(body.len(), encoded.content_length);
        (serde_json::from_slice(&body).unwrap(), encoded.dropped.header())
    }

    #[test]
    fn a_body_without_marks_leaves_as_it_came() {
        let body = r#"{ "messages" :[{"role":"user","content":"anima, animal; rs_0"}]}"#;
        for dialect in
            [Dialect::Anthropic, Dialect::OpenAiChat, Dialect::Gemini, Dialect::Responses]
        {
            let encoded = passed("/", dialect, vec![body.into()]);
            assert_eq!((encoded.body, encoded.dropped.is_empty()), (vec![body.into()], true));
        }
    }

    #[test]
    fn a_text_of_the_users_own_with_our_tag_stays() {
        let block = json!({"type": "text", "text": "what is anima.google.abc?"});
        let call = json!({"type": "tool_use", "id": "t", "name": "f",
            "input": {"signature": "anima.google.abc", "type": "thinking"}});
        let body = json!({"messages": [{"role": "user", "content": [block, call]}]});
        assert_eq!(sent(Dialect::Anthropic, &body), (body, String::new()));
    }

    #[test]
    fn anthropic_gets_no_thoughts_that_it_did_not_sign() {
        let thought =
            |sealed: &str| json!({"type": "thinking", "thinking": "", "signature": sealed});
        let text = json!({"type": "text", "text": "so"});
        let body = |content: Value| {
            json!({"model": "m", "messages": [{"role": "user", "content": "q"}, content,
                {"role": "user", "content": "and?"}]})
        };
        let said = |blocks: Value| json!({"role": "assistant", "content": blocks});
        for foreign in [
            thought("anima.google.Cg=="),
            thought(""),
            json!({"type": "redacted_thinking", "data": "anima.openai.x"}),
        ] {
            let own = thought("EqQB");
            let (found, dropped) =
                sent(Dialect::Anthropic, &body(said(json!([foreign, own, text, foreign]))));
            assert_eq!(found, body(said(json!([own, text]))), "{foreign}");
            assert_eq!(dropped, "messages.content.thinking");
            let (found, _) = sent(Dialect::Anthropic, &body(said(json!([foreign]))));
            assert_eq!(found["messages"].as_array().unwrap().len(), 2, "no turn without content");
        }
    }

    #[test]
    fn gemini_gets_a_placeholder_for_calls_and_no_foreign_thoughts() {
        let call = json!({"name": "f", "args": {}});
        let part = |signature: &str| json!({"functionCall": call, "thoughtSignature": signature});
        let sealed = "anima.anthropic.E";
        let thought = json!({"text": "hm", "thought": true, "thoughtSignature": sealed});
        let text = json!({"text": "so", "thoughtSignature": sealed});
        let body = json!({"contents": [{"role": "model", "parts":
            [thought, text, part("anima.openai.x"), part("CgYK")]}]});
        let (found, dropped) = sent(Dialect::Gemini, &body);
        let lost = part("skip_thought_signature_validator");
        let expected = json!([{"text": "so"}, lost, part("CgYK")]);
        assert_eq!(found["contents"][0]["parts"], expected);
        assert_eq!(dropped, "messages.content.signature,messages.content.thinking");
    }

    #[test]
    fn responses_get_no_items_that_were_made_here() {
        let message = |id: Value| {
            let mut item = json!({"type": "message", "role": "assistant", "content": []});
            if !id.is_null() {
                item["id"] = id;
            }
            item
        };
        let reasoning = |id: &str, sealed: &str| {
            let mut item = json!({"type": "reasoning", "id": id, "summary": []});
            item["encrypted_content"] = json!(sealed);
            item
        };
        let own = reasoning("rs_0682a1f3bc", "gAAAA");
        let body = json!({"model": "m", "input": [reasoning("rs_0", "anima.anthropic.x"), own,
            reasoning("rs_7f31", "anima.google.y"), message(json!("msg_1")),
            message(json!("msg_0682a1f3bc"))]});
        let (found, dropped) = sent(Dialect::Responses, &body);
        let left = json!([own, message(Value::Null), message(json!("msg_0682a1f3bc"))]);
        assert_eq!(found["input"], left);
        assert_eq!(dropped, "input.id,messages.content.thinking");
    }

    #[test]
    fn chats_get_no_blocks_of_others() {
        let block = json!({"type": "thinking", "thinking": "x", "signature": "anima.google.C"});
        let body = |message: Value| json!({"messages": [message]});
        let (found, dropped) = sent(
            Dialect::OpenAiChat,
            &body(json!({"role": "assistant", "content": "so", "thinking_blocks": [block]})),
        );
        assert_eq!(found, body(json!({"role": "assistant", "content": "so"})));
        assert_eq!(dropped, "messages.content.thinking");
    }
}
