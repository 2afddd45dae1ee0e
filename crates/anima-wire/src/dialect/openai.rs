//! OpenAI's JSON as OpenAI documents it and as the vendors who copy it bend it.
//!
//! Everything here reads bytes and allocates next to nothing; the deviations that are accepted
//! are listed where they are read. Sources: `a-inbound` A.1, `b-outbound-chat` B.2 and B.4.

pub mod chat; // chat completions in and out of the canonical form
pub mod choice; // the text in choices: chunks of a stream and whole answers
pub mod fault; // error bodies and what they mean
pub(crate) mod logprobs; // of tokens, in the form that all dialects are read into
pub mod models; // what some models want otherwise
pub mod quirks; // what vendors who copy it want otherwise
pub mod reply; // one chunk of a stream or one whole answer
pub mod responses; // Responses in and out of the canonical form
pub mod usage; // token counts, made disjoint
