//! Replacing the few members that must change, without touching or copying the rest.
//!
//! Prompt caches of providers work on equal bytes, so key order, spaces and escapes stay as they
//! came. The result is a list of slices of the original with small new pieces between them.
//! Invariant: what is sent differs from what came in `model`, `stream_options` and, for a call that
//! was limited to what its wallet can pay, in the output limit only.

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

/// A member that limits the output: where its value stands, and the value unless it is null.
pub(super) type Limit = Option<(Range<usize>, Option<u64>)>;

/// What a body says about the length of its answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits {
    /// `max_tokens`.
    pub(super) older: Limit,
    /// `max_completion_tokens`.
    pub(super) newer: Limit,
}

/// What to change in a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changes<'a> {
    /// Another model.
    pub(super) model: Option<&'a str>,
    /// Whether the answer is a stream, which must report usage.
    pub(super) stream: bool,
    /// At most this many tokens, and the member to say so where the body has none.
    pub(super) output: Option<(u64, &'static str)>,
}

/// Where the members stand that may be replaced.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The value of `model`.
    pub(super) model: Range<usize>,
    /// The values of the members that limit the output.
    pub(super) limits: Limits,
    /// The value, or the place, of `include_usage`.
    pub(super) usage_option: UsageOption,
    /// The body's closing brace.
    pub(super) closing: usize,
}

/// The member by which text completions, and most who copy `OpenAI`, limit the output.
pub(crate) const OLDER: &str = "max_tokens";

/// The member by which `OpenAI`'s own chat models do; those that reason refuse the older one.
pub(crate) const NEWER: &str = "max_completion_tokens";

/// The member that is added to a stream's request that lacks it.
const OPTIONS: &[u8] = br#","stream_options":{"include_usage":true}"#;

impl Places {
    /// Whether the client asked for the usage chunk.
    pub(super) fn asks_for_usage(&self) -> bool {
        self.usage_option == UsageOption::Asked
    }

    /// The body with the changes.
    pub(super) fn rewrite(&self, body: &Bytes, changes: Changes<'_>) -> Vec<Bytes> {
        let mut pieces = Vec::with_capacity(4);
        pieces.extend(changes.model.map(|model| (self.model.clone(), quoted(model))));
        if changes.stream {
            pieces.extend(self.ask_for_usage());
        }
        if let Some((most, member)) = changes.output {
            self.limit(most, member, &mut pieces);
        }
        pieces.sort_by_key(|(place, _)| place.start);
        let mut segments = Vec::with_capacity(2 * pieces.len() + 1);
        let mut at = 0;
        for (place, text) in pieces {
            push(&mut segments, body.slice(at..place.start));
            push(&mut segments, text);
            at = place.end;
        }
        push(&mut segments, body.slice(at..));
        segments
    }

    /// What to replace so that the answer has at most so many tokens: each limit that is above it.
    /// A body without any gets `member`.
    fn limit(&self, most: u64, member: &'static str, pieces: &mut Vec<(Range<usize>, Bytes)>) {
        let number = || Bytes::from(most.to_string());
        let Limits { older, newer } = &self.limits;
        let given = [older, newer].into_iter().flatten().filter(|(_, value)| value.is_some());
        let mut has_any = false;
        for (place, value) in given {
            has_any = true;
            if value.is_some_and(|value| value > most) {
                pieces.push((place.clone(), number()));
            }
        }
        if has_any {
            return;
        }
        let null = if member == OLDER { older } else { newer };
        pieces.push(if let Some((place, _)) = null {
            (place.clone(), number())
        } else {
            let text = format!(",\"{member}\":{most}");
            (self.closing..self.closing, Bytes::from(text))
        });
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
