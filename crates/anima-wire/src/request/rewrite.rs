//! Replacing the few members that must change, without touching or copying the rest.
//!
//! Prompt caches of providers work on equal bytes, so key order, spaces and escapes stay as they
//! came. The result is a list of slices of the original with small new pieces between them.
//! Invariant: what is sent differs from what came in `model` and `stream_options` only.

use std::ops::Range;

use bytes::Bytes;

/// Where the wish for the usage chunk stands in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UsageOption {
    /// There is no `stream_options`.
    None,
    /// It is null, there.
    Null(Range<usize>),
    /// It is an object without `include_usage`; a member may go in at this offset.
    Inside {
        /// Right after the opening brace.
        at: usize,
        /// Whether the object is empty.
        alone: bool,
    },
    /// `include_usage` is false or null, there.
    Refused(Range<usize>),
    /// `include_usage` is true.
    Asked,
}

/// Where the members stand that may be replaced.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The value of `model`.
    pub(super) model: Range<usize>,
    /// The value, or the place, of `include_usage`.
    pub(super) usage_option: UsageOption,
    /// The body's closing brace.
    pub(super) closing: usize,
}

/// The member that is added to a stream's request that lacks it.
const OPTIONS: &[u8] = br#","stream_options":{"include_usage":true}"#;

impl Places {
    /// Whether the client asked for the usage chunk.
    pub(super) fn asks_for_usage(&self) -> bool {
        self.usage_option == UsageOption::Asked
    }

    /// The body with another model, when one is given, and with usage asked for, when it streams.
    pub(super) fn rewrite(&self, body: &Bytes, model: Option<&str>, stream: bool) -> Vec<Bytes> {
        let model = model.map(|model| (self.model.clone(), quoted(model)));
        let usage = if stream { self.ask_for_usage() } else { None };
        let (first, second) = match (model, usage) {
            (Some(model), Some(usage)) if usage.0.start < model.0.start => {
                (Some(usage), Some(model))
            }
            pair => pair,
        };
        let mut segments = Vec::with_capacity(5);
        let mut at = 0;
        for (place, text) in [first, second].into_iter().flatten() {
            push(&mut segments, body.slice(at..place.start));
            push(&mut segments, text);
            at = place.end;
        }
        push(&mut segments, body.slice(at..));
        segments
    }

    /// What to replace so that the provider reports usage at the end of a stream.
    fn ask_for_usage(&self) -> Option<(Range<usize>, Bytes)> {
        let text: &'static [u8] = match self.usage_option {
            UsageOption::Asked => return None,
            UsageOption::None => OPTIONS,
            UsageOption::Null(_) => br#"{"include_usage":true}"#,
            UsageOption::Refused(_) => b"true",
            UsageOption::Inside { alone: true, .. } => br#""include_usage":true"#,
            UsageOption::Inside { alone: false, .. } => br#""include_usage":true,"#,
        };
        let place = match &self.usage_option {
            UsageOption::Null(place) | UsageOption::Refused(place) => place.clone(),
            UsageOption::Inside { at, .. } => *at..*at,
            UsageOption::None | UsageOption::Asked => self.closing..self.closing,
        };
        Some((place, Bytes::from_static(text)))
    }
}

/// Adds a segment unless it is empty.
fn push(segments: &mut Vec<Bytes>, segment: Bytes) {
    if !segment.is_empty() {
        segments.push(segment);
    }
}

/// A JSON string.
fn quoted(text: &str) -> Bytes {
    Bytes::from(serde_json::Value::from(text).to_string())
}
