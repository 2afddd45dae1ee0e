//! Embeddings between OpenAI's dialect and Gemini's, whichever of them the client speaks.
//!
//! Texts become vectors; pictures and tokens are refused by name. An answer can hold millions of
//! numbers, so it is never read into a tree, and its numbers are copied as they stand. Not here:
//! what the client asks for (`request`), and forms of other providers' own (`forms`). Invariant:
//! as many vectors as texts, in their order.
//! Sources: `a-inbound` A.1.2 and A.3.1, Google's API reference and `python-genai` (August 2026).

mod forms;

use std::borrow::Cow;

use anima_core::failure::Failure;
use anima_core::usage::Usage;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use memchr::memmem;

pub(super) use forms::{Form, read as from_form, write as to_form};

use super::Answer;
use crate::canonical::{Carried, Dropped, Refusal};
use crate::dialect::Dialect;
use crate::dialect::gemini::{either, read_usage};
use crate::dialect::openai::fault::Fault;
use crate::json::{Cursor, Error, Kind, Misfit, Node, Outline, Value, Writer};
use crate::request::CallRequest;

/// Gemini's method for one text.
const ONE: &str = "embedContent";
/// For a list of them.
const MANY: &str = "batchEmbedContents";

/// What is asked for.
#[derive(Debug, Default)]
struct Wish<'a> {
    texts: Vec<Cow<'a, str>>,
    dimensions: Option<u64>,
    /// What the vectors are for, in Google's words.
    purpose: Option<Cow<'a, str>>,
    dropped: Dropped,
}

/// Says a request of Gemini's in OpenAI's dialect.
pub(super) fn to_openai(request: &CallRequest, model: &str) -> Result<Carried, Refusal> {
    let outline = Outline::of_request(&request.body)?;
    let mut wish = gemini_wish(outline.root(), request.as_array)?;
    wish.dropped.note_if(wish.purpose.is_some(), "taskType");
    let mut w = Writer::with_capacity(request.body.len());
    w.object();
    w.key("model").string(model);
    w.key("input").list(&wish.texts);
    w.key("encoding_format").string("float");
    w.maybe_number("dimensions", wish.dimensions);
    w.end_object();
    Ok(Carried { body: w.finish(), dropped: wish.dropped })
}

/// Says a request of any dialect to Gemini: the method, and the body. One of its own stays as it
/// came, but for the model, which Google wants to be that of the path.
pub(super) fn to_gemini(
    request: &CallRequest,
    model: &str,
) -> Result<(&'static str, Vec<Bytes>, Dropped), Refusal> {
    let outline = Outline::of_request(&request.body)?;
    let name = if model.contains('/') { model.to_owned() } else { format!("models/{model}") };
    if request.dialect == Dialect::Gemini {
        let method = if request.as_array { MANY } else { ONE };
        return Ok((method, renamed(&request.body, outline.root(), &name), Dropped::default()));
    }
    let wish = openai_wish(outline.root())?;
    let mut w = Writer::with_capacity(request.body.len());
    let one = |w: &mut Writer, text: &str| {
        w.object();
        w.key("model").string(&name);
        w.key("content").object();
        w.key("parts").array();
        w.object();
        w.key("text").string(text);
        w.end_object();
        w.end_array();
        w.end_object();
        w.maybe_number("outputDimensionality", wish.dimensions);
        w.end_object();
    };
    let method = if let [text] = wish.texts.as_slice() {
        one(&mut w, text);
        ONE
    } else {
        w.object();
        w.key("requests").array();
        wish.texts.iter().for_each(|text| one(&mut w, text));
        w.end_array();
        w.end_object();
        MANY
    };
    Ok((method, vec![w.finish()], wish.dropped))
}

/// The body with another model wherever one is named.
fn renamed(body: &Bytes, root: Node<'_, '_>, name: &str) -> Vec<Bytes> {
    let inner = root.get("requests");
    let requests = inner.iter().flat_map(Node::elements);
    let mut places: Vec<_> = std::iter::once(root)
        .chain(requests)
        .filter_map(|request| request.get("model"))
        .map(|model| model.range())
        .collect();
    places.sort_by_key(|place| place.start);
    let quoted = Bytes::from(serde_json::Value::from(name).to_string());
    let mut segments = Vec::with_capacity(2 * places.len() + 1);
    let mut at = 0;
    for place in places {
        segments.push(body.slice(at..place.start));
        segments.push(quoted.clone());
        at = place.end;
    }
    segments.push(body.slice(at..));
    segments
}

