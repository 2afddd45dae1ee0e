//! Embeddings of those who have a form of their own: Vertex's `predict`, Amazon's Titan, Cohere's.
//!
//! Vertex and Cohere take several texts, Titan one. What the vectors are for (`taskType`,
//! `input_type`) is carried where both have a word for it; Cohere needs one, and gets that for
//! documents. Invariant: as many vectors as texts, in their order, or no answer. Sources: Google's
//! reference of text embeddings at Vertex, AWS's of Titan's and Cohere's parameters, Cohere's of
//! `v2/embed` (November 2026).

use anima_core::failure::Failure;
use anima_core::usage::{Meter, Usage};
use bytes::Bytes;

use super::{Wish, asked, client_body, list, wish};
use crate::adapter::Answer;
use crate::canonical::{Carried, Refusal};
use crate::dialect::openai::fault::Fault;
use crate::dialect::openai::usage::Report;
use crate::json::{Cursor, Error, Kind, Outline, Writer};
use crate::request::CallRequest;

/// Who reads the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::adapter) enum Form {
    /// Google's models at Vertex.
    Predict,
    /// Amazon's own at Bedrock.
    Titan,
    /// Cohere's at Bedrock, whose path has the model.
    CohereInvoke,
    /// Cohere's own API.
    Cohere,
}

/// Says a request of any dialect in this form.
pub(in crate::adapter) fn write(
    form: Form,
    request: &CallRequest,
    model: &str,
) -> Result<Carried, Refusal> {
    let outline = Outline::of_request(&request.body)?;
    let mut wish = wish(request, &outline)?;
    let mut w = Writer::with_capacity(request.body.len());
    w.object();
    match form {
        Form::Predict => predict(&mut w, &wish),
        Form::Titan => {
            let [text] = wish.texts.as_slice() else {
                return Err(Refusal::unsupported("input.texts"));
            };
            w.key("inputText").string(text);
            w.maybe_number("dimensions", wish.dimensions);
            wish.dropped.note_if(wish.purpose.is_some(), "taskType");
        }
        Form::CohereInvoke | Form::Cohere => {
            w.maybe("model", (form == Form::Cohere).then_some(model));
            cohere(&mut w, &mut wish);
        }
    }
    w.end_object();
    Ok(Carried { body: w.finish(), dropped: wish.dropped })
}

fn predict(w: &mut Writer, wish: &Wish<'_>) {
    w.key("instances").array();
    for text in &wish.texts {
        w.object();
        w.key("content").string(text);
        w.maybe("task_type", wish.purpose.as_deref());
        w.end_object();
    }
    w.end_array();
    if wish.dimensions.is_some() {
        w.key("parameters").object();
        w.maybe_number("outputDimensionality", wish.dimensions);
        w.end_object();
    }
}

fn cohere(w: &mut Writer, wish: &mut Wish<'_>) {
    let purpose = match wish.purpose.as_deref() {
        Some("RETRIEVAL_QUERY" | "QUESTION_ANSWERING" | "FACT_VERIFICATION") => "search_query",
        Some("CLASSIFICATION") => "classification",
        Some("CLUSTERING") => "clustering",
        Some("RETRIEVAL_DOCUMENT") | None => "search_document",
        Some(_) => {
            wish.dropped.note("taskType");
            "search_document"
        }
    };
    w.key("texts").list(&wish.texts);
    w.key("input_type").string(purpose);
    w.key("embedding_types").list(["float"]);
    w.maybe_number("output_dimension", wish.dimensions);
}

/// What an answer holds.
#[derive(Debug, Default)]
struct Found<'a> {
    /// `None` where one is no list.
    vectors: Vec<Option<&'a [u8]>>,
    /// Tokens, if any were told.
    tokens: Option<u64>,
    is_fault: bool,
}

/// An answer in any of the forms, for a client of any dialect.
///
/// # Errors
/// [`Failure::AnswerMalformed`], or what the error inside it says.
pub(in crate::adapter) fn read(request: &CallRequest, body: &Bytes) -> Result<Answer, Failure> {
    let found = found(body).map_err(|_bad| Failure::AnswerMalformed)?;
    if found.is_fault || found.vectors.is_empty() {
        let fault = Fault::read(body);
        let is_told = fault != Fault::default();
        return Err(if is_told { fault.in_answer() } else { Failure::AnswerMalformed });
    }
    let vectors: Option<Vec<&[u8]>> = found.vectors.into_iter().collect();
    let vectors = vectors.filter(|vectors| vectors.len() == asked(request));
    let vectors = vectors.ok_or(Failure::AnswerMalformed)?;
    let report = found.tokens.map_or_else(Report::default, |tokens| Report {
        usage: Some(Usage::default().with(Meter::InputTokens, tokens.min(Usage::LIMIT))),
        suspect: tokens > Usage::LIMIT,
    });
    let body = client_body(request, &vectors, report.usage)?;
    Ok(Answer::of_vectors(report, body))
}

