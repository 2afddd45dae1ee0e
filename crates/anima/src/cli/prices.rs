//! `anima prices import`: published prices into the price tables, after a look at the difference.
//!
//! Nothing is written without `--yes`. Exit codes are those of `apply`: 0 nothing has to change, 3
//! something was changed (without `--yes`: would be), 2 refused, 1 it could not be written.
//! Invariant: all of an import is written in one transaction, or none of it.

use std::io;
use std::path::PathBuf;

use anima_core::money::Multiplier;
use anima_store::config::Actor;

use crate::admin::declared::price_import::{Import, Named, Order, plan_import};
use crate::admin::declared::{Action, Refused, apply};
use crate::boot;
use crate::price_file;
use crate::settings::Flags;

use super::{Exit, files, prepare, process, say, say_to};

/// What can be done about prices.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Reads a `prices.csv` or LiteLLM's `model_prices_and_context_window.json`, shows what would
    /// change, and writes it with `--yes`. Exit codes: 0 nothing has to change, 3 changed (or
    /// would), 2 refused, 1 failed.
    Import(ImportArgs),
}

/// Options of `prices import`.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    flags: Flags,
    /// The file; `-` is standard input.
    file: PathBuf,
    /// Take cost prices for this channel: those of `--model`, else of each model that an alias
    /// routes to it and the file has.
    #[arg(long, value_name = "CODE", required_unless_present = "alias")]
    channel: Option<String>,
    /// An upstream model of the channel; `OURS=THEIRS` where the file has another name. Repeatable.
    #[arg(long, value_name = "MODEL[=THEIRS]", requires = "channel", value_parser = named)]
    model: Vec<Named>,
    /// Take a sale price for this alias, from the model that it prefers; `ALIAS=MODEL` names
    /// another. Repeatable.
    #[arg(long, value_name = "ALIAS[=MODEL]", value_parser = named)]
    alias: Vec<Named>,
    /// Take this provider's rows of the file only, in the file's word.
    #[arg(long)]
    provider: Option<String>,
    /// Sale prices are the file's times this.
    #[arg(long, default_value = "1", value_parser = multiplier)]
    multiplier: String,
    /// Take a model's prices although they look like a mistake. Repeatable.
    #[arg(long, value_name = "MODEL")]
    accept: Vec<String>,
    /// A price that goes up or down by more than this factor looks like a mistake.
    #[arg(long, value_name = "FACTOR", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_change: u32,
    /// Write it.
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Show what would change and let the database judge it, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit record.
    #[arg(long, default_value = "anima prices import")]
    reason: String,
}

fn named(text: &str) -> Result<Named, String> {
    let (ours, theirs) = match text.split_once('=') {
        Some((ours, theirs)) => (ours, Some(theirs)),
        None => (text, None),
    };
    if ours.is_empty() || theirs.is_some_and(str::is_empty) {
        return Err("expected a name, or two with `=` between them".to_owned());
    }
    Ok(Named { ours: ours.to_owned(), theirs: theirs.map(str::to_owned) })
}

fn multiplier(text: &str) -> Result<String, String> {
    Multiplier::parse(text).map(|_| text.to_owned()).map_err(|e| e.to_string())
}

/// Runs a command about prices.
pub(super) fn run(command: &Command) -> Result<(), Exit> {
    let Command::Import(args) = command;
    let (settings, _log) = prepare(&args.flags)?;
    let name = args.file.display();
    let text = files::read(&args.file).map_err(|e| Exit::Usage(format!("{name}: {e}")))?;
    let listed = price_file::read(&text).map_err(|e| Exit::Usage(format!("{name}: {e}")))?;
    let actor = Actor { name: "anima prices import".to_owned(), reason: args.reason.clone() };
    let order = order(args);
    let import = process::run(1, async {
        let admin = boot::desk(&settings).await.map_err(Exit::Usage)?;
        let refused = |refused| exit(args, &refused);
        let import = plan_import(&admin, &actor, &listed, &order).await.map_err(refused)?;
        apply(&admin, &actor, &import.plan, !args.yes).await.map_err(refused)?;
        Ok(import)
    })?;
    show(args, &import)?;
    if import.plan.changes_anything() { Err(Exit::Changed) } else { Ok(()) }
}

fn order(args: &ImportArgs) -> Order {
    Order {
        channel: args.channel.clone(),
        models: args.model.clone(),
        aliases: args.alias.clone(),
        provider: args.provider.clone(),
        multiplier: args.multiplier.clone(),
        accept: args.accept.clone(),
        change_max: args.max_change,
    }
}

/// Says every fault, and how to end.
fn exit(args: &ImportArgs, refused: &Refused) -> Exit {
    let mut out = io::stderr().lock();
    for fault in &refused.faults {
        // Nothing can be said about a broken standard error.
        drop(say_to(&mut out, fault));
    }
    let name = args.file.display();
    let message = format!("{name}: nothing was changed: {} faults", refused.faults.len());
    if refused.is_late { Exit::Failed(message) } else { Exit::Usage(message) }
}

fn show(args: &ImportArgs, import: &Import) -> Result<(), Exit> {
    for difference in import.differences.iter().filter(|d| d.action != Action::Nothing) {
        say(difference)?;
    }
    for note in &import.notes {
        say(&format_args!("note: {note}"))?;
    }
    let count = |action| import.differences.iter().filter(|d| d.action == action).count();
    let (created, changed) = (count(Action::Create), count(Action::Change));
    let same = count(Action::Nothing);
    if args.yes {
        return say(&format_args!(
            "Created {created}, changed {changed}, left {same} as they are."
        ));
    }
    let hint = if created + changed > 0 { " Nothing was written: --yes writes it." } else { "" };
    say(&format_args!("Would create {created}, change {changed}, leave {same} as they are.{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_ours_or_ours_and_theirs() {
        let of = |ours: &str, theirs: Option<&str>| {
            Ok(Named { ours: ours.to_owned(), theirs: theirs.map(str::to_owned) })
        };
        assert_eq!(named("a"), of("a", None));
        assert_eq!(named("deploy-1=gpt-5"), of("deploy-1", Some("gpt-5")));
        for wrong in ["", "=a", "a="] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
        assert!(multiplier("1.2").is_ok() && multiplier("-1").is_err());
    }
}
