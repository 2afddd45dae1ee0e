//! A body of another dialect than OpenAI's chat: what the gateway decides by, and how large it is.
//!
//! Not its meaning, which is read only if it must be converted. Media are known by their place, a
//! member of a known name, and never by how a string looks. Invariant: as for OpenAI's dialect, no
//! member that decides about money or routing can stand twice or in disguise.
//! Sources: `a-inbound` A.2 and A.3, `f-tokens` F.3 and F.5.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;

use super::draft::folds_to;
use super::rewrite::{Limits, Places, UsageOption};
use super::{Error, dearer};
use crate::dialect::Dialect;
use crate::dialect::gemini::either;
use crate::json::{Kind, Misfit, Node, Outline};
use crate::tokens::{Counter, MEDIA_PART, MESSAGE_OVERHEAD};

/// Members that decide about money or routing.
const OWNED: &[&str] = &[
    "model",
    "stream",
    "max_tokens",
    "max_output_tokens",
    "messages",
    "tools",
    "contents",
    "input",
    "system",
    "instructions",
    "generationConfig",
    "generation_config",
    "service_tier",
    "serviceTier",
];

/// Members whose strings are the bytes of a medium, or its address.
const MEDIA: &[&str] = &["data", "file_data", "image_url", "url", "fileUri", "file_uri"];

/// Members whose strings no model reads.
const SEALED: &[&str] =
    &["signature", "thoughtSignature", "thought_signature", "encrypted_content"];

/// Members of `Responses` that make a call dearer than it looks, or reach what another customer of
/// the same account has stored: a conversation that the provider keeps, a template of its own, a
/// job that is paid for and answered with nothing. Refused whoever serves.
const KEPT_ELSEWHERE: &[&str] = &["previous_response_id", "conversation", "background", "prompt"];

/// Bytes of a medium that stand for one byte of text, as in OpenAI's dialect.
const MEDIA_BYTES_PER_BYTE: usize = 16;

/// Answers that may be asked for.
const CHOICES_MAX: u64 = 128;

/// What was read.
pub(super) struct Foreign {
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) output_tokens_max: Option<u64>,
    pub(super) choices: u64,
    pub(super) service_tier: Option<String>,
    pub(super) input_bytes: usize,
    pub(super) media_parts: u64,
    pub(super) places: Places,
}

impl From<Misfit> for Error {
    fn from(misfit: Misfit) -> Self {
        Self::new(Some(misfit.member), misfit.to_string())
    }
}

/// Reads a body.
pub(super) fn read(
    dialect: Dialect,
    body: &[u8],
    named: Option<(&str, bool)>,
) -> Result<Foreign, Error> {
    let outline = Outline::of_request(body)?;
    let root = outline.root();
    if root.kind() != Kind::Object {
        let message = "the request body must be a JSON object: put the members in `{}`";
        return Err(Error::new(None, message.into()));
    }
    guard(root)?;
    let prompt = match dialect {
        Dialect::OpenAiChat | Dialect::Anthropic => "messages",
        Dialect::Gemini => "contents",
        Dialect::Responses => "input",
    };
    if root.get(prompt).is_none() {
        return Err(Error::new(
            Some(prompt),
            format!("`{prompt}` is missing: send a conversation"),
        ));
    }
    if dialect == Dialect::Responses {
        refuse_kept_elsewhere(root)?;
    }
    if dialect != Dialect::Gemini {
        let mut members = root.members();
        members.try_for_each(|(name, node)| {
            dearer::member(dialect, &name, || node.raw().as_bytes())
        })?;
        dearer::tools(root)?;
    }
    let (model, stream) = if let Some((model, stream)) = named {
        (model.to_owned(), stream)
    } else {
        let model = root.string("model")?.unwrap_or_default().into_owned();
        (model, root.switch("stream")?.unwrap_or(false))
    };
    if model.is_empty() {
        return Err(Error::new(Some("model"), "`model` is missing: send the model's name".into()));
    }
    let mut size = Size::default();
    size.add(root);
    let (output_tokens_max, choices) = bounds(dialect, root)?;
    let model_place = root.get("model").map(|model| model.range()).unwrap_or_default();
    Ok(Foreign {
        model,
        stream,
        output_tokens_max,
        choices,
        service_tier: either(root, "service_tier", "serviceTier")
            .and_then(|tier| tier.text())
            .map(std::borrow::Cow::into_owned),
        input_bytes: size.bytes,
        media_parts: size.media_parts,
        // A dialect of which usage need not be asked for.
        places: Places {
            model: model_place,
            limits: Limits { older: limit_place(dialect, root), newer: None },
            usage_option: UsageOption::Asked,
            closing: root.range().end.saturating_sub(1),
        },
    })
}

