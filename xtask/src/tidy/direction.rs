//! Which crate may depend on which, and which module of the program on which.
//!
//! Cargo already refuses circles; this refuses the wrong direction and heavy dependencies in the
//! pure crates. Inside the program, `relay` stages may share types but not call one another.
//! Invariant: a crate that is not in the table is a finding, so a new one is a decision.

use super::Finding;
use super::source::{Source, Tree};

/// Each package's folder, and the packages of this workspace that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("crates/anima-core", &[]),
    ("crates/anima-wire", &["anima-core"]),
    ("crates/anima-store", &["anima-core"]),
    ("crates/anima-simulator", &[]),
    ("crates/anima", &["anima-core", "anima-simulator", "anima-store", "anima-wire"]),
    ("xtask", &[]),
    ("xtask/bench", &["anima-simulator"]),
    ("xtask/crash", &["anima-simulator"]),
    ("xtask/fuzz", &["anima-core", "anima-wire"]),
];

/// What decides or translates does no I/O.
const PURE: &[&str] = &["crates/anima-core", "crates/anima-wire"];
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "axum",
    "tower",
    "reqwest",
    "rusqlite",
    "deadpool",
    "refinery",
    "redis",
    "rustls",
    "mimalloc",
    "clap",
    "anyhow",
    "rand",
    "tracing-subscriber",
];

/// Dependencies with one home.
/// `xtask/crash` reads the books behind the store's back: that is what it is for.
const HOMES: &[(&str, &[&str])] = &[
    ("rusqlite", &["crates/anima-store", "xtask/crash"]),
    ("tokio-postgres", &["crates/anima-store", "xtask/crash"]),
    ("deadpool-postgres", &["crates/anima-store"]),
    ("refinery", &["crates/anima-store"]),
    ("redis", &["crates/anima-store"]),
    ("axum", &["crates/anima"]),
    ("anyhow", &["crates/anima", "xtask", "xtask/bench", "xtask/crash", "xtask/fuzz"]),
];

/// The files of `relay` that tell the story and so may call the stages.
const STORIES: &[&str] = &["chat", "embeddings", "media", "completions"];

/// Modules that only the entry points may use, and those entry points.
const ENDS: &[&str] = &["api", "admin", "cli"];
const ENTRIES: &[&str] = &["main.rs", "lib.rs", "boot.rs", "router.rs"];
/// A command may do what an admin does: `quickstart` makes its rows through the admin API's own
/// functions, so that there is one way to make a row.
const COMMANDS: &str = "cli";

pub(super) fn check(tree: &Tree, found: &mut Vec<Finding>) {
    for (path, text) in &tree.manifests {
        manifest(path, text, found);
    }
    for source in tree.sources.iter().filter(|source| !source.is_test()) {
        if let Some(inner) = source.path.strip_prefix("crates/anima/src/") {
            program(source, inner, found);
        }
    }
}

fn manifest(path: &str, text: &str, found: &mut Vec<Finding>) {
    let package = path.strip_suffix("/Cargo.toml").unwrap_or(path);
    let Some((_, allowed)) = ALLOWED.iter().find(|(folder, _)| *folder == package) else {
        let message = "a crate that the table of directions does not know";
        return found.push(Finding::new("dependency-direction", path, message));
    };
    for name in dependencies(text) {
        let ours = name.starts_with("anima") || name == "xtask";
        if ours && !allowed.contains(&name) {
            found.push(Finding::new("dependency-direction", path, format!("depends on {name}")));
        }
        if PURE.contains(&package) && IMPURE.iter().any(|start| name.starts_with(start)) {
            let message = format!("a pure crate depends on {name}");
            found.push(Finding::new("pure-crates", path, message));
        }
        let home = HOMES.iter().find(|(dependency, _)| *dependency == name);
        if home.is_some_and(|(_, homes)| !homes.contains(&package)) {
            let message = format!("{name} is not for this crate");
            found.push(Finding::new("one-home", path, message));
        }
    }
}

/// Normal and build dependencies; tests may use more.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies") && !section.ends_with("dev-dependencies");
        } else if inside {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if !name.is_empty() && !name.starts_with('#') {
                names.push(name);
            }
        }
    }
    names
}

fn program(source: &Source, inner: &str, found: &mut Vec<Finding>) {
    let home = inner.split(['/', '.']).next().unwrap_or_default();
    let mut report = |number: usize, message: String| {
        let place = format!("{}:{}", source.path, number + 1);
        found.push(Finding::new("module-direction", place, message));
    };
    for (number, line) in source.live.lines().enumerate() {
        for end in ENDS.iter().filter(|end| **end != home && !ENTRIES.contains(&inner)) {
            if home == COMMANDS && *end == "admin" {
                continue;
            }
            if line.contains(&format!("crate::{end}")) {
                report(number, format!("only the entry points use `{end}`"));
            }
        }
        if home == "relay" && line.contains("crate::app::") {
            report(number, "a stage takes what it needs, not the whole App".to_owned());
        }
        if let Some(stage) = calls_sibling(inner, line) {
            report(number, format!("a stage calls the stage `{stage}`"));
        }
    }
}

/// The sibling stage whose function a line of a stage names. Types (capital letter) may be shared.
fn calls_sibling<'a>(inner: &str, line: &'a str) -> Option<&'a str> {
    let stage = inner.strip_prefix("relay/")?.split(['/', '.']).next()?;
    if STORIES.contains(&stage) {
        return None;
    }
    let (_, path) = line.split_once("crate::relay::")?;
    let mut words = path.split("::");
    let sibling = words.next()?.trim_end_matches([';', ' ']);
    let name = words.next().unwrap_or_default();
    let is_type = name.starts_with(|c: char| c.is_uppercase() || c == '{');
    (sibling != stage && !is_type).then_some(sibling)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        let mut found = Vec::new();
        manifest(path, text, &mut found);
        found.iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn wire_must_not_know_the_store() {
        let text = "[dependencies]\nanima-core.workspace = true\nanima-store.workspace = true\n";
        assert_eq!(rules("crates/anima-wire/Cargo.toml", text), ["dependency-direction"]);
    }

    #[test]
    fn a_pure_crate_may_use_a_runtime_in_tests_only() {
        let text = "[dev-dependencies]\ntokio.workspace = true\n";
        assert!(rules("crates/anima-core/Cargo.toml", text).is_empty());
        let text = "[dependencies]\ntokio.workspace = true\n";
        assert_eq!(rules("crates/anima-core/Cargo.toml", text), ["pure-crates"]);
    }

    #[test]
    fn a_new_crate_is_a_decision() {
        assert_eq!(rules("crates/anima-more/Cargo.toml", ""), ["dependency-direction"]);
    }

    #[test]
    fn stages_share_types_but_do_not_call_each_other() {
        assert_eq!(calls_sibling("relay/settle.rs", "use crate::relay::hold::Hold;"), None);
        assert_eq!(
            calls_sibling("relay/settle.rs", "    crate::relay::hold::take(x)"),
            Some("hold")
        );
        assert_eq!(calls_sibling("relay/chat.rs", "use crate::relay::hold;"), None);
    }
}
