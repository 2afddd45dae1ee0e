//! Every key and topic that Anima has in Redis. None is written anywhere else.
//!
//! What stands here is without the operator's prefix (setting `redis_prefix`), which the connection
//! puts in front. The part in braces decides the shard of a Cluster: keys that one script touches
//! share it. Invariant: no key holds the only copy of anything that matters (SPEC 3).

use std::borrow::Cow;

use uuid::Uuid;

use anima_core::quota::{Counter, Span, Tag};

/// The name of one key, without the prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Cow<'static, str>);

impl Key {
    /// The text, without the prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    const fn fixed(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    const fn made(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

/// The name of one pub/sub channel, without the prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Topic(Cow<'static, str>);

impl Topic {
    /// The text, without the prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Announcements of configuration: the number of the last change, in decimal.
    pub const fn config() -> Self {
        Self(Cow::Borrowed("config"))
    }

    /// What is meant for one node alone, such as the wake-up of a waiter.
    pub fn node(node: &str) -> Self {
        Self(Cow::Owned(format!("node:{node}")))
    }

    /// For tests of what is built on topics.
    #[cfg(test)]
    pub(crate) fn of_test(text: &str) -> Self {
        Self(Cow::Owned(format!("test:{text}")))
    }
}

/// Hash: node id → what the node publishes of itself.
pub const fn nodes() -> Key {
    Key::fixed("{nodes}")
}

/// Hash: circuit → its state, of circuits that are not closed.
pub const fn circuits() -> Key {
    Key::fixed("{circuits}")
}

/// Hash: credential, and the model that it rests for → since when and until when.
pub const fn credentials() -> Key {
    Key::fixed("{circuits}:credentials")
}

/// Hash: circuit and node → what the node's window holds, of circuits that are not well.
pub const fn circuit_counts() -> Key {
    Key::fixed("{circuits}:counts")
}

/// Sorted set: probes of a circuit by the end of their lease, milliseconds; and a hash: its opening
/// and how many of its probes passed.
pub fn probes(circuit: &str) -> [Key; 2] {
    // Braces are the shard's.
    let circuit = circuit.replace('%', "%25").replace('{', "%7B").replace('}', "%7D");
    [
        Key::made(format!("{{probes:{circuit}}}:out")),
        Key::made(format!("{{probes:{circuit}}}:opening")),
    ]
}

/// String: the configuration as of the last change, with its number and the hatches, sealed.
pub const fn config_snapshot() -> Key {
    Key::fixed("{config}:snapshot")
}

/// String: a key with its app, sealed.
pub fn key_record(kid: &str) -> Key {
    Key::made(format!("{{key:{kid}}}:record"))
}

/// The hash tag of counters that are judged together.
fn quota_tag(tag: &Tag) -> String {
    match tag {
        Tag::App(code) => format!("{{t:{code}}}"),
        Tag::TokenGroup(code) => format!("{{g:{code}}}"),
        Tag::Channel(code) => format!("{{c:{code}}}"),
    }
}

/// Sorted set: nodes that count here, by when they are taken for dead, milliseconds.
pub const fn quota_nodes() -> Key {
    Key::fixed("{nodes}:limits")
}

/// Sorted set: lines in which calls wait, by when they are taken for empty, milliseconds.
pub const fn quota_lines() -> Key {
    Key::fixed("{lines}")
}

/// Hash: counter → what a call took of it.
pub fn quota_ticket(tag: &Tag, call: Uuid) -> Key {
    Key::made(format!("{}:ticket:{}", quota_tag(tag), call.simple()))
}

/// Who waits under a tag: a sorted set of tenants by their turn, one of calls by tenant and
/// arrival, a hash of what each call waits for, a hash of where tenants stand, a sorted set of the
/// nodes that wait with them, by when they are taken for dead, microseconds, and one of calls by
/// node.
pub fn quota_line(tag: &Tag) -> [Key; 6] {
    let tag = quota_tag(tag);
    ["heads", "line", "seats", "meta", "nodes", "homes"]
        .map(|part| Key::made(format!("{tag}:wq:{part}")))
}

/// String: a charge that was taken from a purse already.
pub fn quota_charge(tag: &Tag, charge: Uuid) -> Key {
    Key::made(format!("{}:charge:{}", quota_tag(tag), charge.simple()))
}

/// A counter: a sorted set of calls by the expiry of their lease, a string with an instant in
/// microseconds, or for a span of money three keys: a hash of amounts, a sorted set of calls by the
/// expiry of what they hold, a hash of what they hold.
pub fn quota_counter(tag: &Tag, counter: &Counter, span: Option<Span>) -> Vec<Key> {
    let (tag, scope) = (quota_tag(tag), counter.scope.word());
    let name = format!("{tag}:{scope}:{}:{}", counter.code, counter.rule);
    let Some(span) = span else { return vec![Key::made(name)] };
    let name = format!("{name}:{}", span.from.micros());
    let part = |part: &str| Key::made(format!("{name}:{part}"));
    vec![part("sum"), part("holds"), part("amounts")]
}

/// Hash: since when a counter of money is known here, in which process, and what that life of it is
/// called.
pub fn quota_birth(tag: &Tag, counter: &Counter) -> Key {
    let (tag, scope) = (quota_tag(tag), counter.scope.word());
    Key::made(format!("{tag}:{scope}:{}:{}:born", counter.code, counter.rule))
}

#[cfg(test)]
pub(crate) fn of_test(text: &str) -> Key {
    Key::made(format!("{{test:{text}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_exactly_one_hash_tag() {
        let [out, opening] = probes("[\"{x}\",null]");
        let [heads, ..] = quota_line(&Tag::App("acme".into()));
        let keys = [
            heads,
            out,
            opening,
            quota_lines(),
            credentials(),
            circuit_counts(),
            nodes(),
            circuits(),
            config_snapshot(),
            key_record("7f"),
            quota_ticket(&Tag::App("acme".into()), Uuid::nil()),
            quota_charge(&Tag::App("acme".into()), Uuid::nil()),
        ];
        for key in keys {
            let text = key.as_str();
            let (open, close) = (text.find('{').unwrap(), text.find('}').unwrap());
            assert!(open + 1 < close, "{text}");
            assert_eq!(text.matches(['{', '}']).count(), 2, "{text}");
        }
    }
}