/// Reads a body of Gemini's for vectors.
pub(super) fn read_embedding(body: &[u8], model: &str, is_list: bool) -> Result<Foreign, Error> {
    let outline = Outline::of_request(body)?;
    let root = outline.root();
    guard(root)?;
    let lacks = |member: &'static str| {
        Error::new(Some(member), format!("`{member}` is missing: send what to embed"))
    };
    let with_content = |request: Node<'_, '_>| {
        once_each(request)?;
        request.object("content")?.map(|_| ()).ok_or_else(|| lacks("content"))
    };
    if is_list {
        let requests = root.array("requests")?.filter(|list| list.elements().next().is_some());
        requests.ok_or_else(|| lacks("requests"))?.elements().try_for_each(with_content)?;
    } else {
        with_content(root)?;
    }
    if model.is_empty() {
        return Err(Error::new(Some("model"), "`model` is missing: name it in the path".into()));
    }
    let mut size = Size::default();
    size.add(root);
    Ok(Foreign {
        model: model.to_owned(),
        stream: false,
        output_tokens_max: None,
        choices: 1,
        service_tier: None,
        input_bytes: size.bytes,
        media_parts: size.media_parts,
        places: Places {
            model: 0..0,
            limits: Limits::default(),
            usage_option: UsageOption::Asked,
            closing: root.range().end.saturating_sub(1),
        },
    })
}

/// Gemini's configuration of the answer.
fn config<'t, 'a>(root: Node<'t, 'a>) -> Option<Node<'t, 'a>> {
    either(root, "generationConfig", "generation_config")
}

/// Where the member stands that limits the answer.
fn limit_place(dialect: Dialect, root: Node<'_, '_>) -> Option<(Range<usize>, Option<u64>)> {
    let limit = match dialect {
        Dialect::OpenAiChat | Dialect::Anthropic => root.get("max_tokens"),
        Dialect::Gemini => {
            config(root).and_then(|config| either(config, "maxOutputTokens", "max_output_tokens"))
        }
        Dialect::Responses => root.get("max_output_tokens"),
    }?;
    Some((limit.range(), limit.unsigned()))
}

/// The most tokens of an answer, and how many answers.
fn bounds(dialect: Dialect, root: Node<'_, '_>) -> Result<(Option<u64>, u64), Error> {
    let (most, choices) = match dialect {
        Dialect::OpenAiChat | Dialect::Anthropic => (root.whole("max_tokens")?, None),
        Dialect::Responses => (root.whole("max_output_tokens")?, None),
        Dialect::Gemini => {
            let whole = |camel, snake| {
                let member = config(root).and_then(|config| either(config, camel, snake));
                let must = "be a whole number from 0 up";
                let wrong = Misfit { member: camel, must };
                member.map(|member| member.unsigned().ok_or(wrong)).transpose()
            };
            let most = whole("maxOutputTokens", "max_output_tokens")?;
            (most, whole("candidateCount", "candidate_count")?)
        }
    };
    let choices = choices.unwrap_or(1);
    if choices == 0 || choices > CHOICES_MAX {
        return Err(Misfit { member: "candidateCount", must: "be from 1 to 128" }.into());
    }
    Ok((most, choices))
}

