//! What holds for every dialect and every pair of them: round trips, splits, and no panics.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::adapter::StreamDecoder;
use crate::canonical::{
    Body, Choice, Delta, Effort, Format, Issuer, Opening, Part, Reasoning, Role, Sampling, Schema,
    Signature, Source, Stop, Tool, ToolChoice, ToolResult, ToolUse, Turn,
};
use crate::dialect::openai::quirks::{NONE, OPENAI};
use crate::dialect::openai::usage::Report;
use crate::request::CallRequest;
use crate::sse;

const ALL: [Dialect; 4] =
    [Dialect::OpenAiChat, Dialect::Anthropic, Dialect::Gemini, Dialect::Responses];

const ECHO: Echo<'_> =
    Echo { model: "fast", created_s: 7, input_tokens: 3, include_usage: true, as_array: false };

fn write_request(dialect: Dialect, request: &Request<'_>) -> Result<Bytes, Refusal> {
    let carried = match dialect {
        Dialect::OpenAiChat => chat::write_request(
            request,
            chat::Target { model: "fast", is_openai: false, quirks: &NONE },
        ),
        Dialect::Anthropic => {
            let target = anthropic::Target { model: "fast", thinks_by_budget: true };
            anthropic::write_request(request, target)
        }
        Dialect::Gemini => {
            let target = gemini::Target { model: "fast", is_newer: false, takes_ids: true };
            gemini::write_request(request, target)
        }
        Dialect::Responses => responses::write_request(request, "fast"),
    };
    carried.map(|carried| {
        assert!(carried.dropped.is_empty(), "{dialect:?} drops {}", carried.dropped.header());
        carried.body
    })
}

/// What the dialect reads of what it wrote.
fn again<T>(body: &Bytes, read: impl FnOnce(&Outline<'_>) -> T) -> T {
    let outline = Outline::read(body).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(body));
    });
    read(&outline)
}

/// A signature as its issuer makes it: a seal of `OpenAI`'s has its item's id with it.
fn signature(issuer: Issuer) -> Signature<'static> {
    let value = if issuer == Issuer::OpenAi { "rs_1:c2ln" } else { "c2ln" };
    Signature { issuer, value: value.into() }
}

fn signed(mut part: Part<'static>, issuer: Issuer) -> Part<'static> {
    part.signature = Some(signature(issuer));
    part
}

fn call(id: &'static str, arguments: &'static str) -> Part<'static> {
    let (name, arguments) = ("f".into(), arguments.into());
    Part::new(Body::ToolUse(ToolUse { id: id.into(), name, arguments }))
}

fn result(id: &'static str, text: &'static str) -> Part<'static> {
    let content = vec![Part::text(text)];
    Part::new(Body::ToolResult(ToolResult { id: id.into(), content, is_error: false }))
}

