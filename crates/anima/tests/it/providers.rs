//! Each client meets each provider: the same answer, exact usage, and both sides of the ledger.
//!
//! The simulated provider speaks every dialect, with one truth log for all. Not here: what each
//! dialect can say (the wire's golden conversations). Sources: `a-inbound`, `b-outbound-chat` B.8.

use http::Method;
use serde_json::{Value, json};

use crate::testapp::{COST, MAIN_SECRET, Reply, SALE, TestApp, on_both, owed};

on_both! {
    every_client_meets_every_provider;
    every_client_has_its_tools_called_by_every_provider;
    every_providers_errors_are_of_one_class;
    a_stream_that_any_provider_cuts_is_booked_as_far_as_it_came;
}

/// A channel's code, the word in its `provider`, whether its base URL is the bare origin, and how
/// the names of its models go on after `sim-`: Claude's have another dialect at some.
const PROVIDERS: [Provider; 9] = [
    Provider { code: "openai-compatible", word: "openai_compatible", bare: false, model: "x" },
    Provider { code: "anthropic", word: "anthropic", bare: true, model: "x" },
    Provider { code: "gemini", word: "gemini", bare: true, model: "x" },
    Provider { code: "openai-responses", word: "openai_responses", bare: false, model: "x" },
    Provider { code: "azure-openai", word: "azure_openai", bare: true, model: "x" },
    Provider { code: "vertex", word: "vertex", bare: true, model: "x" },
    Provider { code: "vertex-claude", word: "vertex", bare: true, model: "claude" },
    Provider { code: "bedrock", word: "bedrock", bare: true, model: "x" },
    Provider { code: "bedrock-claude", word: "bedrock", bare: true, model: "claude" },
];

/// See [`PROVIDERS`].
#[derive(Debug, Clone, Copy)]
struct Provider {
    code: &'static str,
    word: &'static str,
    bare: bool,
    model: &'static str,
}

impl Provider {
    /// A model of its own with these options.
    fn model(self, options: &str) -> String {
        format!("sim-{}+{options}", self.model)
    }

    /// Whether its answers tell usage from their first chunk on.
    fn tells_early(self) -> bool {
        matches!(self.code, "gemini" | "vertex")
    }

    /// What belongs into the channel's settings.
    fn settings(self) -> Value {
        match self.code {
            "azure-openai" => json!({"api_version": "2026-06-01"}),
            "vertex" | "vertex-claude" => json!({"project": "p", "location": "eu"}),
            _ => json!({}),
        }
    }
}

const CLIENTS: [Client; 5] =
    [Client::Chat, Client::Anthropic, Client::Responses, Client::Gemini, Client::GeminiArray];

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Chat,
    Anthropic,
    Responses,
    Gemini,
    GeminiArray,
}

impl Client {
    fn path(self, alias: &str, stream: bool) -> String {
        match (self, stream) {
            (Self::Chat, _) => "/v1/chat/completions".into(),
            (Self::Anthropic, _) => "/v1/messages".into(),
            (Self::Responses, _) => "/v1/responses".into(),
            (_, false) => format!("/v1beta/models/{alias}:generateContent"),
            (Self::Gemini, true) => format!("/v1beta/models/{alias}:streamGenerateContent?alt=sse"),
            (_, true) => format!("/v1beta/models/{alias}:streamGenerateContent"),
        }
    }

    /// The name of a tool that the client's own dialect takes, but not each other one.
    fn tool(self) -> String {
        match self {
            Self::Chat => "7-day-weather".to_owned(),
            Self::Responses => "weather".to_owned(),
            Self::Anthropic => format!("mcp__{}__weather", "server_".repeat(16)),
            Self::Gemini | Self::GeminiArray => "weather.of:cities".to_owned(),
        }
    }

    fn body(self, alias: &str, stream: bool, tools: bool) -> Value {
        const WORDS: &str = "Say something, please.";
        let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
        let name = self.tool();
        let (mut body, offered) = match self {
            Self::Chat => (
                json!({"model": alias, "stream": stream,
                    "messages": [{"role": "user", "content": WORDS}]}),
                json!({"type": "function",
                    "function": {"name": name, "parameters": schema}}),
            ),
            Self::Anthropic => (
                json!({"model": alias, "max_tokens": 100, "stream": stream,
                    "messages": [{"role": "user", "content": WORDS}]}),
                json!({"name": name, "input_schema": schema}),
            ),
            Self::Responses => (
                json!({"model": alias, "input": WORDS, "stream": stream}),
                json!({"type": "function", "name": name, "parameters": schema}),
            ),
            Self::Gemini | Self::GeminiArray => (
                json!({"contents": [{"role": "user", "parts": [{"text": WORDS}]}]}),
                json!({"functionDeclarations": [{"name": name, "parameters": schema}]}),
            ),
        };
        if tools {
            body["tools"] = json!([offered]);
        }
        body
    }

