//! Streams about sound: bytes of it, or events that tell of it piece by piece.
//!
//! Bytes pass as they come, all but the latest piece: it is the terminator, sent when the answer is
//! billed. Events pass too; the one that says it is done holds the usage and is the terminator.
//! Invariant: for any split of the bytes the client gets the same bytes and the facts are the same.
//! Source: `a-inbound` A.1.3 and A.1.6.

use anima_core::failure::Failure;
use anima_core::usage::Usage;
use bytes::Bytes;

use super::super::Told;
use super::super::answer::is_fault;
use super::super::sound::{Basis, Known};
use super::openai::{bare_fault, looks_bare};
use crate::dialect::openai::fault::Fault;
use crate::json::Outline;
use crate::request::CallRequest;
use crate::sse::{Event, Filter, Verdict};
use crate::tokens::COUNTED_BYTES_MAX;

/// The bytes of a sound.
#[derive(Debug)]
pub(super) struct Sound {
    held: Bytes,
    is_done: bool,
    known: Known,
}

impl Sound {
    pub(super) fn new(request: &CallRequest) -> Self {
        let known = Basis::of(request).known(None, None, "");
        Self { held: Bytes::new(), is_done: false, known }
    }

    pub(super) fn push(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) {
        if chunk.is_empty() {
            return;
        }
        let before = std::mem::replace(&mut self.held, chunk);
        if !before.is_empty() {
            out.push(before);
        }
    }

    pub(super) fn end(&mut self) {
        self.is_done = true;
    }

    pub(super) fn has_content(&self) -> bool {
        !self.held.is_empty()
    }

    pub(super) const fn is_done(&self) -> bool {
        self.is_done
    }

    pub(super) fn terminator(&self) -> Bytes {
        self.held.clone()
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        self.has_content().then_some(self.known.usage)
    }

    pub(super) const fn told(&self) -> Told {
        self.known.told
    }
}

/// Events about a sound, or about what is heard in one.
#[derive(Debug)]
pub(super) struct Telling {
    filter: Filter,
    facts: Facts,
}

#[derive(Debug)]
struct Facts {
    basis: Basis,
    is_running: bool,
    has_content: bool,
    /// What was heard so far.
    text: String,
    held: Vec<u8>,
    /// Once it is done.
    known: Option<Known>,
}

impl Telling {
    pub(super) fn new(request: &CallRequest) -> Self {
        let basis = Basis::of(request);
        let facts = Facts {
            basis,
            is_running: false,
            has_content: false,
            text: String::new(),
            held: Vec::new(),
            known: None,
        };
        Self { filter: Filter::new(), facts }
    }

    pub(super) fn push(&mut self, chunk: &Bytes, out: &mut Vec<Bytes>) -> Result<(), Failure> {
        if self.is_done() {
            return Ok(());
        }
        let Self { filter, facts } = self;
        filter.push(chunk, out, |unit| facts.judge(unit)).map(|_| ())
    }

    /// A last event without its blank line counts if it is whole.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        if self.is_done() {
            return Ok(());
        }
        let rest = self.filter.rest().to_vec();
        match self.facts.judge(&rest) {
            Err(failure) if failure != Failure::AnswerMalformed => Err(failure),
            Ok(_) | Err(_) if self.is_done() => {
                self.facts.held.extend_from_slice(b"\n\n");
                Ok(())
            }
            Ok(_) | Err(_) => Err(Failure::StreamCut),
        }
    }

    pub(super) const fn has_content(&self) -> bool {
        self.facts.has_content
    }

    pub(super) const fn is_done(&self) -> bool {
        self.facts.known.is_some()
    }

    pub(super) fn terminator(&self) -> Bytes {
        Bytes::copy_from_slice(&self.facts.held)
    }

    /// What it came to; of a stream that was cut, what is known without its end.
    pub(super) fn known(&self) -> Known {
        let Facts { basis, text, known, .. } = &self.facts;
        known.unwrap_or_else(|| basis.known(None, None, text))
    }
}

