//! Side doors: things that one place does, so that it can be found, limited and tested there.
//!
//! SQL text, the environment and outgoing HTTP each have one home.
//! Invariant: test code is not judged; a test may look behind the curtain.

use super::Finding;
use super::source::{Source, Tree};

/// A door: its rule, where it may be, the code that goes through it, and what to do instead.
struct Door {
    rule: &'static str,
    homes: &'static [&'static str],
    code: &'static [&'static str],
    instead: &'static str,
}

const DOORS: &[Door] = &[
    Door {
        rule: "environment-in-settings",
        homes: &["crates/anima/src/settings"],
        code: &["env::var", "env::vars", "env::set_var", "env::remove_var"],
        instead: "the environment is read in `settings` only; take a value",
    },
    Door {
        rule: "one-http-client",
        homes: &["crates/anima/src/outbound"],
        code: &["hyper_util::client", "hyper::client", "hyper_rustls", "reqwest::"],
        instead: "outgoing HTTP goes through `outbound`, which holds the limits and the guard",
    },
    Door {
        rule: "one-database-home",
        homes: &["crates/anima-store/"],
        code: &["rusqlite::", "tokio_postgres::", "deadpool_postgres::", "refinery::"],
        instead: "databases are `anima-store`'s; use one of its traits",
    },
    Door {
        rule: "anyhow-at-the-edge",
        homes: &["crates/anima/src/main.rs", "crates/anima/src/cli"],
        code: &["anyhow::", "anyhow!"],
        instead: "errors are types; `anyhow` is for `main.rs`, `cli` and xtask",
    },
];

/// How a statement starts and what must follow in the same literal.
const SQL: &[(&str, &str)] = &[
    ("SELECT ", " FROM "),
    ("INSERT ", "INTO "),
    ("UPDATE ", " SET "),
    ("DELETE ", "FROM "),
    ("CREATE ", " TABLE "),
    ("PRAGMA ", ""),
];

pub(super) fn check(tree: &Tree, found: &mut Vec<Finding>) {
    let ours = tree.sources.iter().filter(|source| source.path.starts_with("crates/"));
    for source in ours.filter(|source| !source.is_test()) {
        for door in DOORS {
            doors(source, door, found);
        }
        statements(source, found);
    }
}

fn doors(source: &Source, door: &Door, found: &mut Vec<Finding>) {
    if door.homes.iter().any(|home| source.path.starts_with(home)) {
        return;
    }
    for (number, line) in source.live.lines().enumerate() {
        if door.code.iter().any(|code| line.contains(code)) {
            let place = format!("{}:{}", source.path, number + 1);
            found.push(Finding::new(door.rule, place, door.instead));
        }
    }
}

fn statements(source: &Source, found: &mut Vec<Finding>) {
    if source.path.starts_with("crates/anima-store/") {
        return;
    }
    let live = source.live_lines();
    for (line, text) in source.lexed.strings.iter().filter(|(line, _)| *line <= live) {
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if SQL.iter().any(|(start, then)| flat.starts_with(start) && flat.contains(then)) {
            let place = format!("{}:{line}", source.path);
            found.push(Finding::new("sql-in-store", place, "SQL is written in `anima-store` only"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        let tree = Tree { sources: vec![Source::new(path, text)], ..Tree::default() };
        let mut found = Vec::new();
        check(&tree, &mut found);
        found.iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn statements_are_for_the_store() {
        let text = "const Q: &str = \"SELECT a\n FROM b\";\n";
        assert_eq!(rules("crates/anima/src/admin.rs", text), ["sql-in-store"]);
        assert!(rules("crates/anima-store/src/keys.rs", text).is_empty());
        assert!(rules("crates/anima/src/admin.rs", "//! SELECT a FROM b\n").is_empty());
    }

    #[test]
    fn the_environment_is_for_settings() {
        let text = "let a = std::env::var(\"A\");\n";
        assert_eq!(rules("crates/anima/src/boot.rs", text), ["environment-in-settings"]);
        assert!(rules("crates/anima/src/settings/file.rs", text).is_empty());
        assert!(rules("crates/anima/tests/it/main.rs", text).is_empty());
    }
}
