//! Mutations of one JSON document, which stays one.
//!
//! Invariant: the document has at most [`NODES_MAX`] values and [`DEPTH_MAX`] levels more after a
//! mutation than before.

use serde_json::{Value, json};

use crate::corpus::Dictionary;
use crate::rng::Rng;

const NODES_MAX: usize = 400;
const DEPTH_MAX: usize = 140;

/// Changes one value somewhere in the document.
pub(crate) fn mutate(document: &mut Value, words: &Dictionary, rng: &mut Rng) {
    let mut at = rng.below(count(document));
    visit(document, &mut at, &mut |value| change(value, words, rng));
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(members) => members.values().map(count).sum::<usize>(),
        Value::Array(elements) => elements.iter().map(count).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Calls `change` with the value at the place in the order of writing. Whether it was reached.
fn visit(value: &mut Value, at: &mut usize, change: &mut dyn FnMut(&mut Value)) -> bool {
    if *at == 0 {
        change(value);
        return true;
    }
    *at -= 1;
    match value {
        Value::Object(members) => members.values_mut().any(|member| visit(member, at, change)),
        Value::Array(elements) => elements.iter_mut().any(|element| visit(element, at, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn change(value: &mut Value, words: &Dictionary, rng: &mut Rng) {
    if rng.once_in(4) {
        *value = any(words, rng);
        return;
    }
    match value {
        Value::Object(members) => {
            let name = rng.pick(&members.keys().cloned().collect::<Vec<_>>()).cloned();
            let word = rng.pick(&words.names).cloned().unwrap_or_default();
            match (rng.below(3), name) {
                (0, Some(name)) => drop(members.remove(&name)),
                (1, Some(name)) => {
                    let moved = members.remove(&name).unwrap_or_default();
                    members.insert(word, moved);
                }
                _ => drop(members.insert(word, any(words, rng))),
            }
        }
        Value::Array(elements) => {
            let at = rng.below(elements.len());
            match (rng.below(5), elements.get(at).cloned()) {
                (0, Some(_)) => drop(elements.remove(at)),
                (1, Some(copy)) => elements.insert(at, copy),
                (2, Some(copy)) => elements.extend(std::iter::repeat_n(copy, NODES_MAX / 10)),
                (3, Some(_)) => elements.reverse(),
                _ => elements.push(any(words, rng)),
            }
        }
        Value::String(text) => *text = string(text, rng),
        Value::Null | Value::Bool(_) | Value::Number(_) => *value = number(rng),
    }
}

/// A value of any kind.
fn any(words: &Dictionary, rng: &mut Rng) -> Value {
    match rng.below(12) {
        0 => Value::Null,
        1 => json!({}),
        2 => json!([]),
        3 => json!(""),
        4 => json!(rng.once_in(2)),
        5 => number(rng),
        6 => nested(rng.below(DEPTH_MAX)),
        7 => json!(rng.pick(&words.names)),
        _ => rng.pick(&words.values).cloned().unwrap_or_default(),
    }
}

fn number(rng: &mut Rng) -> Value {
    let edges = [
        json!(0),
        json!(-1),
        json!(1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(1e300),
        json!(-0.0),
        json!(0.5),
        json!(4_294_967_296_u64),
        json!(rng.next() >> 40),
    ];
    rng.pick(&edges).cloned().unwrap_or_default()
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(
        json!(1),
        |inner, level| {
            if level % 2 == 0 { json!([inner]) } else { json!({ "a": inner }) }
        },
    )
}

fn string(text: &str, rng: &mut Rng) -> String {
    let cut = text.floor_char_boundary(rng.below(text.len().saturating_add(1)));
    let (head, tail) = text.split_at(cut);
    match rng.below(9) {
        0 => String::new(),
        1 => head.to_owned(),
        2 => format!("{head}\u{0}\n\"\\{tail}"),
        3 => format!("{head}\u{1f600}\u{2028}\u{feff}{tail}"),
        4 => text.repeat(20),
        5 => format!("data:image/png;base64,{text}"),
        6 => format!("data: {head}\r\n\r\ndata: [DONE]\n\n{tail}"),
        7 => format!("anima.google.{text}"),
        _ => format!("{{\"a\":{text}"),
    }
}