/// A body of Gemini's with at most so many tokens to generate.
pub(super) fn limited(body: &Bytes, places: &Places, most: Option<u64>) -> Vec<Bytes> {
    let Some(most) = most else {
        return vec![body.clone()];
    };
    if let Some((place, _)) = &places.limits.older {
        let number = Bytes::from(most.to_string());
        return vec![body.slice(..place.start), number, body.slice(place.end..)];
    }
    let Ok(outline) = Outline::of_request(body) else {
        return vec![body.clone()];
    };
    let member = format!("\"maxOutputTokens\":{most}");
    let (at, text) = match config(outline.root()).filter(|config| config.kind() == Kind::Object) {
        Some(config) if config.children().next().is_some() => {
            (config.range().start + 1, format!("{member},"))
        }
        Some(config) => (config.range().start + 1, member),
        None => (places.closing, format!(",\"generationConfig\":{{{member}}}")),
    };
    vec![body.slice(..at), Bytes::from(text), body.slice(at..)]
}

fn refuse_kept_elsewhere(root: Node<'_, '_>) -> Result<(), Error> {
    let is_asked = |member: &&&str| root.get(member).is_some_and(|node| node.raw() != "false");
    let Some(member) = KEPT_ELSEWHERE.iter().find(is_asked) else {
        return Ok(());
    };
    let message = format!(
        "`{member}` is not supported: this gateway keeps no responses; send the whole \
         conversation in `input`"
    );
    Err(Error::new(Some(member), message))
}

/// Refuses names that stand twice, and those of ours in disguise.
fn guard(root: Node<'_, '_>) -> Result<(), Error> {
    let mut names = BTreeSet::new();
    for (name, value) in root.members() {
        if let Some(owned) = OWNED.iter().find(|owned| folds_to(&name, &owned.to_ascii_lowercase()))
            && !OWNED.contains(&&*name)
        {
            let message = format!("`{name}` differs from `{owned}` only in letter case: remove it");
            return Err(Error::new(Some(owned), message));
        }
        if matches!(&*name, "generationConfig" | "generation_config") {
            once_each(value)?;
        }
        note_once(&mut names, &name)?;
    }
    Ok(())
}

/// Refuses names that stand twice among the members of an object.
fn once_each(object: Node<'_, '_>) -> Result<(), Error> {
    let mut names = BTreeSet::new();
    object.members().try_for_each(|(name, _)| note_once(&mut names, &name))
}

