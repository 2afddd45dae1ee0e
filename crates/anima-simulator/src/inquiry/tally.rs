//! Counting prompts where they lie, without keeping their text.
//!
//! The provider's rule, documented in `docs/simulator.md`: a message costs 4 tokens plus one per
//! begun four bytes of its text; a prompt or embedding input costs one per begun four bytes, or one
//! per given token. Bytes are of the decoded text in UTF-8. Images, audio, tools and names cost
//! nothing. The visitors see each text once, borrowed or from `serde_json`'s scratch buffer.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use super::pictures::told;
use crate::prose;

/// The messages of a chat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Messages {
    pub(super) count: u64,
    pub(super) tokens: u64,
    pub(super) pictures: Vec<String>,
    /// Whether the last one is what a tool said.
    pub(super) ends_in_result: bool,
}

/// One prompt or one text to embed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    /// Tokens it costs.
    pub(crate) tokens: u64,
    /// A hash of its content.
    pub(crate) hash: u64,
}

/// The four forms: text, texts, tokens, lists of tokens.
#[derive(Debug)]
pub(super) struct Inputs(pub(super) Vec<Input>);

pub(super) fn tokens_of(bytes: u64) -> u64 {
    bytes.div_ceil(4)
}

fn length(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

#[derive(serde::Deserialize)]
struct Message {
    #[serde(default)]
    content: Content,
    tool_call_id: Option<de::IgnoredAny>,
}

#[derive(serde::Deserialize)]
struct Part {
    #[serde(default)]
    text: Content,
    image_url: Option<Picture>,
}

#[derive(serde::Deserialize)]
struct Picture {
    url: String,
}

/// Bytes of a content: text, parts with texts, or null; and the pictures beside them.
#[derive(Default)]
struct Content {
    bytes: u64,
    pictures: Vec<String>,
}

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(MessagesVisitor)
    }
}

struct MessagesVisitor;

impl<'de> Visitor<'de> for MessagesVisitor {
    type Value = Messages;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Messages, A::Error> {
        let mut messages = Messages::default();
        while let Some(message) = seq.next_element::<Message>()? {
            messages.count = messages.count.saturating_add(1);
            messages.ends_in_result = message.tool_call_id.is_some();
            let tokens = tokens_of(message.content.bytes).saturating_add(4);
            messages.pictures.extend(message.content.pictures);
            messages.tokens = messages.tokens.saturating_add(tokens);
        }
        Ok(messages)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, an array of content parts, or null")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content { bytes: length(text), ..Content::default() })
    }

    fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut content = Content::default();
        while let Some(part) = seq.next_element::<Part>()? {
            content.bytes = content.bytes.saturating_add(part.text.bytes);
            content.pictures.extend(part.image_url.map(|picture| told(&picture.url)));
        }
        Ok(content)
    }
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputsVisitor)
    }
}

struct InputsVisitor;

impl Input {
    pub(super) fn of_text(text: &str) -> Self {
        Self { tokens: tokens_of(length(text)), hash: prose::hash(0, text.as_bytes()) }
    }

    /// An input of tokens grows by one.
    fn with_token(self, token: u64) -> Self {
        Self { tokens: self.tokens.saturating_add(1), hash: prose::mix(self.hash, token) }
    }
}

/// The start of an input of tokens.
const NO_TOKENS: Input = Input { tokens: 0, hash: 1 };

impl<'de> Visitor<'de> for InputsVisitor {
    type Value = Inputs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, tokens, or an array of texts or of tokens")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Inputs, E> {
        Ok(Inputs(vec![Input::of_text(text)]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Inputs, A::Error> {
        let mut inputs = Vec::new();
        let mut bare: Option<Input> = None;
        while let Some(element) = seq.next_element::<Element>()? {
            match element {
                Element::Token(token) => {
                    bare = Some(bare.unwrap_or(NO_TOKENS).with_token(token));
                }
                Element::Input(input) => inputs.push(input),
            }
        }
        if bare.is_some() && !inputs.is_empty() {
            return Err(de::Error::custom("an array holds tokens or inputs, not both"));
        }
        inputs.extend(bare);
        Ok(Inputs(inputs))
    }
}

enum Element {
    Token(u64),
    Input(Input),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a token, or an array of tokens")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Input(Input::of_text(text)))
    }

    fn visit_u64<E: de::Error>(self, token: u64) -> Result<Element, E> {
        Ok(Element::Token(token))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
        let mut input = NO_TOKENS;
        while let Some(token) = seq.next_element::<u64>()? {
            input = input.with_token(token);
        }
        Ok(Element::Input(input))
    }
}