fn found(body: &[u8]) -> Result<Found<'_>, Error> {
    let mut found = Found::default();
    let mut cursor = Cursor::new(body);
    let is_object = cursor.members(|cursor, name| {
        match name.raw() {
            b"predictions" => {
                cursor.elements(|cursor| found.prediction(cursor))?;
            }
            b"embedding" => found.vectors.push(list(&cursor.value()?)),
            b"embeddings" => found.cohere(cursor)?,
            b"inputTextTokenCount" => found.tokens = cursor.value()?.unsigned(),
            b"meta" => found.billed(cursor)?,
            b"error" => found.is_fault |= cursor.value()?.kind != Kind::Null,
            _ => {
                cursor.value()?;
            }
        }
        Ok::<(), Error>(())
    })?;
    cursor.end()?;
    found.is_fault |= !is_object;
    Ok(found)
}

impl<'a> Found<'a> {
    /// `{"embeddings": {"values": […], "statistics": {"token_count": 4}}}`
    fn prediction(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Error> {
        let (mut vector, mut tokens) = (None, None);
        cursor.members(|cursor, name| {
            if name.raw() == b"embeddings" {
                (vector, tokens) = embedded(cursor)?;
                return Ok(());
            }
            cursor.value().map(|_| ())
        })?;
        self.vectors.push(vector);
        if let Some(tokens) = tokens {
            self.tokens = Some(self.tokens.unwrap_or(0).saturating_add(tokens));
        }
        Ok(())
    }

    /// A list of vectors, or several by their type.
    fn cohere(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Error> {
        if cursor.kind()? != Kind::Object {
            return self.several(cursor);
        }
        cursor.members(|cursor, name| {
            if name.raw() == b"float" {
                return self.several(cursor);
            }
            cursor.value().map(|_| ())
        })?;
        Ok(())
    }

    fn several(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Error> {
        cursor.elements(|cursor| {
            self.vectors.push(list(&cursor.value()?));
            Ok::<(), Error>(())
        })?;
        Ok(())
    }

    /// `{"billed_units": {"input_tokens": 4}}`
    fn billed(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Error> {
        cursor.members(|cursor, name| {
            if name.raw() == b"billed_units" {
                self.tokens = counted(cursor, b"input_tokens")?;
                return Ok(());
            }
            cursor.value().map(|_| ())
        })?;
        Ok(())
    }
}

/// A vector, and the tokens that it cost.
type Embedded<'a> = (Option<&'a [u8]>, Option<u64>);

/// `{"values": […], "statistics": {"token_count": 4}}`
fn embedded<'a>(cursor: &mut Cursor<'a>) -> Result<Embedded<'a>, Error> {
    let (mut vector, mut tokens) = (None, None);
    cursor.members(|cursor, name| {
        match name.raw() {
            b"values" => vector = list(&cursor.value()?),
            b"statistics" => tokens = counted(cursor, b"token_count")?,
            _ => {
                cursor.value()?;
            }
        }
        Ok::<(), Error>(())
    })?;
    Ok((vector, tokens))
}

/// The count under a name.
fn counted(cursor: &mut Cursor<'_>, member: &[u8]) -> Result<Option<u64>, Error> {
    let mut found = None;
    cursor.members(|cursor, name| {
        let value = cursor.value()?;
        if name.raw() == member {
            found = count(value.raw);
        }
        Ok::<(), Error>(())
    })?;
    Ok(found)
}

/// A whole number, which Google and Cohere sometimes write as `4.0`.
fn count(raw: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(raw).ok()?;
    let whole = text.split_once('.').map_or(text, |(whole, rest)| {
        if rest.bytes().all(|digit| digit == b'0') { whole } else { text }
    });
    whole.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::request::Endpoint;

    fn ask(input: &str) -> CallRequest {
        let request = format!(r#"{{"model":"m","input":{input}}}"#);
        CallRequest::parse(Endpoint::Embeddings, request.into()).unwrap()
    }

    fn read_by(input: &str, body: &str) -> Result<Option<Usage>, Failure> {
        let request = ask(input);
        read(&request, &Bytes::copy_from_slice(body.as_bytes())).map(|answer| answer.usage)
    }

    #[test]
    fn tokens_are_added_up_and_what_does_not_fit_is_no_answer() {
        let tokens = |count| Ok(Some(Usage::default().with(Meter::InputTokens, count)));
        let one = r#"{"embeddings":{"values":[1],"statistics":{"token_count":4.0}}}"#;
        let two = format!(r#"{{"predictions":[{one},{one}]}}"#);
        assert_eq!(read_by(r#"["a","b"]"#, &two), tokens(8));
        assert_eq!(read_by(r#""a""#, &two), Err(Failure::AnswerMalformed));
        assert_eq!(read_by(r#""a""#, r#"{"embedding":[1],"inputTextTokenCount":3}"#), tokens(3));
        let plain = r#"{"embeddings":[[1]],"response_type":"embeddings_floats"}"#;
        assert_eq!(read_by(r#""a""#, plain), Ok(None));
        for body in ["[]", "{}", r#"{"embedding":7}"#, r#"{"embeddings":{"int8":[[1]]}}"#] {
            assert_eq!(read_by(r#""a""#, body), Err(Failure::AnswerMalformed), "{body}");
        }
        let fault = r#"{"message":"Too many requests"}"#;
        assert_eq!(read_by(r#""a""#, fault), Err(Failure::ErrorInAnswer));
    }

    #[test]
    fn titan_takes_one_text() {
        let request = ask(r#"["a","b"]"#);
        let refusal = write(Form::Titan, &request, "m").unwrap_err();
        assert!(refusal.to_string().contains("`input.texts`"), "{refusal}");
        assert_eq!(request.dialect, Dialect::OpenAiChat);
    }
}
