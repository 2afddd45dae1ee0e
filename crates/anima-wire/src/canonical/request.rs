//! A request for a chat answer, borrowed from the client's body.
//!
//! Holds every row of the conversion tables that more than one dialect knows. Numbers stay as they
//! were written, schemas and arguments stay JSON text. Not here: members that only one dialect
//! has; their names are in `unplaced`. Source: `c-conversion` C.1 to C.5.

use std::borrow::Cow;

/// What a client wants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request<'a> {
    /// The alias.
    pub model: Cow<'a, str>,
    /// Whether the answer comes in pieces.
    pub stream: bool,
    /// Whether a stream ends with usage where the dialect leaves the choice.
    pub include_usage: bool,
    /// The conversation, instructions included, in order.
    pub turns: Vec<Turn<'a>>,
    /// What the model may call.
    pub tools: Vec<Tool<'a>>,
    /// Whether and what it must call.
    pub tool_choice: Option<ToolChoice<'a>>,
    /// Whether several calls at once are welcome.
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer's text.
    pub format: Format<'a>,
    /// The most tokens to generate.
    pub output_tokens_max: Option<u64>,
    /// How tokens are drawn.
    pub sampling: Sampling<'a>,
    /// Texts at which to stop.
    pub stop: Vec<Cow<'a, str>>,
    /// How many answers. `None` is one.
    pub choices: Option<u64>,
    /// How much to think, and whether to show it.
    pub reasoning: Reasoning,
    /// Log probabilities of what was chosen, with so many alternatives.
    pub logprobs: Option<u64>,
    /// The end user, as the client names him.
    pub user: Option<Cow<'a, str>>,
    /// The tier asked for, in the words of `OpenAI`: `auto`, `default`, `flex`, `priority`.
    pub service_tier: Option<Cow<'a, str>>,
    /// Whether the whole prompt is worth caching.
    pub cache: Option<Cache>,
    /// What to find the cache by.
    pub cache_key: Option<Cow<'a, str>>,
    /// Names of members without a place here, which no other dialect can carry.
    pub unplaced: Vec<Cow<'a, str>>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// The caller, and the results of tools.
    User,
    /// The model.
    Assistant,
}

/// What one side says before the other one answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn<'a> {
    /// Who.
    pub role: Role,
    /// What, in order.
    pub parts: Vec<Part<'a>>,
}

/// A piece of a turn or of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Part<'a> {
    /// What it is.
    pub body: Body<'a>,
    /// Whether the prompt up to here is worth caching.
    pub cache: Option<Cache>,
    /// What its issuer wants to see again with it.
    pub signature: Option<Signature<'a>>,
}

/// The kinds of parts.
#[derive(Debug, Clone, PartialEq)]
pub enum Body<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// The model's words of refusal.
    Refusal(Cow<'a, str>),
    /// An image, and the wanted detail in the words of `OpenAI`.
    Image(Source<'a>, Option<Cow<'a, str>>),
    /// A sound: its bytes in base64 and its format, such as `wav`.
    Audio(Cow<'a, str>, Cow<'a, str>),
    /// A document, and its name.
    Document(Source<'a>, Option<Cow<'a, str>>),
    /// What the model thought. Empty where only its signature is known.
    Reasoning(Cow<'a, str>),
    /// What the model thought, in a form that only its issuer reads.
    Redacted(Signature<'a>),
    /// A call of a tool.
    ToolUse(ToolUse<'a>),
    /// What a tool said.
    ToolResult(ToolResult<'a>),
}

/// Where the bytes of a medium are.
#[derive(Debug, Clone, PartialEq)]
pub enum Source<'a> {
    /// Here, in base64.
    Base64 {
        /// The MIME type.
        media_type: Cow<'a, str>,
        /// The bytes.
        content: Cow<'a, str>,
    },
    /// Somewhere in the net.
    Url(Cow<'a, str>),
    /// Here, as plain text.
    Plain(Cow<'a, str>),
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolUse<'a> {
    /// Names the call. Never empty.
    pub id: Cow<'a, str>,
    /// Which tool.
    pub name: Cow<'a, str>,
    /// JSON text as the model wrote it: an object, but not all models manage.
    pub arguments: Cow<'a, str>,
}

/// What a tool said.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolResult<'a> {
    /// The call that it answers.
    pub id: Cow<'a, str>,
    /// Text and images.
    pub content: Vec<Part<'a>>,
    /// Whether the tool failed.
    pub is_error: bool,
}

/// How long a cache lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// Five minutes.
    Short,
    /// One hour.
    Long,
}

/// Who signed something, and alone can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Issuer {
    /// Claude, wherever it runs.
    Anthropic,
    /// Gemini, wherever it runs.
    Google,
    /// `OpenAI`'s Responses.
    OpenAi,
}

/// Something opaque that must come back unchanged, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature<'a> {
    /// Who signed.
    pub issuer: Issuer,
    /// The signature.
    pub value: Cow<'a, str>,
}

/// A tool that the model may call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tool<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// What it is for.
    pub description: Option<Cow<'a, str>>,
    /// JSON schema of its arguments, as JSON text.
    pub schema: Option<Cow<'a, str>>,
    /// Whether the arguments must follow the schema.
    pub strict: Option<bool>,
    /// Whether the tools up to here are worth caching.
    pub cache: Option<Cache>,
}

