//! Chat completions in and out of the canonical form, requests, answers and streams.
//!
//! Only for calls whose two ends differ: between a client and a provider that both speak this
//! dialect the bytes pass, and nothing here runs. Side fields that vendors agree on are read and
//! written too: `reasoning_content`, `thinking_blocks`, `extra_content.google`.
//! Sources: OpenAI's API description 2.3.0 (August 2026), `a-inbound` A.1, `c-conversion`.

mod answer;
mod messages_in;
mod messages_out;
mod request_in;
mod request_out;
mod stream_in;
mod stream_out;

pub(crate) use answer::{cached, read as read_answer, report, write as write_answer, written};
pub(crate) use messages_in::{cache, thinking_block};
pub(crate) use request_in::{
    allowed_names, choice_word, effort, function_tool, read as read_request, schema as read_schema,
    texts, unplaced,
};
pub(crate) use request_out::{
    Target, function as write_function, schema as write_schema, tool_choice as write_tool_choice,
    write as write_request,
};
pub(crate) use stream_in::Reader;
pub(crate) use stream_out::Writer;