    async fn ask(self, app: &TestApp, alias: &str, (stream, tools): (bool, bool)) -> Reply {
        let headers = [("x-goog-api-key", app.key.as_str())];
        let body = self.body(alias, stream, tools).to_string();
        app.raw(Method::POST, &self.path(alias, stream), &headers, body).await
    }

    /// The payloads of an answer: one of a whole one.
    fn payloads(self, reply: &Reply, stream: bool) -> Vec<Value> {
        if !stream {
            return vec![reply.json()];
        }
        if self == Self::GeminiArray {
            return reply.json().as_array().unwrap().clone();
        }
        let events = reply.events();
        let payloads = events.iter().filter(|event| *event != "[DONE]");
        payloads.map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    /// The text of an answer.
    fn text(self, payload: &Value) -> String {
        let text = match self {
            Self::Chat if payload["object"] == "chat.completion" => {
                &payload["choices"][0]["message"]["content"]
            }
            Self::Chat => &payload["choices"][0]["delta"]["content"],
            Self::Anthropic if payload["type"] == "message" => &payload["content"][0]["text"],
            Self::Anthropic => &payload["delta"]["text"],
            Self::Responses if payload["object"] == "response" => {
                let mut items = payload["output"].as_array().unwrap().iter();
                let message = items.find(|item| item["type"] == "message");
                return message.map_or_else(String::new, |item| {
                    item["content"][0]["text"].as_str().unwrap_or_default().to_owned()
                });
            }
            Self::Responses if payload["type"] == "response.output_text.delta" => &payload["delta"],
            Self::Responses => &Value::Null,
            Self::Gemini | Self::GeminiArray => {
                &payload["candidates"][0]["content"]["parts"][0]["text"]
            }
        };
        text.as_str().unwrap_or_default().to_owned()
    }
}

/// A channel to each provider, and an alias of its name for each model.
async fn providers(app: &TestApp, more: &Value) {
    let origin = app.upstream_url.trim_end_matches("/v1").to_owned();
    for provider in PROVIDERS {
        let base_url = if provider.bare { &origin } else { &app.upstream_url };
        let mut row = more.clone();
        row["provider"] = json!(provider.word);
        row["base_url"] = json!(base_url);
        row["settings"] = provider.settings();
        app.channel(provider.code, MAIN_SECRET, row).await;
    }
}

/// Both sides of a call that one attempt served are what the truth log says.
async fn assert_exact(app: &TestApp, reply: &Reply, what: &str) {
    let [call] = &app.calls_of(reply).await[..] else { panic!("{what}: one call: {reply:?}") };
    let amounts: Vec<_> =
        app.legs(reply).await.iter().map(|leg| (leg.amount, leg.estimate)).collect();
    let (sale, cost) = (owed(&SALE, &call.billed, 1_000), owed(&COST, &call.billed, 1_000));
    assert_eq!(amounts, [(sale, false), (cost, false)], "{what}: {call:?}");
    assert_eq!(call.key_tail.as_deref(), Some("main"), "{what}");
}

async fn every_client_meets_every_provider(app: &TestApp) {
    providers(app, &json!({})).await;
    for provider in PROVIDERS {
        let alias = provider.code;
        let model = provider.model("reasoning:5+cached:3");
        app.alias(alias, "chat", &[(alias, &model)]).await;
        for (client, stream) in CLIENTS.iter().flat_map(|c| [(*c, false), (*c, true)]) {
            let what = format!("{client:?} of {}, stream {stream}", provider.code);
            let reply = client.ask(app, alias, (stream, false)).await;
            assert_eq!(reply.status, 200, "{what}: {reply:?}");
            let payloads = client.payloads(&reply, stream);
            let text: String = payloads.iter().map(|payload| client.text(payload)).collect();
            assert_eq!(text.split_whitespace().count(), 16, "{what}: {}", reply.text());
            assert_exact(app, &reply, &what).await;
        }
    }
}

async fn every_client_has_its_tools_called_by_every_provider(app: &TestApp) {
    providers(app, &json!({})).await;
    for provider in PROVIDERS {
        let alias = provider.code;
        app.alias(alias, "chat", &[(alias, &provider.model("calls:2"))]).await;
        for (client, stream) in CLIENTS.iter().flat_map(|c| [(*c, false), (*c, true)]) {
            let what = format!("{client:?} of {}, stream {stream}", provider.code);
            let reply = client.ask(app, alias, (stream, true)).await;
            assert_eq!(reply.status, 200, "{what}: {reply:?}");
            let text = reply.text();
            assert!(text.contains(&format!("\"{}\"", client.tool())), "{what}: {text}");
            assert!(text.contains("city"), "{what}: {text}");
            let reason = match client {
                Client::Chat => "\"tool_calls\"",
                Client::Anthropic => "\"tool_use\"",
                Client::Responses => "\"function_call\"",
                Client::Gemini | Client::GeminiArray => "\"functionCall\"",
            };
            assert!(text.contains(reason), "{what}: {text}");
            assert_exact(app, &reply, &what).await;
        }
    }
}

async fn every_providers_errors_are_of_one_class(app: &TestApp) {
    providers(app, &json!({})).await;
    let faults = [
        ("status:429:retry-after=7", (429, "upstream_rate_limited")),
        ("status:529", (503, "upstream_overloaded")),
        ("401", (502, "upstream_auth")),
        ("status:429:code=insufficient_quota", (502, "upstream_account_exhausted")),
        ("context-length", (400, "context_length_exceeded")),
        ("error-in-200", (502, "error_in_answer")),
    ];
    for provider in PROVIDERS {
        app.force_closed(provider.code);
        for (fault, (status, code)) in faults {
            // Amazon has no word for an account without money.
            if provider.word == "bedrock" && fault.contains("insufficient_quota") {
                continue;
            }
            let model = provider.model(fault);
            // Google's error says its status, also in a 200.
            let says_more = provider.tells_early() && code == "error_in_answer";
            let code = if says_more { "upstream_error" } else { code };
            let alias = format!("{}-{}", provider.code, code.replace('_', "-"));
            app.alias(&alias, "chat", &[(provider.code, &model)]).await;
            for stream in [false, true] {
                let what = format!("{}: {model}, stream {stream}", provider.code);
                let reply = Client::Chat.ask(app, &alias, (stream, false)).await;
                let found = reply.json()["anima"]["reason"].as_str().unwrap_or_default().to_owned();
                assert_eq!((reply.status, found.as_str()), (status, code), "{what}: {reply:?}");
                if code == "upstream_rate_limited" {
                    assert_eq!(reply.header("retry-after"), "7", "{what}");
                }
                let legs = app.legs(&reply).await;
                assert!(legs.iter().all(|leg| leg.credit != "revenue"), "{what}: {legs:?}");
            }
        }
    }
}

async fn a_stream_that_any_provider_cuts_is_booked_as_far_as_it_came(app: &TestApp) {
    providers(app, &json!({})).await;
    for provider in PROVIDERS {
        let alias = provider.code;
        app.alias(alias, "chat", &[(alias, &provider.model("cut-stream:8"))]).await;
        for client in CLIENTS {
            let what = format!("{client:?} of {}", provider.code);
            let reply = client.ask(app, alias, (true, false)).await;
            assert_eq!(reply.status, 200, "{what}: {reply:?}");
            assert!(reply.text().contains("error"), "{what}: {}", reply.text());
            let [call] = &app.calls_of(&reply).await[..] else { panic!("{what}") };
            assert_eq!(call.billed.completion_tokens, 8, "{what}");
            let legs = app.legs(&reply).await;
            let sides: Vec<_> = legs.iter().map(|leg| leg.credit.as_str()).collect();
            assert_eq!(sides, ["revenue", &format!("payable_estimated:{alias}")], "{what}");
            assert!(legs[0].estimate, "{what}");
            // Gemini tells with each chunk what it has come to: nothing is left to count.
            if provider.tells_early() {
                assert_eq!(legs[0].amount, owed(&SALE, &call.billed, 1_000), "{what}: {legs:?}");
            }
        }
    }
}
