//! Writes JSON into one buffer: commas and escapes are its business, order is the caller's.
//!
//! Not a serializer of values: dialects differ in what they leave out, so each writes its members
//! by hand. Invariant: as long as containers are closed in order and raw pieces are valid, what
//! comes out is valid JSON on one line (raw pieces lose their line breaks, which can only be
//! white space), so that it may stand in a server-sent event.

use bytes::Bytes;

/// A document in the making.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
    /// Whether something stands before the next value on its level.
    due: bool,
}

impl Writer {
    /// A writer with room.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes), due: false }
    }

    /// Bytes that are no part of the document, such as the frame of an event around it.
    pub fn frame(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.due = false;
    }

    /// Opens an object.
    pub fn object(&mut self) {
        self.open(b'{');
    }

    /// Opens an array.
    pub fn array(&mut self) {
        self.open(b'[');
    }

    /// Closes an object.
    pub fn end_object(&mut self) {
        self.out.push(b'}');
        self.due = true;
    }

    /// Closes an array.
    pub fn end_array(&mut self) {
        self.out.push(b']');
        self.due = true;
    }

    /// The name of the next value.
    pub fn key(&mut self, name: &str) -> &mut Self {
        self.comma();
        self.quoted(&[name]);
        self.out.push(b':');
        self.due = false;
        self
    }

    /// A string.
    pub fn string(&mut self, text: &str) {
        self.strings(&[text]);
    }

    /// A string made of pieces.
    pub fn strings(&mut self, pieces: &[&str]) {
        self.comma();
        self.quoted(pieces);
    }

    /// A number.
    pub fn number(&mut self, number: u64) {
        self.raw(itoa(number, &mut [0; 20]));
    }

    /// True or false.
    pub fn flag(&mut self, flag: bool) {
        self.raw(if flag { "true" } else { "false" });
    }

    /// Null.
    pub fn null(&mut self) {
        self.raw("null");
    }

    /// A string, or null where there is none.
    pub fn string_or_null(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None => self.null(),
        }
    }

    /// An array of strings.
    pub fn list<T: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = T>) {
        self.array();
        for text in texts {
            self.string(text.as_ref());
        }
        self.end_array();
    }

    /// A value that is valid JSON already.
    pub fn raw(&mut self, json: &str) {
        self.comma();
        if json.contains(['\n', '\r']) {
            let blank = |byte: u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte };
            self.out.extend(json.bytes().map(blank));
        } else {
            self.out.extend_from_slice(json.as_bytes());
        }
    }

    /// A member that is a string, if there is one.
    pub fn maybe(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.key(name).string(text);
        }
    }

    /// A member that is valid JSON already, if there is one.
    pub fn maybe_raw(&mut self, name: &str, json: Option<&str>) {
        if let Some(json) = json {
            self.key(name).raw(json);
        }
    }

    /// A member that is a number, if there is one.
    pub fn maybe_number(&mut self, name: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.key(name).number(number);
        }
    }

    /// What was written.
    pub fn finish(self) -> Bytes {
        Bytes::from(self.out)
    }

    fn open(&mut self, sign: u8) {
        self.comma();
        self.out.push(sign);
        self.due = false;
    }

    fn comma(&mut self) {
        if self.due {
            self.out.push(b',');
        }
        self.due = true;
    }

    fn quoted(&mut self, pieces: &[&str]) {
        self.out.push(b'"');
        for piece in pieces {
            escape(piece, &mut self.out);
        }
        self.out.push(b'"');
    }
}

/// Appends a text as it stands between quotes.
fn escape(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    let special = |byte: &u8| matches!(*byte, 0..=0x1f | b'"' | b'\\');
    while let Some(at) = rest.iter().position(special) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((sign, tail)) = tail.split_first() else {
            return;
        };
        match sign {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            sign => out.extend_from_slice(format!("\\u{sign:04x}").as_bytes()),
        }
        rest = tail;
    }
    out.extend_from_slice(rest);
}

/// The digits of a number.
fn itoa(mut number: u64, digits: &mut [u8; 20]) -> &str {
    let mut from = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        from = at;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(digits.get(from..).unwrap_or_default()).unwrap_or("0")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commas_stand_between_and_nowhere_else() {
        let mut w = Writer::default();
        w.object();
        w.key("a").array();
        w.number(0);
        w.number(u64::MAX);
        w.object();
        w.end_object();
        w.end_array();
        w.key("b").null();
        w.maybe("c", Some("x"));
        w.maybe("d", None);
        w.key("e").raw("{\n}");
        w.end_object();
        let expected = r#"{"a":[0,18446744073709551615,{}],"b":null,"c":"x","e":{ }}"#;
        assert_eq!(w.finish(), expected);
    }

    proptest! {
        #[test]
        fn a_string_reads_back(text in ".*", more in any::<String>()) {
            let mut w = Writer::default();
            w.strings(&[&text, &more]);
            let read: String = serde_json::from_slice(&w.finish()).unwrap();
            prop_assert_eq!(read, text + &more);
        }
    }
}
