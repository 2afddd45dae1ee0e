//! The members of a body as they were found, and the checks that turn them into a request.
//!
//! Two steps, so that the order of members does not matter: reading only remembers, checking
//! judges. A name that equals one of ours in all but letter case is refused: decoders written in
//! Go match names without regard to case, so such a twin could undo what this gateway checked.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::prompt::Prompt;
use super::rewrite::{Limit, Limits, Places, UsageOption};
use super::{Endpoint, Error, dearer, pictures};
use crate::dialect::Dialect;
use crate::json::{Cursor, Kind, Text, Value};

/// OpenAI's bound on `n` and, generously, on `best_of`.
const CHOICES_MAX: u64 = 128;

/// Documents that one query may rank; more are billed as more queries (`a-inbound` A.4).
const DOCUMENTS_PER_QUERY: u64 = 100;

/// What OpenAI generates at most for a completion that sets no limit.
const COMPLETION_TOKENS_DEFAULT: u64 = 16;

/// Members that decide about money or routing, and are therefore guarded against twins.
const OWNED: [&str; 15] = [
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "best_of",
    "service_tier",
    "messages",
    "tools",
    "prompt",
    "input",
    "query",
    "documents",
    "stream_format",
];

/// The members that the gateway reads. `None` is absent; a null is remembered as what it is.
#[derive(Debug, Default)]
pub(super) struct Draft<'a> {
    model: Option<Value<'a>>,
    stream: Option<Value<'a>>,
    stream_options: Option<Value<'a>>,
    max_tokens: Option<Value<'a>>,
    max_completion_tokens: Option<Value<'a>>,
    n: Option<Value<'a>>,
    best_of: Option<Value<'a>>,
    service_tier: Option<Value<'a>>,
    prompt_kind: Option<Kind>,
    prompt: Prompt,
    /// Of a rerank.
    documents: u64,
    /// The most that a member asks for.
    pictures: u64,
    /// Of a speech.
    characters: u64,
    stream_format: Option<Value<'a>>,
    /// Searches of the web that are asked for.
    searches: u64,
    closing: usize,
}

/// What the checks found.
pub(super) struct Checked {
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) output_tokens_max: Option<u64>,
    pub(super) choices: u64,
    pub(super) service_tier: Option<String>,
    pub(super) searches: u64,
    pub(super) prompt: Prompt,
    pub(super) characters: u64,
    pub(super) places: Places,
}

impl<'a> Draft<'a> {
    /// Reads all members in one pass.
    pub(super) fn read(endpoint: Endpoint, body: &'a [u8]) -> Result<Self, Error> {
        if body.trim_ascii().is_empty() {
            return Err(Error::new(None, "the request body is empty: send a JSON object".into()));
        }
        let mut cursor = Cursor::new(body);
        let kind = cursor.kind()?;
        let mut draft = Self::default();
        let mut names = BTreeSet::new();
        cursor.members(|cursor, name| {
            let name = name.decode();
            draft.member(endpoint, cursor, &name)?;
            guard(name, &mut names)
        })?;
        draft.closing = cursor.offset().saturating_sub(1);
        cursor.end()?;
        if kind != Kind::Object {
            let message = "the request body must be a JSON object: put the members in `{}`";
            return Err(Error::new(None, message.into()));
        }
        Ok(draft)
    }

    /// Reads the value of one member.
    fn member(
        &mut self,
        endpoint: Endpoint,
        cursor: &mut Cursor<'a>,
        name: &str,
    ) -> Result<(), Error> {
        if name == endpoint.prompt() && endpoint == Endpoint::Speech {
            let start = cursor.offset();
            let value = cursor.value()?;
            self.prompt_kind = Some(value.kind);
            self.prompt.bytes += cursor.offset() - start;
            self.characters = value.text().map_or(0, |text| text.decode().chars().count() as u64);
            return Ok(());
        }
        if name == endpoint.prompt() {
            self.prompt_kind = Some(cursor.kind()?);
            return Ok(self.prompt.read(endpoint, cursor)?);
        }
        if name == "documents" && endpoint == Endpoint::Rerank {
            let start = cursor.offset();
            cursor.elements(|cursor| {
                self.documents += 1;
                cursor.value().map(|_| ())
            })?;
            self.prompt.bytes += cursor.offset() - start;
            return Ok(());
        }
        if name == "tools" {
            let start = cursor.offset();
            dearer::read_tools(cursor)?;
            self.prompt.bytes += cursor.offset() - start;
            return Ok(());
        }
        let value = cursor.value()?;
        if endpoint.generates() || endpoint == Endpoint::Embeddings {
            dearer::member(Dialect::OpenAiChat, name, || value.raw)?;
        }
        if matches!(endpoint, Endpoint::Images | Endpoint::ImageEdits) {
            self.pictures = pictures::most(self.pictures, name, &value)?;
        }
        match name {
            "model" => self.model = Some(value),
            "stream" => self.stream = Some(value),
            "stream_options" => self.stream_options = Some(value),
            "max_tokens" => self.max_tokens = Some(value),
            "max_completion_tokens" => self.max_completion_tokens = Some(value),
            "n" => self.n = Some(value),
            "best_of" => self.best_of = Some(value),
            "service_tier" => self.service_tier = Some(value),
            "stream_format" => self.stream_format = Some(value),
            "web_search_options" => self.searches = u64::from(value.kind != Kind::Null),
            "functions" | "response_format" | "prediction" | "suffix" | "instructions" => {
                self.prompt.bytes += value.raw.len();
            }
            _ => {}
        }
        Ok(())
    }

