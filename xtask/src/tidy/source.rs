//! The repository's files, read once, as the rules want to see them.
//!
//! Only what is ours: build output, fixtures and hidden folders are left out.
//! Invariant: paths are relative to the root, with `/`, and sorted, so findings come in one order.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::lexer::{self, Lexed};

/// Folders that hold nothing to judge.
const SKIPPED: &[&str] = &["target", "fixtures", "snapshots", "node_modules", "anima-data"];

/// One Rust file.
#[derive(Debug)]
pub(super) struct Source {
    /// From the root.
    pub(super) path: String,
    /// As on disk.
    pub(super) text: String,
    /// Code, comments and string literals, told apart.
    pub(super) lexed: Lexed,
    /// The code before the file's own test module; empty for a test file.
    pub(super) live: String,
}

impl Source {
    /// Reads text as the file at `path`.
    pub(super) fn new(path: &str, text: &str) -> Self {
        let lexed = lexer::lex(text);
        let live = if is_test(path) { String::new() } else { before_tests(&lexed.code).to_owned() };
        Self { path: path.to_owned(), text: text.to_owned(), lexed, live }
    }

    /// Whether the whole file is test code.
    pub(super) fn is_test(&self) -> bool {
        is_test(&self.path)
    }

    /// Lines of production code, comments included.
    pub(super) fn live_lines(&self) -> usize {
        self.live.lines().count()
    }
}

/// Everything that the rules read.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// All Rust files.
    pub(super) sources: Vec<Source>,
    /// All `Cargo.toml` files: path and text.
    pub(super) manifests: Vec<(String, String)>,
    /// Everything else under our folders: path and, where it is text, the text.
    pub(super) others: Vec<(String, String)>,
}

impl Tree {
    /// Reads `crates`, `xtask` and `docs` under the root.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        for folder in ["crates", "docs", "xtask"] {
            tree.descend(root, folder)?;
        }
        Ok(tree)
    }

    fn descend(&mut self, root: &Path, folder: &str) -> Result<()> {
        let failed = || format!("failed to read {folder}");
        let mut names = Vec::new();
        for entry in fs::read_dir(root.join(folder)).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            names.push((entry.file_name().to_string_lossy().into_owned(), entry.path().is_dir()));
        }
        names.sort();
        for (name, is_folder) in names {
            let path = format!("{folder}/{name}");
            match is_folder {
                true if name.starts_with('.') || SKIPPED.contains(&name.as_str()) => {}
                true => self.descend(root, &path)?,
                false => self.take(root, path)?,
            }
        }
        Ok(())
    }

    fn take(&mut self, root: &Path, path: String) -> Result<()> {
        let bytes = fs::read(root.join(&path)).with_context(|| format!("failed to read {path}"))?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        let is_rust = Path::new(&path).extension().is_some_and(|extension| extension == "rs");
        if is_rust {
            self.sources.push(Source::new(&path, &text));
        } else if path.ends_with("/Cargo.toml") {
            self.manifests.push((path, text));
        } else {
            self.others.push((path, text));
        }
        Ok(())
    }
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// A file's own tests are its last item, so what stands before them is the rest.
fn before_tests(code: &str) -> &str {
    let mut at = 0;
    for line in code.split_inclusive('\n') {
        if line.trim_end() == "#[cfg(test)]" {
            let rest = code.get(at + line.len()..).unwrap_or_default().trim_start();
            if rest.starts_with("mod ") && rest.lines().next().is_some_and(|l| l.ends_with('{')) {
                return code.get(..at).unwrap_or_default();
            }
        }
        at += line.len();
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_own_tests_are_not_production_code() {
        let text = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
        let source = Source::new("crates/x/src/a.rs", text);
        assert_eq!(source.live, "fn a() {}\n\n");
    }

    #[test]
    fn tests_in_a_file_of_their_own_do_not_end_production_code() {
        let source = Source::new("crates/x/src/a.rs", "#[cfg(test)]\nmod tests;\nfn a() {}\n");
        assert_eq!(source.live_lines(), 3);
    }
}
