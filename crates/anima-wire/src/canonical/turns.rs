//! Puts turns in order: one role never twice in a row, and each call with its result.
//!
//! Dialects that insist on this (`Anthropic`, Gemini) answer 400 otherwise, and clients whose
//! own dialect does not insist send anything. Invariant: after [`paired`], the turn after a call
//! begins with the results of all calls, and no result stands anywhere else.
//! Source: `c-conversion` C.4, rules 3, 4 and 6.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::request::{Body, Part, Role, ToolResult, ToolUse, Turn};

/// What stands for the result of a call that was never answered.
const INTERRUPTED: &str = "The call was interrupted and has no result.";

/// Adds a part to the last turn if that is of the role, and to a turn of its own otherwise.
pub(crate) fn push_part<'a>(turns: &mut Vec<Turn<'a>>, role: Role, part: Part<'a>) {
    match turns.last_mut() {
        Some(turn) if turn.role == role => turn.parts.push(part),
        _ => turns.push(Turn { role, parts: vec![part] }),
    }
}

/// The conversation without its instructions: results right after their calls, in the order of
/// the calls; results of unknown calls as text; calls without a result interrupted.
pub(crate) fn paired<'a>(turns: &[Turn<'a>]) -> Vec<Turn<'a>> {
    let mut out: Vec<Turn<'a>> = Vec::with_capacity(turns.len());
    for turn in turns.iter().filter(|turn| turn.role != Role::System) {
        let is_answer = turn.role == Role::User;
        let mut results = Results::of(if is_answer { &turn.parts } else { &[] });
        answer_calls(&mut out, &mut results);
        for part in results.left().flat_map(as_text) {
            push_part(&mut out, Role::User, part);
        }
        for part in turn.parts.iter().filter(|part| !is_answer || part.as_result().is_none()) {
            push_part(&mut out, turn.role, part.clone());
        }
    }
    answer_calls(&mut out, &mut Results::of(&[]));
    out
}

/// The results of a turn, to be taken by the ids of their calls. Callers choose how many there
/// are, so that they are not searched one by one.
struct Results<'r, 'a> {
    parts: Vec<Option<&'r Part<'a>>>,
    /// Where the results of a call stand, the first one last.
    by_id: BTreeMap<&'r str, Vec<usize>>,
}

impl<'r, 'a> Results<'r, 'a> {
    fn of(parts: &'r [Part<'a>]) -> Self {
        let mut by_id = BTreeMap::<_, Vec<_>>::new();
        for (at, part) in parts.iter().enumerate().rev() {
            if let Some(result) = part.as_result() {
                by_id.entry(&*result.id).or_default().push(at);
            }
        }
        let parts = parts.iter().map(|part| part.as_result().map(|_| part)).collect();
        Self { parts, by_id }
    }

    fn take(&mut self, id: &str) -> Option<Part<'a>> {
        let at = self.by_id.get_mut(id)?.pop()?;
        self.parts.get_mut(at)?.take().cloned()
    }

    /// What nobody has taken.
    fn left(self) -> impl Iterator<Item = Part<'a>> {
        self.parts.into_iter().flatten().cloned()
    }
}

/// Answers the calls of the last turn, taking the answers out of `results`.
fn answer_calls<'a>(out: &mut Vec<Turn<'a>>, results: &mut Results<'_, 'a>) {
    let Some(last) = out.last().filter(|turn| turn.role == Role::Assistant) else {
        return;
    };
    let answer = |call: &ToolUse<'a>| {
        results.take(&call.id).unwrap_or_else(|| {
            Part::new(Body::ToolResult(ToolResult {
                id: call.id.clone(),
                content: vec![Part::text(INTERRUPTED)],
                is_error: true,
            }))
        })
    };
    let parts: Vec<_> = last.parts.iter().filter_map(Part::as_call).map(answer).collect();
    if !parts.is_empty() {
        out.push(Turn { role: Role::User, parts });
    }
}

/// A result without a call, as the user's words.
fn as_text(part: Part<'_>) -> Vec<Part<'_>> {
    if let Body::ToolResult(result) = part.body { result.content } else { vec![part] }
}

/// All text of parts, joined.
pub(crate) fn plain_text<'s>(parts: &'s [Part<'_>]) -> Cow<'s, str> {
    let mut texts = parts.iter().filter_map(Part::as_text);
    let first = texts.next().unwrap_or_default();
    let mut rest = texts.peekable();
    if rest.peek().is_none() {
        return Cow::Borrowed(first);
    }
    Cow::Owned(std::iter::once(first).chain(rest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &'static str) -> Part<'static> {
        let (name, arguments) = ("f".into(), "{}".into());
        Part::new(Body::ToolUse(ToolUse { id: id.into(), name, arguments }))
    }

    fn result(id: &'static str, text: &'static str) -> Part<'static> {
        let content = vec![Part::text(text)];
        Part::new(Body::ToolResult(ToolResult { id: id.into(), content, is_error: false }))
    }

    fn turn(role: Role, parts: Vec<Part<'static>>) -> Turn<'static> {
        Turn { role, parts }
    }

    #[test]
    fn results_follow_their_calls_in_order_and_first() {
        let turns = [
            turn(Role::System, vec![Part::text("s")]),
            turn(Role::User, vec![Part::text("q")]),
            turn(Role::Assistant, vec![call("a"), call("b")]),
            turn(Role::User, vec![Part::text("and"), result("b", "2"), result("a", "1")]),
        ];
        let expected = [
            turn(Role::User, vec![Part::text("q")]),
            turn(Role::Assistant, vec![call("a"), call("b")]),
            turn(Role::User, vec![result("a", "1"), result("b", "2"), Part::text("and")]),
        ];
        assert_eq!(paired(&turns), expected);
    }

    #[test]
    fn orphans_become_text_and_open_calls_are_interrupted() {
        let turns = [
            turn(Role::User, vec![result("x", "lost")]),
            turn(Role::Assistant, vec![call("a")]),
            turn(Role::User, vec![Part::text("never mind")]),
        ];
        let found = paired(&turns);
        assert_eq!(found[0], turn(Role::User, vec![Part::text("lost")]));
        let Body::ToolResult(answer) = &found[2].parts[0].body else { panic!("no result") };
        assert!(answer.is_error && answer.id == "a");
        assert_eq!(found[2].parts[1], Part::text("never mind"));
    }

    #[test]
    fn very_many_calls_take_no_longer_than_their_number() {
        let ids: Vec<String> = (0..50_000).map(|at| format!("call_{at}")).collect();
        let made = |id: &str| {
            let (id, name) = (id.to_owned().into(), "f".into());
            Part::new(Body::ToolUse(ToolUse { id, name, arguments: "{}".into() }))
        };
        let said = |id: &str| {
            let content = vec![Part::text("x")];
            let id = id.to_owned().into();
            Part::new(Body::ToolResult(ToolResult { id, content, is_error: false }))
        };
        let calls = ids.iter().map(|id| made(id)).collect();
        let results = ids.iter().rev().map(|id| said(id)).collect();
        let turns = [turn(Role::Assistant, calls), turn(Role::User, results)];
        let found = paired(&turns);
        assert_eq!(found[1].parts.len(), 50_000);
        assert_eq!(found[1].parts[0], said("call_0"));
    }

    #[test]
    fn a_call_at_the_end_is_interrupted_too() {
        assert_eq!(paired(&[turn(Role::Assistant, vec![call("a")])]).len(), 2);
    }
}
