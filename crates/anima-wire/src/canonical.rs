//! The one form that every chat dialect is read into and written from.
//!
//! Any client meets any provider here: n dialects need 2n translations, not n². Nothing here knows
//! a vendor; what a dialect cannot carry is named, never lost in silence (`carry`). Bytes pass by
//! this form altogether when client and provider speak the same dialect. Normal form: two turns in
//! a row are never of one role. Source: `c-conversion`.

mod answer;
mod call_ids;
mod carry;
mod event;
mod request;
pub(crate) mod tier; // how each dialect calls the tiers
mod tool_names;
mod turns;

pub use answer::{Answer, Choice, Stop};
pub(crate) use call_ids::CallIds;
pub use carry::{Carried, Dropped, Refusal};
pub use event::{Delta, Event, Opening, Sink};
pub use request::{
    Body, Cache, Effort, Format, Issuer, Part, Reasoning, Request, Role, Sampling, Schema,
    Signature, Source, Tool, ToolChoice, ToolResult, ToolUse, Turn,
};
pub(crate) use tool_names::{ClientNames, ToolNames};
pub(crate) use turns::{paired, plain_text, push_part};