/// Gemini takes a name in two spellings, `maxOutputTokens` and `max_output_tokens`: they are one.
fn note_once(names: &mut BTreeSet<String>, name: &str) -> Result<(), Error> {
    let spelling: String = name.chars().filter(|c| *c != '_').collect();
    if names.insert(spelling.to_lowercase()) {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    Err(Error::new(None, format!("`{shown}` appears twice: send it once")))
}

/// The size of what will be read by the model.
#[derive(Default)]
struct Size {
    bytes: usize,
    media_parts: u64,
}

impl Size {
    /// Adds a value with all that is in it, as deep as documents may be.
    fn add(&mut self, node: Node<'_, '_>) {
        if node.kind() == Kind::Array {
            node.elements().for_each(|element| self.add(element));
            return;
        }
        if node.kind() != Kind::Object {
            self.bytes += node.range().len();
            return;
        }
        let kind = DocumentKind::of(node);
        for (name, value) in node.members() {
            self.bytes += name.len();
            match place(&kind, &name, &value) {
                Place::Text => self.add(value),
                Place::Media => {
                    self.media_parts += 1;
                    self.bytes += value.range().len() / MEDIA_BYTES_PER_BYTE;
                }
                Place::Sealed => {}
            }
        }
    }
}

/// What a member's string is.
enum Place {
    Text,
    Media,
    Sealed,
}

/// Whether an object is a document of plain text, which has its words where others have their
/// bytes. Looked up at most once per object, however many members it has.
struct DocumentKind<'t, 'a> {
    object: Node<'t, 'a>,
    is_plain: OnceCell<bool>,
}

impl<'t, 'a> DocumentKind<'t, 'a> {
    fn of(object: Node<'t, 'a>) -> Self {
        Self { object, is_plain: OnceCell::new() }
    }

    fn is_plain(&self) -> bool {
        let look = || self.object.get("type").is_some_and(|kind| kind.is("text"));
        *self.is_plain.get_or_init(look)
    }
}

fn place(parent: &DocumentKind<'_, '_>, name: &str, value: &Node<'_, '_>) -> Place {
    if value.kind() != Kind::String {
        return Place::Text;
    }
    if MEDIA.contains(&name) && !parent.is_plain() {
        Place::Media
    } else if SEALED.contains(&name) {
        Place::Sealed
    } else {
        Place::Text
    }
}

/// Counts the tokens of a body that was read before.
pub(super) fn count(body: &[u8]) -> u64 {
    let mut counter = Counter::default();
    let Ok(outline) = Outline::of_request(body) else {
        // Cannot be: the body was read before. The bound by bytes holds all the same.
        counter.add_bytes(body.len());
        return counter.tokens;
    };
    counter.tokens += MESSAGE_OVERHEAD;
    count_node(outline.root(), &mut counter);
    counter.tokens
}

fn count_node(node: Node<'_, '_>, counter: &mut Counter) {
    if let Some(text) = node.text() {
        return counter.add(&text);
    }
    node.elements().for_each(|element| count_node(element, counter));
    let kind = DocumentKind::of(node);
    for (name, value) in node.members() {
        match place(&kind, &name, &value) {
            Place::Text if matches!(&*name, "role" | "type" | "model" | "id") => {}
            Place::Text if name == "content" || name == "parts" => {
                counter.tokens += MESSAGE_OVERHEAD;
                count_node(value, counter);
            }
            Place::Text if matches!(&*name, "input_schema" | "parameters") => {
                counter.add(value.raw());
            }
            Place::Text => count_node(value, counter),
            Place::Media => {
                counter.tokens += MEDIA_PART;
                counter.add_bytes(value.range().len() / MEDIA_BYTES_PER_BYTE);
            }
            Place::Sealed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{CallRequest, Endpoint};

    fn parse(dialect: Dialect, body: &str) -> Result<CallRequest, Error> {
        let named = (dialect == Dialect::Gemini).then_some(("fast", false));
        CallRequest::parse_as(dialect, Bytes::copy_from_slice(body.as_bytes()), named)
    }

    #[test]
    fn what_the_gateway_decides_by_is_read_in_every_dialect() {
        let read = parse(
            Dialect::Gemini,
            r#"{"contents":[],"generation_config":{"max_output_tokens":9,"candidateCount":2},
            "serviceTier":"flex"}"#,
        );
        let read = read.unwrap();
        assert_eq!((read.output_tokens_max, read.choices), (Some(9), 2));
        assert_eq!((read.model.as_str(), read.service_tier.as_deref()), ("fast", Some("flex")));
        let body = r#"{"model":"m","input":"x","max_output_tokens":7,"stream":true}"#;
        let read = parse(Dialect::Responses, body).unwrap();
        assert_eq!((read.output_tokens_max, read.stream, read.choices), (Some(7), true, 1));
        assert_eq!(read.endpoint, Endpoint::ChatCompletions);
    }

    #[test]
    fn a_member_that_decides_is_found_in_any_disguise() {
        for body in [
            r#"{"model":"m","MODEL":"n","messages":[]}"#,
            r#"{"model":"m","\u006dodel":"n","messages":[]}"#,
            r#"{"model":"m","max_tokenſ":1,"messages":[]}"#,
            r#"{"model":"m","messages":[],"stream":1}"#,
            r#"{"model":"m"}"#,
            r#"{"model":"","messages":[]}"#,
            "[]",
            "{",
        ] {
            assert!(parse(Dialect::Anthropic, body).is_err(), "{body}");
        }
        for body in [
            r#"{"contents":[],"generationConfig":{"candidateCount":-1}}"#,
            r#"{"contents":[],"generationConfig":{"maxOutputTokens":1,"maxOutputTokens":65536}}"#,
            r#"{"contents":[],"generationConfig":{"maxOutputTokens":1,"max_output_tokens":9}}"#,
            r#"{"contents":[],"generationConfig":{},"generation_config":{"maxOutputTokens":9}}"#,
        ] {
            assert!(parse(Dialect::Gemini, body).is_err(), "{body}");
        }
    }

    #[test]
    fn what_another_customer_may_have_stored_is_refused_by_name() {
        for member in KEPT_ELSEWHERE {
            let body = |value| format!(r#"{{"model":"m","input":"x","{member}":{value}}}"#);
            let error = parse(Dialect::Responses, &body("\"id\"")).unwrap_err();
            assert_eq!(error.param, Some(*member), "{error:?}");
            for absent in ["null", "false"] {
                assert!(parse(Dialect::Responses, &body(absent)).is_ok(), "{member} {absent}");
            }
        }
    }

    /// Takes minutes where each member looks for its neighbours.
    #[test]
    fn an_object_of_very_many_members_is_read_in_one_pass() {
        let many = r#""url":"","#.repeat(100_000);
        let body = format!(r#"{{"model":"m","messages":[{{{many}"role":"user"}}]}}"#);
        let read = parse(Dialect::Anthropic, &body).unwrap();
        assert_eq!(read.media_parts, 100_000);
        let outline = Outline::of_request(body.as_bytes()).unwrap();
        let mut counter = Counter::default();
        count_node(outline.root(), &mut counter);
        assert!(counter.tokens > 100_000);
    }

    #[test]
    fn media_do_not_count_as_text_and_plain_documents_do() {
        let noise = "A".repeat(160_000);
        let size = |source: String| {
            let body = format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"document",
                "source":{source}}}]}}]}}"#
            );
            let read = parse(Dialect::Anthropic, &body).unwrap();
            (read.input_bytes, read.media_parts, read.count_input_tokens())
        };
        let picture = size(format!(r#"{{"type":"base64","data":"{noise}"}}"#));
        assert!(picture.0 < 20_000 && picture.1 == 1, "{picture:?}");
        let words = size(format!(r#"{{"type":"text","data":"{noise}"}}"#));
        assert!(words.0 > 160_000 && words.1 == 0 && words.2 > picture.2, "{words:?}");
    }

    #[test]
    fn a_lowered_limit_is_said_to_gemini_wherever_it_must_stand() {
        for (body, expected) in [
            (r#"{"contents":[]}"#, r#"{"contents":[],"generationConfig":{"maxOutputTokens":5}}"#),
            (
                r#"{"generationConfig":{},"contents":[]}"#,
                r#"{"generationConfig":{"maxOutputTokens":5},"contents":[]}"#,
            ),
            (
                r#"{"generationConfig":{"topP":1},"contents":[]}"#,
                r#"{"generationConfig":{"maxOutputTokens":5,"topP":1},"contents":[]}"#,
            ),
            (
                r#"{"generationConfig":{"maxOutputTokens": 900},"contents":[]}"#,
                r#"{"generationConfig":{"maxOutputTokens": 5},"contents":[]}"#,
            ),
        ] {
            let mut read = parse(Dialect::Gemini, body).unwrap();
            assert_eq!(read.with_limit().concat(), body.as_bytes());
            read.limit_output(5);
            assert_eq!(String::from_utf8(read.with_limit().concat()).unwrap(), expected);
        }
    }
}