/// Whether and what the model must call.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolChoice<'a> {
    /// As it likes.
    Auto,
    /// Nothing.
    None,
    /// Something.
    Required,
    /// This one.
    Named(Cow<'a, str>),
    /// Of these only; whether one of them it must.
    Among(Vec<Cow<'a, str>>, bool),
}

/// The form of the answer's text.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Format<'a> {
    /// Any.
    #[default]
    Text,
    /// Some JSON object.
    Json,
    /// JSON of a schema.
    Schema(Schema<'a>),
}

/// A schema for the answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schema<'a> {
    /// What it is called, where it has a name.
    pub name: Option<Cow<'a, str>>,
    /// What it is for.
    pub description: Option<Cow<'a, str>>,
    /// JSON schema, as JSON text.
    pub schema: Option<Cow<'a, str>>,
    /// Whether it must be followed to the letter.
    pub strict: Option<bool>,
}

/// How tokens are drawn. Numbers as they were written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling<'a> {
    /// Temperature.
    pub temperature: Option<&'a str>,
    /// Nucleus.
    pub top_p: Option<&'a str>,
    /// How many candidates.
    pub top_k: Option<&'a str>,
    /// Against repetition, by count.
    pub frequency_penalty: Option<&'a str>,
    /// Against repetition at all.
    pub presence_penalty: Option<&'a str>,
    /// For the same answer again.
    pub seed: Option<&'a str>,
    /// Weights of tokens, as JSON text.
    pub logit_bias: Option<&'a str>,
}

/// How much to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Not at all.
    None,
    /// Hardly.
    Minimal,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// Very much.
    Xhigh,
    /// As much as there is.
    Max,
}

impl Effort {
    /// The word of `OpenAI` for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// Reads the word. `None` for an unknown one.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::None, Self::Minimal, Self::Low, Self::Medium, Self::High, Self::Xhigh, Self::Max]
            .into_iter()
            .find(|effort| effort.word() == word)
    }

    /// What a budget of tokens comes to (`c-conversion` C.2, the way back).
    pub const fn of_budget(budget_tokens: u64) -> Self {
        match budget_tokens {
            0 => Self::None,
            1..2_000 => Self::Low,
            2_000..10_000 => Self::Medium,
            _ => Self::High,
        }
    }

    /// The budget for it in tokens, where a model wants one (`c-conversion` C.2).
    pub const fn budget_tokens(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Minimal | Self::Low => 1_024,
            Self::Medium => 8_192,
            Self::High => 16_384,
            Self::Xhigh | Self::Max => 24_576,
        }
    }
}

/// How much to think, and whether to show it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reasoning {
    /// In a word. `None` leaves it to the model.
    pub effort: Option<Effort>,
    /// In tokens.
    pub budget_tokens: Option<u64>,
    /// Whether the model shall see for itself.
    pub adaptive: bool,
    /// Whether the client wants to see the thoughts. `None` is the dialect's habit.
    pub shown: Option<bool>,
}

impl Reasoning {
    /// The effort, from whichever was given.
    pub fn as_effort(&self) -> Option<Effort> {
        self.effort.or_else(|| self.budget_tokens.map(Effort::of_budget))
    }
}

impl<'a> Part<'a> {
    /// A part with nothing on it.
    pub const fn new(body: Body<'a>) -> Self {
        Self { body, cache: None, signature: None }
    }

    /// A part of text.
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::new(Body::Text(text.into()))
    }

    /// The text of a part of text.
    pub fn as_text(&self) -> Option<&str> {
        if let Body::Text(text) = &self.body { Some(text) } else { None }
    }

    /// The thoughts of a part of thoughts.
    pub fn as_thought(&self) -> Option<&str> {
        if let Body::Reasoning(text) = &self.body { Some(text) } else { None }
    }

    /// The words of a part of refusal.
    pub fn as_refusal(&self) -> Option<&str> {
        if let Body::Refusal(text) = &self.body { Some(text) } else { None }
    }

    /// The call of a part that is one.
    pub const fn as_call(&self) -> Option<&ToolUse<'a>> {
        if let Body::ToolUse(call) = &self.body { Some(call) } else { None }
    }

    /// The result of a part that is one.
    pub const fn as_result(&self) -> Option<&ToolResult<'a>> {
        if let Body::ToolResult(result) = &self.body { Some(result) } else { None }
    }

    /// The signature, if this issuer made it.
    pub fn signed_by(&self, issuer: Issuer) -> Option<&str> {
        let signature = self.signature.as_ref()?;
        (signature.issuer == issuer).then_some(&*signature.value)
    }
}

