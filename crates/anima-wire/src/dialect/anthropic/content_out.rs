//! Parts, written as blocks, and turns as messages.
//!
//! Meets the rules that otherwise end in a 400: no empty text, no white space at the end of what
//! the model is to continue, ids of a plain alphabet, the user first. Invariant: thoughts go to
//! Anthropic only with Anthropic's own signature. Sources: `b-outbound-chat` B.3, `c-conversion`
//! C.3 to C.5.

use std::borrow::Cow;

use super::request_out::{OWN, cache};
use crate::canonical::{Body, Dropped, Part, Refusal, Role, Signature, Source, ToolUse, Turn};
use crate::json::{Kind, Outline, Writer};

/// What the user says first when the conversation begins with the model, and what stands for a
/// turn of nothing.
const FIRST_WORD: &str = ".";

/// Writes all messages into an open array.
pub(super) fn messages(
    w: &mut Writer,
    turns: &[Turn<'_>],
    dropped: &mut Dropped,
) -> Result<(), Refusal> {
    if turns.first().is_some_and(|turn| turn.role == Role::Assistant) {
        w.object();
        w.key("role").string("user");
        w.key("content").string(FIRST_WORD);
        w.end_object();
    }
    for (at, turn) in turns.iter().enumerate() {
        let is_user = turn.role == Role::User;
        let is_last = at + 1 == turns.len();
        w.object();
        w.key("role").string(if is_user { "user" } else { "assistant" });
        w.key("content").array();
        for part in &turn.parts {
            match part.as_text() {
                Some("") => {}
                Some(text) if is_last && !is_user => {
                    let rest = text.trim_end();
                    if !rest.is_empty() {
                        block(w, &Part { body: Body::Text(rest.into()), ..part.clone() }, dropped)?;
                    }
                }
                _ => block(w, part, dropped)?,
            }
        }
        // What the model is to continue may be nothing yet; all else is refused without a block.
        if !turn.parts.iter().any(says) && (is_user || !is_last) {
            block(w, &Part::text(FIRST_WORD), dropped)?;
        }
        w.end_array();
        w.end_object();
    }
    Ok(())
}

/// Whether a part becomes a block.
fn says(part: &Part<'_>) -> bool {
    match &part.body {
        Body::Text(text) | Body::Refusal(text) => !text.is_empty(),
        Body::Reasoning(_) | Body::Redacted(_) => is_own_thought(part),
        Body::Image(..)
        | Body::Audio(..)
        | Body::Document(..)
        | Body::ToolUse(_)
        | Body::ToolResult(_) => true,
    }
}

/// Whether the part is thoughts that Anthropic will know again.
pub(super) fn is_own_thought(part: &Part<'_>) -> bool {
    if let Body::Redacted(sealed) = &part.body {
        return sealed.issuer == OWN;
    }
    part.as_thought().is_some() && part.signed_by(OWN).is_some()
}

/// Writes one block.
pub(super) fn block(w: &mut Writer, part: &Part<'_>, dropped: &mut Dropped) -> Result<(), Refusal> {
    if matches!(part.body, Body::Reasoning(_) | Body::Redacted(_)) {
        if is_own_thought(part) {
            thought(w, part);
        } else {
            dropped.note("messages.content.thinking");
        }
        return Ok(());
    }
    dropped.note_if(part.signature.is_some(), "messages.content.signature");
    w.object();
    members(w, part, dropped)?;
    if let Some(kept) = part.cache {
        cache(w, kept);
    }
    w.end_object();
    Ok(())
}

fn members(w: &mut Writer, part: &Part<'_>, dropped: &mut Dropped) -> Result<(), Refusal> {
    match &part.body {
        Body::Text(text) | Body::Refusal(text) => {
            w.key("type").string("text");
            w.key("text").string(text);
        }
        Body::Image(image, detail) => {
            dropped.note_if(detail.is_some(), "messages.content.image_url.detail");
            w.key("type").string("image");
            source(w, image);
        }
        Body::Document(document, name) => {
            w.key("type").string("document");
            source(w, document);
            w.maybe("title", name.as_deref());
        }
        Body::ToolUse(call) => tool_use(w, call),
        Body::ToolResult(result) => {
            w.key("type").string("tool_result");
            w.key("tool_use_id").string(&plain_id(&result.id));
            w.key("content").array();
            for part in result.content.iter().filter(|part| part.as_text() != Some("")) {
                block(w, part, dropped)?;
            }
            w.end_array();
            if result.is_error {
                w.key("is_error").flag(true);
            }
        }
        Body::Audio(..) => return Err(Refusal::unsupported("messages.content.input_audio")),
        Body::Reasoning(_) | Body::Redacted(_) => {}
    }
    Ok(())
}

/// Writes signed or sealed thoughts of Anthropic's own.
fn thought(w: &mut Writer, part: &Part<'_>) {
    if let Body::Redacted(sealed) = &part.body {
        redacted_block(w, sealed);
    } else if let Some(signature) = &part.signature {
        thinking_block(w, part.as_thought().unwrap_or_default(), Some(signature));
    }
}

/// Writes thoughts; what is not signed has an empty signature, since SDKs insist on one.
pub(super) fn thinking_block(w: &mut Writer, text: &str, signature: Option<&Signature<'_>>) {
    w.object();
    w.key("type").string("thinking");
    w.key("thinking").string(text);
    w.key("signature").strings(&signature.map_or(["", ""], |made| made.written(OWN)));
    w.end_object();
}

/// Writes sealed thoughts.
pub(super) fn redacted_block(w: &mut Writer, sealed: &Signature<'_>) {
    w.object();
    w.key("type").string("redacted_thinking");
    w.key("data").strings(&sealed.written(OWN));
    w.end_object();
}

/// Writes the members of a call.
pub(super) fn tool_use(w: &mut Writer, call: &ToolUse<'_>) {
    w.key("type").string("tool_use");
    w.key("id").string(&plain_id(&call.id));
    w.key("name").string(&call.name);
    w.key("input");
    arguments(w, &call.arguments);
}

/// Writes arguments as the object that they should be.
pub(crate) fn arguments(w: &mut Writer, arguments: &str) {
    let text = arguments.trim();
    if text.is_empty() || text == "null" {
        return w.raw("{}");
    }
    let outline = Outline::read(text.as_bytes());
    if outline.is_ok_and(|outline| outline.root().kind() == Kind::Object) {
        return w.raw(text);
    }
    w.object();
    w.key("_raw").string(arguments);
    w.end_object();
}

/// An id in the alphabet that is accepted.
pub(crate) fn plain_id(id: &str) -> Cow<'_, str> {
    let is_plain = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '_' | '-');
    if id.chars().all(is_plain) {
        return Cow::Borrowed(id);
    }
    id.chars().map(|sign| if is_plain(sign) { sign } else { '_' }).collect()
}

