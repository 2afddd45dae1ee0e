//! Reading scripts, and which calls their rules take.

use super::*;

fn script(json: &str) -> Script {
    Script::from_json(json.as_bytes()).unwrap()
}

fn refused(json: &str) -> String {
    Script::from_json(json.as_bytes()).unwrap_err().to_string()
}

const CHAT: Facts<'_> =
    Facts { endpoint: Endpoint::Chat, model: "gpt-4o", stream: false, key: Some("k-one") };

/// The calls, from 1, that a script with one rule takes.
fn taken(when: &str, calls: u64) -> Vec<u64> {
    let script = script(&format!(r#"{{"rules": [{{"match": {when}, "do": "reset"}}]}}"#));
    let counts = Counts::new(&script);
    (1..=calls).filter(|_| script.choose(&CHAT, &counts).is_some()).collect()
}

#[test]
fn an_unknown_or_impossible_member_is_named() {
    for (json, expected) in [
        (r#"{"sed": 1}"#, "unknown field `sed`, expected one of `seed`, `api_keys`"),
        (r#"{"rules": [{"match": {"modle": "x"}, "do": {}}]}"#, "unknown field `modle`"),
        (r#"{"rules": [{"match": {}}]}"#, "missing field `do`"),
        (r#"{"rules": [{"do": {"explode": true}}]}"#, "unknown option \"explode\""),
        (r#"{"rules": [{"match": {"every": 0}, "do": {}}]}"#, "expected a nonzero u64"),
        (r#"{"rules": [{"match": {"percent": 101}, "do": {}}]}"#, "percent must be from 0 to 100"),
        (r#"{"rules": ["#, "at line 1 column 11"),
    ] {
        let message = refused(json);
        assert!(message.starts_with("the script is not valid: "), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_script_prints_to_what_it_was_read_from() {
    let script = script(
        r#"{"seed": 7, "api_keys": ["k"], "models": ["gpt-*"], "defaults": {"answer_tokens": 9},
            "rules": [{"match": {"model": "*", "percent": 12.5}, "do": "status:503"}]}"#,
    );
    let printed = serde_json::to_vec(&script).unwrap();
    assert_eq!(Script::from_json(&printed).unwrap(), script);
}

#[test]
fn counters_decide_after_every_and_times() {
    assert_eq!(taken("{}", 3), [1, 2, 3]);
    assert_eq!(taken(r#"{"after": 2}"#, 4), [3, 4]);
    assert_eq!(taken(r#"{"every": 3}"#, 9), [3, 6, 9]);
    assert_eq!(taken(r#"{"times": 2}"#, 9), [1, 2]);
    assert_eq!(taken(r#"{"after": 1, "every": 2, "times": 2}"#, 9), [3, 5]);
    assert_eq!(taken(r#"{"percent": 0}"#, 50), [0; 0]);
    assert_eq!(taken(r#"{"percent": 100}"#, 5), [1, 2, 3, 4, 5]);
}

#[test]
fn percent_is_about_right_and_repeats() {
    let first = taken(r#"{"percent": 25}"#, 4000);
    assert!((900..1100).contains(&first.len()), "{}", first.len());
    assert_eq!(first, taken(r#"{"percent": 25}"#, 4000));
}

#[test]
fn only_calls_that_a_rule_concerns_move_its_counter() {
    let script = script(
        r#"{"rules": [{"match": {"stream": true, "every": 2}, "do": "reset"},
                      {"match": {"key": "k-t*"}, "do": "silent"},
                      {"match": {"endpoint": "models"}, "do": "status:500"}]}"#,
    );
    let counts = Counts::new(&script);
    let choose = |facts: &Facts<'_>| script.choose(facts, &counts).map(|(index, _)| index);
    let stream = Facts { stream: true, ..CHAT };
    assert_eq!(choose(&stream), None);
    assert_eq!(choose(&CHAT), None);
    assert_eq!(choose(&stream), Some(0));
    assert_eq!(choose(&Facts { key: Some("k-two"), ..CHAT }), Some(1));
    assert_eq!(choose(&Facts { key: None, ..CHAT }), None);
    let models = Facts { endpoint: Endpoint::Models, ..CHAT };
    assert_eq!(choose(&models), Some(2));
}
