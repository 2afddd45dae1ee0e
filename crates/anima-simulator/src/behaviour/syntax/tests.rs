//! The mini-syntax as a table, its refusals, and its round trip.

use proptest::prelude::*;

use super::*;

fn refused(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn every_option_is_read_into_its_field() {
    let refuse = |status, code: Option<&str>, retry_after: Option<&str>| {
        Some(Opening::Refuse(Refusal {
            status,
            code: code.map(str::to_owned),
            retry_after: retry_after.map(str::to_owned),
            retry_after_ms: None,
        }))
    };
    let healthy = Behaviour::default;
    let table = [
        ("", healthy()),
        ("status:503", Behaviour { opening: refuse(503, None, None), ..healthy() }),
        (
            "status:429:retry-after=2:code=slow_down",
            Behaviour { opening: refuse(429, Some("slow_down"), Some("2")), ..healthy() },
        ),
        ("401", Behaviour { opening: refuse(401, None, None), ..healthy() }),
        ("silent", Behaviour { opening: Some(Opening::Silent), ..healthy() }),
        ("reset", Behaviour { opening: Some(Opening::Reset), ..healthy() }),
        (
            "context-length",
            Behaviour { opening: Some(Opening::ContextLength { maximum: None }), ..healthy() },
        ),
        (
            "context-length:100",
            Behaviour { opening: Some(Opening::ContextLength { maximum: Some(100) }), ..healthy() },
        ),
        ("latency:200", Behaviour { latency_ms: Some(200), ..healthy() }),
        ("pace:10", Behaviour { pace_ms: Some(10), ..healthy() }),
        ("cut-stream:3", Behaviour { ending: Some(Ending::Cut { after: 3 }), ..healthy() }),
        ("silent-stream:2", Behaviour { ending: Some(Ending::Silence { after: 2 }), ..healthy() }),
        ("no-done", Behaviour { ending: Some(Ending::NoDone), ..healthy() }),
        ("error-in-200", Behaviour { ending: Some(Ending::Error { after: 0 }), ..healthy() }),
        ("bad-json", Behaviour { damage: Some(Damage::BadJson), ..healthy() }),
        ("bad-sse", Behaviour { damage: Some(Damage::BadSse { at: 1 }), ..healthy() }),
        (
            "huge-line",
            Behaviour { damage: Some(Damage::HugeLine { bytes: 1_048_576 }), ..healthy() },
        ),
        ("content-length", Behaviour { damage: Some(Damage::ContentLength), ..healthy() }),
        ("usage-missing", Behaviour { usage: Some(UsageLie::Missing), ..healthy() }),
        ("usage-twice", Behaviour { usage: Some(UsageLie::Twice), ..healthy() }),
        ("usage-absurd", Behaviour { usage: Some(UsageLie::Absurd), ..healthy() }),
        ("usage-negative", Behaviour { usage: Some(UsageLie::Negative), ..healthy() }),
        ("empty", Behaviour { answer: Some(AnswerLength::Tokens(0)), ..healthy() }),
        ("answer-tokens:9", Behaviour { answer: Some(AnswerLength::Tokens(9)), ..healthy() }),
        ("answer_bytes:600", Behaviour { answer: Some(AnswerLength::Bytes(600)), ..healthy() }),
        (
            "chunks:50+reasoning:7+cached:5",
            Behaviour {
                chunks: Some(50),
                reasoning_tokens: Some(7),
                cached_tokens: Some(5),
                ..healthy()
            },
        ),
    ];
    for (text, expected) in table {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }
}

#[test]
fn a_wrong_option_is_refused_by_name() {
    assert!(refused("explode").starts_with("unknown option \"explode\"; known are: latency, "));
    assert_eq!(refused("latency"), "option \"latency\" needs a number");
    assert_eq!(
        refused("latency:soon"),
        "option \"latency\" needs a non-negative whole number"
    );
    assert_eq!(refused("reset:1"), "option \"reset\" takes no argument");
    assert_eq!(refused("status:99"), "option \"status\" needs a status from 300 to 599");
    assert_eq!(
        refused("status:429:after=2"),
        "option \"status\" knows only code, retry-after and retry-after-ms"
    );
    assert_eq!(
        refused("silent+reset"),
        "option \"reset\" contradicts an earlier option"
    );
}

#[test]
fn a_json_object_and_the_text_say_the_same() {
    let object: Behaviour = serde_json::from_str(
        r#"{"status": "429:retry-after=2", "latency": 20, "usage_missing": true, "empty": false}"#,
    )
    .unwrap();
    assert_eq!(Ok(object), parse("status:429:retry-after=2+latency:20+usage-missing"));
    let error = serde_json::from_str::<Behaviour>(r#"{"statsu": 503}"#).unwrap_err();
    assert!(error.to_string().starts_with("unknown option \"statsu\""), "{error}");
}

#[test]
fn only_names_that_ask_for_it_carry_options() {
    assert_eq!(Behaviour::of_model("gpt-4o+reset"), Ok(Behaviour::default()));
    assert_eq!(Behaviour::of_model("sim-chat"), Ok(Behaviour::default()));
    assert_eq!(Behaviour::of_model("sim-chat+pace:1"), parse("pace:1"));
    assert_eq!(Behaviour::of_model("fault:pace:1+reset"), parse("pace:1+reset"));
    assert!(Behaviour::of_model("fault:unheard-of").is_err());
}

#[test]
fn the_later_layer_wins_field_by_field() {
    let under = parse("latency:1+pace:2").unwrap();
    let over = parse("latency:9+chunks:3").unwrap();
    assert_eq!(under.overlaid(&over), parse("latency:9+pace:2+chunks:3").unwrap());
}

fn options() -> impl Strategy<Value = String> {
    let opening = prop_oneof![
        Just(String::new()),
        Just("silent".to_owned()),
        (300u16..600, "[!-*,-9;-~]{1,8}").prop_map(|(s, c)| format!("status:{s}:code={}", c.replace(':', "x"))),
        any::<u64>().prop_map(|n| format!("context-length:{n}")),
    ];
    let ending = prop_oneof![
        Just("no-done".to_owned()),
        any::<u32>().prop_map(|n| format!("cut-stream:{n}")),
        any::<u32>().prop_map(|n| format!("error-in-200:{n}")),
    ];
    let damage = prop_oneof![
        Just("bad-json".to_owned()),
        any::<u32>().prop_map(|n| format!("huge-line:{n}")),
    ];
    (opening, ending, damage, any::<u64>(), any::<u32>())
        .prop_map(|(o, e, d, l, c)| format!("{o}+{e}+{d}+latency:{l}+cached:{c}+usage-twice"))
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(text in options()) {
        let behaviour = parse(&text).unwrap();
        prop_assert_eq!(parse(&behaviour.to_string()), Ok(behaviour));
    }
}
