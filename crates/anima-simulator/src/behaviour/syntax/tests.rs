//! The mini-syntax as a table, its refusals, and its round trip.

use proptest::prelude::*;

use super::*;

fn refused(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// A healthy behaviour after one change.
fn with(change: impl FnOnce(&mut Behaviour)) -> Behaviour {
    let mut behaviour = Behaviour::default();
    change(&mut behaviour);
    behaviour
}

fn refusal(status: u16) -> Refusal {
    Refusal { status, code: None, retry_after: None, retry_after_ms: None }
}

#[test]
fn every_option_is_read_into_its_field() {
    let opening = |opening| with(|b| b.opening = Some(opening));
    let ending = |ending| with(|b| b.ending = Some(ending));
    let damage = |damage| with(|b| b.damage = Some(damage));
    let usage = |lie| with(|b| b.usage = Some(lie));
    let answer = |length| with(|b| b.answer = Some(length));
    let context = |maximum| opening(Opening::ContextLength { maximum });
    let table = [
        ("", Behaviour::default()),
        ("status:503", opening(Opening::Refuse(refusal(503)))),
        ("401", opening(Opening::Refuse(refusal(401)))),
        ("silent", opening(Opening::Silent)),
        ("reset", opening(Opening::Reset)),
        ("context-length", context(None)),
        ("context-length:100", context(Some(100))),
        ("latency:200", with(|b| b.latency_ms = Some(200))),
        ("pace:10", with(|b| b.pace_ms = Some(10))),
        ("cut-stream:3", ending(Ending::Cut { after: 3 })),
        ("silent-stream:2", ending(Ending::Silence { after: 2 })),
        ("no-done", ending(Ending::NoDone)),
        ("finish-error", ending(Ending::FinishError)),
        ("finish-silent", ending(Ending::FinishSilence)),
        ("error-in-200", ending(Ending::Error { after: 0 })),
        ("bad-json", damage(Damage::BadJson)),
        ("bad-sse", damage(Damage::BadSse { at: 1 })),
        ("huge-line", damage(Damage::HugeLine { bytes: 1_048_576 })),
        ("content-length", damage(Damage::ContentLength)),
        ("usage-missing", usage(UsageLie::Missing)),
        ("usage-twice", usage(UsageLie::Twice)),
        ("usage-absurd", usage(UsageLie::Absurd)),
        ("usage-negative", usage(UsageLie::Negative)),
        ("empty", answer(AnswerLength::Tokens(0))),
        ("answer-tokens:9", answer(AnswerLength::Tokens(9))),
        ("answer_bytes:600", answer(AnswerLength::Bytes(600))),
        ("chunks:50", with(|b| b.chunks = Some(50))),
        ("reasoning:7", with(|b| b.reasoning_tokens = Some(7))),
        ("cached:5", with(|b| b.cached_tokens = Some(5))),
    ];
    for (text, expected) in table {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }
}

#[test]
fn a_status_takes_its_details_in_any_order() {
    let detailed = Refusal {
        code: Some("slow_down".to_owned()),
        retry_after: Some("2".to_owned()),
        retry_after_ms: Some("1500".to_owned()),
        ..refusal(429)
    };
    let expected = with(|b| b.opening = Some(Opening::Refuse(detailed)));
    for text in [
        "status:429:retry-after=2:code=slow_down:retry-after-ms=1500",
        "status:429:retry-after-ms=1500:retry-after=2:code=slow_down",
    ] {
        assert_eq!(parse(text).as_ref(), Ok(&expected), "{text}");
    }
}

#[test]
fn a_wrong_option_is_refused_by_name() {
    assert!(refused("explode").starts_with("unknown option \"explode\"; known are: latency, "));
    assert_eq!(refused("latency"), "option \"latency\" needs a number");
    assert_eq!(refused("latency:soon"), "option \"latency\" needs a non-negative whole number");
    assert_eq!(refused("reset:1"), "option \"reset\" takes no argument");
    assert_eq!(refused("status:99"), "option \"status\" needs a status from 300 to 599");
    assert_eq!(
        refused("status:429:after=2"),
        "option \"status\" knows only code, retry-after and retry-after-ms"
    );
    assert_eq!(refused("silent+reset"), "option \"reset\" contradicts an earlier option");
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
        (300u16..600, "[!-*,-9;-~]{1,8}")
            .prop_map(|(s, c)| format!("status:{s}:code={}", c.replace(':', "x"))),
        any::<u64>().prop_map(|n| format!("context-length:{n}")),
    ];
    let ending = prop_oneof![
        Just("no-done".to_owned()),
        Just("finish-error".to_owned()),
        Just("finish-silent".to_owned()),
        any::<u32>().prop_map(|n| format!("cut-stream:{n}")),
        any::<u32>().prop_map(|n| format!("error-in-200:{n}")),
    ];
    let damage = prop_oneof![
        Just("bad-json".to_owned()),
        any::<u32>().prop_map(|n| format!("huge-line:{n}")),
    ];
    (opening, ending, damage, any::<u64>(), any::<u32>())
        .prop_map(|(o, e, d, l, c)| format!("{o}+{e}+{d}+latency:{l}+cached:{c}+usage-twice+gate"))
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(text in options()) {
        let behaviour = parse(&text).unwrap();
        prop_assert_eq!(parse(&behaviour.to_string()), Ok(behaviour));
    }
}