    /// Judges what was read.
    pub(super) fn check(self, endpoint: Endpoint) -> Result<Checked, Error> {
        let generates = endpoint.generates();
        let model = present(self.model).ok_or_else(|| missing("model", "the model's name"))?;
        let model_place = model.range();
        let model = text("model", &model)?.decode().into_owned();
        if model.is_empty() {
            return Err(wrong("model", "must not be empty"));
        }
        self.prompt(endpoint)?;
        let stream = self.stream(endpoint)?;
        let usage_option = if generates { self.usage_option()? } else { UsageOption::None };
        let service_tier = present(self.service_tier)
            .map(|tier| text("service_tier", &tier).map(|tier| tier.decode().into_owned()))
            .transpose()?;
        Ok(Checked {
            model,
            stream,
            output_tokens_max: if generates { self.output_tokens_max(endpoint)? } else { None },
            choices: self.choices(endpoint)?,
            service_tier,
            searches: self.searches,
            characters: self.characters,
            places: Places {
                model: model_place,
                limits: self.limits(),
                usage_option,
                closing: self.closing,
            },
            prompt: self.prompt,
        })
    }

    /// Whether the answer comes as events.
    fn stream(&self, endpoint: Endpoint) -> Result<bool, Error> {
        let stream = flag("stream", self.stream)?;
        if stream && matches!(endpoint, Endpoint::Images | Endpoint::ImageEdits) {
            return Err(wrong("stream", "must be false: pictures are not streamed here"));
        }
        if endpoint != Endpoint::Speech {
            return Ok(endpoint.generates() && stream);
        }
        match present(self.stream_format).map(|format| text("stream_format", &format)) {
            None => Ok(false),
            Some(format) => match &*format?.decode() {
                "audio" => Ok(false),
                "sse" => Ok(true),
                _ => Err(wrong("stream_format", "must be `audio` or `sse`")),
            },
        }
    }

    /// The prompt is there and of a form that the endpoint takes.
    fn prompt(&self, endpoint: Endpoint) -> Result<(), Error> {
        let name = endpoint.prompt();
        let chat = endpoint == Endpoint::ChatCompletions;
        match self.prompt_kind {
            None | Some(Kind::Null) if chat => Err(missing(name, "a list of messages")),
            None | Some(Kind::Null) => Err(missing(name, "a text or a list of texts")),
            Some(Kind::String) if endpoint == Endpoint::Speech && self.characters == 0 => {
                Err(wrong(name, "must not be empty: send what to say"))
            }
            Some(Kind::Array) if endpoint == Endpoint::Speech => {
                Err(wrong(name, "must be a string"))
            }
            Some(Kind::Array) if self.prompt.items == 0 => {
                Err(wrong(name, "must not be empty: send at least one item"))
            }
            Some(Kind::Array) => Ok(()),
            Some(Kind::String) if !chat => Ok(()),
            Some(_) if chat => Err(wrong(name, "must be an array of messages")),
            Some(_) => Err(wrong(name, "must be a string or an array")),
        }
    }

    fn output_tokens_max(&self, endpoint: Endpoint) -> Result<Option<u64>, Error> {
        let older = count("max_tokens", self.max_tokens)?;
        let newer = count("max_completion_tokens", self.max_completion_tokens)?;
        let default = (endpoint == Endpoint::Completions).then_some(COMPLETION_TOKENS_DEFAULT);
        Ok(older.max(newer).or(default))
    }

