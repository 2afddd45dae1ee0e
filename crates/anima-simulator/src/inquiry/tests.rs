//! What is read from requests, and what is refused.

use super::*;

fn ask<'a>(path: &'a str, body: &'a str) -> Ask<'a> {
    Ask {
        method: &Method::POST,
        path,
        query: "",
        key: None,
        content_type: "",
        body: body.as_bytes(),
    }
}

fn completion<'a>(path: &'a str, body: &'a str) -> Completion<'a> {
    match read(&ask(path, body)).unwrap() {
        Inquiry::Completion(completion) => completion,
        other @ (Inquiry::Embedding(_)
        | Inquiry::Models
        | Inquiry::Model(_)
        | Inquiry::Sound(_)
        | Inquiry::Units(_)) => {
            panic!("{other:?}")
        }
    }
}

fn embedding(body: &str) -> Embedding<'_> {
    match read(&ask("/v1/embeddings", body)).unwrap() {
        Inquiry::Embedding(embedding) => embedding,
        other @ (Inquiry::Completion(_)
        | Inquiry::Models
        | Inquiry::Model(_)
        | Inquiry::Sound(_)
        | Inquiry::Units(_)) => {
            panic!("{other:?}")
        }
    }
}

fn refused(path: &str, body: &str) -> (u16, String) {
    let error = read(&ask(path, body)).unwrap_err();
    (error.status, error.message)
}

const CHAT: &str = "/v1/chat/completions";

#[test]
fn the_pictures_of_a_chat_are_told() {
    let body = r#"{"model": "m", "messages": [{"content": [{"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
        {"content": [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]}]}"#;
    assert_eq!(completion(CHAT, body).pictures, ["AAAA", "https://a/b.png"]);
}

#[test]
fn a_message_costs_four_tokens_and_one_per_begun_four_bytes() {
    let table = [
        (r#"[{"role": "user", "content": ""}]"#, 4),
        (r#"[{"role": "user", "content": null}]"#, 4),
        (r#"[{"role": "user"}]"#, 4),
        (r#"[{"role": "user", "content": "abcd"}]"#, 5),
        (r#"[{"role": "user", "content": "abcde"}]"#, 6),
        // Six bytes once the escapes are undone.
        (r#"[{"role": "user", "content": "\u00e9\n\"é"}]"#, 6),
        (
            r#"[{"content": [{"type": "text", "text": "abcd"}, {"type": "image_url",
               "image_url": {"url": "data:long"}}, {"type": "text", "text": "abcd"}]}]"#,
            6,
        ),
        (r#"[{"content": "abcd"}, {"content": "abcd"}]"#, 10),
    ];
    for (messages, tokens) in table {
        let body = format!(r#"{{"model": "m", "messages": {messages}}}"#);
        assert_eq!(completion(CHAT, &body).prompt_tokens, tokens, "{messages}");
    }
}

#[test]
fn a_plain_model_name_is_borrowed_from_the_body() {
    let chat = completion(CHAT, r#"{"model": "gpt-4o", "messages": [{"content": "x"}]}"#);
    assert!(matches!(chat.model, Cow::Borrowed("gpt-4o")));
}

#[test]
fn the_newer_name_of_the_cap_wins() {
    let body = r#"{"model": "m", "messages": [{"content": "x"}], "max_tokens": 3,
                   "max_completion_tokens": 5, "n": 2, "stream": true,
                   "stream_options": {"include_usage": true}}"#;
    let chat = completion(CHAT, body);
    assert_eq!((chat.cap, chat.choices, chat.stream, chat.include_usage), (Some(5), 2, true, true));
}

#[test]
fn all_four_forms_of_prompts_and_inputs_are_counted() {
    let table = [
        (r#""abcde""#, vec![2]),
        (r#"["abcd", "", "abcde"]"#, vec![1, 0, 2]),
        ("[1, 2, 3]", vec![3]),
        ("[[1, 2], [3]]", vec![2, 1]),
    ];
    for (input, tokens) in table {
        let body = format!(r#"{{"model": "m", "input": {input}}}"#);
        let counted: Vec<u64> = embedding(&body).inputs.iter().map(|input| input.tokens).collect();
        assert_eq!(counted, tokens, "{input}");
    }
    let text = completion(
        "/v1/completions",
        r#"{"model": "m", "prompt": ["abcd", "abcd"], "n": 2, "best_of": 3}"#,
    );
    assert_eq!((text.prompt_tokens, text.choices, text.generated, text.cap), (2, 4, 6, Some(16)));
}

#[test]
fn equal_inputs_and_only_they_have_equal_hashes() {
    let body = r#"{"model": "m", "input": ["abcd", "abcd", "abce"]}"#;
    let inputs = embedding(body).inputs;
    assert_eq!(inputs[0], inputs[1]);
    assert_ne!(inputs[0].hash, inputs[2].hash);
}

#[test]
fn what_openai_refuses_in_chats_is_refused() {
    for (body, message) in [
        ("{", "We could not parse the JSON body of your request"),
        ("[]", "Invalid request body"),
        (r#"{"messages": [{}]}"#, "missing field `model`"),
        (r#"{"model": "m", "messages": []}"#, "[] is too short"),
        (r#"{"model": "m", "messages": [{"content": 7}]}"#, "text, an array of content parts"),
        (r#"{"model": "m", "messages": [{}], "n": 0}"#, "n must be from 1 to 128"),
        (
            r#"{"model": "m", "messages": [{}], "stream_options": {"include_usage": true}}"#,
            "only allowed when 'stream' is enabled",
        ),
    ] {
        let (status, found) = refused(CHAT, body);
        assert_eq!(status, 400, "{body}");
        assert!(found.contains(message), "{body}: {found}");
    }
}

#[test]
fn what_openai_refuses_elsewhere_is_refused() {
    let (text, vectors) = ("/v1/completions", "/v1/embeddings");
    for (path, more, message) in [
        (text, r#""prompt": []"#, "prompt must have"),
        (text, r#""prompt": "x", "n": 3, "best_of": 2"#, "at least n"),
        (text, r#""prompt": "x", "stream": true, "best_of": 2"#, "cannot be streamed"),
        (vectors, r#""input": ["x", 1]"#, "not both"),
        (vectors, r#""input": "x", "dimensions": 0"#, "dimensions must be from 1 to 8192"),
        (vectors, r#""input": "x", "encoding_format": "hex""#, "unknown variant `hex`"),
    ] {
        let (status, found) = refused(path, &format!(r#"{{"model": "m", {more}}}"#));
        assert_eq!(status, 400, "{more}");
        assert!(found.contains(message), "{more}: {found}");
    }
}

#[test]
fn a_wrong_path_or_method_is_refused() {
    let (status, message) = refused("/v1/other", "{}");
    assert_eq!((status, message.as_str()), (404, "Unknown request URL: POST /v1/other."));
    let (status, message) = refused("/v1/models", "");
    assert_eq!((status, message.as_str()), (405, "Not allowed to POST on /v1/models."));
}

#[test]
fn a_model_name_in_a_path_may_be_encoded() {
    for (path, model) in [
        ("/v1/models/a/b", "a/b"),
        ("/v1/models/fault%3Astatus:503", "fault:status:503"),
        ("/v1/models/odd%zz%", "odd%zz%"),
    ] {
        let ask =
            Ask { method: &Method::GET, path, query: "", key: None, content_type: "", body: b"" };
        assert!(matches!(read(&ask), Ok(Inquiry::Model(name)) if name == model), "{path}");
    }
}
