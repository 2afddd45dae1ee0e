//! A stream of the OpenAI family on its way to a client of the same: chunks pass, facts are noted.
//!
//! Holds back the terminator, since the last bytes of a stream are sent only when it is billed.
//! Usage is always asked for upstream and taken out again for a client that did not ask. Not here:
//! what to do about a failure. Invariant: for any split of the bytes the client gets the same
//! bytes and the facts are the same. Sources: `wire-conventions` 4.5, `b-outbound-chat` B.2, B.4.

mod alike; // chunks that need not be read again

use std::borrow::Cow;

use anima_core::failure::Failure;
use anima_core::usage::Usage;
use bytes::Bytes;

use self::alike::Alike;
use crate::dialect::openai::choice::Tally;
use crate::dialect::openai::fault::Fault;
use crate::dialect::openai::reply::Reply;
use crate::dialect::openai::usage::{Report, with_search};
use crate::sse::{self, Event, Filter, TooLarge, Verdict};
use crate::tokens;

/// What ends a stream that went well.
const TERMINATOR: &[u8] = b"data: [DONE]\n\n";

/// Generated text that is kept for our own count. Beyond it, bytes are divided.
const KEPT_BYTES_MAX: usize = tokens::COUNTED_BYTES_MAX;

/// Bytes per token of generated text that was not kept.
const BYTES_PER_TOKEN: u64 = 4;

/// Decodes one upstream stream.
#[derive(Debug)]
pub(super) struct Passing {
    filter: Filter,
    facts: Facts,
}

/// What is known so far.
#[derive(Debug)]
struct Facts {
    include_usage: bool,
    tally: Tally,
    phase: Phase,
    /// Choices that the client wants and that have not ended.
    open_choices: u64,
    has_content: bool,
    report: Report,
    /// When the last report came, and how much text had been kept and dropped by then.
    told: When,
    told_at: (usize, usize),
    service_tier: Option<String>,
    upstream_ref: Option<String>,
    alike: Alike,
}

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No payload has come.
    Waiting,
    /// Payloads have come.
    Running,
    /// All choices have ended.
    Ended,
    /// A choice has ended because the provider failed: only its report is still wanted.
    Failing,
    /// The terminator has come.
    Done,
}

/// When a report came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// While the answer went on.
    Running,
    /// With the reason to end, or behind it.
    Ended,
    /// On a chunk of its own, as a final one does.
    Alone,
}

impl From<TooLarge> for Failure {
    fn from(_: TooLarge) -> Self {
        // Our own bound: no fault of the provider's.
        Self::AnswerTooLarge
    }
}

impl Passing {
    /// A decoder before the first byte. `include_usage`: whether the client asked for usage;
    /// how many searches of the web it asked for, and how many choices.
    pub(super) const fn new(include_usage: bool, (searches, choices): (u64, u64)) -> Self {
        let mut tally = Tally::keeping(KEPT_BYTES_MAX);
        tally.cites = searches > 0;
        Self {
            filter: Filter::new(),
            facts: Facts {
                include_usage,
                tally,
                phase: Phase::Waiting,
                open_choices: choices,
                has_content: false,
                report: Report { usage: None, suspect: false },
                told: When::Running,
                told_at: (0, 0),
                service_tier: None,
                upstream_ref: None,
                alike: Alike::new(),
            },
        }
    }

    /// Takes the next bytes and appends what may go to the client now: complete events, in order,
    /// without the terminator. Bytes after the terminator are ignored.
    ///
    /// # Errors
    /// When the stream is malformed or tells of an error. What came before is in `out`; nothing
    /// more may be pushed.
    #[expect(clippy::needless_pass_by_value, reason = "the slices in `out` share its memory")]
    pub(super) fn push(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) -> Result<(), Failure> {
        if self.is_done() {
            return Ok(());
        }
        let Self { filter, facts } = self;
        filter.push(&chunk, out, |unit| facts.judge(unit)).map(|_| ())
    }

    /// The upstream's body has ended. A terminator without its blank line still counts; nothing
    /// else that is incomplete goes to the client, so this dialect never appends to `out`.
    ///
    /// # Errors
    /// [`Failure::StreamCut`] when no terminator was seen; something more exact when the body was
    /// no stream at all but an error.
    pub(super) fn end(&mut self, _out: &mut Vec<Bytes>) -> Result<(), Failure> {
        let rest = self.filter.rest();
        if self.is_done() {
            return Ok(());
        }
        if is_terminator(Event::read(rest).payload.as_deref().unwrap_or_default()) {
            self.facts.not_failed()?;
            self.facts.phase = Phase::Done;
            return Ok(());
        }
        self.facts.not_failed()?;
        Err(if self.facts.is_bare(rest) { bare_fault(rest) } else { Failure::StreamCut })
    }

