//! From one input to another: by bytes, by lines and events, and by JSON.
//!
//! Invariant: an input never has more than [`BYTES_MAX`] bytes.

use serde_json::Value;

use crate::corpus::Dictionary;
use crate::rng::Rng;
use crate::tree;

const BYTES_MAX: usize = 64 * 1024;
/// Bytes that mean something in JSON, in events or in UTF-8.
const MEANINGFUL: &[u8] = b"{}[]:,\"\\\r\n \0tfn-+.eE0\xff\xc3\xe2\xef\xbb\xbf";

/// A mutation of the input, perhaps with parts of others.
pub(crate) fn mutate(input: &[u8], pool: &[Vec<u8>], words: &Dictionary, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=rng.below(4) {
        let by_structure = if bytes.starts_with(b"{") || bytes.starts_with(b"[") {
            document(&bytes, words, rng)
        } else {
            events(&bytes, words, rng)
        };
        bytes = match by_structure.filter(|_| !rng.once_in(3)) {
            Some(changed) => changed,
            None => raw(bytes, pool, words, rng),
        };
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn document(bytes: &[u8], words: &Dictionary, rng: &mut Rng) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    tree::mutate(&mut value, words, rng);
    Some(value.to_string().into_bytes())
}

/// Changes one line of a stream, or the order of lines.
fn events(bytes: &[u8], words: &Dictionary, rng: &mut Rng) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let at = rng.below(lines.len());
    let line = lines.get(at)?.clone();
    match (line.strip_prefix("data: "), rng.below(6)) {
        (Some(payload), 0..=3) => {
            let changed = document(payload.as_bytes(), words, rng)?;
            let changed = String::from_utf8(changed).ok()?;
            *lines.get_mut(at)? = format!("data: {changed}");
        }
        (_, 4) => drop(lines.remove(at)),
        (_, 5) => {
            let to = rng.below(lines.len());
            lines.swap(at, to);
        }
        _ => lines.insert(at, line),
    }
    Some(lines.join("\n").into_bytes())
}

fn raw(mut bytes: Vec<u8>, pool: &[Vec<u8>], words: &Dictionary, rng: &mut Rng) -> Vec<u8> {
    let (from, to) = range(bytes.len(), rng);
    match rng.below(8) {
        0 => {
            let bit = rng.below(8);
            if let Some(byte) = bytes.get_mut(from) {
                *byte ^= 1 << bit;
            }
        }
        1 => drop(bytes.drain(from..to)),
        2 => {
            let copy = bytes.get(from..to).unwrap_or_default().to_vec();
            drop(bytes.splice(from..from, copy));
        }
        3 => bytes.truncate(from),
        4 => bytes.insert(from, rng.pick(MEANINGFUL).copied().unwrap_or_default()),
        5 => {
            // A member twice, which no tree can hold.
            let name = rng.pick(&words.names).cloned().unwrap_or_default();
            let value = rng.pick(&words.values).cloned().unwrap_or_default();
            let member = format!("{}:{value},", Value::from(name));
            let brace = bytes.iter().skip(from).position(|byte| *byte == b'{');
            let place = brace.map_or(from, |brace| from + brace + 1);
            drop(bytes.splice(place..place, member.into_bytes()));
        }
        6 => {
            let other = rng.pick(pool).map(Vec::as_slice).unwrap_or_default();
            let (start, end) = range(other.len(), rng);
            let part = other.get(start..end).unwrap_or_default().to_vec();
            drop(bytes.splice(from..to, part));
        }
        _ => {
            let ends: [&[u8]; 4] = [b"\r\n", b"\r", b"\n\n", b": ping\n\n"];
            let end = rng.pick(&ends).copied().unwrap_or_default();
            drop(bytes.splice(from..from, end.to_vec()));
        }
    }
    bytes
}

/// A part of something so long, mostly a short one.
fn range(length: usize, rng: &mut Rng) -> (usize, usize) {
    let from = rng.below(length.saturating_add(1));
    let most = if rng.once_in(4) { length } else { 16 };
    let to = from.saturating_add(rng.below(most)).min(length);
    (from, to)
}
