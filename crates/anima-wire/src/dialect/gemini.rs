//! Gemini's generateContent in and out of the canonical form: requests, answers, streams, usage.
//!
//! Google takes names in two spellings, so both are read; its own is written. The model and the
//! wish for a stream stand in the path and not in the body. Tools that run at Google have no
//! counterpart elsewhere and are refused by name.
//! Sources: Google's API reference and `python-genai` (August 2026), `a-inbound` A.3,
//! `b-outbound-chat` B.2 and B.3, `c-conversion`.

mod answer;
mod contents_in;
mod contents_out;
mod logprobs;
mod request_in;
mod request_out;
mod schema;
mod stream_in;
mod stream_out;
mod usage;

pub(crate) use answer::{read as read_answer, write as write_answer};
pub(crate) use request_in::{either, read as read_request};
pub(crate) use request_out::{Target, write as write_request};
pub(crate) use stream_in::Reader;
pub(crate) use stream_out::Writer;
pub(crate) use usage::read as read_usage;
