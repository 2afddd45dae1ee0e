//! Deterministic randomness and the words of the answers.
//!
//! Not cryptography and not a tokenizer: a fast hash, a mixer (`SplitMix64`, Steele, Lea and Flood
//! 2014) and 64 plain words. The invariant: the same seed and bytes give the same text, and every
//! word is lower-case ASCII, so that it needs no escaping and is one token.

use crate::behaviour::AnswerLength;

/// Plain words, a power of two of them so that six bits choose one. About 5.3 bytes with the space.
const WORDS: [&str; 64] = [
    "a", "river", "of", "small", "stones", "runs", "under", "the", "old", "bridge", "and", "every",
    "lamp", "on", "its", "bank", "keeps", "one", "quiet", "note", "for", "those", "who", "walk",
    "home", "late", "with", "bread", "in", "paper", "while", "gulls", "trade", "news", "above",
    "roofs", "that", "rain", "has", "made", "new", "again", "by", "noon", "market", "fills", "up",
    "to", "last", "bench", "where", "clocks", "agree", "only", "once", "each", "day", "so",
    "people", "count", "time", "from", "bells", "instead",
];

/// One step of `SplitMix64` over two numbers.
pub(crate) fn mix(left: u64, right: u64) -> u64 {
    let mut z = left.wrapping_add(right.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A hash of bytes, eight at a time, so that a 128 KiB prompt costs microseconds.
pub(crate) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let mut state = seed ^ 0x51_7C_C1_B7_27_22_0A_95;
    for eight in eights {
        state =
            (state.rotate_left(5) ^ u64::from_le_bytes(*eight)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    for byte in rest {
        state = (state.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    mix(state, length)
}

/// The text of one choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// One token each; the text is these with single spaces between.
    pub(crate) words: Vec<&'static str>,
    /// Whether the caller's cap ended it before its length did.
    pub(crate) capped: bool,
}

/// Writes an answer of the wanted length, of at most `cap` words.
pub(crate) fn answer(seed: u64, length: AnswerLength, cap: u64) -> Answer {
    let mut words = Vec::new();
    let mut bytes = 0usize;
    loop {
        let whole = match length {
            AnswerLength::Tokens(tokens) => words.len() >= size(tokens),
            AnswerLength::Bytes(wanted) => bytes >= size(wanted),
        };
        let count = u64::try_from(words.len()).unwrap_or(u64::MAX);
        if whole || count >= cap {
            return Answer { words, capped: !whole };
        }
        let [.., low] = mix(seed, count).to_be_bytes();
        let word = WORDS.get(usize::from(low % 64)).copied().unwrap_or("a");
        bytes = bytes.saturating_add(word.len()).saturating_add(usize::from(!words.is_empty()));
        words.push(word);
    }
}

fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_wanted_length_unless_it_is_capped() {
        let by_tokens = answer(1, AnswerLength::Tokens(16), u64::MAX);
        assert_eq!((by_tokens.words.len(), by_tokens.capped), (16, false));
        let capped = answer(1, AnswerLength::Tokens(16), 5);
        assert_eq!((capped.words.len(), capped.capped), (5, true));
        assert_eq!(capped.words, by_tokens.words[..5]);
        assert!(!answer(1, AnswerLength::Tokens(5), 5).capped);
        let bytes = answer(1, AnswerLength::Bytes(600), u64::MAX).words.join(" ").len();
        assert!((600..610).contains(&bytes), "{bytes}");
    }

    #[test]
    fn words_need_no_escaping() {
        assert!(WORDS.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase())));
    }

    #[test]
    fn a_hash_sees_every_byte_and_the_seed() {
        let hashes = [hash(0, b"abcdefghi"), hash(0, b"abcdefghj"), hash(0, b"bbcdefghi")];
        assert_ne!(hashes[0], hashes[1]);
        assert_ne!(hashes[0], hashes[2]);
        assert_ne!(hash(0, b"abcdefghi"), hash(1, b"abcdefghi"));
        assert_ne!(hash(0, b""), hash(0, b"\0"));
        assert_eq!(hash(3, b"abcdefghi"), hash(3, b"abcdefghi"));
    }
}
