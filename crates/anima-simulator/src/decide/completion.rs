//! Generated text: how much there is, what it costs, and the plan of a whole answer.
//!
//! Reasoning comes first and counts against the caller's cap, as with `OpenAI`; what is left of the
//! cap bounds the words. How an answer is written down is the matter of its dialect (`pen`). The
//! invariant: completion tokens are the words of all generated choices plus their reasoning, also
//! when fewer choices are shown (`best_of`).

use std::borrow::Cow;

use super::sample::{self, Word};
use super::{Draft, Scene, pen};
use crate::behaviour::{ANSWER_DEFAULT, Ending};
use crate::inquiry::{Completion, Tool, Wanted};
use crate::prose;
use crate::usage::{Reported, Usage};

/// Everything that an answer says, before it is written down.
pub(super) struct Material {
    /// One per choice that is shown.
    pub(super) choices: Vec<Said>,
    pub(super) usage: Usage,
    pub(super) reported: Option<Reported>,
}

/// What one choice says.
pub(super) struct Said {
    /// A text, or calls. No part is without words.
    pub(super) parts: Vec<Part>,
    /// Whether the caller's cap ended it before its length did.
    pub(super) capped: bool,
    /// Whether it is said to have failed at its end.
    pub(super) failed: bool,
}

/// A text, or a call.
pub(super) struct Part {
    /// The id and the tool's name, of a call.
    pub(super) call: Option<(String, String)>,
    /// One token each; the text, or the JSON of the arguments, is these with single spaces between.
    pub(super) words: Vec<Word>,
}

impl Part {
    /// The whole text.
    pub(super) fn text(&self) -> String {
        self.words.join(" ")
    }
}

impl Said {
    /// Whether tools are called.
    pub(super) fn calls(&self) -> bool {
        !self.capped && self.parts.iter().any(|part| part.call.is_some())
    }

    /// Words of all parts.
    fn tokens(&self) -> u64 {
        let words = self.parts.iter().map(|part| part.words.len()).sum::<usize>();
        u64::try_from(words).unwrap_or(u64::MAX)
    }

    /// Prose, and what is made of a caller's cap.
    fn prose(seed: u64, scene: &Scene<'_>, cap: u64) -> Self {
        let length = scene.behaviour.answer.unwrap_or(ANSWER_DEFAULT);
        let answer = prose::answer(seed, length, cap);
        let words = answer.words.into_iter().map(Cow::Borrowed).collect();
        Self { parts: vec![Part { call: None, words }], capped: answer.capped, failed: false }
            .tidy()
    }

    /// At most `cap` words of these parts.
    fn of(parts: Vec<Part>, cap: u64) -> Self {
        let mut left = usize::try_from(cap).unwrap_or(usize::MAX);
        let mut said = Self { parts, capped: false, failed: false };
        for part in &mut said.parts {
            said.capped |= part.words.len() > left;
            part.words.truncate(left);
            left = left.saturating_sub(part.words.len());
        }
        said.tidy()
    }

    fn tidy(mut self) -> Self {
        self.parts.retain(|part| !part.words.is_empty());
        self
    }
}

pub(super) fn generate(scene: &Scene<'_>, completion: &Completion<'_>) -> Material {
    let seed = prose::hash(scene.script.seed, scene.body);
    let cap = completion.cap.unwrap_or(u64::MAX);
    let reasoning = u64::from(scene.behaviour.reasoning_tokens.unwrap_or(0)).min(cap);
    let mut usage = Usage {
        prompt_tokens: completion.prompt_tokens,
        cached_tokens: u64::from(scene.behaviour.cached_tokens.unwrap_or(0))
            .min(completion.prompt_tokens),
        ..Usage::default()
    };
    let mut choices = Vec::new();
    for index in 0..completion.generated {
        let cap = cap.saturating_sub(reasoning);
        let mut said = said(scene, &completion.wanted, prose::mix(seed, u64::from(index)), cap);
        said.failed =
            matches!(scene.behaviour.ending, Some(Ending::FinishError | Ending::FinishSilence));
        usage.reasoning_tokens = usage.reasoning_tokens.saturating_add(reasoning);
        usage.completion_tokens =
            usage.completion_tokens.saturating_add(reasoning).saturating_add(said.tokens());
        if index < completion.choices {
            choices.push(said);
        }
    }
    Material { choices, usage, reported: Reported::of(&usage, scene.behaviour.usage) }
}

fn said(scene: &Scene<'_>, wanted: &Wanted, seed: u64, cap: u64) -> Said {
    let calls = scene.behaviour.calls.unwrap_or(1);
    let call = |(tool, n): (&Tool, u32)| {
        let seed = prose::mix(seed, u64::from(n));
        let is_anonymous = scene.behaviour.anonymous.is_some();
        let id = if is_anonymous { String::new() } else { format!("call_{seed:016x}{n:08x}") };
        Part { call: Some((id, tool.name.clone())), words: sample::words(&tool.schema, seed) }
    };
    match wanted {
        Wanted::Calls(tools) if calls > 0 => {
            Said::of(tools.iter().cycle().zip(0..calls).map(call).collect(), cap)
        }
        Wanted::Call(tool) if calls > 0 => Said::of(vec![call((tool, 0))], cap),
        Wanted::Json(schema) => {
            let words = sample::words(schema, seed);
            Said::of(vec![Part { call: None, words }], cap)
        }
        Wanted::Prose | Wanted::Calls(_) | Wanted::Call(_) => Said::prose(seed, scene, cap),
    }
}

/// The plan of a JSON answer.
pub(super) fn plan(scene: &Scene<'_>, completion: &Completion<'_>) -> Draft {
    let material = generate(scene, completion);
    let body = pen::whole(scene, completion.dialect, &material);
    scene.json(body, material.usage, material.reported)
}
