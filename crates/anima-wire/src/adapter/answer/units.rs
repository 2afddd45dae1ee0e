//! Answers that are counted in units: pictures, queries of a rerank, calls of a moderation.
//!
//! Units are told beside the tokens that the provider reported; by which of the two a call is paid
//! is the price list's matter. Invariant: an answer of the right form is never free of units, also
//! when the provider reports none, or reports nonsense. Sources: `a-inbound` A.1.3 and A.4,
//! `d-async-media` (Ark).

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
    // Of a report that contradicts itself nothing is taken: what we count is left.
    let believed = reply.report.usage.filter(|usage| !usage.is_empty() && !reply.report.suspect);
    let reported = believed.or_else(|| of_total(request.endpoint, root)).unwrap_or_default();
    let usage = match request.endpoint {
        Endpoint::Images | Endpoint::ImageEdits => {
            let made = list("data").ok_or(Failure::AnswerMalformed)?.elements().count() as u64;
            let told = root.get("usage").and_then(|usage| usage.count_of("generated_images"));
            in_pictures(reported).with(Meter::Images, made.max(told.unwrap_or(0)))
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
        told: if reported.is_empty() { Told::Units } else { Told::All },
        usage_suspect: reply.report.suspect,
        service_tier: None,
        upstream_ref: reply.id.map(|id| id.decode().into_owned()),
        text_bytes: 0,
        body: body.clone(),
        content_type: None,
        counted: None,
        failure: None,
    })
}

/// Tokens that a rerank is told by one number alone, and in Cohere's place: it has no output.
fn of_total(endpoint: Endpoint, root: Node<'_, '_>) -> Option<Usage> {
    if endpoint != Endpoint::Rerank {
        return None;
    }
    let total = |node: Node<'_, '_>| node.count_of("total_tokens");
    let input = |node: Node<'_, '_>| node.count_of("input_tokens");
    let meta = |name: &str| root.get("meta").and_then(|meta| meta.get(name)).and_then(input);
    let tokens = root.get("usage").and_then(total);
    let tokens = tokens.or_else(|| meta("billed_units")).or_else(|| meta("tokens"))?;
    let is_sound = (1..=Usage::LIMIT).contains(&tokens);
    is_sound.then(|| Usage::default().with(Meter::InputTokens, tokens))
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
    fn an_odd_report_takes_no_picture_away() {
        let request = r#"{"model":"m","prompt":"a cat"}"#;
        let ark = r#"{"data":[{"url":"u"}],"usage":{"generated_images":2,"output_tokens":8192,
            "total_tokens":8192}}"#;
        let told = Usage::default().with(Meter::Images, 2).with(Meter::OutputImageTokens, 8_192);
        assert_eq!(usage(Endpoint::Images, request, ark), told);
        for odd in [
            r#"{"input_tokens":9,"output_tokens":1056,"total_tokens":7}"#,
            r#"{"input_tokens":-9,"output_tokens":1056}"#,
            r#"{"input_tokens":9,"output_tokens":99999999999}"#,
        ] {
            let body = Bytes::from(format!(r#"{{"data":[{{"url":"u"}}],"usage":{odd}}}"#));
            let parsed = CallRequest::parse(Endpoint::Images, request.into()).unwrap();
            let answer = lookup("openai_compatible").unwrap().answer(&parsed, &body).unwrap();
            assert_eq!(answer.usage, Some(Usage::default().with(Meter::Images, 1)), "{odd}");
            assert_eq!((answer.told, answer.usage_suspect), (Told::Units, true), "{odd}");
        }
    }

    #[test]
    fn a_rerank_is_told_in_one_number_too() {
        let request = r#"{"model":"m","query":"q","documents":["d"]}"#;
        for (what, answer) in [
            ("Voyage", r#"{"data":[],"usage":{"total_tokens":26}}"#),
            ("Cohere", r#"{"results":[],"meta":{"billed_units":{"input_tokens":26}}}"#),
            ("SiliconFlow", r#"{"results":[],"meta":{"tokens":{"input_tokens":26}}}"#),
        ] {
            let usage = usage(Endpoint::Rerank, request, answer);
            assert_eq!((usage.of(Meter::Queries), usage.input_tokens()), (1, 26), "{what}");
        }
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
