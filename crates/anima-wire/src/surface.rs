//! The client side: what this gateway itself writes in a format that a client's SDK expects.
//!
//! Answers of providers do not pass through here; errors and lists do. Invariant: every body is
//! the format's own, with real nulls.

pub mod anthropic; // errors and model lists in Anthropic's shape
pub mod gemini; // errors and model lists in Gemini's shape
pub mod openai; // errors and model lists in OpenAI's shape
pub mod waiting; // streams whose answer has not begun

/// One model as a caller sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model<'a> {
    /// The alias, as it goes into `model`.
    pub id: &'a str,
    /// When it came to be, seconds since 1970.
    pub created_s: i64,
    /// Who serves it, as far as callers are told.
    pub owned_by: &'a str,
    /// Whether it gives vectors and not text.
    pub embeds: bool,
}

/// JSON of a value whose form cannot fail: no maps with odd keys, no failing serializers.
fn bytes_of(value: &impl serde::Serialize) -> bytes::Bytes {
    serde_json::to_vec(value).map(bytes::Bytes::from).unwrap_or_default()
}