    /// Where the limits stand. Their form was checked before.
    fn limits(&self) -> Limits {
        let limit = |value: &Option<Value<'_>>| -> Limit {
            value.as_ref().map(|value| (value.range(), value.unsigned()))
        };
        Limits { older: limit(&self.max_tokens), newer: limit(&self.max_completion_tokens) }
    }

    fn choices(&self, endpoint: Endpoint) -> Result<u64, Error> {
        if endpoint == Endpoint::Rerank && self.documents == 0 {
            return Err(missing("documents", "a list of texts"));
        }
        if endpoint == Endpoint::Rerank {
            return Ok(self.documents.div_ceil(DOCUMENTS_PER_QUERY));
        }
        if matches!(endpoint, Endpoint::Embeddings | Endpoint::Moderations | Endpoint::Speech) {
            return Ok(1);
        }
        let n = few("n", self.n)?;
        if endpoint != Endpoint::Completions {
            return Ok(n.max(self.pictures));
        }
        Ok(n.max(few("best_of", self.best_of)?).saturating_mul(self.prompt.prompts()))
    }

    /// Where the wish for the usage chunk stands, or would stand.
    fn usage_option(&self) -> Result<UsageOption, Error> {
        let options = match self.stream_options {
            None => return Ok(UsageOption::None),
            Some(options) if options.kind == Kind::Null => {
                return Ok(UsageOption::Null(options.range()));
            }
            Some(options) if options.kind != Kind::Object => {
                return Err(wrong("stream_options", "must be an object"));
            }
            Some(options) => options,
        };
        let mut found = None;
        let mut names = BTreeSet::new();
        Cursor::new(options.raw).members(|cursor, name| {
            let name = name.decode();
            let value = cursor.value()?;
            if name == "include_usage" {
                found = Some(value);
            }
            guard_options(name, &mut names)
        })?;
        match found {
            None => Ok(UsageOption::Inside { at: options.start + 1, alone: names.is_empty() }),
            Some(value) if value.kind == Kind::True => Ok(UsageOption::Asked),
            Some(value) if matches!(value.kind, Kind::False | Kind::Null) => {
                let place = value.range();
                Ok(UsageOption::Refused(options.start + place.start..options.start + place.end))
            }
            Some(_) => Err(wrong("stream_options", "must have `include_usage` true or false")),
        }
    }
}

/// Refuses a name that was there before or that is one of ours in disguise.
fn guard<'a>(name: Cow<'a, str>, names: &mut BTreeSet<Cow<'a, str>>) -> Result<(), Error> {
    let twin = OWNED.iter().find(|owned| folds_to(&name, owned)).copied();
    if let Some(owned) = twin.filter(|owned| *owned != name) {
        let message = format!(
            "`{name}` differs from `{owned}` only in letter case, and some providers would read \
             it as `{owned}`: remove or rename it"
        );
        return Err(Error::new(twin, message));
    }
    if names.contains(&name) {
        let shown: String = name.chars().take(64).collect();
        return Err(Error::new(twin, format!("`{shown}` appears twice: send it once")));
    }
    names.insert(name);
    Ok(())
}

/// The same for the members of `stream_options`.
fn guard_options<'a>(name: Cow<'a, str>, names: &mut BTreeSet<Cow<'a, str>>) -> Result<(), Error> {
    let disguised = folds_to(&name, "include_usage") && name != "include_usage";
    if disguised || !names.insert(name) {
        return Err(wrong("stream_options", "must have each of its members once"));
    }
    Ok(())
}

/// Whether a decoder that ignores case would take `name` for `owned`. Unicode folds two signs to
/// ASCII letters: the long s and the Kelvin sign.
pub(super) fn folds_to(name: &str, owned: &str) -> bool {
    name.chars()
        .map(|sign| match sign {
            'ſ' => 's',
            '\u{212A}' => 'k',
            sign => sign.to_ascii_lowercase(),
        })
        .eq(owned.chars())
}

/// A value unless it is null.
fn present(value: Option<Value<'_>>) -> Option<Value<'_>> {
    value.filter(|value| value.kind != Kind::Null)
}

fn text<'a>(name: &'static str, value: &Value<'a>) -> Result<Text<'a>, Error> {
    value.text().ok_or_else(|| wrong(name, "must be a string"))
}

fn flag(name: &'static str, value: Option<Value<'_>>) -> Result<bool, Error> {
    match present(value).map(|value| value.kind) {
        None | Some(Kind::False) => Ok(false),
        Some(Kind::True) => Ok(true),
        Some(_) => Err(wrong(name, "must be true or false")),
    }
}

fn count(name: &'static str, value: Option<Value<'_>>) -> Result<Option<u64>, Error> {
    let Some(value) = present(value) else {
        return Ok(None);
    };
    let count = value.unsigned().ok_or_else(|| wrong(name, "must be a whole number from 0 up"))?;
    Ok(Some(count))
}

fn few(name: &'static str, value: Option<Value<'_>>) -> Result<u64, Error> {
    let Some(value) = present(value) else {
        return Ok(1);
    };
    match value.unsigned() {
        Some(count @ 1..=CHOICES_MAX) => Ok(count),
        _ => Err(wrong(name, "must be a whole number from 1 to 128")),
    }
}

pub(super) fn missing(name: &'static str, what: &str) -> Error {
    Error::new(Some(name), format!("`{name}` is missing: send {what}"))
}

pub(super) fn wrong(name: &'static str, must: &str) -> Error {
    Error::new(Some(name), format!("`{name}` {must}"))
}