fn gemini_wish<'a>(root: Node<'_, 'a>, is_list: bool) -> Result<Wish<'a>, Refusal> {
    let mut wish = Wish::default();
    if !is_list {
        wish.add(root)?;
        return Ok(wish);
    }
    let requests = root.array("requests")?.ok_or(Refusal::Missing("requests"))?;
    requests.elements().try_for_each(|request| wish.add(request))?;
    Ok(wish)
}

impl<'a> Wish<'a> {
    /// Adds one request of Gemini's.
    fn add(&mut self, request: Node<'_, 'a>) -> Result<(), Refusal> {
        let content = request.object("content")?.ok_or(Refusal::Missing("content"))?;
        let dimensions = either(request, "outputDimensionality", "output_dimensionality");
        let wrong = Misfit { member: "outputDimensionality", must: "be a whole number from 1 up" };
        let dimensions = dimensions.filter(|node| node.kind() != Kind::Null);
        let dimensions = dimensions.map(|node| node.unsigned().ok_or(wrong)).transpose()?;
        if !self.texts.is_empty() && dimensions != self.dimensions {
            return Err(Refusal::unsupported("requests.outputDimensionality"));
        }
        self.dimensions = dimensions;
        self.texts.push(text_of(content)?);
        for (name, _) in request.members() {
            let spelling = name.replace('_', "").to_ascii_lowercase();
            if spelling == "tasktype" {
                let purpose = request.text_of(&name);
                // One for all, as far as there is a place for any.
                self.dropped.note_if(self.texts.len() > 1 && purpose != self.purpose, "taskType");
                self.purpose = self.purpose.take().or(purpose);
            } else if !matches!(
                &*spelling,
                "model" | "content" | "outputdimensionality" | "tasktype"
            ) {
                self.dropped.note_unplaced(&name);
            }
        }
        Ok(())
    }
}

/// The text of a content, whose parts Google reads as one.
fn text_of<'a>(content: Node<'_, 'a>) -> Result<Cow<'a, str>, Refusal> {
    let parts = content.array("parts")?.ok_or(Refusal::Missing("parts"))?;
    let mut texts = Vec::new();
    for part in parts.elements() {
        let Some(text) = part.get("text").and_then(|text| text.text()) else {
            let kind = part.members().next().map(|(name, _)| name).unwrap_or_default();
            return Err(Refusal::unsupported_kind("content.parts", &kind));
        };
        texts.push(text);
    }
    if let [_] = texts.as_slice() {
        return Ok(texts.swap_remove(0));
    }
    Ok(Cow::Owned(texts.join("\n")))
}

fn openai_wish<'a>(root: Node<'_, 'a>) -> Result<Wish<'a>, Refusal> {
    let input = root.get("input").ok_or(Refusal::Missing("input"))?;
    let mut wish = Wish { dimensions: root.whole("dimensions")?, ..Wish::default() };
    let texts = || input.elements().map(|element| element.text());
    wish.texts = match input.text() {
        Some(text) => vec![text],
        None if texts().next().is_some() => texts()
            .collect::<Option<_>>()
            // Tokens mean something to one tokenizer alone.
            .ok_or_else(|| Refusal::unsupported("input.tokens"))?,
        None => return Err(Misfit { member: "input", must: "be a text or a list of texts" }.into()),
    };
    for (name, _) in root.members() {
        if !matches!(&*name, "model" | "input" | "dimensions" | "encoding_format") {
            wish.dropped.note_unplaced(&name);
        }
    }
    Ok(wish)
}

/// An answer of OpenAI's, whose facts are known, said to a client of Gemini's.
pub(super) fn said_to_gemini(answer: Answer, request: &CallRequest) -> Result<Answer, Failure> {
    let mut vectors = openai_vectors(&answer.body).map_err(|_bad| Failure::AnswerMalformed)?;
    vectors.sort_by_key(|(index, _)| *index);
    let vectors: Option<Vec<&[u8]>> = vectors.into_iter().map(|(_, vector)| vector).collect();
    let vectors = vectors.filter(|vectors| vectors.len() == asked(request));
    let vectors = vectors.ok_or(Failure::AnswerMalformed)?;
    let body = gemini_answer(request, &vectors, answer.usage)?;
    Ok(answer.with_body(body))
}

