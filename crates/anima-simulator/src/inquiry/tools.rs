//! Tools and forms: what an answer is to be, other than prose.
//!
//! A caller who offers tools gets calls of them, unless it forbids that or has just told what a
//! tool said; one call, where it forces a certain tool or wants one at a time. A caller who wants
//! JSON gets some of its schema. Each dialect writes this in its own way; here it is one.
//! Invariant: a tool that is called was offered.

use serde_json::Value;

use crate::refusal::ErrorBody;

/// What the answer is to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Wanted {
    /// Words.
    #[default]
    Prose,
    /// Calls of these, in turn. Not empty.
    Calls(Vec<Tool>),
    /// One call of this, whatever the script says.
    Call(Tool),
    /// JSON of a schema.
    Json(Value),
}

/// A tool as it was offered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tool {
    pub(crate) name: String,
    /// JSON schema of its arguments.
    pub(crate) schema: Value,
}

/// What the caller says about tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Auto,
    Never,
    Must,
    This(String),
}

/// All that decides what the answer is to be.
#[derive(Debug, Default)]
pub(super) struct Wish {
    pub(super) tools: Vec<Tool>,
    pub(super) choice: Option<Choice>,
    /// Whether several calls at once are unwelcome.
    pub(super) serial: bool,
    /// Whether the conversation ends with what a tool said.
    pub(super) answered: bool,
    /// The schema of the text.
    pub(super) format: Option<Value>,
}

/// What a dialect takes as the name of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Up to 64 letters, digits, `_` and `-`.
    Plain,
    /// The same, up to 128.
    Long,
    /// Also `.` and `:`, with a letter or `_` first.
    Dotted,
}

impl Names {
    fn takes(self, name: &str) -> bool {
        let is_taken = |sign: u8| {
            let is_dot = self == Self::Dotted && matches!(sign, b'.' | b':');
            sign.is_ascii_alphanumeric() || matches!(sign, b'_' | b'-') || is_dot
        };
        let longest = if self == Self::Long { 128 } else { 64 };
        let leads = |first: char| first.is_ascii_alphabetic() || first == '_';
        (1..=longest).contains(&name.len())
            && name.bytes().all(is_taken)
            && (self != Self::Dotted || name.starts_with(leads))
    }
}

impl Wanted {
    /// What a caller wants whose tools have names that the dialect takes.
    pub(super) fn named(wish: Wish, names: Names) -> Result<Self, ErrorBody> {
        match wish.tools.iter().find(|tool| !names.takes(&tool.name)) {
            Some(Tool { name, .. }) => {
                let message = format!("'{name}' does not match the pattern of a tool's name.");
                Err(ErrorBody::invalid(message))
            }
            None => Ok(Self::of(wish)),
        }
    }

    fn of(wish: Wish) -> Self {
        let prose = |format: Option<Value>| format.map_or(Self::Prose, Self::Json);
        let mut tools = wish.tools;
        let is_forced = match wish.choice.unwrap_or(Choice::Auto) {
            Choice::Never => return prose(wish.format),
            Choice::Auto if wish.answered => return prose(wish.format),
            Choice::Auto => false,
            Choice::Must => true,
            Choice::This(name) => {
                tools.retain(|tool| tool.name == name);
                true
            }
        };
        let is_one = wish.serial || (is_forced && tools.len() == 1);
        match tools.first() {
            None => prose(wish.format),
            Some(first) if is_one => Self::Call(first.clone()),
            Some(_) => Self::Calls(tools),
        }
    }
}

/// A tool of `OpenAI`'s: nested in chat, flat in Responses.
#[derive(Debug, serde::Deserialize)]
pub(super) struct ToolBody {
    function: Option<Function>,
}

#[derive(Debug, serde::Deserialize)]
struct Function {
    name: String,
    parameters: Option<Value>,
}

