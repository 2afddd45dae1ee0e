//! `anima apply` and `anima export`: the configuration as a file, YAML or TOML.
//!
//! Both work on the database of the settings, beside nodes that serve or without any: nodes read
//! what changed within a second. Exit codes of `apply`: 0 nothing had to change, 3 something was
//! changed (with `--dry-run`: would be), 2 the file is refused, 1 it could not be written.
//! Invariant: a file that is refused changes nothing.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};

use anima_store::config::Actor;

use crate::admin::Admin;
use crate::admin::declared::{self, Action, Plan, Refused};
use crate::boot;
use crate::settings::Flags;

use super::{Exit, prepare, process, say, say_to};

/// Options of `apply`.
#[derive(Debug, clap::Args)]
pub(super) struct Apply {
    #[command(flatten)]
    flags: Flags,
    /// The file; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Show what would change, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit record.
    #[arg(long, default_value = "anima apply")]
    reason: String,
    /// How the file is written; without it the name tells, and YAML is assumed.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Options of `export`.
#[derive(Debug, clap::Args)]
pub(super) struct Export {
    #[command(flatten)]
    flags: Flags,
    /// How it is written.
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    format: Format,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// YAML 1.2; JSON is YAML too.
    Yaml,
    /// TOML 1.0.
    Toml,
}

impl Format {
    fn of(path: &Path) -> Self {
        let is_toml = path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("toml"));
        if is_toml { Self::Toml } else { Self::Yaml }
    }

    fn read(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Yaml => serde_saphyr::from_str(text).map_err(|e| e.to_string()),
            Self::Toml => toml::from_str(text).map(with_times).map_err(|e| e.to_string()),
        }
    }

    fn write(self, document: &Value) -> Result<String, String> {
        match self {
            Self::Yaml => serde_saphyr::to_string(document).map_err(|e| e.to_string()),
            Self::Toml => toml::to_string(&without_nulls(document)).map_err(|e| e.to_string()),
        }
    }
}

/// The member by which the TOML parser marks its own times.
const TOML_TIME: &str = "$__toml_private_datetime";

/// TOML's own times as texts, as JSON has them.
fn with_times(value: Value) -> Value {
    match value {
        Value::Object(members) => match members.get(TOML_TIME) {
            Some(time) => time.clone(),
            None => members.into_iter().map(|(name, value)| (name, with_times(value))).collect(),
        },
        Value::Array(items) => items.into_iter().map(with_times).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// TOML has no null; a member that is null says the same as one that is not there.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let given = members.iter().filter(|(_, value)| !value.is_null());
            given.map(|(name, value)| (name.clone(), without_nulls(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Applies a file.
pub(super) fn apply(args: &Apply) -> Result<(), Exit> {
    let (settings, _log) = prepare(&args.flags)?;
    let name = args.file.display();
    let text = read(&args.file).map_err(|e| Exit::Usage(format!("option --file: {name}: {e}")))?;
    let format = args.format.unwrap_or_else(|| Format::of(&args.file));
    let document = format.read(&text).map_err(|e| Exit::Usage(format!("{name}: {e}")))?;
    let actor = Actor { name: "anima apply".to_owned(), reason: args.reason.clone() };
    let plan = process::run(1, async {
        let admin = boot::desk(&settings).await.map_err(Exit::Usage)?;
        run(&admin, &actor, document, args.dry_run).await.map_err(|refused| exit(args, &refused))
    })?;
    show(args, &plan)?;
    if plan.changes_anything() { Err(Exit::Changed) } else { Ok(()) }
}

async fn run(
    admin: &Admin,
    actor: &Actor,
    document: Value,
    dry_run: bool,
) -> Result<Plan, Refused> {
    let plan = declared::plan(admin, actor, document).await?;
    declared::apply(admin, actor, &plan, dry_run).await?;
    Ok(plan)
}

/// Says every fault, and how to end.
fn exit(args: &Apply, refused: &Refused) -> Exit {
    let mut out = io::stderr().lock();
    for fault in &refused.faults {
        // Nothing can be said about a broken standard error.
        drop(say_to(&mut out, fault));
    }
    let name = args.file.display();
    let message = format!("{name}: nothing was changed: {} faults", refused.faults.len());
    if refused.is_late { Exit::Failed(message) } else { Exit::Usage(message) }
}

fn show(args: &Apply, plan: &Plan) -> Result<(), Exit> {
    let count = |action| plan.rows.iter().filter(|row| row.action == action).count();
    let created = count(Action::Create);
    let (changed, same) = (count(Action::Change), count(Action::Nothing));
    if args.json {
        let rows: Vec<_> = plan.rows.iter().map(declared::PlannedRow::to_json).collect();
        return say(&json!({
            "dry_run": args.dry_run, "created": created, "changed": changed, "unchanged": same,
            "rows": rows,
        }));
    }
    for row in plan.rows.iter().filter(|row| row.action != Action::Nothing) {
        say(row)?;
    }
    let what = if args.dry_run { "Would create" } else { "Created" };
    say(&format_args!("{what} {created}, change {changed}, leave {same} as they are."))
}

/// Writes what is stored.
pub(super) fn export(args: &Export) -> Result<(), Exit> {
    let (settings, _log) = prepare(&args.flags)?;
    let document = process::run(1, async {
        let admin = boot::desk(&settings).await.map_err(Exit::Usage)?;
        declared::export(&admin).await.map_err(|problem| Exit::Failed(problem.to_string()))
    })?;
    let text = args.format.write(&document).map_err(Exit::Failed)?;
    say(&text.trim_end())
}

pub(super) fn read(path: &Path) -> io::Result<String> {
    if path.as_os_str() != "-" {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_say_the_same() {
        let document = json!({
            "channels": [{"code": "main", "provider": "openai", "settings": {"a": 1, "b": [true]}}],
            "prices": [{"code": "p", "meters": [{"meter": "input_tokens", "amount": "2.50"}]}],
        });
        for format in [Format::Yaml, Format::Toml] {
            let text = format.write(&document).unwrap();
            assert_eq!(format.read(&text).unwrap(), document, "{text}");
        }
        let yaml = "channels:\n  - {code: main, enabled: no}\n  # a word\n  - code: \"b\"\n";
        let read = Format::Yaml.read(yaml).unwrap();
        assert_eq!(read["channels"][1]["code"], "b");
        let json = Format::Yaml.read(&document.to_string()).unwrap();
        assert_eq!(json, document);
    }

    #[test]
    fn a_time_of_toml_is_a_text() {
        let text = "[[prices]]\ncode = \"p\"\neffective_from = 2030-01-01T00:00:00Z\n";
        let read = Format::Toml.read(text).unwrap();
        assert_eq!(read["prices"][0]["effective_from"], "2030-01-01T00:00:00Z");
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        assert!(Format::Yaml.read("channels: [").is_err());
        assert!(Format::Toml.read("channels = ").is_err());
        assert_eq!(Format::of(Path::new("a.TOML")), Format::Toml);
        assert_eq!(Format::of(Path::new("-")), Format::Yaml);
    }
}
