//! Anthropic's Messages in and out of the canonical form: requests, answers, streams, usage.
//!
//! Blocks of tools that run at Anthropic (web search, code) have no counterpart elsewhere: a
//! request with such a tool is refused by name, and such blocks in an answer are passed over.
//! Sources: Anthropic's API reference and `anthropic-sdk-python` (7 August 2026), `a-inbound`
//! A.2, `b-outbound-chat` B.2 and B.3, `c-conversion`.

mod answer;
mod content_in;
mod content_out;
mod models;
mod request_in;
mod request_out;
mod stream_in;
mod stream_out;
mod usage;

pub(crate) use answer::{read as read_answer, write as write_answer};
pub(crate) use content_out::{arguments, plain_id};
pub(crate) use request_in::read as read_request;
pub(crate) use request_out::{Target, write as write_request};
pub(crate) use stream_in::Reader;
pub(crate) use stream_out::Writer;
