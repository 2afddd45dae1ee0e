//! Log probabilities, from Google's form into the one of OpenAI's chat.
//!
//! The other way is not there: clients of Gemini who ask another provider for them are refused.
//! Invariant: what comes out is valid JSON. Source: Google's API reference, `LogprobsResult`.

use std::borrow::Cow;

use crate::json::{Node, Writer};

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