/// An answer of somebody who copies OpenAI, packed where the client asked for it and the vectors
/// came as lists. What is packed already, or was not to be, stays as it came.
pub(super) fn packed(answer: Answer, request: &CallRequest) -> Result<Answer, Failure> {
    if memmem::find(&request.body, b"base64").is_none() {
        return Ok(answer);
    }
    let malformed = |_bad| Failure::AnswerMalformed;
    let outline = Outline::of_request(&request.body).map_err(malformed)?;
    if !wants_packed(outline.root()) {
        return Ok(answer);
    }
    let mut vectors = openai_vectors(&answer.body).map_err(malformed)?;
    vectors.sort_by_key(|(index, _)| *index);
    let vectors: Option<Vec<&[u8]>> = vectors.into_iter().map(|(_, vector)| vector).collect();
    let Some(vectors) = vectors else { return Ok(answer) };
    let body = client_body(request, &vectors, answer.usage)?;
    Ok(answer.with_body(body))
}

/// Whether a request of OpenAI's asks for vectors in base64.
fn wants_packed(root: Node<'_, '_>) -> bool {
    root.get("encoding_format").is_some_and(|format| format.is("base64"))
}

/// Vectors as a client of Gemini's wants them.
fn gemini_answer(
    request: &CallRequest,
    vectors: &[&[u8]],
    usage: Option<Usage>,
) -> Result<Bytes, Failure> {
    let mut w = Writer::with_capacity(vectors.iter().map(|vector| vector.len() + 64).sum());
    w.object();
    if request.as_array {
        w.key("embeddings").array();
        vectors.iter().try_for_each(|vector| values(&mut w, vector))?;
        w.end_array();
    } else {
        let [vector] = vectors else { return Err(Failure::AnswerMalformed) };
        w.key("embedding");
        values(&mut w, vector)?;
    }
    if let Some(usage) = usage {
        w.key("usageMetadata").object();
        w.key("promptTokenCount").number(usage.input_tokens());
        w.end_object();
    }
    w.end_object();
    Ok(w.finish())
}

/// What a request of any dialect asks for.
fn wish<'a>(request: &CallRequest, outline: &Outline<'a>) -> Result<Wish<'a>, Refusal> {
    if request.dialect == Dialect::Gemini {
        return gemini_wish(outline.root(), request.as_array);
    }
    openai_wish(outline.root())
}

/// Vectors as the client wants them, whatever it speaks. Where tokens were not told, our estimate.
fn client_body(
    request: &CallRequest,
    vectors: &[&[u8]],
    usage: Option<Usage>,
) -> Result<Bytes, Failure> {
    if request.dialect == Dialect::Gemini {
        return gemini_answer(request, vectors, usage);
    }
    let told = usage.map(|usage| usage.input_tokens());
    openai_answer(request, vectors, told.unwrap_or_else(|| request.estimate_input_tokens() / 2))
}

/// How many texts a request of any dialect has.
fn asked(request: &CallRequest) -> usize {
    let Ok(outline) = Outline::of_request(&request.body) else { return 0 };
    let list = if request.dialect == Dialect::Gemini { "requests" } else { "input" };
    let list = outline.root().get(list).filter(|list| list.kind() == Kind::Array);
    list.map_or(1, |list| list.elements().count())
}

fn values(w: &mut Writer, vector: &[u8]) -> Result<(), Failure> {
    w.object();
    w.key("values").raw(std::str::from_utf8(vector).map_err(|_bad| Failure::AnswerMalformed)?);
    w.end_object();
    Ok(())
}

/// The index of a vector and its list, if it is one.
type Numbered<'a> = (u64, Option<&'a [u8]>);

/// Vectors with their indices, in the order in which they stand.
fn openai_vectors(body: &[u8]) -> Result<Vec<Numbered<'_>>, Error> {
    let mut found = Vec::new();
    let mut cursor = Cursor::new(body);
    cursor.members(|cursor, name| {
        if name.raw() != b"data" {
            return cursor.value().map(|_| ());
        }
        cursor.elements(|cursor| {
            let (mut index, mut vector) = (found.len() as u64, None);
            cursor.members(|cursor, name| {
                let value = cursor.value()?;
                match name.raw() {
                    b"index" => index = value.unsigned().unwrap_or(index),
                    b"embedding" => vector = list(&value),
                    _ => {}
                }
                Ok::<(), Error>(())
            })?;
            found.push((index, vector));
            Ok::<(), Error>(())
        })?;
        Ok(())
    })?;
    Ok(found)
}

