//! Clients of Anthropic, Gemini and Responses:
//! answers, streams, errors and lists in their own form.
//!
//! The provider speaks `OpenAI`'s chat, so each call here is a translation. Not here: what each
//! dialect can say (the wire's golden conversations). Sources: `a-inbound`, `wire` 4.6.

use http::Method;
use serde_json::{Value, json};

use crate::testapp::{COST, Reply, SALE, TestApp, on_both, owed};

mod quiet; // a key in a query is in no log

on_both! {
    each_client_is_answered_in_its_own_form_and_both_sides_are_booked;
    each_client_is_streamed_to_in_its_own_form_and_both_sides_are_booked;
    each_client_is_refused_in_its_own_form;
    a_stream_that_breaks_ends_in_the_clients_own_form;
    a_prompt_is_counted_and_not_charged;
    models_are_listed_in_each_form;
    vectors_are_made_for_either_client_by_either_provider;
    vectors_come_also_from_providers_with_a_form_of_their_own;
    each_clients_call_is_made_once_under_its_idempotency_key;
    what_a_provider_cannot_carry_goes_to_the_next_and_else_is_the_callers_fault;
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Anthropic,
    Responses,
    Gemini,
    GeminiArray,
}

const CLIENTS: [Client; 4] =
    [Client::Anthropic, Client::Responses, Client::Gemini, Client::GeminiArray];

impl Client {
    fn path(self, alias: &str, stream: bool) -> String {
        match (self, stream) {
            (Self::Anthropic, _) => "/v1/messages".into(),
            (Self::Responses, _) => "/v1/responses".into(),
            (_, false) => format!("/v1beta/models/{alias}:generateContent"),
            (Self::Gemini, true) => format!("/v1beta/models/{alias}:streamGenerateContent?alt=sse"),
            (_, true) => format!("/v1/models/{alias}:streamGenerateContent"),
        }
    }

    fn body(self, alias: &str, stream: bool) -> Value {
        const WORDS: &str = "Say something, please.";
        match self {
            Self::Anthropic => json!({"model": alias, "max_tokens": 100, "stream": stream,
                "messages": [{"role": "user", "content": WORDS}]}),
            Self::Responses => json!({"model": alias, "input": WORDS, "stream": stream}),
            Self::Gemini | Self::GeminiArray => {
                json!({"contents": [{"role": "user", "parts": [{"text": WORDS}]}]})
            }
        }
    }

    /// A call as its SDK makes it, with more headers.
    async fn call(
        self,
        app: &TestApp,
        (alias, stream): (&str, bool),
        key: &str,
        more: &[(&str, &str)],
    ) -> Reply {
        let bearer = format!("Bearer {key}");
        let mut headers = match self {
            Self::Anthropic => vec![("x-api-key", key), ("anthropic-version", "2023-06-01")],
            Self::Responses => vec![("authorization", bearer.as_str())],
            Self::Gemini | Self::GeminiArray => vec![("x-goog-api-key", key)],
        };
        headers.extend_from_slice(more);
        let body = self.body(alias, stream).to_string();
        app.raw(Method::POST, &self.path(alias, stream), &headers, body).await
    }

    async fn ask(self, app: &TestApp, alias: &str, stream: bool) -> Reply {
        self.call(app, (alias, stream), &app.key, &[]).await
    }

    /// The text of a whole answer.
    fn text(self, body: &Value) -> &str {
        let text = match self {
            Self::Anthropic => &body["content"][0]["text"],
            Self::Responses => &body["output"][0]["content"][0]["text"],
            Self::Gemini | Self::GeminiArray => {
                &body["candidates"][0]["content"]["parts"][0]["text"]
            }
        };
        text.as_str().unwrap_or_default()
    }

    /// Tokens of the prompt and of the answer.
    fn usage(self, body: &Value) -> (u64, u64) {
        let usage = if self == Self::Anthropic || self == Self::Responses {
            [&body["usage"]["input_tokens"], &body["usage"]["output_tokens"]]
        } else {
            let usage = &body["usageMetadata"];
            [&usage["promptTokenCount"], &usage["candidatesTokenCount"]]
        };
        (usage[0].as_u64().unwrap_or_default(), usage[1].as_u64().unwrap_or_default())
    }