fn source(w: &mut Writer, source: &Source<'_>) {
    w.key("source").object();
    match source {
        Source::Base64 { media_type, content } => {
            w.key("type").string("base64");
            w.key("media_type").string(media_type);
            w.key("data").string(content);
        }
        Source::Url(url) => {
            w.key("type").string("url");
            w.key("url").string(url);
        }
        Source::Plain(text) => {
            w.key("type").string("text");
            w.key("media_type").string("text/plain");
            w.key("data").string(text);
        }
    }
    w.end_object();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut w = Writer::default();
        arguments(&mut w, text);
        String::from_utf8(w.finish().to_vec()).unwrap()
    }

    #[test]
    fn arguments_are_an_object_whatever_the_model_wrote() {
        for (text, expected) in [
            ("", "{}"),
            (" ", "{}"),
            ("null", "{}"),
            (r#" {"a": 1} "#, r#"{"a": 1}"#),
            ("{oops", r#"{"_raw":"{oops"}"#),
            ("[1]", r#"{"_raw":"[1]"}"#),
        ] {
            assert_eq!(written(text), expected, "{text:?}");
        }
    }

    #[test]
    fn ids_have_a_plain_alphabet() {
        assert_eq!(plain_id("call_1-A"), "call_1-A");
        assert_eq!(plain_id("a:b.ü"), "a_b__");
    }
}
