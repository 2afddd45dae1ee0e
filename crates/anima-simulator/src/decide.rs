//! The pure function from a request to the plan of its answer.
//!
//! Key, body, model, then the first matching rule, then the behaviour: in the order in which a
//! provider would look. No clock, no socket, no randomness but the seed; the rules' counters are
//! the only state and are passed in. The formats are those of OpenAI's API reference.

mod completion;
mod embedding;
mod models;
mod pen;
mod sample;
mod sound;
mod stream;
mod units;

use std::borrow::Cow;

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue};

use crate::behaviour::{Behaviour, Damage, Ending, Opening};
use crate::inquiry::{self, Inquiry};
use crate::refusal::{ErrorBody, Face};
use crate::reply::{Billing, Head, Piece, Reply, Step, Truth};
use crate::script::{Counts, Endpoint, Facts, Script};
use crate::truth::Outcome;
use crate::usage::{Reported, Usage};

pub use crate::inquiry::Ask;

/// The header in which `OpenAI` names a call.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// Where Amazon says what went wrong.
const ERROR_KIND: HeaderName = HeaderName::from_static("x-amzn-errortype");
/// Bytes that the `content-length` fault declares and does not send.
const LENGTH_LIE: usize = 64;

/// What a plan needs to know beside the request.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// The call's id: `simcall_` and 16 hex digits.
    pub id: &'a str,
    /// Unix time in seconds, for `created`.
    pub created_s: u64,
}

/// One call on its way to a plan.
struct Scene<'a> {
    face: Face,
    script: &'a Script,
    turn: Turn<'a>,
    body: &'a [u8],
    model: &'a str,
    behaviour: &'a Behaviour,
}

/// The answer itself, without head and truth.
struct Draft {
    steps: Vec<Step>,
    content_type: &'static str,
    /// The content length to declare, when it is not that of the steps.
    declared: Option<usize>,
    usage: Usage,
    reported: Option<Reported>,
    billing: Billing,
    outcome: Outcome,
}

/// Plans the answer to a request and moves the counters of the rules.
pub fn decide(ask: &Ask<'_>, script: &Script, counts: &Counts, turn: Turn<'_>) -> Reply {
    let inquiry = inquiry::read(ask);
    let facts = facts(ask, inquiry.as_ref().ok());
    let mut truth = Truth {
        endpoint: facts.endpoint,
        model: facts.model.to_owned(),
        stream: facts.stream,
        rule: None,
        billing: Billing::Nothing,
        usage: Usage::default(),
        pictures: match &inquiry {
            Ok(Inquiry::Completion(completion)) => completion.pictures.clone(),
            Ok(_) | Err(_) => Vec::new(),
        },
        reported: None,
        outcome: Outcome::Refused,
    };
    let accepted = admit(&inquiry, &facts, script).map(|own| (own, &inquiry));
    let (own, inquiry) = match accepted {
        Ok((own, Ok(inquiry))) => (own, inquiry),
        Ok((_, Err(error))) => return refused(error, truth, turn, 0),
        Err(error) => return refused(&error, truth, turn, 0),
    };
    let mut behaviour = script.defaults.clone().overlaid(&own);
    if let Some((index, rule)) = script.choose(&facts, counts) {
        truth.rule = Some(index);
        behaviour = behaviour.overlaid(&rule.behaviour);
    }
    let scene = Scene {
        face: face(facts.endpoint),
        script,
        turn,
        body: ask.body,
        model: facts.model,
        behaviour: &behaviour,
    };
    scene.open(inquiry, truth)
}

fn facts<'a>(ask: &Ask<'a>, inquiry: Option<&'a Inquiry<'_>>) -> Facts<'a> {
    let (model, stream) = match inquiry {
        Some(Inquiry::Completion(completion)) => (completion.model.as_ref(), completion.stream),
        Some(Inquiry::Embedding(embedding)) => (embedding.model.as_ref(), false),
        Some(Inquiry::Units(units)) => (units.model.as_ref(), false),
        Some(Inquiry::Sound(sound)) => (sound.model.as_ref(), sound.stream),
        Some(Inquiry::Model(model)) => (model.as_str(), false),
        Some(Inquiry::Models) | None => ("", false),
    };
    Facts { endpoint: inquiry::endpoint(ask.path), model, stream, key: ask.key }
}

