//! OpenAI's Responses in and out of the canonical form: requests, answers, streams.
//!
//! What lives at OpenAI (stored responses, conversations, its own tools, background) has no
//! counterpart elsewhere and is refused by name. Sealed thoughts travel as a signature that holds
//! their item's id too, since both must come back together.
//! Sources: OpenAI's API description 2.3.0 (August 2026), `a-inbound` A.1.5, `c-conversion`.

mod answer;
mod items_in;
mod items_out;
mod request_in;
mod request_out;
mod stream_in;
mod stream_out;

pub(crate) use answer::{read as read_answer, write as write_answer};
pub(crate) use request_in::read as read_request;
pub(crate) use request_out::write as write_request;
pub(crate) use stream_in::Reader;
pub(crate) use stream_out::Writer;
