//! What is spoken and heard, and pictures that are edited: forms in, bytes out, exact on both
//! sides.
//!
//! The truth log counts characters, seconds and tokens; the books must say the same to the last
//! unit, whichever of them the price list has rates for. Not here: how forms and files are read
//! (the wire's `form` and `sound`). Source: SPEC 4 and 15, `a-inbound` A.1.

use anima_simulator::Usage;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::testapp::{MAIN_SECRET, Reply, TestApp, nano, on_both};

on_both! {
    speech_is_paid_by_its_characters_and_comes_as_it_is_made;
    speech_as_events_is_paid_by_the_tokens_that_it_tells;
    speech_that_breaks_off_is_not_sold;
    a_recording_is_paid_by_its_seconds_in_every_form_of_answer;
    a_recording_is_paid_by_its_tokens_where_these_have_a_price;
    a_recording_is_heard_as_a_stream;
    what_nobody_tells_is_measured_and_marked;
    pictures_are_edited_from_a_form_and_from_json;
    sound_is_held_before_it_is_sent_and_refused_in_words;
    the_same_form_under_another_boundary_is_the_same_request;
}

/// A price per unit of a meter, on both sides.
type Rates = [(&'static str, &'static str, &'static str)];

/// An alias with a channel of its name and rates of its own: meter, sale, cost.
async fn alias(app: &TestApp, code: &str, kind: &str, (model, rates): (&str, &Rates)) {
    app.channel(code, MAIN_SECRET, json!({})).await;
    app.unpriced_alias(code, kind, &[(code, model)]).await;
    let meters = |is_sale: bool| {
        let meter = |(meter, sale, cost): &(&str, &str, &str)| {
            let amount = if is_sale { sale } else { cost };
            json!({"meter": meter, "per": 1, "amount": amount})
        };
        rates.iter().map(meter).collect::<Value>()
    };
    let sale = json!({"code": format!("{code}-sale"), "side": "sale", "currency": "USD",
        "alias": code, "meters": meters(true)});
    app.create("/prices", &sale).await;
    let cost = json!({"code": format!("{code}-cost"), "side": "cost", "currency": "USD",
        "channel": code, "model": model, "meters": meters(false)});
    app.create("/prices", &cost).await;
}

fn part(head: &str, content: &[u8]) -> Vec<u8> {
    [b"Content-Disposition: form-data; ", head.as_bytes(), b"\r\n\r\n", content, b"\r\n"].concat()
}

/// A wave file of so many seconds.
fn recording(seconds: u32) -> Vec<u8> {
    let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    file.extend(8_000_u32.to_le_bytes());
    file.extend(16_000_u32.to_le_bytes());
    file.extend([2, 0, 16, 0]);
    file.extend(b"data");
    file.extend((seconds * 16_000).to_le_bytes());
    file.resize(44 + seconds as usize * 16_000, 1);
    file
}

async fn send(app: &TestApp, path: &str, (parts, boundary): (&[Vec<u8>], &str)) -> Reply {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        body.extend_from_slice(part);
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let kind = format!("multipart/form-data; boundary={boundary}");
    let key = app.key.as_str();
    let headers =
        [("x-api-key", key), ("content-type", kind.as_str()), ("idempotency-key", "form")];
    let headers = if boundary.starts_with("once") { &headers[..] } else { &headers[..2] };
    app.raw(Method::POST, path, headers, Bytes::from(body)).await
}

async fn hear(app: &TestApp, path: &str, seconds: u32, fields: &[(&str, &str)]) -> Reply {
    let file = "name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav";
    let mut parts = vec![part(file, &recording(seconds))];
    parts.extend(
        fields.iter().map(|(name, text)| part(&format!("name=\"{name}\""), text.as_bytes())),
    );
    send(app, path, (&parts, "Sound0")).await
}

/// What the provider worked for a reply, and the legs: credited account, amount, estimate.
async fn booked(app: &TestApp, reply: &Reply) -> (Usage, Vec<(String, i64, bool)>) {
    let [call] = &app.calls_of(reply).await[..] else { panic!("one call: {reply:?}") };
    let legs = app.legs(reply).await;
    (call.billed, legs.into_iter().map(|leg| (leg.credit, leg.amount, leg.estimate)).collect())
}

fn sides(code: &str, sale: i64, cost: i64) -> Vec<(String, i64, bool)> {
    vec![("revenue".into(), sale, false), (format!("payable:{code}"), cost, false)]
}

fn times(quantity: u64, rate: &str) -> i64 {
    i64::try_from(quantity).unwrap() * nano(rate)
}

const WORDS: &str = "Grüße from a small machine.";

async fn speech_is_paid_by_its_characters_and_comes_as_it_is_made(app: &TestApp) {
    alias(app, "voice", "speech", ("tts-1", &[("characters", "0.000015", "0.000012")])).await;
    let body = json!({"model": "voice", "input": WORDS, "voice": "alloy"});
    let reply = app.post("/v1/audio/speech", &body).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "audio/mpeg"), "{reply:?}");
    assert!(reply.complete && reply.body.starts_with(b"ID3"), "{reply:?}");
    assert_eq!(reply.text().matches("of sound.").count(), 4, "{reply:?}");
    assert_eq!(reply.header("x-anima-served-model"), "tts-1");
    let (billed, legs) = booked(app, &reply).await;
    assert_eq!(billed.characters, 27);
    assert_eq!(legs, sides("voice", times(27, "0.000015"), times(27, "0.000012")));
}