/// The behaviour that the model's name asks for, when key and model are accepted.
fn admit(
    inquiry: &Result<Inquiry<'_>, ErrorBody>,
    facts: &Facts<'_>,
    script: &Script,
) -> Result<Behaviour, ErrorBody> {
    if !script.accepts(facts.key) {
        return Err(ErrorBody::wrong_key());
    }
    match inquiry {
        Ok(Inquiry::Models) | Err(_) => Ok(Behaviour::default()),
        Ok(
            Inquiry::Completion(_)
            | Inquiry::Embedding(_)
            | Inquiry::Units(_)
            | Inquiry::Sound(_)
            | Inquiry::Model(_),
        ) => {
            if !script.has_model(facts.model) {
                return Err(ErrorBody::no_model(format!(
                    "The model `{}` does not exist or you do not have access to it.",
                    facts.model
                )));
            }
            let own = Behaviour::of_model(facts.model).map_err(|error| {
                ErrorBody::no_model(format!("The model `{}` does not exist: {error}", facts.model))
            })?;
            // A model's own faults are for calls to it, not for reading its card.
            let card = matches!(inquiry, Ok(Inquiry::Model(_)));
            Ok(if card { Behaviour::default() } else { own })
        }
    }
}

impl Scene<'_> {
    /// Begins the answer, or does what the opening says instead.
    fn open(&self, inquiry: &Inquiry<'_>, truth: Truth) -> Reply {
        let latency_ms = self.behaviour.latency_ms.unwrap_or(0);
        let headless = |head, outcome, truth| Reply {
            latency_ms,
            head,
            steps: Vec::new(),
            truth: Truth { outcome, ..truth },
        };
        match &self.behaviour.opening {
            Some(Opening::Silent) => headless(Head::Silent, Outcome::Silent, truth),
            Some(Opening::Reset) => headless(Head::Reset, Outcome::Reset, truth),
            Some(Opening::Refuse(refusal)) => {
                let mut error = ErrorBody::scripted(refusal.status, refusal.code.as_deref());
                if self.face == Face::Gemini {
                    // Google has no header for it.
                    error.wait_s = refusal.retry_after.as_deref().and_then(|s| s.parse().ok());
                    return refused(&error, truth, self.turn, latency_ms);
                }
                let mut reply = refused(&error, truth, self.turn, latency_ms);
                let delays = [
                    (RETRY_AFTER, &refusal.retry_after),
                    (RETRY_AFTER_MS, &refusal.retry_after_ms),
                ];
                if let Head::Status { headers, .. } = &mut reply.head {
                    headers.extend(delays.into_iter().filter_map(|(name, value)| {
                        Some((name, HeaderValue::from_str(value.as_deref()?).ok()?))
                    }));
                }
                reply
            }
            Some(Opening::ContextLength { maximum }) => {
                let wanted = wanted_tokens(inquiry);
                if maximum.is_none_or(|maximum| wanted > maximum) {
                    // Without a maximum every call is one token too long.
                    let maximum = maximum.unwrap_or_else(|| wanted.saturating_sub(1));
                    let error = ErrorBody::context_length(maximum, wanted);
                    return refused(&error, truth, self.turn, latency_ms);
                }
                self.answer(inquiry, truth, latency_ms)
            }
            None => self.answer(inquiry, truth, latency_ms),
        }
    }

    fn answer(&self, inquiry: &Inquiry<'_>, truth: Truth, latency_ms: u64) -> Reply {
        let draft = match inquiry {
            Inquiry::Completion(completion) if completion.stream => stream::plan(self, completion),
            Inquiry::Completion(completion) => completion::plan(self, completion),
            Inquiry::Embedding(embedding) => embedding::plan(self, embedding),
            Inquiry::Units(units) => units::plan(self, units),
            Inquiry::Sound(sound) => sound::plan(self, sound),
            Inquiry::Models => models::list(self),
            Inquiry::Model(model) => models::one(self, model),
        };
        let mut headers = head(self.turn, draft.content_type);
        if draft.content_type == EVENT_STREAM {
            headers.push((CACHE_CONTROL, HeaderValue::from_static("no-cache")));
        }
        headers.extend(draft.declared.map(|length| (CONTENT_LENGTH, HeaderValue::from(length))));
        Reply {
            latency_ms,
            head: Head::Status { status: 200, headers },
            steps: self.gated(draft.steps),
            truth: Truth {
                billing: draft.billing,
                usage: draft.usage,
                reported: draft.reported,
                outcome: draft.outcome,
                ..truth
            },
        }
    }

    /// The last piece waits where the behaviour says so.
    fn gated(&self, mut steps: Vec<Step>) -> Vec<Step> {
        if self.behaviour.gate.is_some() {
            let last = steps.iter().rposition(|step| matches!(step, Step::Send(_)));
            steps.insert(last.unwrap_or(steps.len()), Step::Gate);
        }
        steps
    }

    /// Turns a whole JSON body into a draft, with the faults that JSON bodies can have.
    fn json(&self, mut body: Vec<u8>, usage: Usage, reported: Option<Reported>) -> Draft {
        let mut draft = Draft {
            steps: Vec::new(),
            content_type: JSON,
            declared: None,
            usage,
            reported,
            billing: Billing::Whole,
            outcome: Outcome::Answered,
        };
        if let Some(Ending::Error { .. }) = self.behaviour.ending {
            body = ErrorBody::scripted(500, None).json(self.face);
            (draft.billing, draft.outcome) = (Billing::Nothing, Outcome::Failed);
            (draft.usage, draft.reported) = (Usage::default(), None);
        }
        match self.behaviour.damage {
            Some(Damage::BadJson) => {
                body.truncate(body.len() / 2);
                draft.reported = None;
            }
            Some(Damage::HugeLine { bytes }) => pad(&mut body, 1, bytes),
            Some(Damage::ContentLength) => {
                draft.declared = Some(body.len().saturating_add(LENGTH_LIE));
                draft.outcome = Outcome::Cut;
            }
            Some(Damage::BadSse { .. }) | None => {}
        }
        draft.steps.push(Step::Send(Piece {
            bytes: body.into(),
            tokens: draft.usage.completion_tokens.saturating_sub(draft.usage.reasoning_tokens),
            content: false,
            reports_usage: draft.reported.is_some(),
        }));
        draft.steps.extend(draft.declared.map(|_| Step::Cut));
        draft
    }

    /// The model's name as JSON text.
    fn model_json(&self) -> Cow<'static, str> {
        serde_json::to_string(self.model).map_or(Cow::Borrowed("\"\""), Cow::Owned)
    }
}

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";
const FRAMES: &str = "application/vnd.amazon.eventstream";

