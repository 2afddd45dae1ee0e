//! The text form of a behaviour, in a model's name and in a script.
//!
//! One table (`apply`) knows every word; the `+` syntax and the JSON object of a
//! script's `do` both go through it, so they cannot differ. Printing is the inverse: parsing what
//! is printed gives the same behaviour (a property test holds this).

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use super::{
    Anonymous, AnswerLength, Behaviour, Damage, Ending, Gated, Opening, Refusal, UsageLie,
};

/// Bytes of padding of `huge-line` without an argument: more than a careful line limit, and small
/// enough for a test.
const HUGE_LINE_DEFAULT: u32 = 1 << 20;

/// Every word, for the message about an unknown one.
const WORDS: &str = "latency, pace, gate, status, 401, context-length, silent, reset, cut-stream, \
silent-stream, no-done, error-in-200, finish-error, finish-silent, bad-json, bad-sse, huge-line, \
content-length, usage-missing, usage-twice, usage-absurd, usage-negative, empty, answer-tokens, \
answer-bytes, chunks, reasoning, cached, calls, no-call-ids";

/// Why the text of a behaviour was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No option has this name.
    #[error("unknown option {word:?}; known are: {WORDS}")]
    Unknown {
        /// The option as it was written.
        word: String,
    },
    /// The argument is missing, superfluous or of the wrong kind.
    #[error("option {word:?} {problem}")]
    Argument {
        /// The option as it was written.
        word: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two options decide the same thing.
    #[error("option {word:?} contradicts an earlier option")]
    Conflict {
        /// The later option.
        word: String,
    },
}

pub(super) fn parse(text: &str) -> Result<Behaviour, FaultError> {
    let mut behaviour = Behaviour::default();
    for option in text.split('+').filter(|option| !option.is_empty()) {
        match option.split_once(':') {
            Some((word, argument)) => apply(&mut behaviour, word, Some(argument))?,
            None => apply(&mut behaviour, option, None)?,
        }
    }
    Ok(behaviour)
}

/// One option as it was written: its name and what follows the first colon.
#[derive(Clone, Copy)]
struct Word<'a> {
    name: &'a str,
    argument: Option<&'a str>,
}

impl Word<'_> {
    fn wrong(self, problem: &'static str) -> FaultError {
        FaultError::Argument { word: self.name.to_owned(), problem }
    }

    fn number<N: std::str::FromStr>(self) -> Result<N, FaultError> {
        let text = self.argument.ok_or_else(|| self.wrong("needs a number"))?;
        text.parse().map_err(|_parse| self.wrong("needs a non-negative whole number"))
    }

    fn number_or<N: std::str::FromStr>(self, otherwise: N) -> Result<N, FaultError> {
        if self.argument.is_none() { Ok(otherwise) } else { self.number() }
    }

    fn bare<T>(self, value: T) -> Result<T, FaultError> {
        match self.argument {
            None => Ok(value),
            Some(_) => Err(self.wrong("takes no argument")),
        }
    }

    /// `503`, or `429:retry-after=2:code=rate_limit_exceeded`.
    fn refusal(self) -> Result<Refusal, FaultError> {
        let mut parts = self.argument.unwrap_or_default().split(':');
        let status = parts.next().and_then(|text| text.parse().ok());
        let status = status
            .filter(|status| (300..600).contains(status))
            .ok_or_else(|| self.wrong("needs a status from 300 to 599"))?;
        let mut refusal = Refusal { status, code: None, retry_after: None, retry_after_ms: None };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(self.wrong("needs its details as key=value"));
            }
            let slot = match key {
                "code" => &mut refusal.code,
                "retry-after" => &mut refusal.retry_after,
                "retry-after-ms" => &mut refusal.retry_after_ms,
                _ => return Err(self.wrong("knows only code, retry-after and retry-after-ms")),
            };
            *slot = Some(value.to_owned());
        }
        Ok(refusal)
    }

    fn fill<T>(self, slot: &mut Option<T>, value: T) -> Result<(), FaultError> {
        match slot {
            None => *slot = Some(value),
            Some(_) => {
                return Err(FaultError::Conflict { word: self.name.to_owned() });
            }
        }
        Ok(())
    }
}

