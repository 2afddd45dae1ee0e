//! Streams: events, the dialects' chunks, and the binary frames of AWS.
//!
//! Invariants: the same bytes give the same output and the same facts for any split of them, and
//! what is written anew is well-formed events of JSON, or one JSON array.

use anima_core::failure::Failure;
use anima_wire::adapter::{StreamDecoder, neutral_message};
use anima_wire::dialect::Dialect;
use anima_wire::request::CallRequest;
use anima_wire::sse::{Event, Filter, TooLarge, Verdict, with_payload};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;

use super::{CONVERSE, Provider, named, plain_request, provider, shape};
use crate::rng::Rng;

/// Longer inputs are not also sent byte by byte.
const BYTEWISE_MAX: usize = 2000;

/// Framing alone: nothing is lost, for any split.
pub(super) fn sse(input: &[u8]) -> Result<u64, String> {
    let mut rng = Rng::of(input);
    let whole = units(input, &[]);
    let cut = units(input, &cuts(input.len(), &mut rng));
    if whole != cut {
        return Err(format!("framing depends on the split: {whole:?} and {cut:?}"));
    }
    let (passed, rest, names) = whole?;
    if [passed, rest].concat() != input {
        return Err("bytes were lost in framing".into());
    }
    Ok(shape(&[&names], b""))
}

/// What passed, what is left, and the kinds of the units in short.
type Units = (Vec<u8>, Vec<u8>, String);

fn units(input: &[u8], cuts: &[usize]) -> Result<Units, String> {
    let mut filter = Filter::new();
    let mut out = Vec::new();
    let mut names = String::new();
    for piece in pieces(input, cuts) {
        let judged = filter.push(&piece, &mut out, |unit| {
            let event = Event::read(unit);
            with_payload(unit, b"{}");
            names.push(if event.name.is_empty() { 'u' } else { 'n' });
            names.push(if unit.len() < 3 { 's' } else { 'l' });
            Ok::<_, TooLarge>(Verdict::Pass)
        });
        judged.map_err(|error| error.to_string())?;
    }
    names.truncate(60);
    Ok((out.concat(), filter.rest().to_vec(), names))
}

/// A provider's stream, for a client.
pub(super) fn stream(input: &[u8]) -> Result<u64, String> {
    let mut rng = Rng::of(input);
    let mut from = provider(&mut rng)?;
    if from.name == "bedrock" {
        from = named(("anthropic", "claude-x", Some(Dialect::Anthropic)))?;
    }
    run(&from, &plain_request(&mut rng, true)?, input, &mut rng)
}

/// The same from binary frames, which are made around the payloads of a stream.
pub(super) fn frames(input: &[u8]) -> Result<u64, String> {
    let mut rng = Rng::of(input);
    let from = named(("bedrock", "anthropic.claude-x", Some(Dialect::Anthropic)))?;
    let request = plain_request(&mut rng, true)?;
    if input.starts_with(&[0]) {
        return run(&from, &request, input, &mut rng);
    }
    let text = String::from_utf8_lossy(input);
    let mut bytes = Vec::new();
    for payload in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let kind = if rng.once_in(20) { "exception" } else { "event" };
        let payload = json!({"bytes": STANDARD.encode(payload)}).to_string();
        bytes.extend(frame(kind, "chunk", &payload));
    }
    damage(&mut bytes, &mut rng);
    run(&from, &request, &bytes, &mut rng)
}

/// Converse's events in such frames, from events as text.
pub(super) fn converse(input: &[u8]) -> Result<u64, String> {
    let mut rng = Rng::of(input);
    let from = named(CONVERSE)?;
    let request = plain_request(&mut rng, true)?;
    if input.starts_with(&[0]) {
        return run(&from, &request, input, &mut rng);
    }
    let text = String::from_utf8_lossy(input);
    let mut bytes = Vec::new();
    let mut name = "";
    for line in text.lines() {
        if let Some(told) = line.strip_prefix("event: ") {
            name = told.get(..told.len().min(200)).unwrap_or_default();
        }
        let Some(payload) = line.strip_prefix("data: ") else { continue };
        let kind = if rng.once_in(20) { "exception" } else { "event" };
        bytes.extend(frame(kind, name, payload));
    }
    damage(&mut bytes, &mut rng);
    run(&from, &request, &bytes, &mut rng)
}

