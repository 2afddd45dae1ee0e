//! Log probabilities, between Google's form and the one of OpenAI's chat.
//!
//! Not carried: Google's numbers of tokens, and OpenAI's bytes of them, which are the token's own.
//! Invariant: what comes out is valid JSON. Source: Google's API reference, `LogprobsResult`.

use std::borrow::Cow;

use crate::json::{Node, Outline, Writer};

/// Reads a candidate's result.
pub(super) fn read<'a>(candidate: Node<'_, 'a>) -> Option<Cow<'a, str>> {
    let result = candidate.get("logprobsResult")?;
    let mut tops = result.get("topCandidates").into_iter().flat_map(|list| list.elements());
    let mut w = Writer::with_capacity(256);
    w.object();
    w.key("content").array();
    for chosen in result.get("chosenCandidates")?.elements() {
        let top = tops.next().and_then(|top| top.get("candidates"));
        w.object();
        token(&mut w, chosen);
        w.key("top_logprobs").array();
        for other in top.into_iter().flat_map(|list| list.elements()) {
            w.object();
            token(&mut w, other);
            w.end_object();
        }
        w.end_array();
        w.end_object();
    }
    w.end_array();
    w.key("refusal").null();
    w.end_object();
    String::from_utf8(w.finish().to_vec()).ok().map(Cow::Owned)
}

fn token(w: &mut Writer, node: Node<'_, '_>) {
    let token = node.text_of("token").unwrap_or_default();
    let number = node.get("logProbability").and_then(|number| number.number());
    w.key("token").string(&token);
    w.key("logprob").raw(number.unwrap_or("0"));
    w.key("bytes").array();
    token.bytes().for_each(|byte| w.number(byte.into()));
    w.end_array();
}

/// Writes a candidate's result; nothing where what was told has no tokens.
pub(super) fn write(w: &mut Writer, told: Option<&str>) {
    let Ok(outline) = Outline::read(told.unwrap_or_default().as_bytes()) else { return };
    let content = outline.root().get("content");
    let tokens: Vec<_> = content.iter().flat_map(Node::elements).collect();
    if tokens.is_empty() {
        return;
    }
    w.key("logprobsResult").object();
    w.key("topCandidates").array();
    for token in &tokens {
        w.object();
        w.key("candidates").array();
        let others = token.get("top_logprobs");
        others.iter().flat_map(Node::elements).for_each(|other| candidate(w, other));
        w.end_array();
        w.end_object();
    }
    w.end_array();
    w.key("chosenCandidates").array();
    for token in tokens {
        candidate(w, token);
    }
    w.end_array();
    w.end_object();
}

fn candidate(w: &mut Writer, token: Node<'_, '_>) {
    w.object();
    w.key("token").string(&token.text_of("token").unwrap_or_default());
    let number = token.get("logprob").and_then(|number| number.number());
    w.key("logProbability").raw(number.unwrap_or("0"));
    w.end_object();
}