/// The table of all options. Underscores are read as hyphens, for JSON's sake.
fn apply(behaviour: &mut Behaviour, name: &str, argument: Option<&str>) -> Result<(), FaultError> {
    let hyphened = name.replace('_', "-");
    let word = Word { name, argument };
    match hyphened.as_str() {
        "latency" => word.fill(&mut behaviour.latency_ms, word.number()?),
        "pace" => word.fill(&mut behaviour.pace_ms, word.number()?),
        "gate" => word.fill(&mut behaviour.gate, word.bare(Gated)?),
        "chunks" => word.fill(&mut behaviour.chunks, word.number()?),
        "reasoning" => word.fill(&mut behaviour.reasoning_tokens, word.number()?),
        "cached" => word.fill(&mut behaviour.cached_tokens, word.number()?),
        "calls" => word.fill(&mut behaviour.calls, word.number()?),
        "no-call-ids" => word.fill(&mut behaviour.anonymous, word.bare(Anonymous)?),
        "answer-tokens" => word.fill(&mut behaviour.answer, AnswerLength::Tokens(word.number()?)),
        "answer-bytes" => word.fill(&mut behaviour.answer, AnswerLength::Bytes(word.number()?)),
        "empty" => word.fill(&mut behaviour.answer, word.bare(AnswerLength::Tokens(0))?),
        "usage-missing" => word.fill(&mut behaviour.usage, word.bare(UsageLie::Missing)?),
        "usage-twice" => word.fill(&mut behaviour.usage, word.bare(UsageLie::Twice)?),
        "usage-absurd" => word.fill(&mut behaviour.usage, word.bare(UsageLie::Absurd)?),
        "usage-negative" => word.fill(&mut behaviour.usage, word.bare(UsageLie::Negative)?),
        "cut-stream" | "silent-stream" | "no-done" | "error-in-200" | "finish-error"
        | "finish-silent" => word.fill(&mut behaviour.ending, ending(word, &hyphened)?),
        "bad-json" | "bad-sse" | "huge-line" | "content-length" => {
            word.fill(&mut behaviour.damage, damage(word, &hyphened)?)
        }
        _ => word.fill(&mut behaviour.opening, opening(word, &hyphened)?),
    }
}

fn ending(word: Word<'_>, hyphened: &str) -> Result<Ending, FaultError> {
    match hyphened {
        "cut-stream" => Ok(Ending::Cut { after: word.number_or(0)? }),
        "silent-stream" => Ok(Ending::Silence { after: word.number_or(0)? }),
        "error-in-200" => Ok(Ending::Error { after: word.number_or(0)? }),
        "finish-error" => word.bare(Ending::FinishError),
        "finish-silent" => word.bare(Ending::FinishSilence),
        _ => word.bare(Ending::NoDone),
    }
}

fn damage(word: Word<'_>, hyphened: &str) -> Result<Damage, FaultError> {
    match hyphened {
        "bad-json" => word.bare(Damage::BadJson),
        "bad-sse" => Ok(Damage::BadSse { at: word.number_or(1)? }),
        "huge-line" => Ok(Damage::HugeLine { bytes: word.number_or(HUGE_LINE_DEFAULT)? }),
        _ => word.bare(Damage::ContentLength),
    }
}

