//! The pictures that a request shows, wherever its dialect has them.
//!
//! So that the truth log can say that they arrived: a gateway that loses one answers all the same.
//! Invariant: what is told is the picture's own base64 or address, the same in every dialect.
//! Sources: the vendors' API references, as of November 2026.

use serde_json::Value;

/// Characters of a picture that are told; one of a pixel has a hundred.
const CHARS_MAX: usize = 256;

/// Members that hold messages, parts, and parts of results.
const WITHIN: [&str; 9] = [
    "messages",
    "input",
    "contents",
    "content",
    "parts",
    "output",
    "functionResponse",
    "function_response",
    "toolResult",
];

/// The pictures of a body, in order.
pub(super) fn of(body: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(body, &mut found);
    found
}

/// A picture that is told by an address, which may hold it.
pub(super) fn told(address: &str) -> String {
    let own = address.split_once(";base64,").map_or(address, |(_, base64)| base64);
    own.chars().take(CHARS_MAX).collect()
}

fn walk(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| walk(value, found)),
        Value::Object(members) => {
            found.extend(shown(value).map(told));
            let within = WITHIN.iter().filter_map(|name| members.get(*name));
            within.for_each(|value| walk(value, found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What a part shows: Chat's and Responses' address, Anthropic's source, Gemini's data, or
/// Converse's bytes.
fn shown(part: &Value) -> Option<&str> {
    let is_picture = |data: &Value| {
        let names = ["media_type", "mimeType", "mime_type"];
        let mut kinds = names.iter().filter_map(|name| data.get(*name)?.as_str());
        kinds.any(|kind| kind.starts_with("image/"))
    };
    let address = part.get("image_url").map(|url| url.get("url").unwrap_or(url));
    let source = part.get("source").filter(|_| part.get("type").is_some_and(|t| t == "image"));
    let source = source.and_then(|source| source.get("data").or_else(|| source.get("url")));
    let data = ["inlineData", "inline_data"].iter().find_map(|name| part.get(*name));
    let data = data.filter(|data| is_picture(data)).and_then(|data| data.get("data"));
    let bytes = part.pointer("/image/source/bytes");
    address.or(source).or(data).or(bytes)?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_picture_is_found_in_every_dialect() {
        let url = "data:image/png;base64,AAAA";
        let own = |part: &Value, list: &str, parts: &str| {
            let turn = json!({"role": "user", parts: [{"text": "Look."}, part]});
            of(&json!({list: [turn]}))
        };
        for (part, list, parts) in [
            (json!({"image_url": {"url": url}}), "messages", "content"),
            (json!({"type": "input_image", "image_url": url}), "input", "content"),
            (
                json!({"type": "image", "source": {"media_type": "image/png", "data": "AAAA"}}),
                "messages",
                "content",
            ),
            (json!({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}), "contents", "parts"),
            (
                json!({"image": {"format": "png", "source": {"bytes": "AAAA"}}}),
                "messages",
                "content",
            ),
        ] {
            assert_eq!(own(&part, list, parts), ["AAAA"], "{part}");
        }
        let document = json!({"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}});
        assert!(own(&document, "contents", "parts").is_empty());
        let address = json!({"type": "image", "source": {"type": "url", "url": "https://a/b.png"}});
        assert_eq!(own(&address, "messages", "content"), ["https://a/b.png"]);
        let result = json!({"type": "tool_result", "content": [address]});
        assert_eq!(own(&result, "messages", "content"), ["https://a/b.png"]);
        assert_eq!(told(&"a".repeat(1000)).len(), CHARS_MAX);
    }
}
