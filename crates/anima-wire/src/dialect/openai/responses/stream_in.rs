//! A stream of Responses, read into events.
//!
//! Every piece names the item that it belongs to, by its place in the output; a message may have
//! several parts. Of tools that ran at OpenAI no more is told than that something happens.
//! Invariant: each part is opened by its first piece or by its item, whichever comes first, and
//! closed by its item.
//! Source: `a-inbound` A.1.5, `c-conversion` C.8.

use anima_core::failure::Failure;

use super::answer::{reported, stop_of};
use super::items_in::seal;
use crate::canonical::{Delta, Event, Opening, Sink};
use crate::dialect::openai::fault::Fault;
use crate::dialect::openai::logprobs;
use crate::json::{Node, Outline};

/// Parts of one stream that are followed.
const PARTS_MAX: usize = 4096;

/// Reads one stream.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    parts: usize,
    open: Vec<Running>,
    has_calls: bool,
}

/// A part that is being generated.
#[derive(Debug)]
struct Running {
    /// The item's place and the part's place in it.
    place: (u64, u64),
    part: usize,
    /// Whether any piece came.
    has_pieces: bool,
    /// Of thoughts, the paragraph at hand.
    paragraph: u64,
}

impl Reader {
    /// Takes one payload. `true` when it is the last one.
    pub(crate) fn read(&mut self, payload: &[u8], sink: &mut dyn Sink) -> Result<bool, Failure> {
        let outline = Outline::read(payload).map_err(|_malformed| Failure::AnswerMalformed)?;
        let root = outline.root();
        let kind = root.text_of("type").ok_or_else(|| Fault::read(payload).in_answer())?;
        match kind.strip_prefix("response.").unwrap_or(&kind) {
            "created" => start(root, sink),
            "output_item.added" => self.item(root, sink),
            "output_text.delta" => self.piece(root, Opening::Text, sink),
            "refusal.delta" => self.piece(root, Opening::Refusal, sink),
            "reasoning_summary_text.delta" | "reasoning_text.delta" => {
                self.piece(root, Opening::Reasoning, sink);
            }
            "function_call_arguments.delta" => self.arguments(root, sink),
            "output_item.done" => self.item_done(root, sink),
            "completed" | "incomplete" => {
                self.end(root, sink);
                return Ok(true);
            }
            "failed" => {
                let response = root.get("response").unwrap_or(root);
                return Err(Fault::read(response.raw().as_bytes()).in_answer());
            }
            "error" => return Err(Fault::read(payload).in_answer()),
            // Calls of other kinds, which may go on for long before the first word.
            other if other.contains("_call") || other.contains(".delta") => {
                sink.take(Event::Unsaid);
            }
            _ => {}
        }
        Ok(false)
    }

    /// An item begins. A call is a part at once; other items make parts by their pieces.
    fn item(&mut self, root: Node<'_, '_>, sink: &mut dyn Sink) {
        let (Some(item), place) = (root.get("item"), place(root)) else {
            return;
        };
        let id = item.text_of("call_id");
        if let (true, Some(id)) =
            (item.text_of("type").is_some_and(|kind| kind == "function_call"), id)
        {
            self.has_calls = true;
            let name = item.text_of("name").unwrap_or_default();
            self.open_part((place.0, 0), Opening::ToolUse(id, name, None), sink);
        }
    }

    fn open_part(&mut self, place: (u64, u64), opening: Opening<'_>, sink: &mut dyn Sink) {
        if self.open.len() >= PARTS_MAX {
            return;
        }
        let part = self.parts;
        self.parts += 1;
        sink.take(Event::Open { part, choice: 0, opening });
        self.open.push(Running { place, part, has_pieces: false, paragraph: 0 });
    }

    fn piece(&mut self, root: Node<'_, '_>, opening: Opening<'_>, sink: &mut dyn Sink) {
        let Some(text) = root.text_of("delta").filter(|text| !text.is_empty()) else {
            return;
        };
        let is_thought = opening == Opening::Reasoning;
        let (item, at) = place(root);
        // All paragraphs of thoughts are one part.
        let place = (item, if is_thought { 0 } else { at });
        if !self.open.iter().any(|running| running.place == place) {
            self.open_part(place, opening, sink);
        }
        let Some(running) = self.open.iter_mut().find(|running| running.place == place) else {
            return;
        };
        if let Some(told) = root.get("logprobs").and_then(logprobs::read_list) {
            sink.take(Event::Logprobs(0, told.into()));
        }
        running.has_pieces = true;
        let paragraph = root.count_of("summary_index").unwrap_or(0);
        if is_thought && paragraph != running.paragraph {
            running.paragraph = paragraph;
            sink.take(Event::Piece(running.part, Delta::Text("\n\n".into())));
        }
        sink.take(Event::Piece(running.part, Delta::Text(text)));
    }

    fn arguments(&mut self, root: Node<'_, '_>, sink: &mut dyn Sink) {
        let place = (place(root).0, 0);
        let running = self.open.iter_mut().find(|running| running.place == place);
        if let (Some(running), Some(text)) = (running, root.text_of("delta"))
            && !text.is_empty()
        {
            running.has_pieces = true;
            sink.take(Event::Piece(running.part, Delta::Text(text)));
        }
    }

    /// An item is whole: what it has that no piece had is said now.
    fn item_done(&mut self, root: Node<'_, '_>, sink: &mut dyn Sink) {
        let Some(item) = root.get("item") else {
            return;
        };
        let (at, _) = place(root);
        match item.text_of("type").as_deref() {
            Some("function_call") => {
                let whole = item.text_of("arguments").filter(|text| !text.is_empty());
                let running = self.open.iter().find(|running| running.place == (at, 0));
                if let (Some(running), Some(text)) = (running, whole)
                    && !running.has_pieces
                {
                    sink.take(Event::Piece(running.part, Delta::Text(text)));
                }
            }
            Some("reasoning") => {
                if let Some(signature) = seal(item) {
                    if !self.open.iter().any(|running| running.place == (at, 0)) {
                        self.open_part((at, 0), Opening::Reasoning, sink);
                    }
                    let running = self.open.iter().find(|running| running.place == (at, 0));
                    if let Some(running) = running {
                        sink.take(Event::Piece(running.part, Delta::Signature(signature)));
                    }
                }
            }
            Some(_) | None => {}
        }
        self.open.retain(|running| {
            let is_whole = running.place.0 == at;
            if is_whole {
                sink.take(Event::Close(running.part));
            }
            !is_whole
        });
    }

    fn end(&mut self, root: Node<'_, '_>, sink: &mut dyn Sink) {
        self.open.drain(..).for_each(|running| sink.take(Event::Close(running.part)));
        let response = root.get("response").unwrap_or(root);
        if let Some(tier) = response.text_of("service_tier") {
            sink.take(Event::Tier(tier));
        }
        if response.get("usage").is_some() {
            sink.take(Event::Usage(reported(response)));
        }
        sink.take(Event::Stop(0, stop_of(response).given_calls(self.has_calls), None));
        sink.take(Event::End);
    }
}

fn start(root: Node<'_, '_>, sink: &mut dyn Sink) {
    let response = root.get("response").unwrap_or(root);
    let id = response.text_of("id").unwrap_or_default();
    let model = response.text_of("model").unwrap_or_default();
    sink.take(Event::Start { id, model });
}

/// The item's place and the part's place in it.
fn place(root: Node<'_, '_>) -> (u64, u64) {
    let count = |name| root.count_of(name).unwrap_or(0);
    (count("output_index"), count("content_index"))
}
