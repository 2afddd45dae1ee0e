//! `cargo xtask tidy`: the house rules of STYLE.md that no lint can hold.
//!
//! Reads manifests, file names and source text; not a parser, so rules are written for the shape
//! that rustfmt gives. What clippy can hold is held in `clippy.toml` and the workspace's lints.
//! Invariant: a rule has no exception but those in `tidy/exceptions.rs`, each with its reason,
//! and an exception that is larger than what it excuses is itself a finding.

mod direction;
mod doors;
mod exceptions;
mod folders;
mod lexer;
mod names;
mod prose;
mod shape;
mod source;

use std::fmt;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::cargo;
use source::Tree;

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The rule's name, as STYLE.md cites it.
    rule: &'static str,
    /// `path`, `path:line` or `path::function`; exceptions name it.
    place: String,
    /// What is wrong, for a reader.
    message: String,
    /// For rules about sizes: how large it is.
    size: Option<usize>,
}

impl Finding {
    fn new(rule: &'static str, place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { rule, place: place.into(), message: message.into(), size: None }
    }

    fn of_size(mut self, size: usize) -> Self {
        self.size = Some(size);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.place, self.message, self.rule)
    }
}

/// # Errors
/// When a file cannot be read, or a rule is broken.
pub(crate) fn run() -> Result<()> {
    println!("xtask: tidy");
    let findings = findings(&cargo::root())?;
    for finding in &findings {
        println!("{finding}");
    }
    ensure!(findings.is_empty(), "{} house rules are broken", findings.len());
    Ok(())
}

fn findings(root: &Path) -> Result<Vec<Finding>> {
    let tree = Tree::read(root)?;
    let mut found = Vec::new();
    direction::check(&tree, &mut found);
    doors::check(&tree, &mut found);
    folders::check(&tree, &mut found);
    names::check(&tree, &mut found);
    prose::check(&tree, &mut found);
    shape::check(&tree, &mut found);
    Ok(exceptions::apply(exceptions::LIST, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_rules_hold() {
        let found = findings(&cargo::root()).unwrap();
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "{}", lines.join("\n"));
    }
}
