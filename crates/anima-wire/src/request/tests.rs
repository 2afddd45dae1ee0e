//! What is read, what is refused and with which words, and what is sent on.

use proptest::prelude::*;

use super::Endpoint::{ChatCompletions as Chat, Completions, Embeddings};
use super::*;

fn parse(endpoint: Endpoint, body: &str) -> Result<CallRequest, Error> {
    CallRequest::parse(endpoint, Bytes::copy_from_slice(body.as_bytes()))
}

fn chat(body: &str) -> CallRequest {
    parse(Endpoint::ChatCompletions, body).unwrap()
}

fn rewritten(request: &CallRequest, model: &str) -> String {
    String::from_utf8(request.rewrite(model, rewrite::NEWER).concat()).unwrap()
}

/// A chat body with these members in front.
fn with(members: &str) -> String {
    format!(r#"{{{members}"model":"m","messages":[{{"role":"user","content":"hi"}}]}}"#)
}

#[track_caller]
fn refused(endpoint: Endpoint, body: &str, param: Option<&str>, message: &str) {
    let error = parse(endpoint, body).unwrap_err();
    assert_eq!(error.failure, Failure::BodyInvalid);
    assert_eq!((error.param, error.message.as_str()), (param, message), "{body}");
}

#[test]
fn every_member_that_matters_is_read() {
    let read = chat(&with(
        r#""stream":true,"stream_options":{"include_usage":true},"max_tokens":5,
        "max_completion_tokens":7,"n":2,"service_tier":"flex","x":[1],"#,
    ));
    assert_eq!(read.model, "m");
    assert!(read.stream && read.include_usage);
    assert_eq!((read.output_tokens_max, read.choices), (Some(7), 2));
    assert_eq!(read.service_tier.as_deref(), Some("flex"));
    assert_eq!(read.input_bytes, r#"[{"role":"user","content":"hi"}]"#.len());
}

#[test]
fn null_counts_as_absent() {
    let read = chat(&with(
        r#""stream":null,"stream_options":null,"max_tokens":null,
        "max_completion_tokens":null,"n":null,"service_tier":null,"#,
    ));
    assert!(!read.stream && !read.include_usage);
    assert_eq!((read.output_tokens_max, read.choices), (None, 1));
    assert_eq!(read.service_tier, None);
}

#[test]
fn the_larger_of_two_output_limits_is_believed() {
    let read = chat(&with(r#""max_tokens":9000,"max_completion_tokens":1,"#));
    assert_eq!(read.output_tokens_max, Some(9000));
}

type Refusal = (Endpoint, &'static str, Option<&'static str>, &'static str);

const REFUSALS: &[Refusal] = &[
    (Chat, "", None, "the request body is empty: send a JSON object"),
    (Chat, " \n", None, "the request body is empty: send a JSON object"),
    (Chat, "[]", None, "the request body must be a JSON object: put the members in `{}`"),
    (Chat, "hello", None, "the request body cannot be read: the JSON is malformed at byte 0"),
    (
        Chat,
        r#"{"model":"m""#,
        None,
        "the request body cannot be read: the JSON ends too early, after 12 bytes",
    ),
    (Chat, r#"{"messages":[1]}"#, Some("model"), "`model` is missing: send the model's name"),
    (
        Chat,
        r#"{"model":null,"messages":[1]}"#,
        Some("model"),
        "`model` is missing: send the model's name",
    ),
    (Chat, r#"{"model":7,"messages":[1]}"#, Some("model"), "`model` must be a string"),
    (Chat, r#"{"model":"","messages":[1]}"#, Some("model"), "`model` must not be empty"),
    (Chat, r#"{"model":"m"}"#, Some("messages"), "`messages` is missing: send a list of messages"),
    (
        Chat,
        r#"{"model":"m","messages":"hi"}"#,
        Some("messages"),
        "`messages` must be an array of messages",
    ),
    (
        Chat,
        r#"{"model":"m","messages":[]}"#,
        Some("messages"),
        "`messages` must not be empty: send at least one item",
    ),
    (
        Completions,
        r#"{"model":"m"}"#,
        Some("prompt"),
        "`prompt` is missing: send a text or a list of texts",
    ),
    (
        Embeddings,
        r#"{"model":"m","input":{}}"#,
        Some("input"),
        "`input` must be a string or an array",
    ),
    (
        Embeddings,
        r#"{"model":"m","input":[]}"#,
        Some("input"),
        "`input` must not be empty: send at least one item",
    ),
];

#[test]
fn refusals_name_the_member_and_the_remedy() {
    for (endpoint, body, param, message) in REFUSALS {
        refused(*endpoint, body, *param, message);
    }
}

#[test]
fn members_of_the_wrong_form_are_refused() {
    let whole = "must be a whole number from 0 up";
    let few = "must be a whole number from 1 to 128";
    let cases = [
        ("stream", "1", "must be true or false"),
        ("stream", "\"true\"", "must be true or false"),
        ("stream_options", "true", "must be an object"),
        ("stream_options", r#"{"include_usage":1}"#, "must have `include_usage` true or false"),
        (
            "stream_options",
            r#"{"include_usage":true,"include_usage":false}"#,
            "must have each of its members once",
        ),
        ("stream_options", r#"{"Include_Usage":true}"#, "must have each of its members once"),
        ("max_tokens", "-1", whole),
        ("max_tokens", "1.5", whole),
        ("max_tokens", "\"5\"", whole),
        ("max_completion_tokens", "99999999999999999999", whole),
        ("n", "0", few),
        ("n", "129", few),
        ("service_tier", "1", "must be a string"),
    ];
    for (name, value, must) in cases {
        let body = with(&format!("\"{name}\":{value},"));
        refused(Endpoint::ChatCompletions, &body, Some(name), &format!("`{name}` {must}"));
    }
}

#[test]
fn a_second_model_is_found_in_any_disguise() {
    for name in ["model", r"\u006dodel", r"m\u006Fdel", r"\u006d\u006f\u0064\u0065\u006c"] {
        let body = with(&format!("\"{name}\":\"other\","));
        refused(
            Endpoint::ChatCompletions,
            &body,
            Some("model"),
            "`model` appears twice: send it once",
        );
    }
    for name in ["Model", "MODEL", "\\u004dodel"] {
        let error =
            parse(Endpoint::ChatCompletions, &with(&format!("\"{name}\":\"other\","))).unwrap_err();
        assert_eq!(error.param, Some("model"));
        assert!(error.message.contains("only in letter case"), "{}", error.message);
    }
    let error = parse(Endpoint::ChatCompletions, &with("\"ſtream\":true,")).unwrap_err();
    assert_eq!(error.param, Some("stream"));
    refused(
        Endpoint::ChatCompletions,
        &with(r#""x":1,"x":2,"#),
        None,
        "`x` appears twice: send it once",
    );
}

#[test]
fn many_distinct_members_are_not_slow_and_not_refused() {
    let members: Vec<String> = (0..20_000).map(|index| format!("\"k{index}\":0,")).collect();
    assert!(parse(Endpoint::ChatCompletions, &with(&members.concat())).is_ok());
}

#[test]
fn completions_default_to_sixteen_tokens_and_count_their_prompts() {
    let read =
        |members: &str| parse(Completions, &format!(r#"{{"model":"m",{members}}}"#)).unwrap();
    assert_eq!(read(r#""prompt":"a""#).output_tokens_max, Some(16));
    assert_eq!(read(r#""prompt":"a","n":2,"best_of":5"#).choices, 5);
    assert_eq!(read(r#""prompt":["a","b","c"],"n":2"#).choices, 6);
    assert_eq!(read(r#""prompt":[1,2,3]"#).choices, 1);
    assert_eq!(read(r#""prompt":[[1,2],[3]]"#).choices, 2);
}

#[test]
fn embeddings_neither_stream_nor_choose() {
    let body = r#"{"model":"m","input":"a","stream":true,"n":"x","max_tokens":-1}"#;
    let read = parse(Embeddings, body).unwrap();
    assert_eq!((read.stream, read.choices, read.output_tokens_max), (false, 1, None));
    assert_eq!(rewritten(&read, "m"), body);
}

#[test]
fn only_the_model_changes_in_a_plain_call() {
    let body =
        " {\"messages\" : [ {\"content\":\"\\u0041\"} ],\n\"model\"\t: \"m\", \"z\":1.0e2 } ";
    let read = chat(body);
    assert_eq!(rewritten(&read, "up\"stream"), body.replace("\"m\"", "\"up\\\"stream\""));
    assert_eq!(rewritten(&read, "m"), body);
}

#[test]
fn a_stream_always_asks_for_usage_and_keeps_the_other_options() {
    let cases = [
        (
            r#""stream":true"#,
            r#""stream":true,"model":"u","stream_options":{"include_usage":true}}"#,
        ),
        (
            r#""stream":true,"stream_options":null"#,
            r#""stream":true,"stream_options":{"include_usage":true},"model":"u"}"#,
        ),
        (
            r#""stream":true,"stream_options":{ }"#,
            r#""stream":true,"stream_options":{"include_usage":true },"model":"u"}"#,
        ),
        (
            r#""stream":true,"stream_options":{"a":1}"#,
            r#""stream":true,"stream_options":{"include_usage":true,"a":1},"model":"u"}"#,
        ),
        (
            r#""stream":true,"stream_options":{"a":1, "include_usage" : false }"#,
            r#""stream":true,"stream_options":{"a":1, "include_usage" : true },"model":"u"}"#,
        ),
        (
            r#""stream":true,"stream_options":{"include_usage":null}"#,
            r#""stream":true,"stream_options":{"include_usage":true},"model":"u"}"#,
        ),
        (
            r#""stream":true,"stream_options":{"include_usage":true,"b":2}"#,
            r#""stream":true,"stream_options":{"include_usage":true,"b":2},"model":"u"}"#,
        ),
        (
            r#""stream":false,"stream_options":{"a":1}"#,
            r#""stream":false,"stream_options":{"a":1},"model":"u"}"#,
        ),
    ];
    for (members, expected) in cases {
        let read = chat(&format!(r#"{{"messages":[0],{members},"model":"m"}}"#));
        assert_eq!(rewritten(&read, "u"), format!(r#"{{"messages":[0],{expected}"#));
    }
}

#[test]
fn a_lowered_output_limit_replaces_what_stands_above_it_and_is_added_where_none_is() {
    let cases = [
        (r#""max_tokens":900,"#, r#""max_tokens":300,"#, ""),
        (
            r#""max_tokens":9000,"max_completion_tokens" : 8,"#,
            r#""max_tokens":300,"max_completion_tokens" : 8,"#,
            "",
        ),
        (
            r#""max_completion_tokens":301,"max_tokens":null,"#,
            r#""max_completion_tokens":300,"max_tokens":null,"#,
            "",
        ),
        (r#""max_completion_tokens":null,"#, r#""max_completion_tokens":300,"#, ""),
        (r#""max_tokens":null,"#, r#""max_tokens":null,"#, r#","max_completion_tokens":300"#),
        ("", "", r#","max_completion_tokens":300"#),
    ];
    for (members, expected, added) in cases {
        let mut read = chat(&with(members));
        read.limit_output(300);
        assert_eq!(read.output_tokens_max, Some(300));
        let whole = with(expected);
        let whole = format!("{}{added}}}", whole.strip_suffix('}').unwrap());
        assert_eq!(rewritten(&read, "m"), whole, "{members}");
    }
    let mut read = chat(&with(r#""stream":true,"#));
    read.limit_output(300);
    let sent: serde_json::Value = serde_json::from_str(&rewritten(&read, "u")).unwrap();
    assert_eq!(sent["max_completion_tokens"], 300);
    assert_eq!(sent["stream_options"]["include_usage"], true);
}

#[test]
fn an_output_limit_is_never_raised() {
    let body = with(r#""max_tokens":5,"#);
    let mut read = chat(&body);
    read.limit_output(300);
    assert_eq!((read.output_tokens_max, rewritten(&read, "m")), (Some(5), body));
}

#[test]
fn inline_media_do_not_count_as_text() {
    let picture = "A".repeat(400_000);
    let read = chat(&format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[
        {{"type":"text","text":"what is this?"}},
        {{"type":"image_url","image_url":{{"url":"data:image/png;base64,{picture}"}}}}]}}]}}"#
    ));
    assert_eq!(read.media_parts, 1);
    assert!(read.input_bytes < 200, "{}", read.input_bytes);
    assert!((1500..1700).contains(&read.estimate_input_tokens()));
    assert!((1500..1530).contains(&read.count_input_tokens()));
}

#[test]
fn a_text_that_looks_like_a_picture_counts_as_text() {
    let text = "A".repeat(100_000);
    let read = chat(&with(&format!("\"tools\":\"data:{text}\",")));
    assert!(read.input_bytes > 100_000 && read.media_parts == 0);
}

#[test]
fn prompts_are_counted_in_tokens() {
    assert_eq!(chat(&with("")).count_input_tokens(), 3 + 3 + 1);
    let count = |body: &str| parse(Embeddings, body).unwrap().count_input_tokens();
    assert_eq!(count(r#"{"model":"m","input":"hello world"}"#), 2);
    assert_eq!(count(r#"{"model":"m","input":["hello world","hello\u0020world"]}"#), 4);
    assert_eq!(count(r#"{"model":"m","input":[1,2,3]}"#), 3);
    assert_eq!(count(r#"{"model":"m","input":[[1,2],[3]]}"#), 3);
}

proptest! {
    #[test]
    fn what_is_sent_differs_in_the_owned_members_only(
        order in Just(vec!["model", "messages", "stream", "x", "stream_options"]).prop_shuffle(),
        options in prop_oneof![
            Just("null"), Just("{}"), Just(r#"{"a":{"include_usage":false}}"#),
            Just(r#"{"include_usage":false}"#), Just(r#"{"b":[1],"include_usage":true}"#), Just(""),
        ],
        upstream in any::<String>(), spaces in "[ \n\t]{0,2}",
    ) {
        let members: Vec<String> = order.iter().filter_map(|name| Some(match *name {
            "model" => r#""model":"m""#.to_owned(),
            "messages" => r#""messages":[{"content":"a, \"b\""}]"#.to_owned(),
            "stream" => r#""stream":true"#.to_owned(),
            "x" => r#""x":{"model":"inner","y":1.50}"#.to_owned(),
            _ if options.is_empty() => return None,
            _ => format!("\"stream_options\"{spaces}:{spaces}{options}"),
        })).collect();
        let members = members.join(&format!("{spaces},{spaces}"));
        let body = format!("{spaces}{{{members}{spaces}}}{spaces}");
        let sent = rewritten(&chat(&body), &upstream);
        let mut expected: serde_json::Value = serde_json::from_str(&body).unwrap();
        expected["model"] = upstream.into();
        if !expected["stream_options"].is_object() {
            expected["stream_options"] = serde_json::json!({});
        }
        expected["stream_options"]["include_usage"] = true.into();
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&sent).unwrap(), expected);
        prop_assert!(sent.contains(r#""y":1.50"#), "{}", sent);
    }
}