fn opening(word: Word<'_>, hyphened: &str) -> Result<Opening, FaultError> {
    match hyphened {
        "silent" => word.bare(Opening::Silent),
        "reset" => word.bare(Opening::Reset),
        "status" => word.refusal().map(Opening::Refuse),
        "401" => {
            word.bare(())?;
            Word { name: word.name, argument: Some("401") }.refusal().map(Opening::Refuse)
        }
        "context-length" => match word.argument {
            None => Ok(Opening::ContextLength { maximum: None }),
            Some(_) => Ok(Opening::ContextLength { maximum: Some(word.number()?) }),
        },
        _ => Err(FaultError::Unknown { word: word.name.to_owned() }),
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("silent"),
            Self::Reset => f.write_str("reset"),
            Self::ContextLength { maximum: None } => f.write_str("context-length"),
            Self::ContextLength { maximum: Some(tokens) } => write!(f, "context-length:{tokens}"),
            Self::Refuse(refusal) => {
                write!(f, "status:{}", refusal.status)?;
                let details = [
                    ("code", &refusal.code),
                    ("retry-after", &refusal.retry_after),
                    ("retry-after-ms", &refusal.retry_after_ms),
                ];
                for (key, value) in details {
                    if let Some(value) = value {
                        write!(f, ":{key}={value}")?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { after } => write!(f, "cut-stream:{after}"),
            Self::Silence { after } => write!(f, "silent-stream:{after}"),
            Self::NoDone => f.write_str("no-done"),
            Self::FinishError => f.write_str("finish-error"),
            Self::FinishSilence => f.write_str("finish-silent"),
            Self::Error { after } => write!(f, "error-in-200:{after}"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadJson => f.write_str("bad-json"),
            Self::BadSse { at } => write!(f, "bad-sse:{at}"),
            Self::HugeLine { bytes } => write!(f, "huge-line:{bytes}"),
            Self::ContentLength => f.write_str("content-length"),
        }
    }
}

impl fmt::Display for UsageLie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "usage-missing",
            Self::Twice => "usage-twice",
            Self::Absurd => "usage-absurd",
            Self::Negative => "usage-negative",
        })
    }
}

impl fmt::Display for AnswerLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(tokens) => write!(f, "answer-tokens:{tokens}"),
            Self::Bytes(bytes) => write!(f, "answer-bytes:{bytes}"),
        }
    }
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = [
            self.opening.as_ref().map(ToString::to_string),
            self.latency_ms.map(|ms| format!("latency:{ms}")),
            self.pace_ms.map(|ms| format!("pace:{ms}")),
            self.gate.map(|Gated| "gate".to_owned()),
            self.ending.map(|ending| ending.to_string()),
            self.damage.map(|damage| damage.to_string()),
            self.usage.map(|lie| lie.to_string()),
            self.answer.map(|length| length.to_string()),
            self.chunks.map(|chunks| format!("chunks:{chunks}")),
            self.reasoning_tokens.map(|tokens| format!("reasoning:{tokens}")),
            self.cached_tokens.map(|tokens| format!("cached:{tokens}")),
            self.calls.map(|calls| format!("calls:{calls}")),
            self.anonymous.map(|Anonymous| "no-call-ids".to_owned()),
        ];
        f.write_str(&options.into_iter().flatten().collect::<Vec<_>>().join("+"))
    }
}

impl Serialize for Behaviour {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Behaviour {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BehaviourVisitor)
    }
}

struct BehaviourVisitor;

/// The value of an option in a script's JSON object.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Argument {
    Switch(bool),
    Number(u64),
    Text(String),
}

impl<'de> Visitor<'de> for BehaviourVisitor {
    type Value = Behaviour;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object such as {\"status\": 503} or text such as \"status:503+latency:20\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Behaviour, E> {
        parse(text).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Behaviour, A::Error> {
        let mut behaviour = Behaviour::default();
        while let Some((name, argument)) = map.next_entry::<String, Argument>()? {
            let argument = match argument {
                Argument::Switch(false) => continue,
                Argument::Switch(true) => None,
                Argument::Number(number) => Some(number.to_string()),
                Argument::Text(text) => Some(text),
            };
            apply(&mut behaviour, &name, argument.as_deref()).map_err(de::Error::custom)?;
        }
        Ok(behaviour)
    }
}

#[cfg(test)]
mod tests;
