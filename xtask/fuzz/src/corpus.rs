//! Where inputs start from: the golden conversations of `anima-wire`, and what was found before.
//!
//! Also the words of a dictionary, which are all names, texts and small values that stand in them.
//! Invariant: files come in the order of their paths, so that a seed means the same everywhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

const FIXTURES: &str = "../../crates/anima-wire/fixtures";
const INPUTS: &str = "inputs";
/// Larger values are no words.
const WORD_BYTES_MAX: usize = 300;

/// Names and values to put into documents.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    pub(crate) names: Vec<String>,
    pub(crate) values: Vec<Value>,
}

/// The conversations' files of these names.
pub(crate) fn conversations(names: &[&str]) -> Result<Vec<Vec<u8>>> {
    files(&here().join(FIXTURES), names)
}

/// What a target was once found wrong with, and starts that no conversation has.
pub(crate) fn inputs(target: &str) -> Result<Vec<Vec<u8>>> {
    let folder = here().join(INPUTS).join(target);
    if folder.is_dir() { files(&folder, &[]) } else { Ok(Vec::new()) }
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// All files below the folder with one of the names, or all without names.
fn files(folder: &Path, names: &[&str]) -> Result<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    walk(folder, &mut paths).with_context(|| format!("failed to read {}", folder.display()))?;
    paths.sort();
    let is_named = |path: &&PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        names.is_empty() || names.contains(&name)
    };
    let read = |path: &PathBuf| {
        fs::read(path).with_context(|| format!("failed to read {}", path.display()))
    };
    paths.iter().filter(is_named).map(read).collect()
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

impl Dictionary {
    /// The words of documents and of the payloads of streams.
    pub(crate) fn of(files: &[Vec<u8>]) -> Self {
        let mut words = Self::default();
        let mut known = BTreeSet::new();
        for file in files {
            let text = String::from_utf8_lossy(file);
            let payloads = text.lines().filter_map(|line| line.strip_prefix("data: "));
            for document in payloads.chain([&*text]) {
                if let Ok(value) = serde_json::from_str(document) {
                    words.learn(&value, &mut known);
                }
            }
        }
        words.names.sort();
        words.names.dedup();
        words
    }

    fn learn(&mut self, value: &Value, known: &mut BTreeSet<String>) {
        let text = value.to_string();
        if text.len() <= WORD_BYTES_MAX && known.insert(text) {
            self.values.push(value.clone());
        }
        match value {
            Value::Object(members) => {
                self.names.extend(members.keys().cloned());
                for member in members.values() {
                    self.learn(member, known);
                }
            }
            Value::Array(elements) => {
                for element in elements {
                    self.learn(element, known);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
