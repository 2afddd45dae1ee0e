//! Own token counts, for quotas, holds and calls whose provider reports no usage.
//!
//! Always o200k: exact for current OpenAI models and within a quarter for others, which is good
//! enough for an estimate and never more than an estimate. Invariant: the work is bounded, since
//! only [`COUNTED_BYTES_MAX`] bytes of a call meet the tokenizer. Its tables are built when they
//! are first needed, in some 140 ms, and not at the start: they take 80 MiB, and a node whose
//! providers all report their usage never needs them. Source: `f-tokens` F.1, F.2, F.5.

use bpe_openai::o200k_base;

/// Bytes of one call that are counted exactly. The tokenizer does about 10 MB/s, so this is some
/// 25 ms; a caller counts on a thread that may block when a text is over about 64 KiB.
pub const COUNTED_BYTES_MAX: usize = 256 * 1024;

/// Bytes per token beyond the bound. Below what prose has (4.8), above what encoded text has.
const BYTES_PER_TOKEN: usize = 3;

/// Tokens around each chat message, and around the answer.
pub(crate) const MESSAGE_OVERHEAD: u64 = 3;

/// Flat tokens of one image, sound or file in a prompt. Nothing is fetched or decoded to count it.
pub(crate) const MEDIA_PART: u64 = 1500;

/// Counts a text.
pub fn count(text: &str) -> u64 {
    let mut counter = Counter::default();
    counter.add(text);
    counter.tokens
}

/// A running count with one bound over all its texts.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    /// Tokens so far.
    pub(crate) tokens: u64,
    counted_bytes: usize,
}

impl Counter {
    /// Adds a text.
    pub(crate) fn add(&mut self, text: &str) {
        let left = COUNTED_BYTES_MAX - self.counted_bytes;
        let (exact, rest) = text.split_at(text.floor_char_boundary(left));
        self.counted_bytes += exact.len();
        self.tokens += o200k_base().count(exact) as u64;
        self.add_bytes(rest.len());
    }

    /// Adds text of which only the length matters.
    pub(crate) fn add_bytes(&mut self, bytes: usize) {
        self.tokens += bytes.div_ceil(BYTES_PER_TOKEN) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_texts_have_known_counts() {
        assert_eq!(count(""), 0);
        assert_eq!(count("hello world"), 2);
        assert_eq!(count("The quick brown fox jumps over the lazy dog."), 10);
    }

    #[test]
    fn beyond_the_bound_bytes_are_divided() {
        let bound = "a".repeat(COUNTED_BYTES_MAX);
        let more = format!("{bound}{}", "中".repeat(1000));
        assert_eq!(count(&more), count(&bound) + 1000);
    }

    #[test]
    fn the_bound_is_shared_by_all_texts_of_a_call() {
        let mut counter = Counter::default();
        counter.add(&"a".repeat(COUNTED_BYTES_MAX));
        let before = counter.tokens;
        counter.add("abcdef");
        assert_eq!(counter.tokens, before + 2);
    }
}