/// Turns a bit, now and then.
fn damage(bytes: &mut [u8], rng: &mut Rng) {
    if rng.once_in(3) && !bytes.is_empty() {
        let at = rng.below(bytes.len());
        let bit = rng.below(8);
        bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << bit);
    }
}

/// That no split of a stream for this request matters.
pub(super) fn run(
    from: &Provider,
    request: &CallRequest,
    input: &[u8],
    rng: &mut Rng,
) -> Result<u64, String> {
    let decode = |cuts: &[usize]| decode(from.adapter.stream(request), input, cuts);
    let (out, facts, is_whole) = decode(&[]);
    let mut splits = vec![cuts(input.len(), rng)];
    if input.len() < BYTEWISE_MAX {
        splits.push((1..input.len()).collect());
    }
    for split in splits {
        let (other, others, _) = decode(&split);
        if (&other, &others) != (&out, &facts) {
            let said = String::from_utf8_lossy(&out);
            let other = String::from_utf8_lossy(&other);
            return Err(format!(
                "the split matters: {facts} or {others}, for {:?}: {said:?} or {other:?}",
                request.dialect
            ));
        }
    }
    if Some(request.dialect) != from.speaks {
        well_formed(&out, request.as_array, is_whole)?;
    }
    Ok(shape(&[from.name, &facts], &out))
}

/// What the client gets, what is known then in short, and whether the stream ended well.
fn decode(mut decoder: StreamDecoder, input: &[u8], cuts: &[usize]) -> (Vec<u8>, String, bool) {
    let mut out = Vec::new();
    let outcome: Result<(), Failure> = pieces(input, cuts)
        .into_iter()
        .try_for_each(|piece| decoder.push(piece, &mut out))
        .and_then(|()| decoder.end(&mut out));
    out.push(match outcome {
        Ok(()) => decoder.terminator(),
        Err(failure) => {
            decoder.failure_event(failure, neutral_message(failure), "req-1").unwrap_or_default()
        }
    });
    decoder.count_output_tokens();
    let usage = decoder.usage().map(|usage| format!("{usage:?}"));
    let facts = format!(
        "{outcome:?} {usage:?} {} {:?} {} {:?} {:?} {}",
        decoder.usage_suspect(),
        decoder.input_usage(),
        decoder.has_content(),
        decoder.service_tier(),
        decoder.upstream_ref(),
        decoder.output_bytes(),
    );
    (out.concat(), facts, outcome.is_ok())
}

/// Every event that we wrote holds JSON, and an array is one.
fn well_formed(out: &[u8], as_array: bool, is_whole: bool) -> Result<(), String> {
    if as_array {
        return super::must_be_json("an array of chunks", out);
    }
    let text = std::str::from_utf8(out).map_err(|error| format!("no UTF-8: {error}"))?;
    if !text.is_empty() && !text.ends_with("\n\n") && is_whole {
        return Err(format!("the last event has no end: {text:?}"));
    }
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with(':')) {
        match line.strip_prefix("data: ") {
            Some("[DONE]") => {}
            Some(payload) => super::must_be_json("an event", payload.as_bytes())?,
            None if line.starts_with("event: ") => {}
            None => return Err(format!("a line that is no field: {line:?}")),
        }
    }
    Ok(())
}

/// Some places to cut at.
fn cuts(length: usize, rng: &mut Rng) -> Vec<usize> {
    let mut cuts: Vec<usize> = (0..rng.below(6)).map(|_| rng.below(length)).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

fn pieces(input: &[u8], cuts: &[usize]) -> Vec<Bytes> {
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([input.len()]);
    let piece = |(start, end)| Bytes::copy_from_slice(input.get(start..end).unwrap_or_default());
    starts.zip(ends).map(piece).collect()
}

/// A frame of AWS's event stream around one event.
fn frame(kind: &str, event: &str, body: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [(":event-type", event), (":message-type", kind)] {
        headers.push(u8::try_from(name.len()).unwrap_or(0));
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(0).to_be_bytes();
    let mut frame = length(12 + headers.len() + body.len() + 4).to_vec();
    frame.extend_from_slice(&length(headers.len()));
    frame.extend_from_slice(&crc32(&frame).to_be_bytes());
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(body.as_bytes());
    frame.extend_from_slice(&crc32(&frame).to_be_bytes());
    frame
}

/// The checksum of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}
