//! Answers that are counted in units: pictures, queries of a rerank, calls of a moderation.
//!
//! Units are told beside the tokens that the provider reported; by which of the two a call is paid
//! is the price list's matter. Invariant: an answer of the right form is never free of units, also
//! when the provider reports none. Sources: `a-inbound` A.1.3 and A.4.

use anima_core::failure::Failure;
use anima_core::usage::{Meter, Usage};
use bytes::Bytes;

use super::{Answer, Told};
use crate::dialect::openai::reply::Reply;
use crate::json::{Kind, Node, Outline};
use crate::request::{CallRequest, Endpoint};

/// Reads an answer in which no error was found.
pub(super) fn read(
    request: &CallRequest,
    body: &Bytes,
    reply: &Reply<'_>,
) -> Result<Answer, Failure> {
    let outline = Outline::read(body).map_err(|_malformed| Failure::AnswerMalformed)?;
    let root = outline.root();
    let list = |name: &str| root.get(name).filter(|node| node.kind() == Kind::Array);
    let reported = reply.report.usage.filter(|usage| !usage.is_empty()).unwrap_or_default();
    let usage = match request.endpoint {
        Endpoint::Images | Endpoint::ImageEdits => {
            let made = list("data").ok_or(Failure::AnswerMalformed)?.elements().count() as u64;
            in_pictures(reported).with(Meter::Images, made)
        }
        Endpoint::Rerank => {
            list("results").or_else(|| list("data")).ok_or(Failure::AnswerMalformed)?;
            reported.with(Meter::Queries, queries(root).unwrap_or(request.choices))
        }
        Endpoint::Moderations
        | Endpoint::ChatCompletions
        | Endpoint::Completions
        | Endpoint::Embeddings
        | Endpoint::Speech
        | Endpoint::Transcriptions
        | Endpoint::Translations => {
            list("results").ok_or(Failure::AnswerMalformed)?;
            reported.with(Meter::Requests, 1)
        }
    };
    Ok(Answer {
        usage: Some(usage),
        told: Told::All,
        usage_suspect: reply.report.suspect,
        service_tier: None,
        upstream_ref: reply.id.map(|id| id.decode().into_owned()),
        text_bytes: 0,
        body: body.clone(),
        content_type: None,
        counted: None,
    })
}

/// Output of which the provider does not say what it was is pictures here.
fn in_pictures(mut usage: Usage) -> Usage {
    let told = usage.of(Meter::OutputImageTokens);
    if told == 0 {
        usage.set(Meter::OutputImageTokens, usage.of(Meter::OutputTokens));
        usage.set(Meter::OutputTokens, 0);
    }
    usage
}

/// Search units, as Cohere bills them.
fn queries(root: Node<'_, '_>) -> Option<u64> {
    root.get("meta")?.get("billed_units")?.count_of("search_units").filter(|units| *units > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::lookup;

    fn usage(endpoint: Endpoint, request: &str, answer: &str) -> Usage {
        let request = CallRequest::parse(endpoint, request.to_owned().into()).unwrap();
        let body = Bytes::from(answer.to_owned());
        let adapter = lookup("openai_compatible").unwrap();
        adapter.answer(&request, &body).unwrap().usage.unwrap()
    }

    #[test]
    fn pictures_are_counted_and_their_tokens_told_apart() {
        let request = r#"{"model":"m","prompt":"a cat","n":2}"#;
        let bare = r#"{"created":1,"data":[{"url":"u"},{"url":"v"}]}"#;
        let two = Usage::default().with(Meter::Images, 2);
        assert_eq!(usage(Endpoint::Images, request, bare), two);
        let told = r#"{"data":[{"b64_json":"x"},{"b64_json":"y"}],"usage":{"input_tokens":9,
            "output_tokens":1056,"total_tokens":1065}}"#;
        let both = two.with(Meter::InputTokens, 9).with(Meter::OutputImageTokens, 1_056);
        assert_eq!(usage(Endpoint::Images, request, told), both);
    }

    #[test]
    fn a_rerank_is_as_many_queries_as_are_billed_or_hundreds_of_documents() {
        let documents = vec!["\"d\""; 101].join(",");
        let request = format!(r#"{{"model":"m","query":"q","documents":[{documents}]}}"#);
        let jina = r#"{"results":[{"index":0,"relevance_score":0.9}],"usage":{"total_tokens":7,
            "prompt_tokens":7}}"#;
        let found = usage(Endpoint::Rerank, &request, jina);
        assert_eq!((found.of(Meter::Queries), found.of(Meter::InputTokens)), (2, 7));
        let cohere = r#"{"results":[],"meta":{"billed_units":{"search_units":3}}}"#;
        assert_eq!(usage(Endpoint::Rerank, &request, cohere).of(Meter::Queries), 3);
    }

    #[test]
    fn what_has_not_the_endpoints_form_is_no_answer() {
        let request = r#"{"model":"m","input":"x"}"#;
        let request = CallRequest::parse(Endpoint::Moderations, request.into()).unwrap();
        let adapter = lookup("openai_compatible").unwrap();
        let answer = adapter.answer(&request, &Bytes::from_static(b"{\"data\":[]}"));
        assert_eq!(answer.unwrap_err(), Failure::AnswerMalformed);
    }
}
