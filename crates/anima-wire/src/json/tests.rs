//! The scanner against `serde_json`: the same documents are accepted, and the same values read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

/// Reads one whole document.
fn scan(bytes: &[u8]) -> Result<Value<'_>, Error> {
    let mut cursor = Cursor::new(bytes);
    let value = cursor.value()?;
    cursor.end()?;
    Ok(value)
}

/// Reads one whole document by its members and elements.
fn walk(cursor: &mut Cursor<'_>) -> Result<(), Error> {
    match cursor.kind()? {
        Kind::Object => cursor.members(|cursor, _| walk(cursor)).map(|_| ()),
        Kind::Array => cursor.elements(walk).map(|_| ()),
        Kind::Null | Kind::False | Kind::True | Kind::Number | Kind::String => {
            cursor.value().map(|_| ())
        }
    }
}

/// What `serde_json` says about the grammar: it validates everything and builds nothing.
fn reference(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

#[track_caller]
fn check(bytes: &[u8]) {
    let ours = scan(bytes);
    assert_eq!(ours.is_ok(), reference(bytes), "{ours:?}: {:?}", String::from_utf8_lossy(bytes));
}

fn document() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        "[ -~]{0,90}".prop_map(Into::into),
        "[a-zé\"\\\\\n中]{0,70}".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_document_is_accepted(value in document(), pretty in any::<bool>()) {
        let plain = serde_json::to_string(&value).unwrap();
        let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { plain };
        let read = scan(text.as_bytes()).unwrap();
        prop_assert_eq!(read.range(), 0..text.len());
        walk(&mut Cursor::new(text.as_bytes())).unwrap();
    }

    #[test]
    fn a_damaged_document_is_judged_as_serde_json_judges_it(
        value in document(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        let mut bytes = serde_json::to_vec(&value).unwrap();
        for (place, byte, how) in damage {
            let at = place.index(bytes.len().max(1));
            match how {
                0 if !bytes.is_empty() => bytes[at] = byte,
                1 if !bytes.is_empty() => { bytes.remove(at); }
                2 => bytes.truncate(at),
                _ => {
                    let sign = b"{}[],:\"\\u0-.eE+tn "[usize::from(byte) % 18];
                    bytes.insert(at.min(bytes.len()), sign);
                }
            }
        }
        check(&bytes);
    }

    #[test]
    fn noise_of_json_signs_is_judged_as_serde_json_judges_it(
        text in "[\\[\\]{},:\"\\\\utrefalsn0-9.eE+ \n-]{0,24}",
    ) {
        check(text.as_bytes());
    }

    #[test]
    fn any_bytes_inside_a_string_are_judged_as_serde_json_judges_them(
        before in "[a-z]{0,80}",
        middle in prop::collection::vec(any::<u8>(), 0..6),
        after in "[a-z]{0,80}",
    ) {
        let mut bytes = vec![b'"'];
        bytes.extend_from_slice(before.as_bytes());
        bytes.extend_from_slice(&middle);
        bytes.extend_from_slice(after.as_bytes());
        bytes.push(b'"');
        check(&bytes);
    }

    #[test]
    fn damaged_scripts_are_judged_as_serde_json_judges_them(
        text in prop_oneof![
            "[а-я ]{6,30}", "[一-龥、]{4,20}", "[가-힣 ]{4,20}",
            "[\u{700}-\u{900}\u{10000}-\u{10010}]{4,20}",
        ],
        place in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = format!("\"{text}\"").into_bytes();
        check(&bytes);
        let at = place.index(bytes.len());
        bytes[at] = byte;
        check(&bytes);
    }

    #[test]
    fn a_string_reads_as_serde_json_reads_it(text in any::<String>(), ascii in any::<bool>()) {
        let raw = if ascii { escaped(&text) } else { serde_json::to_string(&text).unwrap() };
        let value = scan(raw.as_bytes()).unwrap();
        prop_assert_eq!(value.text().unwrap().decode(), Cow::from(text));
    }

    #[test]
    fn members_are_where_serde_json_finds_them(value in document()) {
        let document = serde_json::json!({"a": value, "b": [value]});
        let text = serde_json::to_string_pretty(&document).unwrap();
        let expected: BTreeMap<String, &RawValue> = serde_json::from_str(&text).unwrap();
        let mut found = BTreeMap::new();
        Cursor::new(text.as_bytes()).members(|cursor, name| {
            let value = cursor.value()?;
            found.insert(name.decode().into_owned(), str::from_utf8(value.raw).unwrap());
            Ok::<(), Error>(())
        }).unwrap();
        let expected: BTreeMap<_, _> =
            expected.iter().map(|(name, raw)| (name.clone(), raw.get())).collect();
        prop_assert_eq!(found, expected);
    }
}

/// A JSON string with every character escaped.
fn escaped(text: &str) -> String {
    let units: Vec<String> = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
    format!("\"{}\"", units.concat())
}

#[test]
fn a_million_brackets_are_refused_at_the_limit() {
    let deep = "[".repeat(1_000_000);
    assert_eq!(scan(deep.as_bytes()), Err(Error::TooDeep { offset: 128 }));
    let deep = "{\"a\":".repeat(1_000_000);
    assert_eq!(scan(deep.as_bytes()), Err(Error::TooDeep { offset: 128 * 5 }));
}

#[test]
fn depth_is_counted_across_descents() {
    let text = format!("{{\"a\":{}{}}}", "[".repeat(128), "]".repeat(128));
    let read = Cursor::new(text.as_bytes()).members(|cursor, _| cursor.value().map(|_| ()));
    assert_eq!(read, Err(Error::TooDeep { offset: 5 + 127 }));
    let text = format!("{}{}", "[".repeat(128), "]".repeat(128));
    assert!(scan(text.as_bytes()).is_ok());
}

#[test]
fn errors_say_where() {
    let cases: &[(&str, Error)] = &[
        ("", Error::Truncated { offset: 0 }),
        ("{\"a\":1", Error::Truncated { offset: 6 }),
        ("{\"a\":tru}", Error::Unexpected { offset: 8 }),
        ("{\"a\":1}x", Error::Unexpected { offset: 7 }),
        ("{\"a\" 1}", Error::Unexpected { offset: 5 }),
        ("[1,]", Error::Unexpected { offset: 3 }),
        ("\"ab\u{1}\"", Error::Unexpected { offset: 3 }),
        ("\"\\x\"", Error::Unexpected { offset: 2 }),
    ];
    for (text, error) in cases {
        assert_eq!(scan(text.as_bytes()), Err(*error), "{text}");
    }
    assert_eq!(scan(b"\"a\xff\""), Err(Error::Utf8 { offset: 2 }));
}

#[test]
fn a_name_with_half_a_surrogate_pair_is_refused_and_a_value_is_not() {
    let read =
        |text: &str| Cursor::new(text.as_bytes()).members(|cursor, _| cursor.value().map(|_| ()));
    assert!(read(r#"{"\ud83d": 1}"#).is_err());
    assert!(read(r#"{"\ud83dx\ude00": 1}"#).is_err());
    assert!(read(r#"{"\ud83d\ude00": 1}"#).is_ok());
    assert!(read(r#"{"a": "\ud83d"}"#).is_ok());
    assert_eq!(scan(br#""\ud83d!""#).unwrap().text().unwrap().decode(), "\u{fffd}!");
}

#[test]
fn only_plain_digits_are_an_unsigned_number() {
    let unsigned = |text: &str| scan(text.as_bytes()).unwrap().unsigned();
    assert_eq!(unsigned("0"), Some(0));
    assert_eq!(unsigned("18446744073709551615"), Some(u64::MAX));
    for text in ["18446744073709551616", "-1", "1.0", "1e3", "\"1\"", "null"] {
        assert_eq!(unsigned(text), None, "{text}");
    }
}
