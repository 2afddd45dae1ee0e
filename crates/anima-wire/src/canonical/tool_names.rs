//! Names of tools that the provider's dialect does not take, and the way back.
//!
//! Clients name tools as their own dialect allows, and others take fewer signs or shorter names:
//! such a name goes to the provider as another one, and comes back as the client knows it.
//! Invariant: the other name follows from the client's alone, so that all turns of a conversation
//! agree and nothing is kept between the request and its answer. Source: `c-conversion` C.4, 8.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use bytes::Bytes;

use super::answer::Answer;
use super::event::{Event, Opening};
use super::request::{Body, Request, ToolChoice};
use crate::dialect::Dialect;
use crate::json::Outline;
use crate::request::CallRequest;

/// Signs of a name that every dialect takes.
const LENGTH_MAX: usize = 64;

/// What stands before the hash of a name that was changed, and the digits of the hash.
const MARK: &str = "_x";
const DIGITS: usize = 8;

/// What a provider's dialect takes as the name of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToolNames {
    /// Letters, digits, `_` and `-`: `OpenAI`, Anthropic, Bedrock.
    Plain,
    /// Also `.` and `:`, but a letter or `_` first: Gemini.
    Dotted,
}

impl ToolNames {
    /// Renames the tools that a provider would not take, wherever they are named.
    pub(crate) fn apply(self, request: &mut Request<'_>) {
        request.tools.iter_mut().for_each(|tool| self.fit(&mut tool.name));
        match &mut request.tool_choice {
            Some(ToolChoice::Named(name)) => self.fit(name),
            Some(ToolChoice::Among(names, _)) => names.iter_mut().for_each(|name| self.fit(name)),
            Some(ToolChoice::Auto | ToolChoice::None | ToolChoice::Required) | None => {}
        }
        for part in request.turns.iter_mut().flat_map(|turn| &mut turn.parts) {
            if let Body::ToolUse(call) = &mut part.body {
                self.fit(&mut call.name);
            }
        }
    }

    fn fit(self, name: &mut Cow<'_, str>) {
        if !self.takes(name) {
            *name = Cow::Owned(stand_in(name));
        }
    }

    /// An empty name is the client's own fault, and the provider says so.
    fn takes(self, name: &str) -> bool {
        let is_taken =
            |sign: u8| is_plain(sign) || self == Self::Dotted && matches!(sign, b'.' | b':');
        let first = name.bytes().next().unwrap_or(b'_');
        name.len() <= LENGTH_MAX
            && name.bytes().all(is_taken)
            && (self == Self::Plain || first.is_ascii_alphabetic() || first == b'_')
    }
}

const fn is_plain(sign: u8) -> bool {
    sign.is_ascii_alphanumeric() || matches!(sign, b'_' | b'-')
}

/// The name that stands for one that is not taken: what can be read of it, and its hash.
fn stand_in(name: &str) -> String {
    let plain = |sign: char| match u8::try_from(sign) {
        Ok(byte) if is_plain(byte) => sign,
        Ok(_) | Err(_) => '_',
    };
    let first = name.bytes().next().unwrap_or(b'_');
    let leads = if first.is_ascii_digit() || first == b'-' { "_" } else { "" };
    let room = LENGTH_MAX - MARK.len() - DIGITS - leads.len();
    let readable: String = name.chars().map(plain).take(room).collect();
    // FNV-1a.
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{leads}{readable}{MARK}{hash:08x}")
}