fn head(turn: Turn<'_>, content_type: &'static str) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::with_capacity(4);
    headers.push((CONTENT_TYPE, HeaderValue::from_static(content_type)));
    headers.extend(HeaderValue::from_str(turn.id).ok().map(|id| (REQUEST_ID, id)));
    headers
}

/// Tokens of the prompt and of the longest answer that the caller allows.
fn wanted_tokens(inquiry: &Inquiry<'_>) -> u64 {
    match inquiry {
        Inquiry::Completion(completion) => {
            completion.prompt_tokens.saturating_add(completion.cap.unwrap_or(0))
        }
        Inquiry::Embedding(embedding) => embedding.inputs.iter().map(|input| input.tokens).sum(),
        Inquiry::Models | Inquiry::Model(_) | Inquiry::Units(_) | Inquiry::Sound(_) => 0,
    }
}

/// Who answers on an endpoint.
const fn face(endpoint: Endpoint) -> Face {
    match endpoint {
        Endpoint::Messages => Face::Anthropic,
        Endpoint::GenerateContent | Endpoint::EmbedContent | Endpoint::Predict => Face::Gemini,
        Endpoint::Invoke | Endpoint::Converse => Face::Bedrock,
        Endpoint::Chat
        | Endpoint::Completions
        | Endpoint::Embeddings
        | Endpoint::Embed
        | Endpoint::Responses
        | Endpoint::Moderations
        | Endpoint::Images
        | Endpoint::ImageEdits
        | Endpoint::Rerank
        | Endpoint::Speech
        | Endpoint::Transcriptions
        | Endpoint::Translations
        | Endpoint::Models
        | Endpoint::Unknown => Face::Openai,
    }
}

fn refused(error: &ErrorBody, truth: Truth, turn: Turn<'_>, latency_ms: u64) -> Reply {
    let face = face(truth.endpoint);
    let mut headers = head(turn, JSON);
    if face == Face::Bedrock {
        headers.push((ERROR_KIND, HeaderValue::from_static(error.amazon_kind())));
    }
    Reply {
        latency_ms,
        head: Head::Status { status: error.status_in(face), headers },
        steps: vec![Step::Send(Piece { bytes: error.json(face).into(), ..Piece::default() })],
        truth: Truth { outcome: Outcome::Refused, ..truth },
    }
}

/// Puts an `obfuscation` member of so many bytes before the last `tail` bytes of a JSON text.
fn pad(text: &mut Vec<u8>, tail: usize, bytes: u32) {
    let rest = text.split_off(text.len().saturating_sub(tail));
    text.extend_from_slice(b",\"obfuscation\":\"");
    text.resize(text.len().saturating_add(usize::try_from(bytes).unwrap_or(0)), b'x');
    text.push(b'"');
    text.extend_from_slice(&rest);
}

#[cfg(test)]
mod tests;
