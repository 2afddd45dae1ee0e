//! Server-sent events: cuts a byte stream into units and passes on what is judged fit.
//!
//! A unit is an event with the blank line that ends it, or a comment line or blank line between
//! events. Not here: what a payload means. Invariants: the same input gives the same units and the
//! same output for any split of its bytes; units that pass are slices of their chunk, neighbours
//! as one slice, and only a unit that spans chunks is copied. Lines end with LF, CRLF or CR; since
//! a CR may be half of a CRLF, a unit that ends with CR waits for one byte more. Source: HTML
//! standard, 9.2.6.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

/// Bytes that one unit may have. Real ones have some hundred; the largest hold pictures in base64,
/// some of 4K with 20 MiB, or repeat long instructions. A stream keeps one at most, and of it only
/// what has come.
pub const EVENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A unit is larger than [`EVENT_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event has more than {EVENT_BYTES_MAX} bytes")]
pub struct TooLarge;

/// What becomes of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it is.
    Pass,
    /// It is left out.
    Drop,
    /// It goes on without these of its bytes.
    Without(Range<usize>),
    /// Something else goes on in its place.
    Instead(Bytes),
    /// It is left out, and so is everything after it.
    Stop,
}

/// Cuts a stream into units and passes on what a judge lets through.
#[derive(Debug, Default)]
pub struct Filter {
    /// The start of a unit whose end has not come yet.
    carry: Vec<u8>,
}

impl Filter {
    /// A filter before the first byte.
    pub const fn new() -> Self {
        Self { carry: Vec::new() }
    }

    /// Takes the next bytes, shows each whole unit to `judge`, and appends what passes to `out`.
    /// `true` when the judge said [`Verdict::Stop`].
    ///
    /// # Errors
    /// What `judge` says, or [`TooLarge`]. Units before the failing one are in `out`.
    pub fn push<E: From<TooLarge>>(
        &mut self,
        chunk: &Bytes,
        out: &mut Vec<Bytes>,
        mut judge: impl FnMut(&[u8]) -> Result<Verdict, E>,
    ) -> Result<bool, E> {
        let mut chunk = chunk.clone();
        if !self.carry.is_empty() {
            let carried = self.carry.len();
            self.carry.extend_from_slice(&chunk);
            // What ends a unit is at most four bytes long, so only the last four are seen twice.
            let Some(length) = unit_length(&self.carry, carried.saturating_sub(4)) else {
                return if self.carry.len() > EVENT_BYTES_MAX {
                    Err(TooLarge.into())
                } else {
                    Ok(false)
                };
            };
            self.carry.truncate(length);
            chunk = chunk.slice(length.saturating_sub(carried).min(chunk.len())..);
            let unit = Bytes::from(std::mem::take(&mut self.carry));
            let mut run = Run::new(&unit, out);
            let stopped = run.judge_one(0..length, &mut judge)?;
            run.skip(length..length);
            if stopped {
                return Ok(true);
            }
        }
        let (used, stopped) = Run::new(&chunk, out).judge_all(&mut judge)?;
        if !stopped {
            self.carry.extend_from_slice(chunk.get(used..).unwrap_or_default());
            if self.carry.len() > EVENT_BYTES_MAX {
                return Err(TooLarge.into());
            }
        }
        Ok(stopped)
    }

    /// What is left when the stream has ended: the start of a unit that was never finished.
    pub fn rest(&self) -> &[u8] {
        &self.carry
    }
}

/// A chunk whose passing units are handed on as few slices.
struct Run<'a> {
    chunk: &'a Bytes,
    out: &'a mut Vec<Bytes>,
    /// Where the bytes start that passed but are not in `out` yet.
    start: usize,
}

impl<'a> Run<'a> {
    const fn new(chunk: &'a Bytes, out: &'a mut Vec<Bytes>) -> Self {
        Self { chunk, out, start: 0 }
    }

    /// Judges every whole unit. How many bytes they had, and whether to stop.
    fn judge_all<E: From<TooLarge>>(
        mut self,
        judge: &mut impl FnMut(&[u8]) -> Result<Verdict, E>,
    ) -> Result<(usize, bool), E> {
        let mut at = 0;
        while let Some(length) = unit_length(self.chunk.get(at..).unwrap_or_default(), 0) {
            let stopped = self.judge_one(at..at + length, judge)?;
            at += length;
            if stopped {
                return Ok((at, true));
            }
        }
        self.skip(at..at);
        Ok((at, false))
    }

    /// Judges one unit. `true` to stop.
    fn judge_one<E: From<TooLarge>>(
        &mut self,
        place: Range<usize>,
        judge: &mut impl FnMut(&[u8]) -> Result<Verdict, E>,
    ) -> Result<bool, E> {
        let unit = self.chunk.get(place.clone()).unwrap_or_default();
        let verdict = if unit.len() > EVENT_BYTES_MAX { Err(TooLarge.into()) } else { judge(unit) };
        match verdict {
            Ok(Verdict::Pass) => return Ok(false),
            Ok(Verdict::Without(part)) => {
                self.skip(place.start + part.start..place.start + part.end);
                return Ok(false);
            }
            Ok(_) | Err(_) => self.skip(place),
        }
        if let Ok(Verdict::Instead(unit)) = &verdict {
            self.out.push(unit.clone());
        }
        verdict.map(|verdict| verdict == Verdict::Stop)
    }

    /// Hands on what passed up to the place, and goes on after it.
    fn skip(&mut self, place: Range<usize>) {
        if self.start < place.start {
            self.out.push(self.chunk.slice(self.start..place.start));
        }
        self.start = place.end;
    }
}

/// The length of the unit that `bytes` starts with, `None` while it is incomplete. Its end is not
/// looked for before `from`.
fn unit_length(bytes: &[u8], from: usize) -> Option<usize> {
    match bytes.first()? {
        b'\n' | b'\r' => line_end(bytes, 0),
        b':' => next_line(bytes, from),
        _ => {
            let mut at = next_line(bytes, from)?;
            loop {
                match bytes.get(at)? {
                    b'\n' | b'\r' => return line_end(bytes, at),
                    _ => at = next_line(bytes, at)?,
                }
            }
        }
    }
}

/// Where the line after the one at `from` starts.
fn next_line(bytes: &[u8], from: usize) -> Option<usize> {
    let found = memchr::memchr2(b'\n', b'\r', bytes.get(from..)?)?;
    line_end(bytes, from + found)
}

/// Where the line end at `at` ends. `None` while a CR may still become a CRLF.
fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    match (bytes.get(at)?, bytes.get(at + 1)) {
        (b'\r', None) => None,
        (b'\r', Some(b'\n')) => Some(at + 2),
        _ => Some(at + 1),
    }
}

/// What a unit says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event<'a> {
    /// The value of the last `event` field, or empty.
    pub name: &'a [u8],
    /// The values of all `data` fields, joined by line feeds. `None` when there is none, as in a
    /// comment. Borrowed when there is just one.
    pub payload: Option<Cow<'a, [u8]>>,
    /// Where a borrowed payload starts in the unit.
    pub payload_at: usize,
}

impl<'a> Event<'a> {
    /// Reads a unit.
    pub fn read(unit: &'a [u8]) -> Self {
        let mut event = Self::default();
        for (at, line) in lines(unit) {
            let (field, value_at) = split_field(line);
            let value = line.get(value_at..).unwrap_or_default();
            match field {
                b"event" => event.name = value,
                b"data" => match &mut event.payload {
                    None => {
                        event.payload = Some(Cow::Borrowed(value));
                        event.payload_at = at + value_at;
                    }
                    Some(payload) => {
                        let payload = payload.to_mut();
                        payload.push(b'\n');
                        payload.extend_from_slice(value);
                    }
                },
                _ => {}
            }
        }
        event
    }
}

/// Writes a unit anew with another payload, every other field kept. For the rare events whose
/// payload spans lines.
pub fn with_payload(unit: &[u8], payload: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(unit.len());
    let kept = lines(unit).filter(|(_, line)| !line.is_empty() && split_field(line).0 != b"data");
    for (_, line) in kept {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    for line in payload.split(|byte| *byte == b'\n') {
        text.extend_from_slice(b"data: ");
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.push(b'\n');
    Bytes::from(text)
}

/// The lines of a unit without their ends, each with its place. A byte order mark is left out.
fn lines(unit: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = if unit.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    std::iter::from_fn(move || {
        let rest = unit.get(at..).filter(|rest| !rest.is_empty())?;
        let start = at;
        at = next_line(unit, at).unwrap_or(unit.len());
        let line = rest.get(..at - start).unwrap_or(rest);
        let end = line.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r'));
        Some((start, line.get(..end.map_or(0, |end| end + 1)).unwrap_or_default()))
    })
}

/// Splits a line into its field name and where its value starts. A comment has an empty name.
fn split_field(line: &[u8]) -> (&[u8], usize) {
    let colon = line.iter().position(|byte| *byte == b':');
    let Some((field, value)) = colon.and_then(|colon| line.split_at_checked(colon)) else {
        return (line, line.len());
    };
    (field, field.len() + if value.get(1) == Some(&b' ') { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sends the input in pieces; drops events that say `drop`, stops at `stop`, replaces `swap`.
    fn run(input: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Vec<u8>, Vec<u8>) {
        let (mut filter, mut units, mut out) = (Filter::default(), Vec::new(), Vec::new());
        let mut start = 0;
        for end in cuts.iter().copied().chain([input.len()]) {
            let chunk = Bytes::copy_from_slice(&input[start..end]);
            start = end;
            let stopped = filter
                .push::<TooLarge>(&chunk, &mut out, |unit| {
                    units.push(unit.to_vec());
                    let event = Event::read(unit);
                    Ok(match event.payload.as_deref() {
                        Some(b"drop") => Verdict::Drop,
                        Some(b"stop") => Verdict::Stop,
                        Some(b"swap") => Verdict::Instead(Bytes::from_static(b"data: new\n\n")),
                        Some(b"cut") => Verdict::Without(event.payload_at..event.payload_at + 2),
                        _ => Verdict::Pass,
                    })
                })
                .unwrap();
            if stopped {
                return (units, out.concat(), Vec::new());
            }
        }
        (units, out.concat(), filter.rest().to_vec())
    }

    fn payloads(input: &[u8]) -> Vec<String> {
        let (units, _, _) = run(input, &[]);
        let text = |unit: &Vec<u8>| {
            Event::read(unit).payload.map(|data| String::from_utf8_lossy(&data).into_owned())
        };
        units.iter().filter_map(text).collect()
    }

    #[test]
    fn every_line_end_ends_an_event() {
        for input in
            ["data: a\n\ndata:b\n\n", "data: a\r\n\r\ndata:b\r\n\r\n", "data: a\r\rdata:b\r\r\n"]
        {
            assert_eq!(payloads(input.as_bytes()), ["a", "b"], "{input:?}");
        }
    }

    #[test]
    fn lines_of_one_event_are_joined() {
        assert_eq!(payloads(b"event: x\ndata: a\ndata:  b\ndata\nid: 1\n\n"), ["a\n b\n"]);
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_a_name() {
        assert_eq!(payloads(b"\xEF\xBB\xBFdata: a\n\n"), ["a"]);
    }

    #[test]
    fn comments_pass_before_the_event_that_they_stand_before() {
        let (units, out, rest) = run(b": wait\n\ndata: a", &[]);
        assert_eq!(units, [b": wait\n".to_vec(), b"\n".to_vec()]);
        assert_eq!((out.as_slice(), rest.as_slice()), (&b": wait\n\n"[..], &b"data: a"[..]));
    }

    #[test]
    fn neighbours_that_pass_are_one_slice() {
        let mut out = Vec::new();
        let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\ndata: c\n\n");
        Filter::default().push::<TooLarge>(&chunk, &mut out, |_| Ok(Verdict::Pass)).unwrap();
        assert_eq!(out, [chunk]);
    }

    #[test]
    fn what_is_before_a_failing_unit_is_delivered() {
        let mut out = Vec::new();
        let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\ndata: c\n\n");
        let failed = Filter::default().push(&chunk, &mut out, |unit| {
            if unit == b"data: b\n\n" { Err(TooLarge) } else { Ok(Verdict::Pass) }
        });
        assert_eq!((failed, out.concat()), (Err(TooLarge), b"data: a\n\n".to_vec()));
    }

    #[test]
    fn an_endless_line_is_refused_however_it_comes() {
        let line = Bytes::from(vec![b'x'; 1024 * 1024]);
        let mut filter = Filter::default();
        let sent = (0..100).find(|_| {
            filter.push::<TooLarge>(&line, &mut Vec::new(), |_| Ok(Verdict::Pass)).is_err()
        });
        assert_eq!(sent, Some(32));
        let mut whole = vec![b'x'; EVENT_BYTES_MAX];
        whole.extend_from_slice(b"\n\n");
        let pass = |_: &[u8]| Ok::<_, TooLarge>(Verdict::Pass);
        assert!(Filter::default().push(&Bytes::from(whole), &mut Vec::new(), pass).is_err());
    }

    #[test]
    fn an_event_with_a_large_picture_passes_and_only_what_came_is_kept() {
        let picture = [b"data: ".to_vec(), vec![b'A'; 24 * 1024 * 1024], b"\n\n".to_vec()].concat();
        let picture = Bytes::from(picture);
        let (mut filter, mut out, mut seen) = (Filter::default(), Vec::new(), 0);
        for start in (0..picture.len()).step_by(16 * 1024) {
            let piece = picture.slice(start..picture.len().min(start + 16 * 1024));
            let judge = |unit: &[u8]| {
                seen += unit.len();
                Ok::<_, TooLarge>(Verdict::Pass)
            };
            filter.push(&piece, &mut out, judge).unwrap();
            assert!(filter.carry.capacity() <= 2 * (start + 16 * 1024));
        }
        assert_eq!((seen, out.concat().len()), (picture.len(), picture.len()));
        assert_eq!(filter.carry.capacity(), 0);
    }

    #[test]
    fn a_payload_can_be_written_anew() {
        let unit = b"event: e\r\ndata: {\r\ndata: }\r\nid: 7\r\n\r\n";
        assert_eq!(with_payload(unit, b"{\n1}"), &b"event: e\nid: 7\ndata: {\ndata: 1}\n\n"[..]);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_units_and_the_same_output(
            parts in prop::collection::vec(prop_oneof![
                Just("data: a"), Just("data: drop"), Just("data: stop!"), Just("data:swap"),
                Just("data: cut"), Just(": comment"), Just("event: x"), Just("\n"), Just("\r"),
                Just("\r\n"), Just("\n\n"), Just("\r\n\r\n"), Just("\r\r"), Just("é"), Just(""),
                Just("data: a rather long line that fills more than one block of 32 bytes"),
            ], 0..24),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let input = parts.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
            cuts.sort_unstable();
            let whole = run(&input, &[]);
            prop_assert_eq!(&run(&input, &cuts), &whole);
            let every: Vec<usize> = (0..=input.len()).collect();
            prop_assert_eq!(&run(&input, &every), &whole);
            let joined = [whole.0.concat(), whole.2].concat();
            prop_assert_eq!(joined, input);
        }
    }
}
