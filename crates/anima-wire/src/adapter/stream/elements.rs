//! A stream that comes as one JSON array, as Gemini's does without `alt=sse`, into events.
//!
//! Events are always asked for; servers between here and Google do not always heed it. Not here:
//! whether an element is JSON, which its reader sees. Invariant: the same bytes give the same
//! events for any split of them, and a body of events passes as it came. Source: `a-inbound` A.3.1.

use bytes::Bytes;

/// Cuts an array into its elements and gives each as a server-sent event.
#[derive(Debug, Default)]
pub(super) struct Elements {
    form: Form,
    /// Brackets and braces that are open, the array's own among them.
    depth: usize,
    is_in_element: bool,
    is_in_string: bool,
    is_escaped: bool,
}

/// What the body is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Form {
    /// Nothing came but white space.
    #[default]
    Unknown,
    Events,
    Array,
    /// The array is closed.
    Over,
}

impl Elements {
    /// What the next bytes are as events.
    pub(super) fn push(&mut self, chunk: &Bytes) -> Bytes {
        let mut chunk = chunk.clone();
        if self.form == Form::Unknown {
            // Nothing is an event yet, so that white space says nothing.
            let blank = chunk.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            chunk = chunk.slice(blank..);
            self.form = match chunk.first() {
                None => Form::Unknown,
                Some(b'[') => Form::Array,
                Some(_) => Form::Events,
            };
        }
        if matches!(self.form, Form::Unknown | Form::Events) {
            return chunk;
        }
        let mut out = Vec::with_capacity(chunk.len() + 16);
        for byte in &chunk {
            self.step(*byte, &mut out);
        }
        out.into()
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.form == Form::Over {
            return;
        }
        if self.is_in_string {
            self.is_in_string = self.is_escaped || byte != b'"';
            self.is_escaped = !self.is_escaped && byte == b'\\';
            return out.push(byte);
        }
        let ends_element = self.depth == 1 && matches!(byte, b',' | b']');
        if ends_element && self.is_in_element {
            self.is_in_element = false;
            out.extend_from_slice(b"\n\n");
        }
        match byte {
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if self.depth == 0 {
            self.form = Form::Over;
            return;
        }
        let opens_array = self.depth == 1 && !self.is_in_element && byte == b'[';
        let is_between = ends_element || opens_array || byte.is_ascii_whitespace();
        if is_between && !self.is_in_element {
            return;
        }
        if !self.is_in_element {
            self.is_in_element = true;
            out.extend_from_slice(b"data: ");
        }
        self.is_in_string = byte == b'"';
        // A line break would end the event.
        out.push(if matches!(byte, b'\n' | b'\r') { b' ' } else { byte });
        if self.depth == 1 && byte == b'}' {
            self.is_in_element = false;
            out.extend_from_slice(b"\n\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(body: &str, size: usize) -> String {
        let mut elements = Elements::default();
        let pieces = body.as_bytes().chunks(size).map(Bytes::copy_from_slice);
        let out: Vec<u8> = pieces.flat_map(|piece| elements.push(&piece).to_vec()).collect();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_element_is_an_event_however_the_bytes_come() {
        let body =
            " [{\"a\": \"]},\\\"[\",\r\n \"b\": [1, {}]}\n,\r\n{}\n, 7, \"x\", [2]] trailing";
        let expected = "data: {\"a\": \"]},\\\"[\",   \"b\": [1, {}]}\n\ndata: {}\n\n\
                        data: 7\n\ndata: \"x\"\n\ndata: [2]\n\n";
        for size in [1, 2, 3, 7, body.len()] {
            assert_eq!(events(body, size), expected, "pieces of {size}");
        }
        for (empty, out) in [("[]", ""), ("[ ", ""), ("[{\"a\":1", "data: {\"a\":1")] {
            assert_eq!(events(empty, 1), out);
        }
    }

    #[test]
    fn a_body_of_events_passes_as_it_came() {
        for body in ["\n\ndata: {}\n\n", ": [\n\ndata: [1]\n\n", "{\"error\":[]}", ""] {
            assert_eq!(events(body, 2), body.trim_start());
        }
    }
}