    /// Whether content has been seen: from then on no other channel may answer.
    pub(super) const fn has_content(&self) -> bool {
        self.facts.has_content
    }

    /// Whether the terminator has been seen.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self.facts.phase, Phase::Done)
    }

    /// What the client gets last, once the stream is billed.
    pub(super) const fn terminator() -> Bytes {
        Bytes::from_static(TERMINATOR)
    }

    /// What the provider says was consumed. `None` when it said nothing usable; zeros next to
    /// content are not usable.
    pub(super) fn usage(&self) -> Option<Usage> {
        let facts = &self.facts;
        let usage = facts.report.usage.filter(|usage| !(usage.is_empty() && facts.has_content));
        usage.map(|usage| with_search(usage, facts.tally.cites))
    }

    /// Whether the report contradicts itself, another one, or what was delivered.
    pub(super) fn usage_suspect(&self) -> bool {
        let report = self.facts.report;
        let nothing_generated = |usage: Usage| usage.output_tokens() == 0;
        report.suspect || self.facts.has_content && report.usage.is_some_and(nothing_generated)
    }

    /// Whether the report was made while the answer went on.
    pub(super) const fn usage_is_running(&self) -> bool {
        self.facts.report.usage.is_some() && matches!(self.facts.told, When::Running)
    }

    /// Whether the provider has said that it failed, and only its report is still wanted.
    pub(super) const fn is_failing(&self) -> bool {
        matches!(self.facts.phase, Phase::Failing)
    }

    /// The tier that was used, as far as the provider said.
    pub(super) fn service_tier(&self) -> Option<&str> {
        self.facts.service_tier.as_deref()
    }

    /// The provider's id of this answer.
    pub(super) fn upstream_ref(&self) -> Option<&str> {
        self.facts.upstream_ref.as_deref()
    }

    /// Bytes of generated text so far, as they stood escaped.
    pub(super) const fn output_bytes(&self) -> usize {
        self.facts.tally.bytes
    }

    /// The same of what was delivered since the last report.
    pub(super) fn count_since_report(&self) -> u64 {
        let (tally, (kept, dropped)) = (&self.facts.tally, self.facts.told_at);
        let since = tally.text.get(kept..).unwrap_or_default();
        let dropped = tally.dropped_bytes.saturating_sub(dropped);
        tokens::count(since) + (dropped as u64).div_ceil(BYTES_PER_TOKEN)
    }

    /// Counts what was delivered with our own tokenizer. Up to some 25 ms of work.
    pub(super) fn count_output_tokens(&mut self) -> u64 {
        let tally = &self.facts.tally;
        tokens::count(&tally.text) + (tally.dropped_bytes as u64).div_ceil(BYTES_PER_TOKEN)
    }
}

impl Facts {
    /// Notes what a unit says and decides what becomes of it.
    fn judge(&mut self, unit: &[u8]) -> Result<Verdict, Failure> {
        if let Some((text, verdict)) = self.alike.read(unit) {
            self.tally.add_plain(text);
            self.has_content |= self.tally.content;
            return Ok(verdict);
        }
        self.alike.forget();
        let event = Event::read(unit);
        let Some(payload) = &event.payload else {
            return if self.is_bare(unit) { Err(bare_fault(unit)) } else { Ok(Verdict::Pass) };
        };
        if self.phase == Phase::Waiting {
            self.phase = Phase::Running;
        }
        if payload.trim_ascii().is_empty() {
            // Keeps a connection alive here and there; clients would choke on it.
            return Ok(Verdict::Drop);
        }
        if is_terminator(payload) {
            self.not_failed()?;
            self.phase = Phase::Done;
            return Ok(Verdict::Stop);
        }
        if event.name == b"error" {
            return Err(Fault::read(payload).in_answer());
        }
        let verdict = match (self.judge_chunk(payload)?, payload) {
            (Verdict::Without(place), _) if place.len() == payload.len() => Verdict::Drop,
            (Verdict::Without(place), Cow::Borrowed(_)) => {
                Verdict::Without(event.payload_at + place.start..event.payload_at + place.end)
            }
            (Verdict::Without(place), Cow::Owned(joined)) => {
                let mut payload = joined.clone();
                payload.drain(place);
                Verdict::Instead(sse::with_payload(unit, &payload))
            }
            (verdict, _) => verdict,
        };
        // A chunk that reports is read each time.
        let text = self.tally.only_place().filter(|_| self.report.usage.is_none());
        let place = text.map(|t| event.payload_at + t.start..event.payload_at + t.end);
        let place = place.filter(|_| matches!(payload, Cow::Borrowed(_)));
        self.alike.learn(unit, place, &verdict);
        Ok(verdict)
    }

