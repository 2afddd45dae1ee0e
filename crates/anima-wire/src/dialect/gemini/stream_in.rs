//! A stream of generateContent, read into events.
//!
//! Each chunk is a whole answer in small; text goes on in its part, calls come whole. There is no
//! terminator: a stream is over when its body is, and good if a candidate had a finish reason.
//! Invariant: a candidate is finished once. Sources: `a-inbound` A.3.3, `c-conversion` C.8.

use anima_core::failure::Failure;
use anima_core::usage::Meter;

use super::answer::{call_of, is_blocked, is_thought, parts, picture, searches, stop_of};
use super::contents_in::signature;
use super::request_in::either;
use super::{logprobs, usage};
use crate::canonical::{CallIds, Delta, Event, Opening, Sink, Stop};
use crate::dialect::openai::fault::Fault;
use crate::json::{Node, Outline};

/// Candidates of one stream that are followed.
const CHOICES_MAX: usize = 128;

/// Parts that no other dialect has a form for: sound and other media, and code that ran at Google.
const UNSAID: [(&str, &str); 4] = [
    ("inlineData", "inline_data"),
    ("fileData", "file_data"),
    ("executableCode", "executable_code"),
    ("codeExecutionResult", "code_execution_result"),
];

/// Reads one stream.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    is_started: bool,
    ids: CallIds,
    parts: usize,
    candidates: Vec<Running>,
    /// Searches of the web so far.
    searches: u64,
}

/// What is known of a candidate that is being generated.
#[derive(Debug, Default)]
struct Running {
    /// The part of running text, and whether it is thoughts.
    open: Option<(usize, bool)>,
    has_calls: bool,
    is_finished: bool,
}

impl Reader {
    /// Takes one payload. Never says that the stream is over.
    pub(crate) fn read(&mut self, payload: &[u8], sink: &mut dyn Sink) -> Result<bool, Failure> {
        let outline = Outline::read(payload).map_err(|_malformed| Failure::AnswerMalformed)?;
        let root = outline.root();
        if root.get("error").is_some() || root.elements().next().is_some() {
            return Err(Fault::read(payload).in_answer());
        }
        if is_blocked(root) {
            return Err(Failure::ContentRefused);
        }
        if !self.is_started {
            self.is_started = true;
            let id = root.text_of("responseId").unwrap_or_default();
            let model = root.text_of("modelVersion").unwrap_or_default();
            self.ids = CallIds::of(&id, payload);
            sink.take(Event::Start { id, model });
        }
        for candidate in root.get("candidates").iter().flat_map(Node::elements) {
            self.candidate(candidate, sink);
        }
        self.searches = self.searches.max(searches(root));
        if let Some(metadata) = either(root, "usageMetadata", "usage_metadata") {
            let report = usage::read(metadata).with_fees(Meter::SearchCalls, self.searches);
            // Every chunk has one; what counts is the one beside the reason to end, or behind it.
            let goes_on = |one: &Running| !one.is_finished && (one.open.is_some() || one.has_calls);
            let is_last = self.candidates.iter().any(|one| one.is_finished)
                && !self.candidates.iter().any(goes_on);
            sink.take(if is_last { Event::Usage(report) } else { Event::Running(report) });
            if let Some(tier) = usage::tier(metadata) {
                sink.take(Event::Tier(tier));
            }
        }
        Ok(false)
    }

    /// The body has ended.
    pub(crate) fn end(&mut self, sink: &mut dyn Sink) -> Result<(), Failure> {
        if !self.candidates.iter().any(|running| running.is_finished) {
            return Err(Failure::StreamCut);
        }
        sink.take(Event::End);
        Ok(())
    }

    fn candidate(&mut self, node: Node<'_, '_>, sink: &mut dyn Sink) {
        let number = node.count_of("index").unwrap_or(0);
        let Some(at) = usize::try_from(number).ok().filter(|at| *at < CHOICES_MAX) else {
            return;
        };
        while self.candidates.len() <= at {
            self.candidates.push(Running::default());
        }
        let Some(running) = self.candidates.get_mut(at) else {
            return;
        };
        if let Some(logprobs) = logprobs::read(node) {
            sink.take(Event::Logprobs(number, logprobs));
        }
        for part in parts(node) {
            running.part(number, part, (&mut self.parts, self.ids), sink);
        }
        let finish = either(node, "finishReason", "finish_reason").and_then(|word| word.text());
        if let Some(word) = finish.filter(|_| !running.is_finished) {
            running.is_finished = true;
            running.close(sink);
            let stop: Stop = stop_of(&word).given_calls(running.has_calls);
            sink.take(Event::Stop(number, stop, None));
        }
    }
}

impl Running {
    fn part(
        &mut self,
        choice: u64,
        node: Node<'_, '_>,
        (parts, ids): (&mut usize, CallIds),
        sink: &mut dyn Sink,
    ) {
        if let Some(text) = node.text_of("text") {
            let thought = is_thought(node);
            if text.is_empty() && signature(node).is_none() {
                return;
            }
            let part = self.prose(choice, thought, parts, sink);
            if !text.is_empty() {
                sink.take(Event::Piece(part, Delta::Text(text)));
            }
            if let Some(signature) = signature(node) {
                sink.take(Event::Piece(part, Delta::Signature(signature)));
            }
            return;
        }
        let call = either(node, "functionCall", "function_call");
        if let Some(call) = call.and_then(|call| call_of(*parts, call, ids)) {
            self.has_calls = true;
            let opening = Opening::ToolUse(call.id, call.name, signature(node));
            let piece = Delta::Text(call.arguments);
            self.whole(choice, opening, Some(piece), parts, sink);
        } else if let Some((media_type, content)) = picture(node) {
            self.whole(choice, Opening::Image(media_type, content), None, parts, sink);
        } else if UNSAID.iter().any(|(camel, snake)| either(node, camel, snake).is_some()) {
            sink.take(Event::Unsaid);
        }
    }

    /// The part of running text of this kind.
    fn prose(
        &mut self,
        choice: u64,
        thought: bool,
        parts: &mut usize,
        sink: &mut dyn Sink,
    ) -> usize {
        if let Some((part, _)) = self.open.filter(|(_, open)| *open == thought) {
            return part;
        }
        self.close(sink);
        let part = *parts;
        *parts += 1;
        let opening = if thought { Opening::Reasoning } else { Opening::Text };
        sink.take(Event::Open { part, choice, opening });
        self.open = Some((part, thought));
        part
    }

    fn whole(
        &mut self,
        choice: u64,
        opening: Opening<'_>,
        piece: Option<Delta<'_>>,
        parts: &mut usize,
        sink: &mut dyn Sink,
    ) {
        self.close(sink);
        let part = *parts;
        *parts += 1;
        sink.take(Event::Open { part, choice, opening });
        if let Some(piece) = piece {
            sink.take(Event::Piece(part, piece));
        }
        sink.take(Event::Close(part));
    }

    fn close(&mut self, sink: &mut dyn Sink) {
        if let Some((part, _)) = self.open.take() {
            sink.take(Event::Close(part));
        }
    }
}