/// A request with everything that all four can say.
fn rich(dialect: Dialect) -> Request<'static> {
    let picture = Source::Base64 { media_type: "image/png".into(), content: "iVBORw0KGgo=".into() };
    let turn = |role, parts| Turn { role, parts };
    Request {
        // Gemini has the model in its path.
        model: if dialect == Dialect::Gemini { "".into() } else { "fast".into() },
        stream: dialect != Dialect::Gemini,
        include_usage: true,
        turns: vec![
            turn(Role::System, vec![Part::text("Be \"short\".\n")]),
            turn(Role::User, vec![Part::text("Héllo"), Part::new(Body::Image(picture, None))]),
            turn(Role::Assistant, vec![Part::text("I look."), call("call_0", r#"{"a": 1}"#)]),
            turn(Role::User, vec![result("call_0", "20 °C"), Part::text("And?")]),
        ],
        tools: vec![Tool {
            name: "f".into(),
            description: Some("Does it.".into()),
            schema: Some(r#"{"type":"object"}"#.into()),
            // Responses has to say it, Gemini cannot.
            strict: (dialect == Dialect::Responses).then_some(false),
            cache: None,
        }],
        tool_choice: Some(ToolChoice::Named("f".into())),
        parallel_tool_calls: (dialect != Dialect::Gemini).then_some(false),
        format: Format::Schema(Schema {
            name: matches!(dialect, Dialect::OpenAiChat | Dialect::Responses).then_some("n".into()),
            schema: Some(r#"{"type":"object"}"#.into()),
            // Anthropic is always strict, Gemini cannot say it.
            strict: (dialect != Dialect::Gemini).then_some(true),
            description: None,
        }),
        output_tokens_max: Some(500),
        sampling: Sampling { temperature: Some("0.70"), top_p: Some("0.9"), ..Sampling::default() },
        stop: if dialect == Dialect::Responses { Vec::new() } else { vec!["END".into()] },
        user: (dialect != Dialect::Gemini).then_some("u-1".into()),
        service_tier: Some("default".into()),
        ..Request::default()
    }
}

#[test]
fn what_a_dialect_writes_of_a_request_it_reads_again() {
    for dialect in ALL {
        let request = rich(dialect);
        let body = write_request(dialect, &request).unwrap();
        again(&body, |outline| {
            let read = dialect.read_request(outline).unwrap();
            assert_eq!(read, request, "{dialect:?}");
        });
    }
}

#[test]
fn thoughts_with_their_own_signature_go_back_as_they_came() {
    for (dialect, issuer) in [
        (Dialect::Anthropic, Issuer::Anthropic),
        (Dialect::Gemini, Issuer::Google),
        (Dialect::Responses, Issuer::OpenAi),
    ] {
        let thought = signed(Part::new(Body::Reasoning("hm".into())), issuer);
        let turns = vec![
            Turn { role: Role::User, parts: vec![Part::text("q")] },
            Turn { role: Role::Assistant, parts: vec![thought, Part::text("a")] },
            Turn { role: Role::User, parts: vec![Part::text("q")] },
        ];
        let request = Request { turns: turns.clone(), ..Request::default() };
        let body = write_request(dialect, &request).unwrap();
        again(&body, |outline| {
            assert_eq!(dialect.read_request(outline).unwrap().turns, turns, "{dialect:?}");
        });
    }
}

#[test]
fn thoughts_of_another_issuer_never_leave_and_their_loss_is_said() {
    for dialect in ALL {
        for issuer in [Issuer::Anthropic, Issuer::Google, Issuer::OpenAi] {
            let own = match dialect {
                Dialect::Anthropic => issuer == Issuer::Anthropic,
                Dialect::Gemini => issuer == Issuer::Google,
                Dialect::Responses => issuer == Issuer::OpenAi,
                Dialect::OpenAiChat => false,
            };
            let thought = signed(Part::new(Body::Reasoning("hm".into())), issuer);
            let turns = vec![Turn { role: Role::Assistant, parts: vec![thought] }];
            let request = Request { turns, ..Request::default() };
            let carried = match dialect {
                Dialect::OpenAiChat => chat::write_request(
                    &request,
                    chat::Target { model: "m", is_openai: true, quirks: &OPENAI },
                ),
                Dialect::Anthropic => anthropic::write_request(
                    &request,
                    anthropic::Target { model: "m", thinks_by_budget: false },
                ),
                Dialect::Gemini => gemini::write_request(
                    &request,
                    gemini::Target { model: "m", is_newer: true, takes_ids: true },
                ),
                Dialect::Responses => responses::write_request(&request, "m"),
            };
            let carried = carried.unwrap();
            let text = String::from_utf8(carried.body.to_vec()).unwrap();
            assert_eq!(text.contains("c2ln"), own, "{dialect:?} {issuer:?}");
            assert_eq!(carried.dropped.is_empty(), own, "{dialect:?} {issuer:?}");
        }
    }
}

/// An answer with everything that all four can say.
fn said(issuer: Issuer) -> Answer<'static> {
    let thought = signed(Part::new(Body::Reasoning("hm".into())), issuer);
    Answer {
        id: "resp_1".into(),
        model: "fast".into(),
        choices: vec![Choice {
            parts: vec![thought, Part::text("Hi \"you\"\n"), call("call_1", r#"{"a":[1]}"#)],
            stop: Stop::ToolUse,
            stop_text: None,
            logprobs: None,
        }],
        report: Report { usage: Some(usage()), suspect: false },
        service_tier: None,
    }
}

fn usage() -> anima_core::usage::Usage {
    use anima_core::usage::{Meter, Usage};
    Usage::default()
        .with(Meter::InputTokens, 40)
        .with(Meter::CachedInputTokens, 30)
        .with(Meter::OutputTokens, 20)
        .with(Meter::ReasoningTokens, 10)
}

#[test]
fn what_a_dialect_writes_of_an_answer_it_reads_again() {
    for dialect in ALL {
        for issuer in [Issuer::Anthropic, Issuer::Google, Issuer::OpenAi] {
            let answer = said(issuer);
            let body = dialect.write_answer(&answer, &ECHO);
            again(&body, |outline| {
                let read = dialect.read_answer(outline).unwrap();
                assert_eq!(read.choices, answer.choices, "{dialect:?} {issuer:?}");
                let (read, written) = (read.report.usage.unwrap(), usage());
                assert_eq!(read.input_tokens(), written.input_tokens(), "{dialect:?}");
                assert_eq!(read.output_tokens(), written.output_tokens(), "{dialect:?}");
            });
        }
    }
}

/// Events of a stream, joined where a dialect may cut them anew.
#[derive(Debug, Default, PartialEq)]
struct Story {
    parts: Vec<(u64, String, String, Option<Signature<'static>>, bool)>,
    stops: Vec<(u64, Stop)>,
    usage: Option<(u64, u64)>,
    has_ended: bool,
}

impl Sink for Story {
    fn take(&mut self, event: Event<'_>) {
        assert!(!self.has_ended, "an event after the end: {event:?}");
        let own = |signature: Signature<'_>| Signature {
            issuer: signature.issuer,
            value: signature.value.into_owned().into(),
        };
        match event {
            Event::Open { part, choice, opening } => {
                assert_eq!(part, self.parts.len(), "parts are numbered as they begin");
                let (kind, signature) = match opening {
                    Opening::Text => ("text".to_owned(), None),
                    Opening::Refusal => ("refusal".to_owned(), None),
                    Opening::Reasoning => ("thought".to_owned(), None),
                    Opening::Redacted(sealed) => ("sealed".to_owned(), Some(own(sealed))),
                    Opening::Image(..) => ("image".to_owned(), None),
                    Opening::ToolUse(id, name, made) => (format!("{id} {name}"), made.map(own)),
                };
                self.parts.push((choice, kind, String::new(), signature, false));
            }
            Event::Piece(part, delta) => {
                let part = &mut self.parts[part];
                assert!(!part.4, "a piece of a part that is closed");
                match delta {
                    Delta::Text(text) => part.2.push_str(&text),
                    Delta::Signature(signature) => part.3 = Some(own(signature)),
                }
            }
            Event::Close(part) => {
                assert!(!self.parts[part].4, "a part that is closed twice");
                self.parts[part].4 = true;
            }
            Event::Stop(choice, stop, _) => self.stops.push((choice, stop)),
            Event::Running(report) | Event::Usage(report) => {
                self.usage =
                    report.usage.map(|usage| (usage.input_tokens(), usage.output_tokens()));
            }
            Event::End => self.has_ended = true,
            Event::Start { .. }
            | Event::Input(_)
            | Event::Tier(_)
            | Event::Logprobs(..)
            | Event::Unsaid => {}
        }
    }
}

fn tell(sink: &mut dyn Sink, issuer: Issuer) {
    let open = |part, opening| Event::Open { part, choice: 0, opening };
    let piece = |part, text: &'static str| Event::Piece(part, Delta::Text(text.into()));
    let signature = signature(issuer);
    sink.take(Event::Start { id: "x".into(), model: "m".into() });
    sink.take(open(0, Opening::Reasoning));
    sink.take(piece(0, "h"));
    sink.take(piece(0, "m"));
    sink.take(Event::Piece(0, Delta::Signature(signature)));
    sink.take(Event::Close(0));
    sink.take(open(1, Opening::Text));
    sink.take(piece(1, "Hi \"you\"\n"));
    sink.take(piece(1, "é"));
    sink.take(Event::Close(1));
    sink.take(open(2, Opening::ToolUse("call_1".into(), "f".into(), None)));
    sink.take(open(3, Opening::ToolUse("call_2".into(), "g".into(), None)));
    sink.take(piece(3, "{\"b\":"));
    sink.take(piece(2, "{\"a\":"));
    sink.take(piece(3, "2}"));
    sink.take(piece(2, "1}"));
    sink.take(Event::Close(2));
    sink.take(Event::Close(3));
    sink.take(Event::Stop(0, Stop::ToolUse, None));
    sink.take(Event::Usage(Report { usage: Some(usage()), suspect: false }));
    sink.take(Event::End);
}

#[test]
fn what_a_dialect_writes_of_a_stream_it_reads_again() {
    for dialect in ALL {
        for issuer in [Issuer::Anthropic, Issuer::Google, Issuer::OpenAi] {
            let mut expected = Story::default();
            tell(&mut expected, issuer);
            if dialect == Dialect::OpenAiChat {
                // Signed thoughts are repeated in a side field, for clients and not for readers.
                expected.parts[0].3 = None;
            }
            let mut writer = dialect.stream_writer(&ECHO);
            tell(&mut writer, issuer);
            let bytes = [writer.take_bytes(), writer.terminator()].concat();
            let text = String::from_utf8(bytes).unwrap();
            let (mut reader, mut story) = (dialect.stream_reader(), Story::default());
            let mut is_done = false;
            for unit in text.split_inclusive("\n\n") {
                let event = sse::Event::read(unit.as_bytes());
                is_done = reader.read(&event.payload.unwrap(), &mut story).unwrap();
            }
            if !is_done {
                reader.end(&mut story).unwrap();
            }
            assert_eq!(story, expected, "{dialect:?} {issuer:?}\n{text}");
        }
    }
}

#[test]
fn every_event_of_a_writer_is_one_line_of_json() {
    for dialect in ALL {
        let mut writer = dialect.stream_writer(&ECHO);
        tell(&mut writer, Issuer::Google);
        let text = [writer.take_bytes(), writer.terminator()].concat();
        for line in String::from_utf8(text).unwrap().lines() {
            if let Some(payload) = line.strip_prefix("data: ").filter(|text| *text != "[DONE]") {
                assert!(serde_json::from_str::<serde_json::Value>(payload).is_ok(), "{payload}");
            }
        }
    }
}

/// A request of a client of this dialect.
fn client(dialect: Dialect) -> CallRequest {
    let (body, named) = match dialect {
        Dialect::OpenAiChat | Dialect::Anthropic => {
            (r#"{"model":"fast","max_tokens":9,"stream":true,"messages":[{}]}"#, None)
        }
        Dialect::Gemini => (r#"{"contents":[]}"#, Some(("fast", true))),
        Dialect::Responses => (r#"{"model":"fast","stream":true,"input":"x"}"#, None),
    };
    CallRequest::parse_as(dialect, Bytes::from_static(body.as_bytes()), named).unwrap()
}

/// What comes out of a stream that arrives in these pieces.
fn decoded(
    (from, to): (Dialect, Dialect),
    stream: &[u8],
    cuts: &[usize],
) -> (Vec<u8>, Result<(), Failure>, String) {
    let mut decoder = StreamDecoder::of(from, &client(to));
    let (mut out, mut start, mut result) = (Vec::new(), 0, Ok(()));
    for end in cuts.iter().copied().chain([stream.len()]) {
        let piece = Bytes::copy_from_slice(&stream[start..end]);
        result = result.and_then(|()| decoder.push(piece, &mut out));
        start = end;
    }
    let result = result.and_then(|()| decoder.end(&mut out));
    let counted = decoder.count_output_tokens();
    let facts = format!(
        "{:?} {} {} {} {:?} {}",
        decoder.usage(),
        decoder.usage_suspect(),
        decoder.has_content(),
        decoder.is_done(),
        decoder.upstream_ref(),
        counted,
    );
    out.push(decoder.terminator());
    (out.concat(), result, facts)
}

/// Streams as the dialects write them, and some damage.
fn a_stream() -> impl Strategy<Value = (Dialect, Vec<u8>)> {
    let kinds = (0..ALL.len(), any::<bool>(), prop::option::of((any::<Index>(), any::<u8>())));
    kinds.prop_map(|(at, comments, damage)| {
        let mut writer = ALL[at].stream_writer(&ECHO);
        tell(&mut writer, Issuer::Google);
        let text = [writer.take_bytes(), writer.terminator()].concat();
        let mut text = if comments {
            String::from_utf8(text).unwrap().replace("\n\n", "\n\n: wait\r\n\r\n").into_bytes()
        } else {
            text
        };
        if let Some((place, byte)) = damage {
            let place = place.index(text.len());
            text[place] = byte;
        }
        (ALL[at], text)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_split_of_any_stream_gives_the_same_bytes_and_facts_for_every_client(
        (from, stream) in a_stream(), to in 0..ALL.len(),
        cuts in prop::collection::vec(any::<Index>(), 0..8),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let pair = (from, ALL[to]);
        let whole = decoded(pair, &stream, &[]);
        prop_assert_eq!(&decoded(pair, &stream, &cuts), &whole);
        let every: Vec<usize> = (0..=stream.len()).collect();
        prop_assert_eq!(decoded(pair, &stream, &every), whole);
    }

    #[test]
    fn no_document_makes_a_reader_panic(
        at in 0..ALL.len(), request in any::<bool>(),
        damage in prop::collection::vec((any::<Index>(), 0..6_usize), 0..6),
    ) {
        let dialect = ALL[at];
        let body = if request {
            write_request(dialect, &rich(dialect)).unwrap()
        } else {
            dialect.write_answer(&said(Issuer::Google), &ECHO)
        };
        let mut text = String::from_utf8(body.to_vec()).unwrap();
        for (place, what) in damage {
            // Values of other kinds in the places of those that belong there.
            let ends: Vec<usize> = text.match_indices(':').map(|(at, _)| at + 1).collect();
            let insert = ["null,\"x\":", "[],\"x\":", "{},\"x\":", "-1,\"x\":", "\"\",\"x\":", "[["];
            if !ends.is_empty() {
                text.insert_str(ends[place.index(ends.len())], insert[what]);
            }
        }
        if let Ok(outline) = Outline::read(text.as_bytes()) {
            for dialect in ALL {
                if let Ok(read) = dialect.read_request(&outline) {
                    for to in ALL {
                        drop(rewritten(to, &read));
                    }
                }
                if let Ok(read) = dialect.read_answer(&outline) {
                    for to in ALL {
                        let written = to.write_answer(&read, &ECHO);
                        prop_assert!(Outline::read(&written).is_ok());
                    }
                }
                let mut story = |_: Event<'_>| {};
                let read = dialect.stream_reader().read(text.as_bytes(), &mut story);
                std::hint::black_box(read.is_ok());
            }
        }
    }

    #[test]
    fn texts_survive_every_pair_of_dialects(text in "[^\\s]\\PC{0,20}", at in 0..4_usize, to in 0..4_usize) {
        let (from, to) = (ALL[at], ALL[to]);
        let turns = vec![Turn { role: Role::User, parts: vec![Part::text(text.trim().to_owned())] }];
        let request = Request { turns: turns.clone(), ..Request::default() };
        let first = write_request(from, &request).unwrap();
        again(&first, |outline| {
            let read = from.read_request(outline).unwrap();
            let second = write_request(to, &Request { turns: read.turns, ..Request::default() });
            again(&second.unwrap(), |outline| {
                assert_eq!(to.read_request(outline).unwrap().turns, turns);
            });
        });
    }
}

/// A request in another dialect, with whatever that drops.
fn rewritten(to: Dialect, request: &Request<'_>) -> Option<Bytes> {
    let carried = match to {
        Dialect::OpenAiChat => chat::write_request(
            request,
            chat::Target { model: "m", is_openai: true, quirks: &OPENAI },
        ),
        Dialect::Anthropic => anthropic::write_request(
            request,
            anthropic::Target { model: "m", thinks_by_budget: true },
        ),
        Dialect::Gemini => gemini::write_request(
            request,
            gemini::Target { model: "m", is_newer: true, takes_ids: true },
        ),
        Dialect::Responses => responses::write_request(request, "m"),
    };
    let body = carried.ok()?.body;
    assert!(Outline::read(&body).is_ok(), "{to:?} wrote {}", String::from_utf8_lossy(&body));
    Some(body)
}

#[test]
fn effort_and_budget_mean_the_same_in_every_dialect() {
    for effort in [Effort::Low, Effort::Medium, Effort::High] {
        for dialect in ALL {
            let reasoning = Reasoning { effort: Some(effort), ..Reasoning::default() };
            let turns = vec![Turn { role: Role::User, parts: vec![Part::text("q")] }];
            let request = Request { turns, reasoning, ..Request::default() };
            let body = write_request(dialect, &request).unwrap();
            again(&body, |outline| {
                let read = dialect.read_request(outline).unwrap().reasoning;
                assert_eq!(read.as_effort(), Some(effort), "{dialect:?}");
            });
        }
    }
}