impl Issuer {
    /// How its signatures begin in dialects that are not its own.
    const fn tag(self) -> &'static str {
        match self {
            Self::Anthropic => "anima.anthropic.",
            Self::Google => "anima.google.",
            Self::OpenAi => "anima.openai.",
        }
    }

    /// Whose signature a text is, if it has a tag of ours.
    pub(crate) fn of_tag(text: &str) -> Option<Self> {
        let all = [Self::Anthropic, Self::Google, Self::OpenAi];
        all.into_iter().find(|issuer| text.starts_with(issuer.tag()))
    }
}

impl<'a> Signature<'a> {
    /// Reads a signature from a dialect whose own issuer this is: a tag says that another one made
    /// it.
    pub fn read(own: Issuer, value: Cow<'a, str>) -> Self {
        let tagged = Issuer::of_tag(&value);
        match tagged.and_then(|issuer| Some((issuer, value.strip_prefix(issuer.tag())?))) {
            Some((issuer, rest)) => Self { issuer, value: Cow::Owned(rest.to_owned()) },
            None => Self { issuer: own, value },
        }
    }

    /// The two pieces of it as it stands in a dialect whose own issuer this is.
    pub fn written(&self, own: Issuer) -> [&str; 2] {
        let tag = if self.issuer == own { "" } else { self.issuer.tag() };
        [tag, &self.value]
    }
}

impl<'a> Source<'a> {
    /// Reads a URL: one with the bytes in it becomes those.
    pub fn of_url(url: Cow<'a, str>) -> Self {
        let inline = |text: &str| {
            let (media_type, _) = text.strip_prefix("data:")?.split_once(";base64,")?;
            Some(media_type.len())
        };
        let Some(length) = inline(&url) else {
            return Self::Url(url);
        };
        let (from, to) = ("data:".len(), "data:".len() + length);
        let content_at = to + ";base64,".len();
        match url {
            Cow::Borrowed(url) => Self::Base64 {
                media_type: url.get(from..to).unwrap_or_default().into(),
                content: url.get(content_at..).unwrap_or_default().into(),
            },
            Cow::Owned(url) => Self::Base64 {
                media_type: url.get(from..to).unwrap_or_default().to_owned().into(),
                content: url.get(content_at..).unwrap_or_default().to_owned().into(),
            },
        }
    }

    /// The pieces of the URL that says the same. `None` for plain text.
    pub fn as_url(&self) -> Option<[&str; 4]> {
        match self {
            Self::Base64 { media_type, content } => {
                Some(["data:", media_type, ";base64,", content])
            }
            Self::Url(url) => Some([url, "", "", ""]),
            Self::Plain(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_known_again_after_a_foreign_dialect() {
        let made = Signature { issuer: Issuer::Google, value: "Cg==".into() };
        let written = made.written(Issuer::Anthropic).concat();
        assert_eq!(Signature::read(Issuer::Anthropic, written.into()), made);
        let own = Signature { issuer: Issuer::Anthropic, value: "Eq".into() };
        assert_eq!(own.written(Issuer::Anthropic).concat(), "Eq");
        assert_eq!(Signature::read(Issuer::Anthropic, "Eq".into()), own);
    }

    #[test]
    fn a_url_with_bytes_in_it_is_taken_apart_and_put_together() {
        for url in ["data:image/png;base64,AAAA", "https://x/y.png", "data:,plain"] {
            assert_eq!(Source::of_url(url.into()).as_url().unwrap().concat(), url);
            assert_eq!(Source::of_url(url.to_owned().into()), Source::of_url(url.into()));
        }
        let expected = Source::Base64 { media_type: "image/png".into(), content: "AAAA".into() };
        assert_eq!(Source::of_url("data:image/png;base64,AAAA".into()), expected);
    }

    #[test]
    fn efforts_read_back_and_budgets_rank_alike() {
        for effort in [Effort::None, Effort::Low, Effort::Medium, Effort::High] {
            assert_eq!(Effort::parse(effort.word()), Some(effort));
            assert_eq!(Effort::of_budget(effort.budget_tokens()), effort);
        }
        assert_eq!(Effort::parse("much"), None);
    }
}
