//! Turns, written as contents.
//!
//! Results must be objects, so that text is wrapped; each answers with the name of its call.
//! Models from the third generation on refuse calls without a signature: where none was kept, the
//! placeholder that Google documents stands in. Invariant: signatures of another issuer never
//! leave. Sources: `b-outbound-chat` B.3, `c-conversion` C.3 to C.5.

use std::collections::BTreeMap;

use super::request_out::Target;
use crate::canonical::{
    Body, Dropped, Issuer, Part, Refusal, Role, Source, ToolResult, Turn, plain_text,
};
use crate::dialect::anthropic::arguments;
use crate::json::{Kind, Outline, Writer};

/// What Google accepts in the place of a signature that got lost.
const SIGNATURE_LOST: &str = "skip_thought_signature_validator";

/// What stands for a turn of nothing, which is refused.
const SILENCE: &str = ".";

/// Writes all contents into an open array.
pub(super) fn write(
    w: &mut Writer,
    turns: &[Turn<'_>],
    target: Target<'_>,
    dropped: &mut Dropped,
) -> Result<(), Refusal> {
    // By id the call that came last before the result: a client may have repeated an id.
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for turn in turns {
        let mut needs_signature = target.is_newer;
        w.object();
        w.key("role").string(if turn.role == Role::Assistant { "model" } else { "user" });
        w.key("parts").array();
        let mut media = Vec::new();
        if !turn.parts.iter().any(says) {
            w.object();
            w.key("text").string(SILENCE);
            w.end_object();
        }
        for part in &turn.parts {
            if part.as_result().is_none() {
                shown(w, &mut media, target, dropped)?;
            }
            dropped.note_if(part.cache.is_some(), "cache_control");
            let is_foreign = part.signature.is_some() && part.signed_by(Issuer::Google).is_none();
            dropped.note_if(is_foreign, "messages.content.signature");
            if part.as_text() == Some("") && part.signature.is_none() {
                continue;
            }
            if is_foreign_thought(part) {
                dropped.note("messages.content.thinking");
                continue;
            }
            if let Some(call) = part.as_call() {
                names.insert(&call.id, &call.name);
            }
            w.object();
            if let Some(result) = part.as_result() {
                let name = names.get(&*result.id).copied().unwrap_or_default();
                tool_result(w, result, name, target);
                media.extend(result.content.iter().filter(|part| part.as_text().is_none()));
            } else {
                members(w, part, target, dropped)?;
            }
            let own = part.signed_by(Issuer::Google);
            let is_call = part.as_call().is_some();
            let made_up = (is_call && needs_signature).then_some(SIGNATURE_LOST);
            // The first call of a turn stands for all.
            needs_signature &= !is_call;
            w.maybe("thoughtSignature", own.or(made_up));
            w.end_object();
        }
        shown(w, &mut media, target, dropped)?;
        w.end_array();
        w.end_object();
    }
    Ok(())
}

/// Writes what tools have shown beside their words: parts behind all results of the turn, since
/// results themselves hold JSON only.
fn shown(
    w: &mut Writer,
    media: &mut Vec<&Part<'_>>,
    target: Target<'_>,
    dropped: &mut Dropped,
) -> Result<(), Refusal> {
    for part in media.drain(..) {
        dropped.note_if(part.cache.is_some(), "cache_control");
        w.object();
        members(w, part, target, dropped)?;
        w.end_object();
    }
    Ok(())
}

/// Whether a part goes out.
fn says(part: &Part<'_>) -> bool {
    !(is_foreign_thought(part) || (part.as_text() == Some("") && part.signature.is_none()))
}

/// Whether the part is thoughts that Google did not have.
fn is_foreign_thought(part: &Part<'_>) -> bool {
    matches!(part.body, Body::Redacted(_))
        || (part.as_thought().is_some() && part.signed_by(Issuer::Google).is_none())
}

fn members(
    w: &mut Writer,
    part: &Part<'_>,
    target: Target<'_>,
    dropped: &mut Dropped,
) -> Result<(), Refusal> {
    match &part.body {
        Body::Text(text) | Body::Refusal(text) => w.key("text").string(text),
        Body::Document(Source::Plain(text), name) => {
            dropped.note_if(name.is_some(), "messages.content.document.title");
            w.key("text").string(text);
        }
        Body::Reasoning(text) => {
            w.key("text").string(text);
            w.key("thought").flag(true);
        }
        Body::Image(source, detail) => {
            dropped.note_if(detail.is_some(), "messages.content.image_url.detail");
            medium(w, source, "image/jpeg");
        }
        Body::Document(source, name) => {
            dropped.note_if(name.is_some(), "messages.content.file.filename");
            medium(w, source, "application/pdf");
        }
        Body::Audio(sound, format) => {
            w.key("inlineData").object();
            w.key("mimeType").strings(&["audio/", format]);
            w.key("data").string(sound);
            w.end_object();
        }
        Body::ToolUse(call) => {
            w.key("functionCall").object();
            w.maybe("id", target.takes_ids.then_some(&*call.id));
            w.key("name").string(&call.name);
            w.key("args");
            arguments(w, &call.arguments);
            w.end_object();
        }
        Body::Redacted(_) | Body::ToolResult(_) => {
            return Err(Refusal::unsupported("messages.content"));
        }
    }
    Ok(())
}

fn medium(w: &mut Writer, source: &Source<'_>, fallback: &str) {
    match source {
        Source::Base64 { media_type, content } => {
            w.key("inlineData").object();
            w.key("mimeType").string(media_type);
            w.key("data").string(content);
            w.end_object();
        }
        Source::Url(url) => {
            w.key("fileData").object();
            w.key("mimeType").string(media_type_of(url).unwrap_or(fallback));
            w.key("fileUri").string(url);
            w.end_object();
        }
        Source::Plain(text) => w.key("text").string(text),
    }
}

/// The type that a URL's ending tells of.
fn media_type_of(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let ending = path.rsplit('.').next()?.to_ascii_lowercase();
    let found = match &*ending {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "heic" => "image/heic",
        "pdf" => "application/pdf",
        _ => return None,
    };
    Some(found)
}

fn tool_result(w: &mut Writer, result: &ToolResult<'_>, name: &str, target: Target<'_>) {
    w.key("functionResponse").object();
    w.maybe("id", target.takes_ids.then_some(&*result.id));
    w.key("name").string(name);
    w.key("response");
    let text = plain_text(&result.content);
    let is_object = text.trim_start().starts_with('{')
        && Outline::read(text.as_bytes()).is_ok_and(|read| read.root().kind() == Kind::Object);
    if is_object && !result.is_error {
        w.raw(text.trim());
    } else {
        w.object();
        w.key(if result.is_error { "error" } else { "result" }).string(&text);
        w.end_object();
    }
    w.end_object();
}
