//! Google's own form of a schema, made plain JSON schema.
//!
//! The older members take a form of OpenAPI whose types are in capitals and which says `nullable`.
//! The other direction is not needed: the newer members take JSON schema as it is.
//! Invariant: a schema that was plain stays as it was. Source: `c-conversion` C.4, rule 7.

use std::borrow::Cow;

use crate::json::{Kind, Node, Writer};

/// The words that Google has for types.
const TYPES: &[&str] = &["STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"];

/// The schema in plain form.
pub(super) fn plain<'a>(node: Node<'_, 'a>) -> Cow<'a, str> {
    let raw = node.raw();
    if !TYPES.iter().any(|word| raw.contains(word)) {
        return Cow::Borrowed(raw);
    }
    let mut w = Writer::with_capacity(raw.len());
    write(&mut w, node);
    String::from_utf8(w.finish().to_vec()).map_or(Cow::Borrowed(raw), Cow::Owned)
}

/// Writes a value, with the types inside in small letters. As deep as documents may be.
fn write(w: &mut Writer, node: Node<'_, '_>) {
    match node.kind() {
        Kind::Object => {
            let is_nullable = node.get("nullable").and_then(|flag| flag.flag()) == Some(true);
            w.object();
            for (name, value) in node.members() {
                let word = value.text().filter(|word| name == "type" && TYPES.contains(&&**word));
                match word {
                    Some(word) => kind(w, &word.to_ascii_lowercase(), is_nullable),
                    None if name == "nullable" && value.flag().is_some() => {}
                    None => {
                        w.key(&name);
                        write(w, value);
                    }
                }
            }
            w.end_object();
        }
        Kind::Array => {
            w.array();
            node.elements().for_each(|element| write(w, element));
            w.end_array();
        }
        Kind::Null | Kind::False | Kind::True | Kind::Number | Kind::String => w.raw(node.raw()),
    }
}

fn kind(w: &mut Writer, word: &str, is_nullable: bool) {
    w.key("type");
    if !is_nullable {
        return w.string(word);
    }
    w.array();
    w.string(word);
    w.string("null");
    w.end_array();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Outline;

    fn plain_of(json: &str) -> String {
        plain(Outline::read(json.as_bytes()).unwrap().root()).into_owned()
    }

    #[test]
    fn types_become_small_and_nullable_a_second_type() {
        let own = r#"{"type":"OBJECT","properties":{"type":{"type":"STRING","nullable":true}},
            "enum":["STRING"]}"#;
        let expected = concat!(
            r#"{"type":"object","properties":{"type":{"type":["string","null"]}},"#,
            r#""enum":["STRING"]}"#,
        );
        assert_eq!(plain_of(own), expected);
    }

    #[test]
    fn a_plain_schema_stays_as_it_was() {
        let own = r#"{ "type": "object" }"#;
        assert_eq!(plain_of(own), own);
    }
}