    /// Notes what a chunk says. Gives the bytes that must not go on, all of them for a chunk that
    /// must not.
    fn judge_chunk(&mut self, payload: &[u8]) -> Result<Verdict, Failure> {
        let mark = self.tally.mark();
        let failure = match Reply::read(payload, &mut self.tally) {
            Err(_malformed) => Failure::AnswerMalformed,
            Ok(reply) if reply.is_fault => Fault::read(payload).in_answer(),
            Ok(reply) if self.phase == Phase::Failing || reply.has_failed() => {
                self.phase = Phase::Failing;
                self.tally.rewind(mark);
                self.note(&reply);
                // Usage comes with the reason, or behind it, or not at all.
                return if reply.has_usage { self.not_failed() } else { Ok(()) }
                    .map(|()| Verdict::Without(0..payload.len()));
            }
            Ok(reply) => {
                self.note(&reply);
                let hidden = match reply.usage_place {
                    _ if self.include_usage => None,
                    _ if reply.stands_alone() => Some(0..payload.len()),
                    place => place,
                };
                return Ok(hidden.map_or(Verdict::Pass, Verdict::Without));
            }
        };
        // What is not delivered is not counted.
        self.tally.rewind(mark);
        Err(failure)
    }

    /// That the provider has not said that it failed.
    const fn not_failed(&self) -> Result<(), Failure> {
        if matches!(self.phase, Phase::Failing) { Err(Failure::ErrorInAnswer) } else { Ok(()) }
    }

    /// Keeps what a chunk says.
    fn note(&mut self, reply: &Reply<'_>) {
        self.has_content |= self.tally.content;
        if let (None, Some(id)) = (&self.upstream_ref, reply.id.filter(|id| !id.is_empty())) {
            self.upstream_ref = Some(id.decode().into_owned());
        }
        // Every chunk repeats the tier, so it is decoded only when it changes.
        let known = self.service_tier.as_ref().map(String::as_bytes);
        if let Some(tier) = reply.service_tier.filter(|tier| known != Some(tier.raw())) {
            self.service_tier = Some(tier.decode().into_owned());
        }
        let ended = reply.choices.map_or(0, |choices| choices.ended);
        self.open_choices = self.open_choices.saturating_sub(ended);
        if self.phase == Phase::Running && self.open_choices == 0 {
            self.phase = Phase::Ended;
        }
        let when = match self.phase {
            _ if reply.stands_alone() => When::Alone,
            Phase::Waiting | Phase::Running => When::Running,
            Phase::Ended | Phase::Failing | Phase::Done => When::Ended,
        };
        self.note_report(reply.report, when);
    }

    /// Merges a report with those before. Some vendors report on every chunk, so growth is normal;
    /// shrinking is not, and neither is another word after the last one. The larger is believed.
    fn note_report(&mut self, new: Report, when: When) {
        self.report.suspect |= new.suspect;
        let Some(after) = new.usage else { return };
        if let Some(before) = self.report.usage {
            let sum = |usage: Usage| usage.input_tokens() + usage.output_tokens();
            let shrank = after.input_tokens() < before.input_tokens()
                || after.output_tokens() < before.output_tokens();
            self.report.suspect |= shrank || (self.told == When::Alone && after != before);
            if sum(after) < sum(before) {
                return;
            }
        }
        self.report.usage = Some(after);
        self.told = when;
        self.told_at = (self.tally.text.len(), self.tally.dropped_bytes);
    }

    /// Whether a unit without fields is a bare JSON or HTML body where a stream should be.
    fn is_bare(&self, unit: &[u8]) -> bool {
        self.phase == Phase::Waiting && looks_bare(unit)
    }
}

/// Whether bytes begin like a JSON or HTML body.
pub(super) fn looks_bare(unit: &[u8]) -> bool {
    matches!(unit.trim_ascii_start().first(), Some(b'{' | b'[' | b'<'))
}

/// What a body is that came instead of a stream.
pub(super) fn bare_fault(body: &[u8]) -> Failure {
    let fault = Fault::read(body);
    if fault == Fault::default() { Failure::AnswerMalformed } else { fault.in_answer() }
}

/// Whether a payload is the terminator.
fn is_terminator(payload: &[u8]) -> bool {
    payload.trim_ascii() == b"[DONE]"
}

#[cfg(test)]
mod tests;