impl Facts {
    fn judge(&mut self, unit: &[u8]) -> Result<Verdict, Failure> {
        let event = Event::read(unit);
        let Some(payload) = &event.payload else {
            let is_bare = !self.is_running && looks_bare(unit);
            return if is_bare { Err(bare_fault(unit)) } else { Ok(Verdict::Pass) };
        };
        let is_end = payload.trim_ascii() == b"[DONE]";
        if payload.trim_ascii().is_empty() {
            return Ok(Verdict::Drop);
        }
        let outline = if is_end {
            None
        } else {
            Some(Outline::read(payload).map_err(|_malformed| Failure::AnswerMalformed)?)
        };
        self.is_running = true;
        let root = outline.as_ref().map(Outline::root);
        if event.name == b"error" || root.is_some_and(is_fault) {
            return Err(Fault::read(payload).in_answer());
        }
        let kind = root.and_then(|root| root.text_of("type")).unwrap_or_default();
        self.has_content = true;
        if is_end || kind.ends_with(".done") {
            let told = root.and_then(|root| root.get("usage"));
            let text = root.and_then(|root| root.text_of("text"));
            let text = text.as_deref().unwrap_or(&self.text);
            self.known = Some(self.basis.known(told, None, text));
            self.held.extend_from_slice(unit);
            return Ok(Verdict::Stop);
        }
        let piece = root.and_then(|root| root.text_of("delta")).unwrap_or_default();
        if self.text.len() + piece.len() <= COUNTED_BYTES_MAX {
            self.text.push_str(&piece);
        }
        Ok(Verdict::Pass)
    }
}

#[cfg(test)]
mod tests {
    use anima_core::usage::Meter;

    use super::super::StreamDecoder;
    use super::*;
    use crate::adapter::lookup;
    use crate::request::Endpoint;

    fn decoder(format: &str) -> StreamDecoder {
        let body =
            format!(r#"{{"model":"m","input":"hello","voice":"a","stream_format":"{format}"}}"#);
        let request = CallRequest::parse(Endpoint::Speech, body.into()).unwrap();
        lookup("openai").unwrap().stream(&request)
    }

    fn run(
        format: &str,
        bytes: &[u8],
        size: usize,
    ) -> (Result<(), Failure>, Vec<u8>, Option<Usage>) {
        let (mut decoder, mut out) = (decoder(format), Vec::new());
        let outcome = bytes
            .chunks(size)
            .try_for_each(|piece| decoder.push(Bytes::copy_from_slice(piece), &mut out))
            .and_then(|()| decoder.end(&mut out));
        let before = out.concat();
        assert!(outcome.is_err() || before.len() < bytes.len(), "the end is held back");
        let last = outcome.map_or_else(|_| Bytes::new(), |()| decoder.terminator());
        (outcome, [before, last.to_vec()].concat(), decoder.usage())
    }

    #[test]
    fn a_sound_passes_and_its_last_piece_is_held_back() {
        for size in [1, 3, 100] {
            let (outcome, bytes, usage) = run("audio", b"ID3 sound", size);
            assert_eq!((outcome, bytes.as_slice()), (Ok(()), &b"ID3 sound"[..]));
            assert_eq!(usage.unwrap().of(Meter::Characters), 5);
        }
        let mut silent = decoder("audio");
        silent.end(&mut Vec::new()).unwrap();
        assert!(!silent.has_content() && silent.usage().is_none());
        assert!(silent.failure_event(Failure::StreamCut, "x", "r").is_none());
    }

    #[test]
    fn events_pass_and_the_last_one_tells_the_usage() {
        let text = "event: speech.audio.delta\ndata: {\"type\":\"speech.audio.delta\",\"audio\":\
            \"AAAA\"}\n\n: ping\n\ndata: {\"type\":\"speech.audio.done\",\"usage\":{\
            \"input_tokens\":7,\"output_tokens\":90,\"total_tokens\":97}}\n\n";
        for size in [1, 2, 7, 1_000] {
            let (outcome, bytes, usage) = run("sse", text.as_bytes(), size);
            assert_eq!((outcome, String::from_utf8(bytes).unwrap().as_str()), (Ok(()), text));
            let usage = usage.unwrap();
            assert_eq!(usage.of(Meter::OutputAudioTokens), 90);
        }
        let cut = text.split_once(": ping").unwrap().0;
        let (outcome, _, usage) = run("sse", cut.as_bytes(), 1_000_usize.min(cut.len() - 1));
        assert_eq!(outcome, Err(Failure::StreamCut));
        assert_eq!(usage.unwrap().of(Meter::Characters), 5);
        let fault = br#"data: {"error":{"code":"rate_limit_exceeded"}}"#;
        assert_eq!(run("sse", &[fault, &b"\n\n"[..]].concat(), 9).0, Err(Failure::RateLimited));
        assert_eq!(run("sse", br#"{"error":{"code":500}}"#, 9).0, Err(Failure::ServerError));
    }
}
