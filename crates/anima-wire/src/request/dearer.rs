//! What a client may not ask for, since the call would cost another sum than the one it is sold at.
//!
//! A call is held for, bought and sold at the price of the route's model. Members that let a
//! provider serve another model or another host of it (`OpenRouter`, and proxies like it), and
//! tools and regions with a price of their own that no meter tells, are refused by name, whoever
//! serves. Invariant: none of them passes, also not in another letter case. Sources:
//! `b-outbound-chat` B.3, `e-pricing` E.5, `OpenRouter`'s API reference (read November 2026).

use super::Error;
use super::draft::folds_to;
use crate::dialect::Dialect;
use crate::json::{Cursor, Node};

/// Members that choose another model, another host of it, or what is paid beside it.
const OTHER_MODELS: &[&str] = &["models", "route", "fallbacks", "preset", "provider", "plugins"];

/// Where Anthropic computes: `us` costs a tenth more (E.5), and `global` is what is priced.
const REGION: &str = "inference_geo";
const REGION_PRICED: &[u8] = b"\"global\"";

/// Tools that run at a provider and are paid beside the tokens that a call reports, by how their
/// types begin. Pictures of Responses are tokens of another model, which its usage leaves out.
const TOOLS: &[&str] = &["image_generation", "openrouter:"];

/// Whether a value asks for nothing.
fn is_nothing(raw: &[u8]) -> bool {
    match raw {
        b"null" | b"false" => true,
        [b'[', within @ .., b']'] | [b'{', within @ .., b'}'] => within.trim_ascii().is_empty(),
        _ => false,
    }
}

/// Refuses a member of the body by its name and its JSON, which is asked for only where the name is
/// one of these: to look at a whole prompt takes its time.
pub(super) fn member<'a>(
    dialect: Dialect,
    name: &str,
    raw: impl FnOnce() -> &'a [u8],
) -> Result<(), Error> {
    let is_region = dialect == Dialect::Anthropic && folds_to(name, REGION);
    let other = OTHER_MODELS.iter().find(|member| folds_to(name, member));
    if !is_region && other.is_none() {
        return Ok(());
    }
    let raw = raw();
    if is_nothing(raw) {
        return Ok(());
    }
    if is_region && !(name == REGION && raw == REGION_PRICED) {
        let message = format!(
            "`{REGION}` is not supported but as `global`: elsewhere the call has another price"
        );
        return Err(Error::new(Some(REGION), message));
    }
    let Some(member) = other else {
        return Ok(());
    };
    let message = format!(
        "`{member}` is not supported: the provider could serve what has another price than \
         `model`; remove it"
    );
    Err(Error::new(Some(member), message))
}

/// Reads the tools of a chat, of which none may be paid apart.
pub(super) fn read_tools(cursor: &mut Cursor<'_>) -> Result<(), Error> {
    cursor.elements(|cursor| {
        cursor.members(|cursor, name| {
            let is_type = folds_to(&name.decode(), "type");
            let value = cursor.value()?;
            match value.text().filter(|_| is_type) {
                Some(kind) => tool(&kind.decode()),
                None => Ok(()),
            }
        })?;
        Ok::<(), Error>(())
    })?;
    Ok(())
}

/// The same of a body that was read: also tools in a group of tools.
pub(super) fn tools(root: Node<'_, '_>) -> Result<(), Error> {
    let kind = |tool: Node<'_, '_>| {
        let types = tool.members().filter(|(name, _)| folds_to(name, "type"));
        types.filter_map(|(_, kind)| kind.text()).try_for_each(|kind| self::tool(&kind))
    };
    root.get("tools").iter().flat_map(Node::elements).try_for_each(|group| {
        kind(group)?;
        group.get("tools").iter().flat_map(Node::elements).try_for_each(kind)
    })
}

fn tool(kind: &str) -> Result<(), Error> {
    let folded = kind.to_ascii_lowercase();
    if !TOOLS.iter().any(|paid| folded.starts_with(paid)) {
        return Ok(());
    }
    let shown: String = kind.chars().take(64).collect();
    let message = format!(
        "`tools` of the type `{shown}` are not supported: they are paid apart, and what they cost \
         is not told; pictures are made at `/v1/images/generations`"
    );
    Err(Error::new(Some("tools"), message))
}

