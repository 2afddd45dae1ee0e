//! Bodies of Gemini clients without the ids of their calls, which Vertex AI refused to know.
//!
//! Gemini's own API gives calls an id and wants it back with the result; Vertex answered 400 to
//! both until September 2026 and does not need them: results are matched by order and name.
//! Invariant: a body without such an id leaves with the client's own bytes. Source:
//! `github.com/pydantic/pydantic-ai/issues/5081`, `github.com/anomalyco/opencode/pull/50504` (read
//! November 2026).

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use crate::adapter::Encoded;
use crate::json::{Node, Outline};

/// The members that hold a call or its result, as Google spells them.
const HOLDERS: [&str; 4] =
    ["functionCall", "function_call", "functionResponse", "function_response"];

/// A request as it is, but for the ids.
pub(super) fn without(encoded: Encoded) -> Encoded {
    let has = |mark: &[u8]| encoded.body.iter().any(|part| memmem::find(part, mark).is_some());
    if !(has(b"\"id\"") && has(b"unction")) {
        return encoded;
    }
    let whole = encoded.body.concat();
    let cuts = Outline::of_request(&whole).map(|outline| cuts(outline.root())).unwrap_or_default();
    if cuts.is_empty() {
        return encoded;
    }
    let mut body = Vec::with_capacity(whole.len());
    let mut at = 0;
    for (place, text) in cuts {
        body.extend_from_slice(whole.get(at..place.start).unwrap_or_default());
        body.extend_from_slice(text.as_bytes());
        at = place.end;
    }
    body.extend_from_slice(whole.get(at..).unwrap_or_default());
    let mut dropped = encoded.dropped;
    dropped.note("contents.parts.id");
    Encoded { dropped, ..Encoded::new(encoded.path, vec![Bytes::from(body)]) }
}

/// Where calls and results with an id stand, and what they are without it.
fn cuts(root: Node<'_, '_>) -> Vec<(Range<usize>, String)> {
    // One content may stand without its list.
    let contents = root.get("contents").into_iter();
    let contents = contents.flat_map(|node| node.elements().chain([node]).collect::<Vec<_>>());
    let parts = contents.filter_map(|content| content.get("parts"));
    let parts = parts.flat_map(|node| node.elements().chain([node]).collect::<Vec<_>>());
    let members = parts.flat_map(|part| part.members().collect::<Vec<_>>());
    let calls = members.filter(|(name, _)| HOLDERS.contains(&&**name));
    calls.filter_map(|(_, call)| Some((call.range(), shortened(call)?))).collect()
}

/// An object without its id; `None` where it has none.
fn shortened(call: Node<'_, '_>) -> Option<String> {
    let members: Vec<_> = call.members().collect();
    let kept: Vec<_> = members.iter().filter(|(name, _)| name != "id").collect();
    if kept.len() == members.len() {
        return None;
    }
    let text = |(name, value): &(_, Node<'_, '_>)| {
        let name: &std::borrow::Cow<'_, str> = name;
        format!("{}:{}", serde_json::Value::from(&**name), value.raw())
    };
    let texts: Vec<String> = kept.into_iter().map(text).collect();
    Some(format!("{{{}}}", texts.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(body: &'static str) -> (String, String) {
        let (first, rest) = body.split_at(body.len() / 2);
        let encoded = without(Encoded::new("/", vec![first.into(), rest.into()]));
        let text = String::from_utf8(encoded.body.concat()).unwrap();
        assert_eq!(text.len(), encoded.content_length);
        (text, encoded.dropped.header())
    }

    #[test]
    fn ids_of_calls_and_results_go_and_everything_else_stays() {
        let body = concat!(
            r#" { "contents":[ {"role":"model","parts":[{"functionCall":{"id":"a","name":"f","#,
            r#""args": {"id":"x"}},"thoughtSignature":"S"}]},{"parts":{"function_response":"#,
            r#"{"name":"f","response":{"id":1.0},"id":"a"}}} ], "id" : 7}"#
        );
        let expected = concat!(
            r#" { "contents":[ {"role":"model","parts":[{"functionCall":{"name":"f","#,
            r#""args":{"id":"x"}},"thoughtSignature":"S"}]},{"parts":{"function_response":"#,
            r#"{"name":"f","response":{"id":1.0}}}} ], "id" : 7}"#
        );
        assert_eq!(sent(body), (expected.to_owned(), "contents.parts.id".to_owned()));
    }

    #[test]
    fn a_body_without_ids_of_calls_leaves_as_it_came() {
        for body in [
            r#"{"contents":[{"parts":[{"functionCall":{"name":"id","args":{"id":1}}}]}]}"#,
            r#"{"contents":[{"parts":[{"text":"functionCall \"id\""}]}],"id":"function"}"#,
            r#"{"contents":[{"parts":"id"}], "id" :"function"}"#,
        ] {
            assert_eq!(sent(body), (body.to_owned(), String::new()));
        }
    }
}
