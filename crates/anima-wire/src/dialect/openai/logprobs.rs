//! Log probabilities of tokens, in the form of OpenAI's chat.
//!
//! Responses has the same tokens as a bare list. What stands inside a token is never looked at
//! here. Invariant: what comes out is the inside of a JSON list, or a whole object.
//! Source: `a-inbound` A.1.4 and A.1.5.

use crate::json::{Kind, Outline, Writer};

/// The tokens of an object, as the inside of a list; empty where there are none.
pub(crate) fn tokens(logprobs: &str) -> String {
    let Ok(outline) = Outline::read(logprobs.as_bytes()) else { return String::new() };
    let content = outline.root().get("content").filter(|list| list.kind() == Kind::Array);
    let list = content.map(|list| list.raw()).unwrap_or_default();
    let inside = list.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
    inside.map(str::trim).unwrap_or_default().to_owned()
}

/// The object of a list of tokens.
pub(crate) fn of_list(list: &str) -> String {
    format!("{{\"content\":{list},\"refusal\":null}}")
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
        assert_eq!(tokens(&of_list(&format!("[{all}]"))), format!("{one},{one}"));
    }
}
