//! All requests under one idempotency key: sold once at most, sent no more once one is sold, and
//! one answer to all who ask.
//!
//! Not here: each request on its own (`case`). Invariant: which holds are of a key is what the
//! books say, by its API key and the time, and not what clients saw. Source: `docs/idempotency.md`.

use std::collections::BTreeMap;

use super::case::Case;
use super::{Class, Finding};
use crate::load::Seen;
use crate::once::Told;

/// How much earlier than it was sent a call may seem to be held.
const SLACK_US: i64 = 500_000;

/// What was done under keys.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) keys: usize,
    /// Calls under a key beyond its first.
    pub(crate) again: usize,
    /// Stored answers that clients got.
    pub(crate) stored: usize,
}

/// One key.
#[derive(Default)]
struct Use<'a> {
    told: Vec<(&'a Seen, &'a Told)>,
    /// In the order in which they were held.
    requests: Vec<(&'a str, &'a Case<'a>)>,
}

/// Looks at every key.
pub(super) fn judge(cases: &BTreeMap<&str, Case<'_>>, seen: &[Seen]) -> (Figures, Vec<Finding>) {
    let mut figures = Figures::default();
    let mut findings = Vec::new();
    for used in by_key(cases, seen).values() {
        figures.keys += 1;
        figures.again += used.told.len().saturating_sub(1);
        let stored = |(seen, told): &&(&Seen, &Told)| seen.complete && told.original.is_some();
        figures.stored += used.told.iter().filter(stored).count();
        findings.extend(used.judge().into_iter().map(|(class, request, what)| {
            let name = used.told.first().map_or("", |(_, told)| told.under.name.as_str());
            Finding { class, request, what: format!("{what}, under the key {name}") }
        }));
    }
    (figures, findings)
}

/// By API key, and by when its idempotency key was first sent.
fn by_key<'a>(
    cases: &'a BTreeMap<&'a str, Case<'a>>,
    seen: &'a [Seen],
) -> BTreeMap<(&'a str, i64), Use<'a>> {
    let mut by_key: BTreeMap<(&str, i64), Use<'a>> = BTreeMap::new();
    for (seen, told) in seen.iter().filter_map(|seen| Some((seen, seen.once.as_ref()?))) {
        let key = (told.under.kid.as_str(), told.under.first_us);
        by_key.entry(key).or_default().told.push((seen, told));
    }
    for (id, case) in cases {
        let Some(hold) = case.hold else { continue };
        let until = (hold.kid.as_str(), hold.created_us + SLACK_US);
        let used = by_key.range_mut((hold.kid.as_str(), i64::MIN)..=until).next_back();
        if let Some((_, used)) = used {
            used.requests.push((*id, case));
        }
    }
    for used in by_key.values_mut() {
        used.requests.sort_by_key(|(_, case)| case.hold.map(|hold| hold.created_us));
    }
    by_key
}

impl Use<'_> {
    fn judge(&self) -> Vec<(Class, String, String)> {
        let mut found = Vec::new();
        let mut sold = None;
        for (id, case) in &self.requests {
            let again = match (sold, case.is_sold(), case.calls.is_empty()) {
                (Some(first), true, _) => format!("sold again after {first}"),
                (Some(first), false, false) => format!("sent again after {first} was sold"),
                (Some(_), false, true) | (None, ..) => String::new(),
            };
            if !again.is_empty() {
                found.push((Class::Double, (*id).to_owned(), again));
            }
            sold = sold.or_else(|| case.is_sold().then_some(*id));
        }
        let mut first: Option<u64> = None;
        for (seen, told) in &self.told {
            let own = seen.request_id.as_deref();
            let of = told.original.as_deref().or(own).unwrap_or_default();
            let mut finding = |class, what: &str| found.push((class, of.to_owned(), what.into()));
            let request = self.requests.iter().find(|(id, _)| *id == of);
            // Who waits beside the first also shares its failure, which may come before any hold.
            let is_stored = seen.status == Some(200) && told.original.is_some();
            if is_stored && request.is_none() {
                finding(Class::Phantom, "a stored answer of a call that was never held");
            }
            if seen.complete && request.is_some_and(|(_, case)| case.is_sold()) {
                if first.is_some_and(|answer| answer != told.answer) {
                    finding(Class::Wrong, "another answer than the one before");
                }
                first = Some(told.answer);
            }
            let known = ["idempotency_in_progress", "idempotency_answer_gone"];
            if seen.status == Some(409) && !known.contains(&told.code.as_str()) {
                finding(Class::Wrong, &format!("refused with {}", told.code));
            }
        }
        found
    }
}