#[cfg(test)]
mod tests {
    use crate::dialect::Dialect;
    use crate::request::{CallRequest, Endpoint, Error};

    fn chat(rest: &str) -> Result<CallRequest, Error> {
        let message = r#"{"role":"user","content":"q"}"#;
        let body = format!(r#"{{"model":"m","messages":[{message}]{rest}}}"#);
        CallRequest::parse(Endpoint::ChatCompletions, body.into())
    }

    fn parse(dialect: Dialect, rest: &str) -> Result<CallRequest, Error> {
        let body = format!(r#"{{"model":"m","messages":[],"input":[]{rest}}}"#);
        CallRequest::parse_as(dialect, body.into(), None)
    }

    fn param(read: Result<CallRequest, Error>) -> Option<&'static str> {
        read.map_or_else(|error| error.param, |_| None)
    }

    #[test]
    fn what_could_be_served_by_another_model_is_refused_by_name() {
        for (name, asked) in [
            ("models", r#"["m","openai/gpt-dear"]"#),
            ("route", r#""fallback""#),
            ("fallbacks", r#"["dear"]"#),
            ("preset", r#""mine""#),
            ("provider", r#"{"sort":"throughput"}"#),
            ("plugins", r#"[{"id":"web"}]"#),
        ] {
            let member = format!(r#","{name}":{asked}"#);
            assert_eq!(param(chat(&member)), Some(name), "chat {name}");
            let disguised = format!(r#","{}":{asked}"#, name.to_uppercase());
            assert_eq!(param(chat(&disguised)), Some(name), "chat {disguised}");
            for dialect in [Dialect::Anthropic, Dialect::Responses] {
                assert_eq!(param(parse(dialect, &member)), Some(name), "{dialect:?} {name}");
            }
            for nothing in ["null", "false", "[]", "{}", "[ ]", "{\n}"] {
                let member = format!(r#","{name}":{nothing}"#);
                assert!(chat(&member).is_ok(), "chat {member}");
                assert!(parse(Dialect::Responses, &member).is_ok(), "{member}");
            }
        }
    }

    #[test]
    fn a_region_with_another_price_is_refused_by_name() {
        for asked in [r#""us""#, r#""eu""#, r#"["us"]"#, r#""GLOBAL""#] {
            let member = format!(r#","inference_geo":{asked}"#);
            assert_eq!(param(parse(Dialect::Anthropic, &member)), Some("inference_geo"), "{asked}");
        }
        assert_eq!(
            param(parse(Dialect::Anthropic, r#","Inference_Geo":"us""#)),
            Some("inference_geo")
        );
        for priced in ["null", r#""global""#] {
            let member = format!(r#","inference_geo":{priced}"#);
            assert!(parse(Dialect::Anthropic, &member).is_ok(), "{priced}");
        }
    }

    #[test]
    fn tools_that_are_paid_apart_are_refused_and_others_pass() {
        let paid = [
            r#"{"type":"image_generation","quality":"high"}"#,
            r#"{"Type":"OpenRouter:web_search"}"#,
            r#"{"type":"function","ty\u0070e":"image_g\u0065neration"}"#,
            r#"{"type":"namespace","name":"n","tools":[{"type":"image_generation"}]}"#,
        ];
        for tool in paid {
            let member = format!(r#","tools":[{{"type":"function","name":"f"}},{tool}]"#);
            assert_eq!(param(parse(Dialect::Responses, &member)), Some("tools"), "{tool}");
        }
        for tool in &paid[..3] {
            assert_eq!(param(chat(&format!(r#","tools":[{tool}]"#))), Some("tools"), "{tool}");
        }
        let free = r#","tools":[{"type":"web_search"},{"type":"function","name":"models"},7,
            {"type":"mcp","server_label":"image_generation"}],"tool_choice":"auto""#;
        assert!(parse(Dialect::Responses, free).is_ok());
        assert!(chat(free).is_ok());
        let disguised = format!(r#","Tools":[{}]"#, paid[1]);
        assert_eq!(param(chat(&disguised)), Some("tools"));
        assert_eq!(param(parse(Dialect::Responses, &disguised)), Some("tools"));
        for odd in [r#","tools":null"#, r#","tools":"x""#, r#","tools":{"type":"openrouter:x"}"#] {
            assert!(chat(odd).is_ok(), "{odd}");
        }
    }
}
