//! Rankings of documents, in the three forms that clients and vendors have for them.
//!
//! Jina's (which vLLM and others copy), Cohere's second and Voyage's: alike but for the names of
//! members, and for what is told of the bill. A vendor with a form of its own gets just that; an
//! answer goes on as it came where it has all that the client's form has. Not here: what a call
//! comes to, which is read from the vendor's own words (`answer::units`). Invariant: an answer has
//! the client's form whoever gave it. Source: `a-inbound` A.4.

use std::borrow::Cow;

use anima_core::failure::Failure;
use anima_core::usage::Meter;
use bytes::Bytes;

use super::Answer;
use crate::canonical::{Carried, Dropped, Refusal};
use crate::json::{Kind, Misfit, Node, Outline, Writer};
use crate::request::{CallRequest, Ranking};

/// Voyage's address: of those who copy OpenAI the one that takes no `top_n`.
const VOYAGE: &str = "://api.voyageai.com";

/// A form of requests that is written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Cohere,
    Voyage,
}

impl Form {
    /// The form of a vendor who copies OpenAI, where it is not the usual one.
    pub(super) fn at(base_url: &str) -> Option<Self> {
        base_url.contains(VOYAGE).then_some(Self::Voyage)
    }

    /// The member that limits the results.
    const fn limit(self) -> &'static str {
        if matches!(self, Self::Cohere) { "top_n" } else { "top_k" }
    }

    /// Members that go on as they came.
    const fn keeps(self) -> &'static [&'static str] {
        match self {
            Self::Cohere => &["max_tokens_per_doc", "priority"],
            Self::Voyage => &["truncation"],
        }
    }
}

/// Says a request in the form of a vendor.
///
/// # Errors
/// When a document is no text.
pub(super) fn write(form: Form, request: &CallRequest, model: &str) -> Result<Carried, Refusal> {
    let outline = Outline::of_request(&request.body)?;
    let root = outline.root();
    let query = root.string("query")?.ok_or(Refusal::Missing("query"))?;
    let mut dropped = Dropped::default();
    let mut w = Writer::with_capacity(request.body.len());
    w.object();
    w.key("model").string(model);
    w.key("query").string(&query);
    w.key("documents").list(&documents(root)?);
    let limit = root.whole("top_n")?.or(root.whole("top_k")?);
    w.maybe_number(form.limit(), limit);
    for (name, value) in root.members() {
        match &*name {
            // Documents are returned from here.
            "model" | "query" | "documents" | "top_n" | "top_k" | "return_documents" => {}
            name if form.keeps().contains(&name) => w.key(name).raw(value.raw()),
            name => dropped.note_unplaced(name),
        }
    }
    w.end_object();
    Ok(Carried { body: w.finish(), dropped })
}

/// The texts to rank; some send them in objects.
fn documents<'a>(root: Node<'_, 'a>) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let wrong = Misfit { member: "documents", must: "be a list of texts" };
    let list = root.array("documents")?.ok_or(Refusal::Missing("documents"))?;
    let text = |node: Node<'_, 'a>| node.text().or_else(|| node.text_of("text"));
    list.elements().map(|node| text(node).ok_or_else(|| wrong.into())).collect()
}

/// An answer whose facts are known, in the client's form.
///
/// # Errors
/// [`Failure::AnswerMalformed`].
pub(super) fn said(answer: Answer, request: &CallRequest) -> Result<Answer, Failure> {
    let malformed = |_bad| Failure::AnswerMalformed;
    let outline = Outline::read(&answer.body).map_err(malformed)?;
    let root = outline.root();
    let asked = Outline::of_request(&request.body).map_err(malformed)?;
    let returned = asked.root().get("return_documents").and_then(|flag| flag.flag());
    let results = root.get("results").or_else(|| root.get("data")).unwrap_or(root);
    if is_said(root, results, (request.ranking, returned)) {
        return Ok(answer);
    }
    let texts = returned.unwrap_or(false).then(|| documents(asked.root()).unwrap_or_default());
    let mut w = Writer::with_capacity(answer.body.len() + 256);
    w.object();
    w.maybe("id", root.text_of("id").as_deref());
    let is_jina = request.ranking == Ranking::Jina;
    w.maybe("model", is_jina.then_some(&*request.model));
    w.key("results").array();
    for result in results.elements() {
        let index = result.count_of("index").ok_or(Failure::AnswerMalformed)?;
        // Mixedbread says `score`.
        let score = result.get("relevance_score").or_else(|| result.get("score"));
        let score = score.and_then(|score| score.number());
        w.object();
        w.key("index").number(index);
        w.key("relevance_score").raw(score.ok_or(Failure::AnswerMalformed)?);
        if is_jina && returned != Some(false) {
            let at = usize::try_from(index).unwrap_or(usize::MAX);
            let text = texts.as_ref().and_then(|texts| texts.get(at));
            document(&mut w, result.get("document"), text);
        }
        w.end_object();
    }
    w.end_array();
    bill(&mut w, &answer, request);
    w.end_object();
    let body: Bytes = w.finish();
    Ok(answer.with_body(body))
}

/// Whether an answer has all that the client's form has.
fn is_said(
    root: Node<'_, '_>,
    results: Node<'_, '_>,
    (ranking, returned): (Ranking, Option<bool>),
) -> bool {
    let has = |name: &&str| root.get(name).is_some();
    match ranking {
        Ranking::Cohere => ["results", "meta"].iter().all(has),
        Ranking::Jina => {
            let is_object = |result: Node<'_, '_>| {
                result.get("document").is_some_and(|document| document.kind() == Kind::Object)
            };
            let has_documents = returned != Some(true) || results.elements().all(is_object);
            ["model", "results", "usage", "meta"].iter().all(has) && has_documents
        }
    }
}

/// A document as Jina returns it: the vendor's, or the one that the client sent.
fn document(w: &mut Writer, told: Option<Node<'_, '_>>, sent: Option<&Cow<'_, str>>) {
    let text = told.and_then(|told| told.text());
    let text = text.as_ref().or(sent);
    match (told.filter(|told| told.kind() == Kind::Object), text) {
        (Some(told), _) => w.key("document").raw(told.raw()),
        (None, Some(text)) => {
            w.key("document").object();
            w.key("text").string(text);
            w.end_object();
        }
        (None, None) => {}
    }
}

/// What the call came to. Where tokens were not told, our estimate.
fn bill(w: &mut Writer, answer: &Answer, request: &CallRequest) {
    let usage = answer.usage.unwrap_or_default();
    if request.ranking == Ranking::Jina {
        let told = Some(usage.input_tokens()).filter(|tokens| *tokens > 0);
        let tokens = told.unwrap_or_else(|| request.estimate_input_tokens() / 2);
        w.key("usage").object();
        w.key("total_tokens").number(tokens);
        w.key("prompt_tokens").number(tokens);
        w.end_object();
    }
    w.key("meta").object();
    if request.ranking == Ranking::Cohere {
        w.key("api_version").object();
        w.key("version").string("2");
        w.end_object();
    }
    w.key("billed_units").object();
    w.key("search_units").number(usage.of(Meter::Queries));
    w.end_object();
    w.end_object();
}