fn list<'a>(value: &Value<'a>) -> Option<&'a [u8]> {
    (value.kind == Kind::Array).then_some(value.raw)
}

/// What an answer of Gemini's holds.
#[derive(Default)]
struct Vectors<'a> {
    /// `None` where one has no values.
    found: Vec<Option<&'a [u8]>>,
    usage: Option<&'a [u8]>,
    is_fault: bool,
}

/// An answer of Gemini's, for a client of any dialect.
///
/// # Errors
/// [`Failure::AnswerMalformed`], or what the error inside it says.
pub(super) fn from_gemini(request: &CallRequest, body: &Bytes) -> Result<Answer, Failure> {
    let vectors = gemini_vectors(body).map_err(|_bad| Failure::AnswerMalformed)?;
    if vectors.is_fault {
        let fault = Fault::read(body);
        let is_told = fault != Fault::default();
        return Err(if is_told { fault.in_answer() } else { Failure::AnswerMalformed });
    }
    let found: Option<Vec<&[u8]>> = vectors.found.into_iter().collect();
    let found = found.filter(|found| found.len() == asked(request));
    let found = found.ok_or(Failure::AnswerMalformed)?;
    let usage = vectors.usage.and_then(|usage| Outline::read(usage).ok());
    let report = usage.map(|usage| read_usage(usage.root())).unwrap_or_default();
    if request.dialect == Dialect::Gemini {
        return Ok(Answer::of_vectors(report, body.clone()));
    }
    let written = client_body(request, &found, report.usage)?;
    Ok(Answer::of_vectors(report, written))
}

fn gemini_vectors(body: &[u8]) -> Result<Vectors<'_>, Error> {
    let mut vectors = Vectors::default();
    let mut cursor = Cursor::new(body);
    let is_object = cursor.members(|cursor, name| {
        match name.raw() {
            b"embedding" => vectors.found.push(one_of_gemini(cursor)?),
            b"embeddings" => {
                cursor.elements(|cursor| {
                    vectors.found.push(one_of_gemini(cursor)?);
                    Ok::<(), Error>(())
                })?;
            }
            b"usageMetadata" => vectors.usage = Some(cursor.value()?.raw),
            b"error" => vectors.is_fault |= cursor.value()?.kind != Kind::Null,
            _ => {
                cursor.value()?;
            }
        }
        Ok::<(), Error>(())
    })?;
    cursor.end()?;
    vectors.is_fault |= !is_object;
    Ok(vectors)
}

fn one_of_gemini<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, Error> {
    let mut vector = None;
    cursor.members(|cursor, name| {
        let value = cursor.value()?;
        if name.raw() == b"values" {
            vector = list(&value);
        }
        Ok::<(), Error>(())
    })?;
    Ok(vector)
}

/// OpenAI's own libraries ask for base64, and unpack nothing else then.
fn openai_answer(request: &CallRequest, vectors: &[&[u8]], tokens: u64) -> Result<Bytes, Failure> {
    let malformed = |_bad| Failure::AnswerMalformed;
    let outline = Outline::of_request(&request.body).map_err(malformed)?;
    let packed = wants_packed(outline.root());
    let mut w = Writer::with_capacity(vectors.iter().map(|vector| vector.len() + 64).sum());
    w.object();
    w.key("object").string("list");
    w.key("data").array();
    for (index, vector) in vectors.iter().enumerate() {
        w.object();
        w.key("object").string("embedding");
        w.key("index").number(index as u64);
        w.key("embedding");
        if packed {
            w.string(&pack(vector).map_err(malformed)?);
        } else {
            w.raw(std::str::from_utf8(vector).map_err(|_bad| Failure::AnswerMalformed)?);
        }
        w.end_object();
    }
    w.end_array();
    w.key("model").string(&request.model);
    w.key("usage").object();
    w.key("prompt_tokens").number(tokens);
    w.key("total_tokens").number(tokens);
    w.end_object();
    w.end_object();
    Ok(w.finish())
}

/// The numbers of a list as little-endian singles, in base64.
fn pack(vector: &[u8]) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(vector.len() / 2);
    Cursor::new(vector).elements(|cursor| {
        let value = cursor.value()?;
        let number = std::str::from_utf8(value.raw).ok().and_then(|raw| raw.parse::<f32>().ok());
        let number = number.ok_or(Error::Unexpected { offset: value.start })?;
        bytes.extend_from_slice(&number.to_le_bytes());
        Ok::<(), Error>(())
    })?;
    Ok(STANDARD.encode(bytes))
}
