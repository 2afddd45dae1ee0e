//! What is known of an answer that is read as events: content, usage, tier, the provider's id.
//!
//! Not what the client sees. Invariant: of two reports the larger is believed, and one that
//! shrinks makes all of them suspect. Sources: `b-outbound-chat` B.2, `f-tokens` F.5.

use std::borrow::Cow;

use anima_core::usage::Usage;

use crate::canonical::{Delta, Event, Opening, Part, Stop};
use crate::dialect::openai::usage::Report;
use crate::tokens;

/// Bytes per token of generated text that was not kept.
const BYTES_PER_TOKEN: u64 = 4;

/// The facts so far.
#[derive(Debug, Default)]
pub(in crate::adapter) struct Facts {
    text: String,
    dropped_bytes: usize,
    has_content: bool,
    has_failed: bool,
    /// What the prompt came to, if the provider said so first.
    input: Option<Usage>,
    report: Report,
    /// Whether it was told while the answer went on.
    is_running: bool,
    /// How much text was kept, and how much was not, when it came.
    told_at: (usize, usize),
    service_tier: Option<String>,
    upstream_ref: Option<String>,
}

impl Facts {
    /// Notes what an event says.
    pub(super) fn note(&mut self, event: &Event<'_>) {
        match event {
            Event::Start { id, .. } => self.refer(id),
            Event::Open { opening, .. } => self.open(opening),
            Event::Piece(_, Delta::Text(text)) => self.generated(text),
            Event::Input(report) => self.input = report.usage,
            Event::Running(report) => {
                self.is_running = true;
                self.note_report(*report);
            }
            Event::Usage(report) => {
                self.is_running &= report.usage.is_none();
                self.note_report(*report);
            }
            Event::Tier(tier) => self.tier(Some(tier)),
            Event::Stop(_, Stop::Error, _) => self.has_failed = true,
            Event::Unsaid => self.has_content = true,
            Event::Piece(_, Delta::Signature(_))
            | Event::Stop(..)
            | Event::Close(_)
            | Event::Logprobs(..)
            | Event::End => {}
        }
    }

    fn open(&mut self, opening: &Opening<'_>) {
        match opening {
            Opening::ToolUse(_, name, _) => {
                self.has_content = true;
                self.generated(name);
            }
            Opening::Redacted(_) | Opening::Image(..) => self.has_content = true,
            Opening::Text | Opening::Refusal | Opening::Reasoning => {}
        }
    }

    /// Notes a whole part.
    pub(in crate::adapter) fn note_part(&mut self, part: &Part<'_>) {
        self.has_content = true;
        if let Some(call) = part.as_call() {
            self.generated(&call.name);
            self.generated(&call.arguments);
        }
        let text = part.as_text().or_else(|| part.as_thought()).or_else(|| part.as_refusal());
        self.generated(text.unwrap_or_default());
    }

    /// Notes a whole part whose text is not to be counted: only how long it is.
    pub(in crate::adapter) fn note_length(&mut self, part: &Part<'_>) {
        self.has_content = true;
        let call = part.as_call().map_or(0, |call| call.name.len() + call.arguments.len());
        let text = part.as_text().or_else(|| part.as_thought()).or_else(|| part.as_refusal());
        self.dropped_bytes += call + text.map_or(0, str::len);
    }

    /// Adds text that was generated.
    fn generated(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.has_content = true;
        if self.text.len() + text.len() <= tokens::COUNTED_BYTES_MAX {
            self.text.push_str(text);
        } else {
            self.dropped_bytes += text.len();
        }
    }

    /// Keeps the provider's id.
    pub(in crate::adapter) fn refer(&mut self, id: &str) {
        if self.upstream_ref.is_none() && !id.is_empty() {
            self.upstream_ref = Some(id.to_owned());
        }
    }

    /// Keeps the tier.
    pub(in crate::adapter) fn tier(&mut self, tier: Option<&Cow<'_, str>>) {
        if let Some(tier) = tier.filter(|tier| self.service_tier.as_deref() != Some(tier)) {
            self.service_tier = Some(tier.to_string());
        }
    }

    /// Keeps a report.
    pub(in crate::adapter) fn note_report(&mut self, new: Report) {
        self.report.suspect |= new.suspect;
        let Some(after) = new.usage else { return };
        self.told_at = (self.text.len(), self.dropped_bytes);
        if let Some(before) = self.report.usage {
            let shrank = after.input_tokens() < before.input_tokens()
                || after.output_tokens() < before.output_tokens();
            self.report.suspect |= shrank;
            let sum = |usage: Usage| usage.input_tokens() + usage.output_tokens();
            if sum(after) < sum(before) {
                return;
            }
        }
        self.report.usage = Some(after);
    }

    /// Whether content was generated.
    pub(in crate::adapter) const fn has_content(&self) -> bool {
        self.has_content
    }

    /// Whether the provider said that it failed.
    pub(super) const fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// What was consumed. Zeros next to content are not usable.
    pub(in crate::adapter) fn usage(&self) -> Option<Usage> {
        self.report.usage.filter(|usage| !(usage.is_empty() && self.has_content))
    }

    /// Whether that was told while the answer went on: of one that was cut, more may follow.
    pub(super) const fn is_running(&self) -> bool {
        self.is_running
    }

    /// What the prompt came to, where that is all the provider has said.
    pub(super) const fn input_usage(&self) -> Option<Usage> {
        self.input
    }

    /// Whether that contradicts itself or what was delivered.
    pub(in crate::adapter) fn usage_suspect(&self) -> bool {
        let nothing_generated = |usage: Usage| usage.output_tokens() == 0;
        self.report.suspect || self.has_content && self.report.usage.is_some_and(nothing_generated)
    }

    /// The tier that was used.
    pub(in crate::adapter) fn service_tier(&self) -> Option<&str> {
        self.service_tier.as_deref()
    }

    /// The provider's id.
    pub(in crate::adapter) fn upstream_ref(&self) -> Option<&str> {
        self.upstream_ref.as_deref()
    }

    /// Bytes of generated text.
    pub(in crate::adapter) const fn text_bytes(&self) -> usize {
        self.text.len() + self.dropped_bytes
    }

    /// The same of what was generated since the last report.
    pub(super) fn count_since_report(&self) -> u64 {
        let (kept, dropped) = self.told_at;
        let since = self.text.get(kept..).unwrap_or_default();
        let dropped = self.dropped_bytes.saturating_sub(dropped);
        tokens::count(since) + (dropped as u64).div_ceil(BYTES_PER_TOKEN)
    }

    /// Counts the generated text with our own tokenizer.
    pub(in crate::adapter) fn count_output_tokens(&self) -> u64 {
        tokens::count(&self.text) + (self.dropped_bytes as u64).div_ceil(BYTES_PER_TOKEN)
    }
}
