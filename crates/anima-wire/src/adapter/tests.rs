//! The registry, the headers, and what callers are shown.

use anima_core::failure::Source;
use http::header::AUTHORIZATION;

use super::*;
use crate::dialect::Dialect;

fn adapter() -> &'static dyn Adapter {
    lookup("openai_compatible").unwrap()
}

#[test]
fn every_adapter_is_found_by_its_own_name_and_no_other() {
    for adapter in ADAPTERS {
        assert_eq!(lookup(adapter.name()).unwrap().name(), adapter.name());
    }
    assert!(lookup("OpenAI").is_none() && lookup("").is_none());
}

#[test]
fn a_secret_is_sensitive_and_never_shown() {
    let mut headers = HeaderMap::new();
    adapter().authorize(&mut headers, "sk-1", &Sent::nothing()).unwrap();
    assert_eq!(headers[AUTHORIZATION], "Bearer sk-1");
    assert!(headers[AUTHORIZATION].is_sensitive());
    assert!(!format!("{headers:?}").contains("sk-1"));
    assert_eq!(
        adapter().authorize(&mut headers, "a\r\nb: c", &Sent::nothing()),
        Err(SecretUnusable)
    );
    assert_eq!(headers[AUTHORIZATION], "Bearer sk-1");
}

#[test]
fn only_faults_of_the_caller_show_the_providers_text() {
    let body = br#"{"error":{"message":"secret detail\nof org-1"}}"#;
    for status in 300..600 {
        let found = adapter().classify(status, &HeaderMap::new(), body);
        let shown = found.message == "secret detail of org-1";
        assert_eq!(shown, found.failure.row().source == Source::Client, "{status}");
        assert!(shown || found.message == neutral_message(found.failure), "{status}");
    }
}

#[test]
fn a_providers_text_is_shortened_between_characters() {
    let body = format!(r#"{{"error":{{"message":"{}"}}}}"#, "é".repeat(2000));
    let found = adapter().classify(400, &HeaderMap::new(), body.as_bytes());
    assert_eq!(found.message, "é".repeat(512));
}

#[test]
fn a_refusal_without_a_text_has_the_fixed_one() {
    let found = adapter().classify(422, &HeaderMap::new(), b"");
    assert_eq!(found.message, neutral_message(Failure::RequestRefused));
}

#[test]
fn an_answer_must_be_of_its_endpoint() {
    let answer = |endpoint: Endpoint, body: &'static str| {
        let call = r#"{"model":"m","messages":[{}],"input":"x"}"#;
        let request = CallRequest::parse(endpoint, Bytes::from_static(call.as_bytes())).unwrap();
        adapter().answer(&request, &Bytes::from_static(body.as_bytes())).map(|_| ())
    };
    let malformed = Err(Failure::AnswerMalformed);
    assert_eq!(answer(Endpoint::ChatCompletions, r#"{"choices":[]}"#), Ok(()));
    assert_eq!(answer(Endpoint::Embeddings, r#"{"data":[]}"#), Ok(()));
    assert_eq!(answer(Endpoint::Embeddings, r#"{"choices":[]}"#), malformed);
    assert_eq!(answer(Endpoint::ChatCompletions, r#"{"data":[]}"#), malformed);
    for body in ["", "[]", "null", "hello", "{\"choices\":[]} x", "{\"choices\":{}}"] {
        assert_eq!(answer(Endpoint::ChatCompletions, body), malformed, "{body}");
    }
}

#[test]
fn every_failure_has_a_text_to_show() {
    for failure in Failure::ALL {
        assert!(!neutral_message(*failure).is_empty(), "{failure:?}");
    }
}

#[test]
fn an_error_in_the_place_of_an_answers_only_chunk_leaves_one_array() {
    let body = Bytes::from_static(br#"{"contents":[{"parts":[{"text":"hi"}]}]}"#);
    let mut request = CallRequest::parse_as(Dialect::Gemini, body, Some(("m", true))).unwrap();
    request.as_array = true;
    let mut decoder = lookup("anthropic").unwrap().stream(&request);
    let mut out = Vec::new();
    decoder.push(Bytes::from_static(b"data: {\"type\":\"message_stop\"}\n\n"), &mut out).unwrap();
    assert!(decoder.is_done());
    out.extend(decoder.failure_event(Failure::Unbooked, "withheld", "req-1"));
    let array: Vec<Value> = serde_json::from_slice(&out.concat()).unwrap();
    assert_eq!(array.len(), 1, "{array:?}");
    assert_eq!(array[0]["error"]["code"], 503, "{array:?}");
}
