//! A stream that is read as events and written in the client's dialect.
//!
//! Where both ends speak one dialect other than OpenAI's, the bytes pass and only the facts are
//! taken from the events. Invariants: for any split of the bytes the client gets the same bytes
//! and the facts are the same; the last bytes are held back as the terminator.
//! Sources: `wire-conventions` 4.5, `c-conversion` C.8.

use anima_core::failure::Failure;
use bytes::Bytes;

use super::elements::Elements;
use super::facts::Facts;
use super::openai::{bare_fault, looks_bare};
use crate::canonical::{ClientNames, Event, Sink};
use crate::dialect::{Dialect, StreamReader, StreamWriter, gemini};
use crate::request::CallRequest;
use crate::sse::{self, Filter, Verdict};

/// Bytes of a stream that is converted. Some dialects repeat all of it at the end, so that it is
/// kept; real ones have some megabytes at most, and those with pictures.
const CONVERTED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Decodes one upstream stream.
#[derive(Debug)]
pub(super) struct Converting {
    /// Of dialects whose streams may come as one array: what cuts it.
    elements: Option<Elements>,
    filter: Filter,
    core: Core,
    client: Dialect,
    pub(super) facts: Facts,
}

/// What judges a unit; apart from the filter, so that both can be borrowed.
#[derive(Debug)]
struct Core {
    reader: StreamReader,
    /// `None` where the bytes pass.
    writer: Option<StreamWriter>,
    /// What the client calls its tools.
    names: ClientNames,
    /// Of a stream that passes: what is held back for the end.
    held: Vec<u8>,
    is_running: bool,
    is_done: bool,
    seen_bytes: usize,
}

/// Shows events to both that want them.
struct Tee<'s> {
    facts: &'s mut Facts,
    writer: &'s mut Option<StreamWriter>,
    names: &'s ClientNames,
    has_stopped: bool,
}

impl Sink for Tee<'_> {
    fn take(&mut self, event: Event<'_>) {
        self.facts.note(&event);
        self.has_stopped |= matches!(event, Event::Stop(..));
        if let Some(writer) = self.writer.as_mut().filter(|_| !self.facts.has_failed()) {
            writer.take(self.names.of_event(event));
        }
    }
}

impl Converting {
    /// A decoder before the first byte.
    pub(super) fn new(from: Dialect, request: &CallRequest) -> Self {
        // A client of Gemini's may want an array; its provider is always asked for events.
        let converts = from != request.dialect || request.as_array;
        let stream = Self::anew(from, request);
        let writer = stream.core.writer.filter(|_| converts);
        Self { core: Core { writer, ..stream.core }, ..stream }
    }

    /// One that writes anew whatever the two speak.
    pub(super) fn anew(from: Dialect, request: &CallRequest) -> Self {
        let writer = Some(request.dialect.stream_writer(&request.echo()));
        Self {
            elements: (from == Dialect::Gemini).then(Elements::default),
            filter: Filter::new(),
            client: request.dialect,
            core: Core {
                reader: from.stream_reader(),
                writer,
                names: ClientNames::of(request),
                held: Vec::new(),
                is_running: false,
                is_done: false,
                seen_bytes: 0,
            },
            facts: Facts::default(),
        }
    }

    /// Whether the provider's dialect has streams that are one array.
    pub(super) const fn takes_arrays(&self) -> bool {
        self.elements.is_some()
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, chunk: &Bytes, out: &mut Vec<Bytes>) -> Result<(), Failure> {
        if self.core.is_done {
            return Ok(());
        }
        let cut = self.elements.as_mut().map(|elements| elements.push(chunk));
        let chunk = cut.as_ref().unwrap_or(chunk);
        let Self { filter, core, facts, .. } = self;
        let result = filter.push(chunk, out, |unit| core.judge(unit, facts)).map(|_| ());
        core.flush(out);
        result
    }

    /// The upstream's body has ended.
    pub(super) fn end(&mut self, out: &mut Vec<Bytes>) -> Result<(), Failure> {
        if self.core.is_done {
            return Ok(());
        }
        let rest = self.filter.rest().to_vec();
        if !self.core.is_running && looks_bare(&rest) {
            return Err(bare_fault(&rest));
        }
        let Self { core, facts, .. } = self;
        // A last event without its blank line counts if it is whole.
        let verdict = core.judge(&rest, facts);
        let failure = verdict.err().filter(|failure| *failure != Failure::AnswerMalformed);
        let ended = if core.is_done { Ok(()) } else { core.end(facts) };
        core.flush(out);
        failure.map_or(ended, Err)
    }

    /// What the client speaks.
    pub(super) const fn client(&self) -> Dialect {
        self.client
    }

    /// The writer of a client who gets one JSON array.
    pub(super) const fn array(&self) -> Option<&gemini::Writer> {
        match &self.core.writer {
            Some(StreamWriter::Gemini(writer)) if writer.is_array() => Some(writer),
            Some(_) | None => None,
        }
    }

    /// Whether the terminator has been seen.
    pub(super) const fn is_done(&self) -> bool {
        self.core.is_done
    }

    /// What the client gets last.
    pub(super) fn terminator(&self) -> Bytes {
        match &self.core.writer {
            Some(writer) => writer.terminator(),
            None => Bytes::copy_from_slice(&self.core.held),
        }
    }
}

impl Core {
    /// Reads a unit and decides what becomes of its bytes.
    fn judge(&mut self, unit: &[u8], facts: &mut Facts) -> Result<Verdict, Failure> {
        let event = sse::Event::read(unit);
        let Some(payload) = &event.payload else {
            if !self.is_running && looks_bare(unit) {
                return Err(bare_fault(unit));
            }
            // A comment has no place between events that are written anew.
            return Ok(if self.writer.is_none() { Verdict::Pass } else { Verdict::Drop });
        };
        self.is_running = true;
        self.seen_bytes += unit.len();
        if self.writer.is_some() && self.seen_bytes > CONVERTED_BYTES_MAX {
            return Err(Failure::AnswerTooLarge);
        }
        if payload.trim_ascii().is_empty() {
            return Ok(Verdict::Drop);
        }
        let mut tee =
            Tee { facts, writer: &mut self.writer, names: &self.names, has_stopped: false };
        let is_done = self.reader.read(payload, &mut tee)?;
        let has_stopped = tee.has_stopped;
        if facts.has_failed() {
            return Err(Failure::ErrorInAnswer);
        }
        self.is_done = is_done;
        if self.writer.is_none() && (is_done || has_stopped || !self.held.is_empty()) {
            self.held.extend_from_slice(unit);
        } else if self.writer.is_none() {
            return Ok(Verdict::Pass);
        }
        Ok(if is_done { Verdict::Stop } else { Verdict::Drop })
    }

    /// The body has ended without a terminator; not every dialect has one.
    fn end(&mut self, facts: &mut Facts) -> Result<(), Failure> {
        let mut tee =
            Tee { facts, writer: &mut self.writer, names: &self.names, has_stopped: false };
        self.reader.end(&mut tee)?;
        if facts.has_failed() {
            return Err(Failure::ErrorInAnswer);
        }
        self.is_done = true;
        Ok(())
    }

    /// Hands on what was written.
    fn flush(&mut self, out: &mut Vec<Bytes>) {
        if let Some(bytes) = self.writer.as_mut().map(StreamWriter::take_bytes)
            && !bytes.is_empty()
        {
            out.push(bytes);
        }
    }
}
