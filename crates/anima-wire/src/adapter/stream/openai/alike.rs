//! Chunks that differ from the one before in their text alone, which most chunks of a stream do.
//!
//! A chunk that was read and passed is remembered as what stands before its one text and after it.
//! A next chunk with the same bytes around another plain text says the same but for that text, so
//! it need not be read again: comparing costs a tenth of reading. Invariant: what is taken for
//! alike would have been judged alike; whatever is not plainly so is read in full, and forgets.

use std::ops::Range;

use crate::sse::Verdict;

/// The last chunk that was read, without its text. Empty when that chunk was not of the kind.
#[derive(Debug, Default)]
pub(super) struct Alike {
    /// Up to the text, its quote included.
    before: Vec<u8>,
    /// From the quote that ends the text.
    after: Vec<u8>,
    cut: Cut,
}

/// What of the chunk does not go on.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Cut {
    /// Everything goes on.
    #[default]
    Nothing,
    /// Bytes before the text, counted from the start.
    Before(Range<usize>),
    /// Bytes after the text, counted from its end.
    After(Range<usize>),
}

impl Alike {
    /// Nothing is remembered.
    pub(super) const fn new() -> Self {
        Self { before: Vec::new(), after: Vec::new(), cut: Cut::Nothing }
    }

    /// The text of a unit that is alike, and what becomes of the unit.
    pub(super) fn read<'u>(&self, unit: &'u [u8]) -> Option<(&'u str, Verdict)> {
        if self.before.is_empty() {
            return None;
        }
        let rest = unit.strip_prefix(self.before.as_slice())?;
        let text = rest.strip_suffix(self.after.as_slice())?;
        if !text.iter().all(|byte| *byte >= b' ' && !matches!(byte, b'"' | b'\\')) {
            return None;
        }
        let end = self.before.len() + text.len();
        let verdict = match &self.cut {
            Cut::Nothing => Verdict::Pass,
            Cut::Before(range) => Verdict::Without(range.clone()),
            Cut::After(range) => Verdict::Without(end + range.start..end + range.end),
        };
        Some((std::str::from_utf8(text).ok()?, verdict))
    }

    /// Remembers a unit that was read, by the place of its one text, or forgets. `verdict` is what
    /// became of it.
    pub(super) fn learn(&mut self, unit: &[u8], text: Option<Range<usize>>, verdict: &Verdict) {
        self.before.clear();
        self.after.clear();
        let Some(text) = text else { return };
        self.cut = match verdict {
            Verdict::Pass => Cut::Nothing,
            Verdict::Without(cut) if cut.end <= text.start => Cut::Before(cut.clone()),
            Verdict::Without(cut) if cut.start >= text.end => {
                Cut::After(cut.start - text.end..cut.end - text.end)
            }
            Verdict::Without(_) | Verdict::Drop | Verdict::Instead(_) | Verdict::Stop => return,
        };
        if let (Some(before), Some(after)) = (unit.get(..text.start), unit.get(text.end..)) {
            self.before.extend_from_slice(before);
            self.after.extend_from_slice(after);
        }
    }

    /// Remembers nothing more.
    pub(super) fn forget(&mut self) {
        self.before.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &[u8] = b"data: {\"t\":\"one\",\"usage\":null}\n\n";

    fn learned(verdict: &Verdict) -> Alike {
        let mut alike = Alike::new();
        alike.learn(UNIT, Some(12..15), verdict);
        alike
    }

    #[test]
    fn another_plain_text_between_the_same_bytes_is_alike() {
        let alike = learned(&Verdict::Pass);
        for text in ["one", "", " two", "Grüße"] {
            let unit = format!("data: {{\"t\":\"{text}\",\"usage\":null}}\n\n");
            assert_eq!(alike.read(unit.as_bytes()), Some((text, Verdict::Pass)), "{text}");
        }
    }

    #[test]
    fn what_is_not_plainly_alike_is_not() {
        let alike = learned(&Verdict::Pass);
        for unit in [
            "data: {\"t\":\"a\\n\",\"usage\":null}\n\n",
            "data: {\"t\":\"a\",\"u\":\"\",\"usage\":null}\n\n",
            "data: {\"t\":\"a\",\"usage\":{}}\n\n",
            "data: {\"t\":\"a\u{1}\",\"usage\":null}\n\n",
            "data: {\"t\":null,\"usage\":null}\n\n",
            "data: {\"t\":\"\n\n",
            "",
        ] {
            assert_eq!(alike.read(unit.as_bytes()), None, "{unit}");
        }
        let broken = [b"data: {\"t\":\"".as_slice(), b"\xff", b"\",\"usage\":null}\n\n"].concat();
        assert_eq!(alike.read(&broken), None);
        assert_eq!(Alike::new().read(UNIT), None);
    }

    #[test]
    fn what_is_cut_out_moves_with_the_text() {
        let unit = b"data: {\"t\":\"three\",\"usage\":null}\n\n";
        let (_, verdict) = learned(&Verdict::Without(16..29)).read(unit).unwrap();
        assert_eq!(verdict, Verdict::Without(18..31));
        assert_eq!(&unit[18..31], b",\"usage\":null");
        let (_, verdict) = learned(&Verdict::Without(6..7)).read(unit).unwrap();
        assert_eq!(verdict, Verdict::Without(6..7));
    }

    #[test]
    fn what_cannot_be_learned_is_forgotten() {
        for verdict in [Verdict::Drop, Verdict::Stop, Verdict::Without(13..14)] {
            assert_eq!(learned(&verdict).read(UNIT), None);
        }
        let mut alike = learned(&Verdict::Pass);
        alike.learn(UNIT, None, &Verdict::Pass);
        assert_eq!(alike.read(UNIT), None);
    }
}
