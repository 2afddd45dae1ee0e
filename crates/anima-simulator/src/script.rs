//! The script of a simulated provider: seed, keys, models, defaults and rules.
//!
//! It is a plain value that reads from and prints to JSON; unknown members are refused by name.
//! The only mutable part is `Counts`, the rules' call counters, which belong to one loading of a
//! script and decide `every`, `after`, `times` and `percent`. The invariant: with the same script
//! and the same sequence of calls, the same rules fire.

mod glob;

use std::num::{NonZeroU32, NonZeroU64};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::behaviour::Behaviour;
use crate::prose;

pub use glob::Glob;

/// Members of an embedding when neither the request nor the script says: enough to be told apart,
/// short enough to be cheap.
const EMBEDDING_DIMENSIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(63);

/// What a simulated provider is like. The default accepts every key and model and is healthy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// Decides texts, vectors, call ids and `percent`.
    pub seed: u64,
    /// The accepted bearer keys; empty accepts every call.
    pub api_keys: Vec<String>,
    /// The known models; empty knows every name. Others are answered 404 `model_not_found`.
    pub models: Vec<Glob>,
    /// Members of an embedding whose request has no `dimensions`.
    pub embedding_dimensions: NonZeroU32,
    /// The bottom layer of every call's behaviour.
    pub defaults: Behaviour,
    /// Tried in order; the first that matches is laid over everything else.
    pub rules: Vec<Rule>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            seed: 0,
            api_keys: Vec::new(),
            models: Vec::new(),
            embedding_dimensions: EMBEDDING_DIMENSIONS,
            defaults: Behaviour::default(),
            rules: Vec::new(),
        }
    }
}

/// A script that could not be read; the text names the member and its line.
#[derive(Debug, thiserror::Error)]
#[error("the script is not valid: {0}")]
pub struct ScriptError(#[from] serde_json::Error);

/// What to do to which calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which calls; an empty one takes every POST.
    #[serde(rename = "match", default)]
    pub when: When,
    /// The top layer of their behaviour; an empty one only keeps later rules away.
    #[serde(rename = "do")]
    pub behaviour: Behaviour,
}

/// Which calls a rule takes. A call that passes `model`, `endpoint`, `stream` and `key` moves the
/// rule's counter; the other members look at that counter, in the order in which they stand here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// Model names, `*` and `?` allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Glob>,
    /// One endpoint only. Without it a rule leaves `GET /v1/models` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Only streams, or only JSON answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Bearer keys, `*` and `?` allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Glob>,
    /// Lets so many calls pass first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Takes every n-th of the calls that are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<NonZeroU64>,
    /// Takes about this share of the calls that are left, decided by the seed and the counter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
    /// Takes at most so many calls, ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
}

/// A share from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64")]
pub struct Percent(f64);

impl TryFrom<f64> for Percent {
    type Error = &'static str;

    fn try_from(share: f64) -> Result<Self, &'static str> {
        if (0.0..=100.0).contains(&share) {
            Ok(Self(share))
        } else {
            Err("percent must be from 0 to 100")
        }
    }
}

impl Percent {
    fn takes(self, draw: u64) -> bool {
        let [a, b, c, d, ..] = draw.to_be_bytes();
        let share = f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0);
        share * 100.0 < self.0
    }
}

/// What was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/completions`.
    Completions,
    /// `POST /v1/embeddings`.
    Embeddings,
    /// `POST /v1/messages`, as Anthropic has it.
    Messages,
    /// `POST /v1/responses`.
    Responses,
    /// `POST /v1beta/models/{model}:generateContent` and its stream, as Gemini has them.
    GenerateContent,
    /// `POST /v1beta/models/{model}:embedContent` and `:batchEmbedContents`.
    EmbedContent,
    /// `POST …/models/{model}:predict`, as Vertex has it for vectors.
    Predict,
    /// `POST /v2/embed`, as Cohere has it.
    Embed,
    /// `POST /model/{model}/invoke` and its stream, as Bedrock has them for Claude and vectors.
    Invoke,
    /// `POST /model/{model}/converse` and its stream, as Bedrock has them.
    Converse,
    /// `POST /v1/moderations`.
    Moderations,
    /// `POST /v1/images/generations`.
    Images,
    /// `POST /v1/images/edits`.
    ImageEdits,
    /// `POST /v1/rerank`.
    Rerank,
    /// `POST /v1/audio/speech`.
    Speech,
    /// `POST /v1/audio/transcriptions`.
    Transcriptions,
    /// `POST /v1/audio/translations`.
    Translations,
    /// `GET /v1/models` and `GET /v1/models/{id}`.
    Models,
    /// Any other path; answered 404 and taken by no rule.
    Unknown,
}

/// What a rule may look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) model: &'a str,
    pub(crate) stream: bool,
    pub(crate) key: Option<&'a str>,
}

impl When {
    fn concerns(&self, facts: &Facts<'_>) -> bool {
        let endpoint = match self.endpoint {
            Some(endpoint) => endpoint == facts.endpoint,
            None => facts.endpoint != Endpoint::Models,
        };
        endpoint
            && self.stream.is_none_or(|stream| stream == facts.stream)
            && self.model.as_ref().is_none_or(|glob| glob.matches(facts.model))
            && self.key.as_ref().is_none_or(|glob| glob.matches(facts.key.unwrap_or_default()))
    }

    /// Whether the call is taken, moving the counter. `salt` keeps the draws of two rules apart.
    fn takes(&self, count: &mut Count, salt: u64) -> bool {
        count.seen = count.seen.saturating_add(1);
        let Some(left) = count.seen.checked_sub(self.after.unwrap_or(0)).filter(|&n| n > 0) else {
            return false;
        };
        let taken = self.every.is_none_or(|every| left % every == 0)
            && self.percent.is_none_or(|share| share.takes(prose::mix(salt, count.seen)))
            && self.times.is_none_or(|times| count.taken < times);
        if taken {
            count.taken = count.taken.saturating_add(1);
        }
        taken
    }
}

/// The call counters of a script's rules, one per rule, from zero at every loading.
#[derive(Debug)]
pub struct Counts(Mutex<Vec<Count>>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    seen: u64,
    taken: u64,
}

impl Counts {
    /// Fresh counters for a script.
    pub fn new(script: &Script) -> Self {
        Self(Mutex::new(vec![Count::default(); script.rules.len()]))
    }
}

impl Script {
    /// Whether calls with this bearer key are taken.
    pub(crate) fn accepts(&self, key: Option<&str>) -> bool {
        self.api_keys.is_empty() || self.api_keys.iter().any(|known| key == Some(known.as_str()))
    }

    /// Reads a script from JSON.
    ///
    /// # Errors
    ///
    /// Text that is not JSON, an unknown member, or a value out of range.
    pub fn from_json(text: &[u8]) -> Result<Self, ScriptError> {
        Ok(serde_json::from_slice(text)?)
    }

    /// Whether the provider has a model of this name.
    pub(crate) fn has_model(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|glob| glob.matches(model))
    }

    /// The first rule that takes the call, with its index.
    pub(crate) fn choose(&self, facts: &Facts<'_>, counts: &Counts) -> Option<(usize, &Rule)> {
        if self.rules.is_empty() {
            return None;
        }
        let mut counts = counts.0.lock();
        for (index, (rule, count)) in self.rules.iter().zip(counts.iter_mut()).enumerate() {
            let salt = prose::mix(self.seed, u64::try_from(index).unwrap_or(u64::MAX));
            if rule.when.concerns(facts) && rule.when.takes(count, salt) {
                return Some((index, rule));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