async fn speech_as_events_is_paid_by_the_tokens_that_it_tells(app: &TestApp) {
    let rates: &Rates = &[
        ("input_tokens", "0.0000006", "0.0000005"),
        ("output_audio_tokens", "0.000012", "0.00001"),
    ];
    alias(app, "voice", "speech", ("gpt-4o-mini-tts", rates)).await;
    let body = json!({"model": "voice", "input": WORDS, "voice": "alloy", "stream_format": "sse"});
    let reply = app.post("/v1/audio/speech", &body).await;
    assert_eq!(reply.header("content-type"), "text/event-stream; charset=utf-8", "{reply:?}");
    assert_eq!(reply.last_event()["type"], "speech.audio.done");
    let (billed, legs) = booked(app, &reply).await;
    let of = |input, output| {
        times(billed.prompt_tokens, input) + times(billed.completion_tokens, output)
    };
    let (sale, cost) = (of("0.0000006", "0.000012"), of("0.0000005", "0.00001"));
    assert_eq!(legs, sides("voice", sale, cost));
    // Bytes tell no tokens: what they are taken for is marked.
    let body = json!({"model": "voice", "input": WORDS, "voice": "alloy"});
    let reply = app.post("/v1/audio/speech", &body).await;
    let (_, legs) = booked(app, &reply).await;
    assert!(legs.iter().all(|(_, amount, is_estimate)| *amount > 0 && *is_estimate), "{legs:?}");
    assert_eq!(legs[1].0, "payable_estimated:voice");
}

async fn speech_that_breaks_off_is_not_sold(app: &TestApp) {
    let rates: &Rates = &[("characters", "0.000015", "0.000012")];
    alias(app, "voice", "speech", ("fault:cut-stream:2", rates)).await;
    let before = app.balance().await;
    let body = json!({"model": "voice", "input": WORDS, "voice": "alloy"});
    let reply = app.post("/v1/audio/speech", &body).await;
    assert!(!reply.complete, "half a sound must not look like a whole one: {reply:?}");
    app.settled().await;
    assert_eq!(app.balance().await, before);
    let (billed, legs) = booked(app, &reply).await;
    let costs: Vec<_> = legs.iter().map(|leg| (leg.0.as_str(), leg.1)).collect();
    assert_eq!(costs, [("payable:voice", times(billed.characters, "0.000012"))]);
}

