//! Folders that must agree with something: migrations with each other, error pages with names.
//!
//! That every failure code has its page is a test beside the table of failures; here only what can
//! be seen without compiling.
//! Invariant: both databases have the same migrations, by name.

use std::collections::BTreeSet;

use super::Finding;
use super::source::Tree;

const MIGRATIONS: &str = "crates/anima-store/migrations/";

pub(super) fn check(tree: &Tree, found: &mut Vec<Finding>) {
    modules(tree, found);
    error_pages(tree, found);
    let (postgres, sqlite) = (names(tree, "postgres/"), names(tree, "sqlite/"));
    for name in postgres.symmetric_difference(&sqlite) {
        let message = "a migration that only one of the two databases has";
        found.push(Finding::new(
            "twin-migrations",
            format!("{MIGRATIONS}*/{name}"),
            message,
        ));
    }
}

fn modules(tree: &Tree, found: &mut Vec<Finding>) {
    for source in tree
        .sources
        .iter()
        .filter(|source| source.path.ends_with("/mod.rs"))
    {
        let message = "modules are `foo.rs` beside `foo/`";
        found.push(Finding::new("no-mod-rs", source.path.as_str(), message));
    }
}

fn error_pages(tree: &Tree, found: &mut Vec<Finding>) {
    for (path, text) in &tree.others {
        let Some(name) = path.strip_prefix("docs/errors/") else {
            continue;
        };
        let Some(code) = name.strip_suffix(".md").filter(|code| *code != "README") else {
            continue;
        };
        let title = text.lines().next().unwrap_or_default();
        if title.trim_start_matches("# ").trim_matches('`') != code || text.lines().count() < 3 {
            let message = format!("starts with `# {code}` and says what happened and what to do");
            found.push(Finding::new("error-pages", path.as_str(), message));
        }
    }
}

fn names<'a>(tree: &'a Tree, database: &str) -> BTreeSet<&'a str> {
    let paths = tree
        .others
        .iter()
        .filter_map(|(path, _)| path.strip_prefix(MIGRATIONS));
    paths
        .filter_map(|path| path.strip_prefix(database))
        .collect()
}
