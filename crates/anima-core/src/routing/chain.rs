//! Fallback chains: which alias follows which, and that none leads back to where it came from.
//!
//! Invariant: a chain is of bounded depth and names no alias twice.

use std::collections::BTreeSet;

use crate::config::Fallbacks;
use crate::failure::Class;

/// How deep fallbacks of fallbacks go.
pub const DEPTH_MAX: usize = 4;

impl Fallbacks {
    /// The aliases to try after a failure of a class. What has no list of its own follows the
    /// general one, but for a request that would fare no better elsewhere unless told so.
    pub fn after(&self, class: Class) -> &[String] {
        let own = match class {
            Class::Error => &self.error,
            Class::RateLimited => &self.rate_limited,
            Class::Timeout => &self.timeout,
            Class::ContextWindow => return &self.context_window,
            Class::ContentPolicy => return &self.content_policy,
        };
        if own.is_empty() { &self.error } else { own }
    }

    /// Every list, with the member's name.
    pub fn lists(&self) -> [(&'static str, &[String]); 5] {
        [
            ("error", &self.error),
            ("rate_limited", &self.rate_limited),
            ("context_window", &self.context_window),
            ("content_policy", &self.content_policy),
            ("timeout", &self.timeout),
        ]
    }
}

/// Finds a way from an alias over its fallbacks back to itself: the member at which it starts, and
/// the aliases along it.
pub fn cycle(
    alias: &str,
    fallbacks: &Fallbacks,
    of: impl Fn(&str) -> Fallbacks,
) -> Option<(String, Vec<String>)> {
    for (class, list) in fallbacks.lists() {
        for (n, next) in list.iter().enumerate() {
            let mut seen = BTreeSet::new();
            let mut path = vec![alias.to_owned()];
            if leads_to(alias, next, &of, &mut seen, &mut path) {
                return Some((format!("fallbacks.{class}[{n}]"), path));
            }
        }
    }
    None
}

fn leads_to(
    target: &str,
    from: &str,
    of: &impl Fn(&str) -> Fallbacks,
    seen: &mut BTreeSet<String>,
    path: &mut Vec<String>,
) -> bool {
    path.push(from.to_owned());
    if from == target {
        return true;
    }
    if seen.insert(from.to_owned()) {
        let fallbacks = of(from);
        for (_, list) in fallbacks.lists() {
            if list.iter().any(|next| leads_to(target, next, of, seen, path)) {
                return true;
            }
        }
    }
    path.pop();
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(list: &[&str]) -> Fallbacks {
        let error = list.iter().map(|&alias| alias.to_owned()).collect();
        Fallbacks { error, ..Fallbacks::default() }
    }

    #[test]
    fn a_way_back_is_found_over_any_class_and_named() {
        let others = |alias: &str| match alias {
            "b" => error(&["c"]),
            "c" => Fallbacks { timeout: vec!["a".into()], ..Fallbacks::default() },
            _ => Fallbacks::default(),
        };
        let (member, path) = cycle("a", &error(&["x", "b"]), others).unwrap();
        assert_eq!(member, "fallbacks.error[1]");
        assert_eq!(path, ["a", "b", "c", "a"]);
        assert_eq!(cycle("a", &error(&["a"]), others).unwrap().1, ["a", "a"]);
        assert_eq!(cycle("d", &error(&["b"]), others), None, "a ring elsewhere is another's");
    }

    #[test]
    fn a_class_without_a_list_follows_the_general_one_unless_the_request_is_at_fault() {
        let fallbacks = error(&["b"]);
        assert_eq!(fallbacks.after(Class::RateLimited), ["b"]);
        assert_eq!(fallbacks.after(Class::Timeout), ["b"]);
        assert!(fallbacks.after(Class::ContextWindow).is_empty());
        assert!(fallbacks.after(Class::ContentPolicy).is_empty());
    }
}