async fn a_recording_is_paid_by_its_seconds_in_every_form_of_answer(app: &TestApp) {
    let rates: &Rates = &[("audio_seconds", "0.0001", "0.00008")];
    alias(app, "ear", "transcription", ("whisper-1", rates)).await;
    for path in ["/v1/audio/transcriptions", "/v1/audio/translations"] {
        for format in ["json", "verbose_json", "text", "srt", "vtt"] {
            let fields = [("model", "ear"), ("response_format", format), ("language", "de")];
            let reply = hear(app, path, 3, &fields).await;
            assert_eq!(reply.status, 200, "{format}: {reply:?}");
            let kind = reply.header("content-type").to_owned();
            match format {
                "text" => assert!(kind.starts_with("text/plain"), "{kind}"),
                "srt" => assert!(reply.text().starts_with("1\n00:00:00,000 --> 00:00:03,000\n")),
                "vtt" => {
                    assert!(reply.text().starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:03.000\n"));
                }
                _ => assert_eq!(reply.json()["text"].as_str().unwrap().split(' ').count(), 16),
            }
            let (billed, legs) = booked(app, &reply).await;
            assert_eq!(billed.audio_seconds, 3);
            let (sale, cost) = (times(3, "0.0001"), times(3, "0.00008"));
            assert_eq!(legs, sides("ear", sale, cost), "{path} {format}");
        }
    }
}

const TOKENS: &Rates = &[
    ("input_audio_tokens", "0.000006", "0.000005"),
    ("input_tokens", "0.0000025", "0.000002"),
    ("output_tokens", "0.00001", "0.000008"),
];

fn of_tokens(billed: &Usage, sale: bool) -> i64 {
    let (input, output) = if sale { ("0.000006", "0.00001") } else { ("0.000005", "0.000008") };
    times(billed.prompt_tokens, input) + times(billed.completion_tokens, output)
}

async fn a_recording_is_paid_by_its_tokens_where_these_have_a_price(app: &TestApp) {
    alias(app, "ear", "transcription", ("gpt-4o-transcribe", TOKENS)).await;
    for format in ["json", "text"] {
        let fields = [("response_format", format), ("model", "ear")];
        let reply = hear(app, "/v1/audio/transcriptions", 7, &fields).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let (billed, legs) = booked(app, &reply).await;
        assert_eq!((billed.prompt_tokens, billed.completion_tokens), (70, 16));
        assert_eq!(legs, sides("ear", of_tokens(&billed, true), of_tokens(&billed, false)));
    }
}

async fn a_recording_is_heard_as_a_stream(app: &TestApp) {
    alias(app, "ear", "transcription", ("gpt-4o-transcribe", TOKENS)).await;
    let fields = [("model", "ear"), ("stream", "true")];
    let reply = hear(app, "/v1/audio/transcriptions", 7, &fields).await;
    assert_eq!(reply.last_event()["type"], "transcript.text.done", "{reply:?}");
    let (billed, legs) = booked(app, &reply).await;
    assert_eq!(legs, sides("ear", of_tokens(&billed, true), of_tokens(&billed, false)));
    // Some models stream nothing and say all at once.
    let rates: &Rates = &[("audio_seconds", "0.0001", "0.00008")];
    alias(app, "old-ear", "transcription", ("whisper-1", rates)).await;
    let fields = [("model", "old-ear"), ("stream", "true")];
    let reply = hear(app, "/v1/audio/transcriptions", 7, &fields).await;
    assert_eq!(reply.json()["text"].as_str().unwrap().split(' ').count(), 16, "{reply:?}");
    assert_eq!(booked(app, &reply).await.1[0].1, times(7, "0.0001"));
}

async fn what_nobody_tells_is_measured_and_marked(app: &TestApp) {
    let rates: &Rates = &[("audio_seconds", "0.0001", "0.00008")];
    alias(app, "ear", "transcription", ("sim-x+usage-missing", rates)).await;
    let reply = hear(app, "/v1/audio/transcriptions", 5, &[("model", "ear")]).await;
    let (_, legs) = booked(app, &reply).await;
    let expected = [
        ("revenue".to_owned(), times(5, "0.0001"), true),
        ("payable_estimated:ear".to_owned(), times(5, "0.00008"), true),
    ];
    assert_eq!(legs, expected);
}

async fn pictures_are_edited_from_a_form_and_from_json(app: &TestApp) {
    alias(app, "brush", "image", ("sim-picture", &[("images", "0.04", "0.03")])).await;
    let picture = "name=\"image[]\"; filename=\"a.png\"\r\nContent-Type: image/png";
    let parts = [
        part(picture, b"\x89PNG\r\n\x1a\n1"),
        part(picture, b"\x89PNG\r\n\x1a\n2"),
        part("name=\"prompt\"", b"make it a cat"),
        part("name=\"n\"", b"2"),
        part("name=\"model\"", b"brush"),
    ];
    let reply = send(app, "/v1/images/edits", (&parts, "Pictures")).await;
    assert_eq!(
        (reply.status, reply.json()["data"].as_array().map(Vec::len)),
        (200, Some(2)),
        "{reply:?}"
    );
    assert_eq!(booked(app, &reply).await.1, sides("brush", nano("0.08"), nano("0.06")));
    let body = json!({"model": "brush", "prompt": "a cat", "n": 3,
        "images": [{"image_url": "https://example.invalid/a.png"}]});
    let reply = app.post("/v1/images/edits", &body).await;
    assert_eq!(booked(app, &reply).await.1, sides("brush", nano("0.12"), nano("0.09")));
}

async fn sound_is_held_before_it_is_sent_and_refused_in_words(app: &TestApp) {
    let rates: &Rates = &[("audio_seconds", "1", "0.5")];
    alias(app, "ear", "transcription", ("whisper-1", rates)).await;
    let path = "/v1/audio/transcriptions";
    // An hour costs more than the wallet has.
    let reply = hear(app, path, 101, &[("model", "ear")]).await;
    assert_eq!(reply.refusal(), (429, "insufficient_quota".into()), "{reply:?}");
    assert!(app.calls_of(&reply).await.is_empty(), "nothing was sent");
    for (fields, param) in [
        (&[("model", "")][..], "model"),
        (&[("model", "ear"), ("response_format", "xml")], "response_format"),
        (&[("model", "ear"), ("Model", "other")], "model"),
    ] {
        let reply = hear(app, path, 1, fields).await;
        assert_eq!(
            (reply.status, &reply.json()["error"]["param"]),
            (400, &json!(param)),
            "{reply:?}"
        );
    }
    let reply = app.post(path, &json!({"model": "ear"})).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("multipart/form-data"), "{reply:?}");
    let reply = app.post("/v1/audio/speech", &json!({"model": "ear", "input": "x"})).await;
    assert_eq!(reply.status, 400, "another kind of alias: {reply:?}");
    let reply = app.post("/v1/audio/speech", &json!({"model": "ear", "input": ""})).await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("input")));
    for (n, (fault, status, reason)) in [
        ("fault:status:429:retry-after=7", 429, "upstream_rate_limited"),
        ("fault:401", 502, "upstream_auth"),
        ("fault:error-in-200", 502, "error_in_answer"),
    ]
    .into_iter()
    .enumerate()
    {
        let code = format!("ear-{n}");
        alias(app, &code, "transcription", (fault, &[("audio_seconds", "0.1", "0.1")])).await;
        let reply = hear(app, path, 1, &[("model", &code)]).await;
        let found = reply.json()["anima"]["reason"].as_str().unwrap_or_default().to_owned();
        assert_eq!((reply.status, found.as_str()), (status, reason), "{fault}: {reply:?}");
        assert!(app.legs(&reply).await.iter().all(|leg| leg.credit != "revenue"), "{fault}");
    }
}

async fn the_same_form_under_another_boundary_is_the_same_request(app: &TestApp) {
    let rates: &Rates = &[("audio_seconds", "0.0001", "0.00008")];
    alias(app, "ear", "transcription", ("whisper-1", rates)).await;
    let parts = |seconds| {
        [
            part("name=\"file\"; filename=\"a.wav\"", &recording(seconds)),
            part("name=\"model\"", b"ear"),
        ]
    };
    let path = "/v1/audio/transcriptions";
    let first = send(app, path, (&parts(2), "once1")).await;
    let again = send(app, path, (&parts(2), "once2")).await;
    assert_eq!((first.status, again.status), (200, 200), "{again:?}");
    assert_eq!((again.header("x-anima-idempotent-replay"), &again.body), ("true", &first.body));
    let other = send(app, path, (&parts(3), "once3")).await;
    assert_eq!(other.refusal(), (409, "idempotency_conflict".into()));
}