pub(super) fn of_bodies(bodies: Vec<ToolBody>) -> Vec<Tool> {
    let tool = |function: Function| Tool {
        name: function.name,
        schema: function.parameters.unwrap_or_default(),
    };
    bodies.into_iter().filter_map(|body| body.function).map(tool).collect()
}

/// The tools of a list whose entries hold name and schema themselves.
pub(super) fn flat(list: Option<&Value>, schema: &[&str]) -> Vec<Tool> {
    let tool = |entry: &Value| {
        let schema = schema.iter().find_map(|member| entry.get(*member));
        let name = entry.get("name")?.as_str()?.to_owned();
        Some(Tool { name, schema: schema.cloned().unwrap_or_default() })
    };
    list.and_then(Value::as_array).into_iter().flatten().filter_map(tool).collect()
}

/// `tool_choice` of `OpenAI`'s, in both its dialects.
pub(super) fn openai_choice(choice: &Value) -> Choice {
    let named = choice.get("function").unwrap_or(choice).get("name").and_then(Value::as_str);
    match (choice.as_str(), named) {
        (Some("none"), _) => Choice::Never,
        (Some("required"), _) => Choice::Must,
        (_, Some(name)) => Choice::This(name.to_owned()),
        _ => Choice::Auto,
    }
}

/// The schema of `response_format`, and of `text.format`.
pub(super) fn openai_format(format: &Value) -> Option<Value> {
    match format.get("type")?.as_str()? {
        "json_object" => Some(Value::Null),
        "json_schema" => Some(format.get("json_schema").unwrap_or(format).get("schema")?.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(name: &str) -> Tool {
        Tool { name: name.into(), schema: Value::Null }
    }

    fn wish(choice: Option<Choice>, answered: bool) -> Wanted {
        let tools = vec![tool("a"), tool("b")];
        Wanted::of(Wish { tools, choice, serial: false, answered, format: Some(json!({})) })
    }

    #[test]
    fn names_are_taken_as_the_dialect_says() {
        let takes = |name: &str| [Names::Plain, Names::Long, Names::Dotted].map(|n| n.takes(name));
        assert_eq!(takes("get_weather-1"), [true; 3]);
        assert_eq!(takes("my.tool:a"), [false, false, true]);
        assert_eq!(takes("7up"), [true, true, false]);
        assert_eq!(takes(&"a".repeat(65)), [false, true, false]);
        assert_eq!(takes(&"a".repeat(129)), [false; 3]);
        assert_eq!(takes(""), [false; 3]);
        let wish = || Wish { tools: vec![tool("my.tool")], ..Wish::default() };
        assert!(Wanted::named(wish(), Names::Plain).is_err());
        assert!(matches!(Wanted::named(wish(), Names::Dotted), Ok(Wanted::Calls(_))));
    }

    #[test]
    fn tools_are_called_unless_they_were_or_must_not_be() {
        assert_eq!(wish(None, false), Wanted::Calls(vec![tool("a"), tool("b")]));
        assert_eq!(wish(None, true), Wanted::Json(json!({})));
        assert_eq!(wish(Some(Choice::Never), false), Wanted::Json(json!({})));
        assert_eq!(wish(Some(Choice::This("b".into())), true), Wanted::Call(tool("b")));
        assert_eq!(wish(Some(Choice::Must), true), wish(None, false));
        let serial = Wish { tools: vec![tool("a"), tool("b")], serial: true, ..Wish::default() };
        assert_eq!(Wanted::of(serial), Wanted::Call(tool("a")));
        assert_eq!(wish(Some(Choice::This("c".into())), true), Wanted::Json(json!({})));
    }

    #[test]
    fn the_choice_is_read_in_both_forms() {
        assert_eq!(openai_choice(&json!("none")), Choice::Never);
        assert_eq!(openai_choice(&json!("required")), Choice::Must);
        let this = Choice::This("f".into());
        assert_eq!(openai_choice(&json!({"type": "function", "name": "f"})), this);
        let nested = json!({"type": "function", "function": {"name": "f"}});
        assert_eq!(openai_choice(&nested), this);
    }
}
