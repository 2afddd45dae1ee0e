//! Generated text: how much there is, what it costs, and its JSON form.
//!
//! Reasoning comes first and counts against the caller's cap, as with OpenAI; what is left of the
//! cap bounds the words. The invariant: completion tokens are the words of all generated choices
//! plus their reasoning, also when fewer choices are shown (`best_of`).

use super::{Draft, Scene};
use crate::behaviour::{ANSWER_DEFAULT, UsageLie};
use crate::inquiry::{Completion, Dialect};
use crate::prose::{self, Answer};
use crate::usage::{Reported, Usage};

/// Everything that an answer says, before it is written down.
pub(super) struct Material {
    /// One per choice that is shown.
    pub(super) answers: Vec<Answer>,
    pub(super) usage: Usage,
    pub(super) reported: Option<Reported>,
}

/// `finish_reason` of a choice.
pub(super) fn finish_reason(answer: &Answer) -> &'static str {
    if answer.capped { "length" } else { "stop" }
}

pub(super) fn generate(scene: &Scene<'_>, completion: &Completion<'_>) -> Material {
    let seed = prose::hash(scene.script.seed, scene.body);
    let cap = completion.cap.unwrap_or(u64::MAX);
    let reasoning = u64::from(scene.behaviour.reasoning_tokens.unwrap_or(0)).min(cap);
    let length = scene.behaviour.answer.unwrap_or(ANSWER_DEFAULT);
    let mut usage = Usage {
        prompt_tokens: completion.prompt_tokens,
        cached_tokens: u64::from(scene.behaviour.cached_tokens.unwrap_or(0))
            .min(completion.prompt_tokens),
        ..Usage::default()
    };
    let mut answers = Vec::new();
    for index in 0..completion.generated {
        let cap = cap.saturating_sub(reasoning);
        let answer = prose::answer(prose::mix(seed, u64::from(index)), length, cap);
        let words = u64::try_from(answer.words.len()).unwrap_or(u64::MAX);
        usage.reasoning_tokens = usage.reasoning_tokens.saturating_add(reasoning);
        usage.completion_tokens =
            usage.completion_tokens.saturating_add(reasoning).saturating_add(words);
        if index < completion.choices {
            answers.push(answer);
        }
    }
    Material { answers, usage, reported: Reported::of(&usage, scene.behaviour.usage) }
}

/// The plan of a JSON answer.
pub(super) fn plan(scene: &Scene<'_>, completion: &Completion<'_>) -> Draft {
    let material = generate(scene, completion);
    let (prefix, object) = match completion.dialect {
        Dialect::Chat => ("chatcmpl", "chat.completion"),
        Dialect::Text => ("cmpl", "text_completion"),
    };
    let mut body = format!(
        "{{\"id\":\"{prefix}-{}\",\"object\":\"{object}\",\"created\":{},\"model\":{},\
         \"choices\":[",
        scene.turn.id,
        scene.turn.created_s,
        scene.model_json()
    );
    for (index, answer) in material.answers.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        push_choice(&mut body, completion.dialect, index, answer);
    }
    body.push(']');
    if let Some(reported) = &material.reported {
        let usage = reported.completion_json();
        let times = if scene.behaviour.usage == Some(UsageLie::Twice) { 2 } else { 1 };
        for _ in 0..times {
            body.push_str(",\"usage\":");
            body.push_str(&usage);
        }
    }
    body.push_str(match completion.dialect {
        Dialect::Chat => ",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_simulator\"}",
        Dialect::Text => ",\"system_fingerprint\":\"fp_simulator\"}",
    });
    scene.json(body.into_bytes(), material.usage, material.reported)
}

fn push_choice(body: &mut String, dialect: Dialect, index: usize, answer: &Answer) {
    let index = index.to_string();
    let (before, after) = match dialect {
        Dialect::Chat => (
            ["{\"index\":", &index, ",\"message\":{\"role\":\"assistant\",\"content\":\""],
            ["\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null", ""],
        ),
        Dialect::Text => {
            (["{\"text\":\"", "", ""], ["\",\"logprobs\":null,\"index\":", index.as_str()])
        }
    };
    body.extend(before);
    for (place, word) in answer.words.iter().enumerate() {
        if place > 0 {
            body.push(' ');
        }
        body.push_str(word);
    }
    body.extend(after);
    body.extend([",\"finish_reason\":\"", finish_reason(answer), "\"}"]);
}
