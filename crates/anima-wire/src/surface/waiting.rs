//! Streams whose head is out and whose answer has not begun: signs of life, and refusals.
//!
//! Not here: when they are sent. Invariant: a sign of life is no event of the answer in any
//! client's reading, and a refusal is the format's error event with the words of the refusal.
//! Source: `wire-conventions` 4.6.

use bytes::Bytes;
use serde_json::{Value, json};

use super::bytes_of;
use crate::dialect::Dialect;

/// Says that the call still waits. Anthropic has an event for it. Google's libraries take a comment
/// for a broken event, and skip blank lines. Everybody else's skip comments.
pub const fn sign_of_life(dialect: Dialect) -> &'static [u8] {
    match dialect {
        Dialect::OpenAiChat | Dialect::Responses => b": waiting\n\n",
        Dialect::Anthropic => b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
        Dialect::Gemini => b"\n\n",
    }
}

/// The event that says what the body of an error would have said. No terminator follows.
pub fn error_event(dialect: Dialect, body: &[u8]) -> Bytes {
    let (open, body): (&[u8], Bytes) = match dialect {
        Dialect::OpenAiChat | Dialect::Gemini => (b"data: ", Bytes::copy_from_slice(body)),
        Dialect::Anthropic => (b"event: error\ndata: ", Bytes::copy_from_slice(body)),
        Dialect::Responses => (b"event: error\ndata: ", flattened(body)),
    };
    Bytes::from([open, body.as_ref(), b"\n\n"].concat())
}

/// An event of Responses has its members at the top.
fn flattened(body: &[u8]) -> Bytes {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let of = |name: &str| body.pointer(&format!("/error/{name}")).cloned().unwrap_or_default();
    bytes_of(&json!({
        "type": "error",
        "code": of("code"),
        "message": of("message"),
        "param": of("param"),
        "anima": body.get("anima"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_in_the_words_of_its_body() {
        let body = br#"{"error":{"message":"m","type":"t","code":"c"},"anima":{"reason":"r"}}"#;
        let text = |dialect| String::from_utf8(error_event(dialect, body).to_vec()).unwrap();
        let chat = text(Dialect::OpenAiChat);
        assert_eq!(chat, format!("data: {}\n\n", String::from_utf8_lossy(body)));
        let flat = text(Dialect::Responses);
        let payload = flat.strip_prefix("event: error\ndata: ").unwrap();
        let payload: Value = serde_json::from_str(payload.trim_end()).unwrap();
        assert_eq!((&payload["type"], &payload["code"]), (&json!("error"), &json!("c")));
        assert_eq!((&payload["message"], &payload["anima"]["reason"]), (&json!("m"), &json!("r")));
        assert!(text(Dialect::Anthropic).starts_with("event: error\ndata: {"));
    }
}
