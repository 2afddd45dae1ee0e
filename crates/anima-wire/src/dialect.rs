//! What vendors document about their formats: one file per dialect, both sides use it.
//!
//! A dialect says what bytes mean. What follows from it is the adapter's or the surface's matter.

pub mod openai; // OpenAI's chat completions, completions, embeddings, and those who copy them
