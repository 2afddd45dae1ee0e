//! Log probabilities of tokens, in the form of OpenAI's chat.
//!
//! Responses has the same tokens as a bare list. Only what the form has is read (a token, its
//! number, its bytes, the other candidates): what a provider nests inside would be nested deeper in
//! another dialect than readers follow. Invariant: what comes out is the inside of a JSON list, or
//! a whole object, five levels deep at most.
//! Source: `a-inbound` A.1.4 and A.1.5.

use std::borrow::Cow;

use crate::json::{Kind, Node, Outline, Writer};

/// Reads the object of a choice; nothing where it has no tokens.
pub(crate) fn read(object: Node<'_, '_>) -> Option<String> {
    let lists = [object.get("content"), object.get("refusal")];
    lists.iter().flatten().any(|list| tokens_of(*list).next().is_some()).then(|| write(lists))
}

/// Reads a list of tokens into an object; nothing where it has none.
pub(crate) fn read_list(list: Node<'_, '_>) -> Option<String> {
    tokens_of(list).next().is_some().then(|| write([Some(list), None]))
}

fn write([content, refusal]: [Option<Node<'_, '_>>; 2]) -> String {
    let mut w = Writer::with_capacity(256);
    w.object();
    for (name, list) in [("content", content), ("refusal", refusal)] {
        w.key(name);
        match list.filter(|list| list.kind() == Kind::Array) {
            Some(list) => tokens_into(&mut w, list, true),
            None => w.null(),
        }
    }
    w.end_object();
    String::from_utf8_lossy(&w.finish()).into_owned()
}

/// The tokens of a list, each with its number. One without either says nothing.
fn tokens_of<'t, 'a: 't>(
    list: Node<'t, 'a>,
) -> impl Iterator<Item = (Node<'t, 'a>, Cow<'a, str>, &'a str)> {
    list.elements().filter_map(|node| {
        let number = node.get("logprob").and_then(|number| number.number())?;
        Some((node, node.text_of("token")?, number))
    })
}

fn tokens_into(w: &mut Writer, list: Node<'_, '_>, with_others: bool) {
    w.array();
    for (node, token, number) in tokens_of(list) {
        w.object();
        w.key("token").string(&token);
        w.key("logprob").raw(number);
        w.key("bytes");
        match node.get("bytes").filter(|bytes| bytes.kind() == Kind::Array) {
            Some(bytes) => bytes_into(w, bytes),
            None => w.null(),
        }
        if with_others {
            w.key("top_logprobs");
            if let Some(others) = node.get("top_logprobs") {
                tokens_into(w, others, false);
            } else {
                w.array();
                w.end_array();
            }
        }
        w.end_object();
    }
    w.end_array();
}

fn bytes_into(w: &mut Writer, bytes: Node<'_, '_>) {
    w.array();
    bytes.elements().filter_map(|byte| byte.unsigned()).for_each(|byte| w.number(byte));
    w.end_array();
}

/// The tokens of an object, as the inside of a list; empty where there are none.
pub(crate) fn tokens(logprobs: &str) -> String {
    let Ok(outline) = Outline::read(logprobs.as_bytes()) else { return String::new() };
    let content = outline.root().get("content").filter(|list| list.kind() == Kind::Array);
    let list = content.map(|list| list.raw()).unwrap_or_default();
    let inside = list.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
    inside.map(str::trim).unwrap_or_default().to_owned()
}

/// The object of the tokens of two.
pub(crate) fn join(one: &str, other: &str) -> String {
    let mut all = tokens(one);
    append(&mut all, &tokens(other));
    format!("{{\"content\":[{all}],\"refusal\":null}}")
}

/// Writes tokens as the list that Responses has.
pub(crate) fn list(w: &mut Writer, tokens: &str) {
    w.key("logprobs").array();
    if !tokens.is_empty() {
        w.raw(tokens);
    }
    w.end_array();
}

/// Puts tokens behind others.
pub(crate) fn append(all: &mut String, more: &str) {
    if !all.is_empty() && !more.is_empty() {
        all.push(',');
    }
    all.push_str(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(object: &str) -> Option<String> {
        read(Outline::read(object.as_bytes()).unwrap().root())
    }

    #[test]
    fn tokens_are_taken_out_and_put_together() {
        let one = tokens(r#"{"content": [ {"token":"a"} ], "refusal": null}"#);
        assert_eq!(one, r#"{"token":"a"}"#);
        for nothing in ["null", "[]", "{}", r#"{"content":null}"#, r#"{"content":[]}"#, "x"] {
            assert_eq!(tokens(nothing), "", "{nothing}");
        }
        let mut all = String::new();
        for piece in ["", one.as_str(), "", one.as_str()] {
            append(&mut all, piece);
        }
        assert_eq!(all, format!("{one},{one}"));
        let object = format!(r#"{{"content":[{one}],"refusal":null}}"#);
        assert_eq!(tokens(&join(&object, &object)), all);
    }

    #[test]
    fn only_what_the_form_has_is_read() {
        let hi = r#"{"token":"Hi","logprob":-0.25,"bytes":[72,105],"top_logprobs":"#;
        let other = r#"{"token":"Ho","logprob":-1e3,"bytes":null}"#;
        let whole = format!(r#"{{"content":[{hi}[{other}]}}],"refusal":null}}"#);
        assert_eq!(of(&whole).as_deref(), Some(whole.as_str()));
        let refused = format!(r#"{{"content":null,"refusal":[{hi}[]}}]}}"#);
        assert_eq!(of(&refused).as_deref(), Some(refused.as_str()));
        for nothing in ["null", "1", "{}", r#"{"content":[]}"#, r#"{"content":[{"token":"a"}]}"#] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let odd =
            format!(r#"{{"content":[{{"token":"a","logprob":1,"x":{deep},"bytes":[7,{deep},"8"],"#);
        let odd = format!(r#"{odd}"top_logprobs":[{deep},{other}]}},{deep}]}}"#);
        let clean = format!(
            r#"{{"content":[{{"token":"a","logprob":1,"bytes":[7],"top_logprobs":[{other}]}}],"#
        );
        assert_eq!(of(&odd).unwrap(), format!(r#"{clean}"refusal":null}}"#));
    }
}
