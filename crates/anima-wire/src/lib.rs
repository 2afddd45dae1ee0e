//! Translates. Bytes in, bytes out: no tokio, no sockets, no clock.
//!
//! A client's request is scanned once and kept as bytes; only the members that must change are
//! replaced on the way out. Answers are read for usage and errors and otherwise pass untouched.

pub mod adapter; // provider side: requests, answers, streams and errors of each provider
pub mod canonical; // the one form between dialects: requests, answers, events
pub mod dialect; // what vendors document: usage, chunks and error bodies
pub mod json; // the scanner under everything: validates, remembers byte ranges
pub mod request; // a client's call, parsed once
pub mod sse; // event framing, the same for any split of the bytes
pub mod surface; // client side: error bodies, model lists
pub mod tokens; // own token counts, bounded