    /// The events of a stream.
    fn events(self, reply: &Reply) -> Vec<Value> {
        if self == Self::GeminiArray {
            return reply.json().as_array().unwrap().clone();
        }
        reply.events().iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    /// The text of a stream.
    fn streamed(self, events: &[Value]) -> String {
        let pieces = events.iter().filter_map(|event| match self {
            Self::Anthropic => event["delta"]["text"].as_str(),
            Self::Responses if event["type"] == "response.output_text.delta" => {
                event["delta"].as_str()
            }
            Self::Responses => None,
            Self::Gemini | Self::GeminiArray => {
                event["candidates"][0]["content"]["parts"][0]["text"].as_str()
            }
        });
        pieces.collect()
    }

    /// Whether an event is the one that a whole stream ends with.
    fn is_end(self, event: &Value) -> bool {
        match self {
            Self::Anthropic => event["type"] == "message_stop",
            Self::Responses => event["type"] == "response.completed",
            Self::Gemini | Self::GeminiArray => event["candidates"][0]["finishReason"] == "STOP",
        }
    }

    /// The status and the error's own word.
    fn refusal(self, reply: &Reply) -> (u16, String) {
        (reply.status, self.word(&reply.json()))
    }

    fn word(self, body: &Value) -> String {
        let word = match self {
            Self::Anthropic => &body["error"]["type"],
            Self::Responses if body["error"].is_null() => &body["code"],
            Self::Responses => &body["error"]["code"],
            Self::Gemini | Self::GeminiArray => &body["error"]["status"],
        };
        word.as_str().unwrap_or_default().to_owned()
    }
}

/// Both sides of a call that one attempt served are what the truth log says.
async fn assert_exact(app: &TestApp, reply: &Reply) -> (u64, u64) {
    let [call] = &app.calls_of(reply).await[..] else { panic!("one call: {reply:?}") };
    let legs = app.legs(reply).await;
    let amounts: Vec<_> = legs.iter().map(|leg| (leg.amount, leg.estimate)).collect();
    let (sale, cost) = (owed(&SALE, &call.billed, 1_000), owed(&COST, &call.billed, 1_000));
    assert_eq!(amounts, [(sale, false), (cost, false)], "{call:?}");
    (call.billed.prompt_tokens, call.billed.completion_tokens)
}

async fn each_client_is_answered_in_its_own_form_and_both_sides_are_booked(app: &TestApp) {
    for client in CLIENTS {
        let reply = client.ask(app, "chat", false).await;
        assert_eq!(reply.status, 200, "{client:?}: {reply:?}");
        let body = reply.json();
        assert_eq!(client.text(&body).split_whitespace().count(), 16, "{client:?}: {body}");
        let billed = assert_exact(app, &reply).await;
        assert_eq!(client.usage(&body), billed, "{client:?}: {body}");
        assert_eq!(reply.header("x-anima-served-model"), "sim-chat");
        let own = if client == Client::Anthropic { reply.request_id() } else { "" };
        assert_eq!(reply.header("request-id"), own);
        match client {
            Client::Anthropic => assert_eq!(body["type"], "message"),
            Client::Responses => {
                assert_eq!(body["object"], "response");
                assert!(body["created_at"].as_i64().unwrap() > 1_700_000_000, "{body}");
            }
            Client::Gemini | Client::GeminiArray => {
                assert_eq!(body["candidates"][0]["finishReason"], "STOP");
            }
        }
    }
    let metrics = app.metrics().await;
    for endpoint in ["messages", "responses", "generate_content"] {
        assert!(metrics.contains(&format!("endpoint=\"{endpoint}\"")), "{endpoint}");
    }
}

async fn each_client_is_streamed_to_in_its_own_form_and_both_sides_are_booked(app: &TestApp) {
    for client in CLIENTS {
        let reply = client.ask(app, "chat", true).await;
        assert_eq!(reply.status, 200, "{client:?}: {reply:?}");
        let is_array = client == Client::GeminiArray;
        let kind = if is_array { "application/json" } else { "text/event-stream" };
        assert!(reply.header("content-type").starts_with(kind), "{reply:?}");
        let events = client.events(&reply);
        let text = client.streamed(&events);
        assert_eq!(text.split_whitespace().count(), 16, "{client:?}: {}", reply.text());
        assert!(events.iter().any(|event| client.is_end(event)), "{client:?}: {}", reply.text());
        assert!(!reply.text().contains("[DONE]"), "{client:?}");
        assert_exact(app, &reply).await;
    }
}

async fn each_client_is_refused_in_its_own_form(app: &TestApp) {
    app.app("poor", "0", json!({})).await;
    let poor = app.mint("poor", json!({})).await.1;
    app.alias("ill", "chat", &[("main", "fault:status:503")]).await;
    for client in CLIENTS {
        let own = |anthropic: (u16, &str), openai: (u16, &str), gemini: (u16, &str)| {
            let (status, word) = match client {
                Client::Anthropic => anthropic,
                Client::Responses => openai,
                Client::Gemini | Client::GeminiArray => gemini,
            };
            (status, word.to_owned())
        };
        let unknown = client.call(app, ("chat", false), "sk-none-none", &[]).await;
        let expected =
            own((401, "authentication_error"), (401, "invalid_api_key"), (401, "UNAUTHENTICATED"));
        assert_eq!(client.refusal(&unknown), expected);
        let model = client.ask(app, "none", true).await;
        let expected = own((404, "not_found_error"), (404, "model_not_found"), (404, "NOT_FOUND"));
        assert_eq!(client.refusal(&model), expected);
        let is_googles = matches!(client, Client::Gemini | Client::GeminiArray);
        let list = if is_googles { "GET /v1beta/models" } else { "GET /v1/models" };
        assert!(model.text().contains(list), "{}", model.text());
        let funds = client.call(app, ("chat", true), &poor, &[]).await;
        let expected =
            own((402, "billing_error"), (429, "insufficient_quota"), (429, "RESOURCE_EXHAUSTED"));
        assert_eq!(client.refusal(&funds), expected);
        let ill = client.ask(app, "ill", true).await;
        let expected =
            own((529, "overloaded_error"), (503, "upstream_overloaded"), (503, "UNAVAILABLE"));
        assert_eq!(client.refusal(&ill), expected);
        assert_eq!((ill.header("x-should-retry"), ill.header("x-anima-attempts")), ("true", "1"));
        for reply in [unknown, model, funds, ill] {
            assert_official(client, &reply);
        }
    }
    let key = [("x-goog-api-key", app.key.as_str())];
    let path = "/v1beta/models/chat:predict";
    let reply = app.raw(Method::POST, path, &key, "{}").await;
    assert_eq!(Client::Gemini.refusal(&reply), (404, "NOT_FOUND".into()));
    let reply = app.raw(Method::GET, "/v1/messages", &key, "").await;
    assert_eq!(Client::Anthropic.refusal(&reply), (405, "invalid_request_error".into()));
}

/// The members that each vendor documents, and none of them of another kind.
fn assert_official(client: Client, reply: &Reply) {
    let body = reply.json();
    let error = &body["error"];
    assert!(!error["message"].as_str().unwrap().is_empty(), "{body}");
    assert!(reply.request_id().starts_with("req_"), "{reply:?}");
    match client {
        Client::Anthropic => {
            assert_eq!(body["type"], "error");
            assert_eq!(body["request_id"], reply.header("request-id"));
        }
        Client::Responses => {
            let names: Vec<&String> = error.as_object().unwrap().keys().collect();
            assert_eq!(names, ["code", "message", "param", "type"]);
        }
        Client::Gemini | Client::GeminiArray => {
            assert_eq!(error["code"], reply.status);
            let kind = &error["details"][0]["@type"];
            assert_eq!(kind, "type.googleapis.com/google.rpc.ErrorInfo");
        }
    }
}

async fn a_stream_that_breaks_ends_in_the_clients_own_form(app: &TestApp) {
    app.fault("cut-stream:4");
    for client in CLIENTS {
        let reply = client.ask(app, "chat", true).await;
        assert_eq!(reply.status, 200, "{client:?}: {reply:?}");
        let events = client.events(&reply);
        assert!(!client.streamed(&events).is_empty(), "{client:?}: {}", reply.text());
        assert!(!events.iter().any(|event| client.is_end(event)), "{}", reply.text());
        let word = match client {
            Client::Anthropic => "api_error",
            Client::Responses => "upstream_stream_cut",
            Client::Gemini | Client::GeminiArray => "INTERNAL",
        };
        assert_eq!(client.word(events.last().unwrap()), word, "{}", reply.text());
        assert_eq!(app.legs(&reply).await.len(), 2);
    }
}

async fn a_prompt_is_counted_and_not_charged(app: &TestApp) {
    let before = app.balance().await;
    let body = Client::Anthropic.body("chat", false);
    let counted = app.post("/v1/messages/count_tokens", &body).await.json();
    assert!(counted["input_tokens"].as_u64().unwrap() > 3, "{counted}");
    let body = Client::Gemini.body("chat", false);
    let path = "/v1beta/models/chat:countTokens";
    let plain = app.post(path, &body).await.json();
    assert!(plain["totalTokens"].as_u64().unwrap() > 3, "{plain}");
    let mut inner = body.clone();
    inner["model"] = json!("models/chat");
    let wrapped = app.post(path, &json!({ "generateContentRequest": inner })).await.json();
    assert_eq!(wrapped, plain);
    let unknown = app.post("/v1beta/models/none:countTokens", &body).await;
    assert_eq!(Client::Gemini.refusal(&unknown), (404, "NOT_FOUND".into()));
    assert!(app.calls().await.is_empty());
    assert_eq!(app.balance().await, before);
}

async fn vectors_are_made_for_either_client_by_either_provider(app: &TestApp) {
    let origin = app.upstream_url.trim_end_matches("/v1").to_owned();
    app.channel("google", "sk-main", json!({"provider": "gemini", "base_url": origin})).await;
    app.embedding().await;
    app.alias("embed-google", "embedding", &[("google", "sim-embedding")]).await;
    let content = |text: &str| json!({"content": {"parts": [{"text": text}]}});
    let mut seen = Vec::new();
    for alias in ["embed", "embed-google"] {
        let call = async |path: &str, body: &Value| {
            let reply = app.post(path, body).await;
            assert_eq!(reply.status, 200, "{path}: {reply:?}");
            assert_exact(app, &reply).await;
            reply.json()
        };
        let one = call(&format!("/v1beta/models/{alias}:embedContent"), &content("one text")).await;
        let mut requests = [content("one text"), content("another")];
        for request in &mut requests {
            request["model"] = json!(format!("models/{alias}"));
        }
        let path = format!("/v1beta/models/{alias}:batchEmbedContents");
        let list = call(&path, &json!({ "requests": requests })).await;
        let body = json!({"model": alias, "input": ["one text", "another"]});
        let plain = call("/v1/embeddings", &body).await;
        assert_eq!(list["embeddings"].as_array().unwrap().len(), 2, "{list}");
        assert_eq!(list["embeddings"][0], one["embedding"], "{alias}");
        for n in 0..2 {
            assert_eq!(list["embeddings"][n]["values"], plain["data"][n]["embedding"], "{alias}");
        }
        let mut packed = body;
        packed["encoding_format"] = json!("base64");
        let packed = call("/v1/embeddings", &packed).await;
        seen.push((list["embeddings"].clone(), packed["data"].clone()));
    }
    assert_eq!(seen[0], seen[1], "the simulated provider gives one text one vector");
    let key = [("x-goog-api-key", app.key.as_str())];
    let bad = app.raw(Method::POST, "/v1beta/models/embed:embedContent", &key, "{}").await;
    assert_eq!(Client::Gemini.refusal(&bad), (400, "INVALID_ARGUMENT".into()));
    let one = app.get("/v1beta/models/embed").await.json();
    assert_eq!(one["supportedGenerationMethods"][0], "embedContent");
}

/// Vertex, Cohere, and both of Bedrock's. Titan takes one text, Cohere's there tell no tokens.
async fn vectors_come_also_from_providers_with_a_form_of_their_own(app: &TestApp) {
    let origin = app.upstream_url.trim_end_matches("/v1").to_owned();
    let content = |text: &str| json!({"content": {"parts": [{"text": text}]}});
    for (code, word, model) in [
        ("own-vertex", "vertex", "sim-embedding"),
        ("own-cohere", "cohere", "sim-embedding"),
        ("own-titan", "bedrock", "sim-titan-embed"),
        ("own-cohere-aws", "bedrock", "sim-cohere.embed"),
    ] {
        let settings = json!({"project": "p", "location": "eu"});
        let settings = if word == "vertex" { settings } else { json!({}) };
        let channel = json!({"provider": word, "base_url": origin, "settings": settings});
        app.channel(code, "sk-main", channel).await;
        let alias = format!("embed-{code}");
        app.alias(&alias, "embedding", &[(code, model)]).await;
        let call = async |path: &str, body: &Value| {
            let reply = app.post(path, body).await;
            assert_eq!(reply.status, 200, "{code}: {path}: {reply:?}");
            if code == "own-cohere-aws" {
                let legs = app.legs(&reply).await;
                assert!(legs.iter().all(|leg| leg.estimate && leg.amount != 0), "{legs:?}");
            } else {
                assert_exact(app, &reply).await;
            }
            reply.json()
        };
        let one = call(&format!("/v1beta/models/{alias}:embedContent"), &content("one text")).await;
        let mut body = json!({"model": alias, "input": ["one text"], "dimensions": 8});
        let plain = call("/v1/embeddings", &body).await;
        assert_eq!(plain["data"][0]["embedding"].as_array().unwrap().len(), 8, "{plain}");
        body["dimensions"] = json!(null);
        let plain = call("/v1/embeddings", &body).await;
        assert_eq!(plain["data"][0]["embedding"], one["embedding"]["values"], "{code}");
        body["input"] = json!(["one text", "another"]);
        if code == "own-titan" {
            let refused = app.post("/v1/embeddings", &body).await;
            assert_eq!(refused.status, 400, "{refused:?}");
            assert_eq!(refused.json()["error"]["param"], "input.texts");
            continue;
        }
        let several = call("/v1/embeddings", &body).await;
        assert_eq!(several["data"][0]["embedding"], one["embedding"]["values"], "{code}");
        assert_ne!(several["data"][1]["embedding"], one["embedding"]["values"], "{code}");
    }
}

async fn models_are_listed_in_each_form(app: &TestApp) {
    let key = app.key.as_str();
    let anthropic = [("x-api-key", key), ("anthropic-version", "2023-06-01")];
    let list = app.raw(Method::GET, "/v1/models", &anthropic, "").await.json();
    assert_eq!((&list["data"][0]["type"], &list["first_id"]), (&json!("model"), &json!("chat")));
    let one = app.raw(Method::GET, "/v1/models/none", &anthropic, "").await;
    assert_eq!(Client::Anthropic.refusal(&one), (404, "not_found_error".into()));
    let path = format!("/v1beta/models?key={key}");
    let list = app.raw(Method::GET, &path, &[], "").await.json();
    assert_eq!(list["models"][0]["name"], "models/chat");
    let google = [("x-goog-api-key", key), ("x-goog-api-client", "google-genai-sdk/3.4.0")];
    assert_eq!(app.raw(Method::GET, "/v1/models", &google, "").await.json(), list);
    let one = app.get("/v1beta/models/chat").await.json();
    assert_eq!(one["displayName"], "chat");
    let none = app.get("/v1beta/models/none").await;
    assert_eq!(Client::Gemini.refusal(&none), (404, "NOT_FOUND".into()));
}

async fn each_clients_call_is_made_once_under_its_idempotency_key(app: &TestApp) {
    for client in CLIENTS {
        for stream in [false, true] {
            let name = format!("{client:?}-{stream}");
            let key = [("idempotency-key", name.as_str())];
            let first = client.call(app, ("chat", stream), &app.key, &key).await;
            assert_eq!(first.status, 200, "{first:?}");
            let again = client.call(app, ("chat", stream), &app.key, &key).await;
            assert_eq!(again.header("x-anima-idempotent-replay"), "true", "{again:?}");
            assert_eq!(again.body, first.body);
            let kind = |reply: &Reply| reply.header("content-type").to_owned();
            assert_eq!(kind(&again), kind(&first));
            assert_eq!(app.calls_of(&first).await.len(), 1);
        }
    }
    assert_eq!(app.calls().await.len(), 2 * CLIENTS.len());
    // What Gemini's clients say in the path is part of the request.
    let key = [("idempotency-key", "Gemini-false")];
    let other = Client::Gemini.call(app, ("chat", true), &app.key, &key).await;
    assert_eq!(Client::Gemini.refusal(&other), (409, "ABORTED".into()));
}

async fn what_a_provider_cannot_carry_goes_to_the_next_and_else_is_the_callers_fault(
    app: &TestApp,
) {
    app.channel("claude", "sk-claude", json!({"provider": "anthropic"})).await;
    app.alias("first", "chat", &[("claude", "sim-chat"), ("main", "sim-chat")]).await;
    app.alias("only", "chat", &[("claude", "sim-chat")]).await;
    let body = |alias: &str| {
        let messages = json!([{"role": "user", "content": "Hello"}]);
        json!({"model": alias, "n": 2, "messages": messages})
    };
    let reply = app.chat(body("first")).await;
    assert_eq!((reply.status, reply.header("x-anima-attempts")), (200, "1"), "{reply:?}");
    assert_exact(app, &reply).await;
    let reply = app.chat(body("only")).await;
    assert_eq!(reply.refusal(), (400, "invalid_request".into()));
    let error = &reply.json()["error"];
    assert_eq!(error["param"], "n");
    assert!(error["message"].as_str().unwrap().contains("`n`"), "{error}");
    assert_eq!(reply.header("x-anima-attempts"), "0");
    assert!(app.legs(&reply).await.is_empty());
    // What only shades an answer is left out, and said.
    let mut body = Client::Anthropic.body("chat", false);
    let cached = json!({"type": "text", "text": "Be brief.",
        "cache_control": {"type": "ephemeral"}});
    body["system"] = json!([cached]);
    let reply = app.post("/v1/messages", &body).await;
    assert_eq!(
        (reply.status, reply.header("x-anima-dropped")),
        (200, "cache_control"),
        "{reply:?}"
    );
}