/// Whether a name may stand for another one. Hardly any other name looks like it.
fn stands_in(name: &str) -> bool {
    let at = name.len().saturating_sub(MARK.len() + DIGITS);
    name.get(at..).and_then(|end| end.strip_prefix(MARK)).is_some_and(|hash| {
        hash.len() == DIGITS && hash.bytes().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The names that a client knows its tools by, read from its request once one is needed.
#[derive(Debug)]
pub(crate) struct ClientNames {
    dialect: Dialect,
    body: Bytes,
    /// By what stands for them.
    changed: OnceLock<HashMap<String, String>>,
}

impl ClientNames {
    /// Those of a request.
    pub(crate) fn of(request: &CallRequest) -> Self {
        Self { dialect: request.dialect, body: request.body.clone(), changed: OnceLock::new() }
    }

    /// The client's name of a tool that a provider calls. `None` where it is the same.
    pub(crate) fn of_call(&self, name: &str) -> Option<&str> {
        if !stands_in(name) {
            return None;
        }
        let changed = self.changed.get_or_init(|| self.read().unwrap_or_default());
        changed.get(name).map(String::as_str)
    }

    /// Puts them into a whole answer.
    pub(crate) fn restore(&self, answer: &mut Answer<'_>) {
        for part in answer.choices.iter_mut().flat_map(|choice| &mut choice.parts) {
            if let Body::ToolUse(call) = &mut part.body
                && let Some(own) = self.of_call(&call.name)
            {
                call.name = Cow::Owned(own.to_owned());
            }
        }
    }

    /// Puts them into an event of a streamed one.
    pub(crate) fn of_event<'a>(&'a self, mut event: Event<'a>) -> Event<'a> {
        if let Event::Open { opening: Opening::ToolUse(_, name, _), .. } = &mut event
            && let Some(own) = self.of_call(name)
        {
            *name = Cow::Borrowed(own);
        }
        event
    }

    /// A name that some provider would not take, by what stands for it there; no name of the
    /// client's own is taken for another one.
    fn read(&self) -> Option<HashMap<String, String>> {
        let outline = Outline::of_request(&self.body).ok()?;
        let request = self.dialect.read_request(&outline).ok()?;
        let parts = request.turns.iter().flat_map(|turn| &turn.parts);
        let called = parts.filter_map(super::request::Part::as_call).map(|call| &*call.name);
        let names: HashSet<&str> =
            request.tools.iter().map(|tool| &*tool.name).chain(called).collect();
        let both = [ToolNames::Plain, ToolNames::Dotted];
        let changed = names.iter().filter(|name| !both.iter().all(|rule| rule.takes(name)));
        let by_other = changed.map(|name| (stand_in(name), (*name).to_owned()));
        Some(by_other.filter(|(other, _)| !names.contains(other.as_str())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{Destination, lookup};
    use serde_json::{Value, json};

    #[test]
    fn what_stands_for_a_name_is_taken_by_all_and_like_no_other() {
        let long = "mcp__a_server__".repeat(9);
        let other = format!("{long}b");
        for name in [
            "my.tool",
            "my:tool",
            "my_tool ",
            "Wetter für München",
            "天気",
            "-a.b",
            "7.up",
            &long,
            &other,
        ] {
            let changed = stand_in(name);
            assert!(
                ToolNames::Plain.takes(&changed) && ToolNames::Dotted.takes(&changed),
                "{changed}"
            );
            assert!(stands_in(&changed), "{changed}");
            assert_eq!(changed, stand_in(name));
        }
        assert_ne!(stand_in("my.tool"), stand_in("my:tool"));
        assert_ne!(stand_in(&long), stand_in(&other), "what is cut off counts");
        assert!(stand_in("my.tool").starts_with("my_tool_x"));
    }

    #[test]
    fn names_that_are_taken_stay() {
        for name in ["get_weather", "a", "A-1", "_", "", &"a".repeat(64)] {
            assert!(ToolNames::Plain.takes(name) && ToolNames::Dotted.takes(name), "{name}");
            assert!(!stands_in(name), "{name}");
        }
        assert!(ToolNames::Dotted.takes("my.tool:a") && !ToolNames::Plain.takes("my.tool"));
        assert!(!ToolNames::Dotted.takes("1st") && ToolNames::Plain.takes("1st"));
        assert!(!ToolNames::Plain.takes(&"a".repeat(65)));
    }

    /// A client of Gemini's whose tools have dots, in all places where they are named.
    fn call(stream: bool) -> CallRequest {
        let body = json!({
            "contents": [
                {"role": "user", "parts": [{"text": "q"}]},
                {"role": "model", "parts": [{"functionCall": {"name": "old.tool", "args": {}}}]},
                {"role": "user", "parts": [
                    {"functionResponse": {"name": "old.tool", "response": {"ok": true}}}]},
            ],
            "tools": [{"functionDeclarations": [
                {"name": "my.tool", "parameters": {"type": "OBJECT"}},
                {"name": "plain", "parameters": {"type": "OBJECT"}}]}],
            "toolConfig": {"functionCallingConfig": {
                "mode": "ANY", "allowedFunctionNames": ["my.tool"]}},
        });
        let named = Some(("m", stream));
        CallRequest::parse_as(Dialect::Gemini, body.to_string().into(), named).unwrap()
    }

    #[test]
    fn a_provider_sees_names_that_it_takes_and_the_client_its_own() {
        let (mine, old) = (stand_in("my.tool"), stand_in("old.tool"));
        let openai = lookup("openai").unwrap();
        let sent = openai.encode(&call(false), Destination::bare("gpt")).unwrap().body.concat();
        let sent: Value = serde_json::from_slice(&sent).unwrap();
        assert_eq!(sent["tools"][0]["function"]["name"], mine);
        assert_eq!(sent["tools"][1]["function"]["name"], "plain");
        assert_eq!(sent["tool_choice"]["function"]["name"], mine);
        assert_eq!(sent["messages"][1]["tool_calls"][0]["function"]["name"], old);

        let called = |name: &str| {
            json!({"id": "c", "type": "function", "index": 0,
            "function": {"name": name, "arguments": "{}"}})
        };
        let calls = json!([called(&mine), called("plain"), called("_x01234567")]);
        let usage = json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2});
        let answer = json!({"id": "i", "model": "gpt", "usage": usage, "choices": [{
            "index": 0, "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": null, "tool_calls": calls}}]});
        let told = openai.answer(&call(false), &answer.to_string().into()).unwrap().body;
        let told: Value = serde_json::from_slice(&told).unwrap();
        let parts = &told["candidates"][0]["content"]["parts"];
        let names = [0, 1, 2].map(|n| parts[n]["functionCall"]["name"].as_str().unwrap());
        assert_eq!(names, ["my.tool", "plain", "_x01234567"]);

        let chunk = json!({"id": "i", "model": "gpt", "choices": [{
            "index": 0, "delta": {"tool_calls": [called(&mine)]}}]});
        let last = json!({"id": "i", "model": "gpt", "usage": usage, "choices": [{
            "index": 0, "delta": {}, "finish_reason": "tool_calls"}]});
        let mut stream = openai.stream(&call(true));
        let mut out = Vec::new();
        let events = format!("data: {chunk}\n\ndata: {last}\n\ndata: [DONE]\n\n");
        stream.push(events.into(), &mut out).unwrap();
        out.push(stream.terminator());
        let text = String::from_utf8(out.concat()).unwrap();
        assert!(text.contains(r#""name":"my.tool""#) && !text.contains(&mine), "{text}");
    }

    #[test]
    fn a_tool_that_looks_like_another_one_is_itself() {
        let name = stand_in("my.tool");
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "q"}],
            "tools": [{"name": name, "input_schema": {"type": "object"}}]});
        let call =
            CallRequest::parse_as(Dialect::Anthropic, body.to_string().into(), None).unwrap();
        assert_eq!(ClientNames::of(&call).of_call(&name), None);
    }
}
