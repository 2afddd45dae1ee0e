//! JSON that fits a schema, as words: one token each, with spaces between.
//!
//! Takes every property, the first of what may be chosen, and words for texts; nothing is optional
//! and nothing is checked. It serves calls of tools and structured answers. Invariant: the words of
//! a whole sample join to one JSON value.

use std::borrow::Cow;

use serde_json::Value;

use crate::behaviour::AnswerLength;
use crate::prose;

/// Deeper schemas, or ones that hold themselves, end in null.
const DEPTH_MAX: usize = 12;

/// A word of an answer.
pub(super) type Word = Cow<'static, str>;

/// A sample of a schema; an object without one.
pub(super) fn words(schema: &Value, seed: u64) -> Vec<Word> {
    let mut sample = Sample { root: schema, seed, out: Vec::new() };
    if schema.is_object() {
        sample.value(schema, 0);
    } else {
        sample.out.push(Cow::Borrowed("{}"));
    }
    sample.out
}

struct Sample<'s> {
    root: &'s Value,
    seed: u64,
    out: Vec<Word>,
}

impl Sample<'_> {
    fn value(&mut self, schema: &Value, depth: usize) {
        if depth > DEPTH_MAX {
            return self.bare("null");
        }
        let schema = self.followed(schema);
        let chosen = schema.get("const").or_else(|| schema.get("enum").and_then(|e| e.get(0)));
        if let Some(chosen) = chosen {
            return self.out.push(Cow::Owned(chosen.to_string()));
        }
        let branch = ["anyOf", "oneOf", "allOf"].iter().find_map(|word| schema.get(*word)?.get(0));
        if let Some(branch) = branch {
            return self.value(&branch.clone(), depth.saturating_add(1));
        }
        match kind(&schema).to_ascii_lowercase().as_str() {
            "object" => self.object(&schema, depth),
            "array" => {
                self.bare("[");
                if let Some(items) = schema.get("items") {
                    self.value(items, depth.saturating_add(1));
                }
                self.bare("]");
            }
            "string" => self.text(),
            "integer" | "number" => self.bare("7"),
            "boolean" => self.bare("true"),
            _ => self.bare("null"),
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) {
        self.bare("{");
        let properties = schema.get("properties").and_then(Value::as_object);
        for (place, (name, property)) in properties.into_iter().flatten().enumerate() {
            if place > 0 {
                self.bare(",");
            }
            self.out.push(Cow::Owned(format!("{}:", Value::from(name.as_str()))));
            self.value(property, depth.saturating_add(1));
        }
        self.bare("}");
    }

    fn text(&mut self) {
        self.seed = prose::mix(self.seed, 1);
        let said = prose::answer(self.seed, AnswerLength::Tokens(1), 1);
        let word = said.words.first().copied().unwrap_or("a");
        self.out.push(Cow::Owned(format!("\"{word}\"")));
    }

    fn bare(&mut self, word: &'static str) {
        self.out.push(Cow::Borrowed(word));
    }

    /// What a reference into the schema itself refers to.
    fn followed(&self, schema: &Value) -> Value {
        let target = schema.get("$ref").and_then(Value::as_str);
        let found = target.and_then(|t| self.root.pointer(t.strip_prefix('#')?));
        found.unwrap_or(schema).clone()
    }
}

fn kind(schema: &Value) -> &str {
    let kind = schema.get("type");
    let word = kind.and_then(|kind| kind.as_str().or_else(|| kind.get(0)?.as_str()));
    let has_properties = schema.get("properties").is_some();
    word.unwrap_or(if has_properties { "object" } else { "null" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sample_is_json_of_its_schema() {
        let schema = json!({"type": "object", "$defs": {"c": {"enum": ["red", "blue"]}},
            "properties": {"city": {"type": "string"}, "n": {"type": ["integer", "null"]},
                "tags": {"type": "array", "items": {"$ref": "#/$defs/c"}},
                "ok": {"anyOf": [{"type": "boolean"}]}, "x": {}}});
        let text = words(&schema, 3).join(" ");
        let found: Value = serde_json::from_str(&text).unwrap();
        assert!(found["city"].is_string(), "{text}");
        assert_eq!(found["tags"], json!(["red"]));
        assert_eq!(
            (&found["n"], &found["ok"], &found["x"]),
            (&json!(7), &json!(true), &Value::Null)
        );
        assert_eq!(words(&Value::Null, 1).join(" "), "{}");
    }

    #[test]
    fn a_schema_that_holds_itself_ends() {
        let schema = json!({"type": "array", "items": {"$ref": "#"}});
        let text = words(&schema, 1).join(" ");
        assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
    }
}
