//! Published prices as a plan: which of a file's models become which price rows.
//!
//! A model's price is merged into the row that is there for the same thing: what the file says
//! replaces what the row says, what it does not mention stays. Everything is judged before anything
//! is written. Invariant: a doubtful price is refused unless its model is named, and a row that is
//! for something else is never touched.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Value, json};

use anima_core::config::{Alias, MeterPrice, Price, Side};
use anima_core::money::Currency;
use anima_store::config::{Actor, Row};

use super::export::all;
use super::{Action, Plan, Refused, plan, told};
use crate::admin::Admin;
use crate::admin::aliases::Aliases;
use crate::admin::collection::CODE_CHARS_MAX;
use crate::admin::prices::Prices;
use crate::admin::rows::is_ahead;
use crate::price_file::bounds::{self, Doubt};
use crate::price_file::{Listed, Missing, decimal, find};

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// The channel that cost prices are for.
    pub(crate) channel: Option<String>,
    /// Its upstream models; empty: those that aliases route there and the file has.
    pub(crate) models: Vec<Named>,
    /// The aliases that sale prices are for.
    pub(crate) aliases: Vec<Named>,
    /// Whose rows of the file to take.
    pub(crate) provider: Option<String>,
    /// The factor of sale prices.
    pub(crate) multiplier: String,
    /// Models whose doubtful prices are right.
    pub(crate) accept: Vec<String>,
    /// A price may go up or down by this factor.
    pub(crate) change_max: u32,
}

/// A name of ours, and the file's where it is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// An upstream model, or an alias.
    pub(crate) ours: String,
    /// The model in the file.
    pub(crate) theirs: Option<String>,
}

/// What an import comes to.
#[derive(Debug)]
pub(crate) struct Import {
    /// The rows, ready to be written.
    pub(crate) plan: Plan,
    /// Each row's difference, in the plan's order.
    pub(crate) differences: Vec<PriceDifference>,
    /// What to know besides.
    pub(crate) notes: Vec<String>,
}

/// What changes in one price.
#[derive(Debug)]
pub(crate) struct PriceDifference {
    /// The price's code.
    pub(crate) code: String,
    /// What has to be done.
    pub(crate) action: Action,
    what: String,
    before: Vec<MeterPrice>,
    after: Vec<MeterPrice>,
}

/// One row to be.
struct Target {
    what: String,
    price: Price,
    code: String,
    before: Vec<MeterPrice>,
}

/// Judges an import against what is stored.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) async fn plan_import(
    admin: &Admin,
    actor: &Actor,
    listed: &[Listed],
    order: &Order,
) -> Result<Import, Refused> {
    let late = |problem| Refused { faults: vec![told(&problem)], is_late: true };
    let rows = all(admin, &Prices).await.map_err(late)?;
    let aliases = all(admin, &Aliases).await.map_err(late)?;
    let now = admin.clock.now();
    let rows: Vec<Row> = rows.into_iter().filter(|row| is_ahead(row, now)).collect();
    let aliases = aliases.iter().filter(|row| is_ahead(row, now));
    let aliases = aliases.filter_map(|row| Some((row.code.clone(), read(&row.body)?))).collect();
    let mut desk = Desk { listed, order, rows, aliases, faults: Vec::new(), notes: Vec::new() };
    let targets = desk.targets();
    if !desk.faults.is_empty() {
        return Err(Refused { faults: desk.faults, is_late: false });
    }
    let plan = plan(admin, actor, json!({ "prices": written(&targets) })).await?;
    let action = |code: &str| plan.rows.iter().find(|row| row.code == code).map(|row| row.action);
    let difference = |target: Target| {
        let action = action(&target.code).unwrap_or(Action::Nothing);
        let Target { what, price, code, before } = target;
        PriceDifference { code, action, what, before, after: price.meters }
    };
    let differences = targets.into_iter().map(difference).collect();
    Ok(Import { plan, differences, notes: desk.notes })
}

fn written(targets: &[Target]) -> Vec<Value> {
    let row = |target: &Target| {
        let mut body = serde_json::to_value(&target.price).unwrap_or_default();
        if let Some(members) = body.as_object_mut() {
            members.insert("code".to_owned(), json!(target.code));
        }
        body
    };
    targets.iter().map(row).collect()
}

fn read<T: serde::de::DeserializeOwned>(body: &Value) -> Option<T> {
    serde_json::from_value(body.clone()).ok()
}

/// What an import is decided from, and what is found on the way.
struct Desk<'a> {
    listed: &'a [Listed],
    order: &'a Order,
    rows: Vec<Row>,
    aliases: Vec<(String, Alias)>,
    faults: Vec<String>,
    notes: Vec<String>,
}

impl<'a> Desk<'a> {
    fn targets(&mut self) -> Vec<Target> {
        let mut targets = Vec::new();
        let order = self.order;
        if let Some(channel) = &order.channel {
            for (named, is_asked) in self.models(channel) {
                let theirs = named.theirs.as_deref().unwrap_or(&named.ours);
                let Some(entry) = self.listed(theirs, is_asked) else { continue };
                let target = self.cost(channel, &named.ours, entry);
                targets.extend(target);
            }
        }
        for named in &order.aliases {
            let theirs = named.theirs.clone().or_else(|| self.first_model(&named.ours));
            let Some(theirs) = theirs else {
                self.faults.push(format!("alias {}: there is no such alias", named.ours));
                continue;
            };
            let Some(entry) = self.listed(&theirs, true) else { continue };
            let target = self.sale(&named.ours, entry);
            targets.extend(target);
        }
        if targets.is_empty() && self.faults.is_empty() {
            self.faults.push("none of the file's models is asked for: name some".to_owned());
        }
        targets
    }

    /// The channel's models, and whether they were asked for by name.
    fn models(&self, channel: &str) -> Vec<(Named, bool)> {
        if !self.order.models.is_empty() {
            return self.order.models.iter().map(|named| (named.clone(), true)).collect();
        }
        let routes = self.aliases.iter().flat_map(|(_, alias)| &alias.routes);
        let models: BTreeSet<_> =
            routes.filter(|route| route.channel == channel).map(|route| &route.model).collect();
        let named = |ours: &String| (Named { ours: ours.clone(), theirs: None }, false);
        models.into_iter().map(named).collect()
    }

    /// The upstream model of the route that an alias prefers.
    fn first_model(&self, alias: &str) -> Option<String> {
        let (_, alias) = self.aliases.iter().find(|(code, _)| code == alias)?;
        let first = alias.routes.iter().min_by_key(|route| std::cmp::Reverse(route.priority));
        first.map(|route| route.model.clone())
    }

    fn listed(&mut self, name: &str, is_asked: bool) -> Option<&'a Listed> {
        match find(self.listed, name, self.order.provider.as_deref()) {
            Ok(entry) => Some(entry),
            Err(Missing::Unknown) if !is_asked => {
                self.notes.push(format!("{name}: is not in the file"));
                None
            }
            Err(Missing::Unknown) => {
                self.faults.push(format!("{name}: is not in the file"));
                None
            }
            Err(Missing::Several(providers)) => {
                let providers = providers.join(", ");
                self.faults.push(format!(
                    "{name}: has several prices in the file: choose with --provider: {providers}"
                ));
                None
            }
        }
    }

    fn cost(&mut self, channel: &str, model: &str, entry: &Listed) -> Option<Target> {
        let what = format!("cost {channel} {model}");
        let own = bounds::of(&entry.meters);
        self.doubted(&what, (model, entry), own);
        let price = Price {
            side: Side::Cost,
            channel: Some(channel.to_owned()),
            model: Some(model.to_owned()),
            alias: None,
            token_group: None,
            currency: Currency::USD,
            meters: entry.meters.clone(),
        };
        self.target((what, format!("cost-{channel}-{model}")), price, (model, entry))
    }

    fn sale(&mut self, alias: &str, entry: &Listed) -> Option<Target> {
        let what = format!("sale {alias}");
        let times = |price: &MeterPrice| {
            let amount = decimal::product(&price.amount, &self.order.multiplier)?;
            Some(MeterPrice { amount, ..price.clone() })
        };
        let Some(meters) = entry.meters.iter().map(times).collect::<Option<Vec<_>>>() else {
            let multiplier = &self.order.multiplier;
            self.faults.push(format!("{what}: a price times {multiplier} cannot be held"));
            return None;
        };
        // What is judged is what would be charged: 0 gives calls away, 120 is no 120 %.
        let own = bounds::of(&meters);
        self.doubted(&what, (alias, entry), own);
        let price = Price {
            side: Side::Sale,
            channel: None,
            model: None,
            alias: Some(alias.to_owned()),
            token_group: None,
            currency: Currency::USD,
            meters,
        };
        self.target((what, format!("sale-{alias}")), price, (alias, entry))
    }

    /// The row that a price goes into, merged with what is there.
    fn target(
        &mut self,
        (what, name): (String, String),
        mut price: Price,
        whose: (&str, &Listed),
    ) -> Option<Target> {
        let (_, entry) = whose;
        if entry.meters.is_empty() {
            let left_out = entry.left_out.join(", ");
            self.faults.push(format!("{what}: nothing that can be carried: {left_out}"));
            return None;
        }
        self.note(&what, entry);
        let scope = price.scope();
        let stored = self.rows.iter().find_map(|row| {
            let stored: Price = read(&row.body)?;
            (stored.scope() == scope).then(|| (row.code.clone(), stored))
        });
        let (code, before) = match stored {
            Some((code, stored)) if stored.currency == price.currency => (code, stored.meters),
            Some((code, stored)) => {
                let currency = stored.currency;
                self.faults.push(format!("{what}: price {code} is in {currency}, the file in USD"));
                return None;
            }
            None => (code_of(&name), Vec::new()),
        };
        if before.is_empty() && self.rows.iter().any(|row| row.code == code) {
            self.faults.push(format!("{what}: price {code} is there, and for something else"));
            return None;
        }
        let changes =
            bounds::of_change(&before, &price.meters, self.order.change_max, price.currency);
        self.doubted(&what, whose, changes);
        price.meters = merged(&before, &price.meters, price.currency);
        Some(Target { what, price, code, before })
    }

    fn doubted(&mut self, what: &str, (ours, entry): (&str, &Listed), doubts: Vec<Doubt>) {
        let is_accepted =
            |name: &String| *name == ours || *name == entry.model || *name == entry.key;
        let is_accepted = self.order.accept.iter().any(is_accepted);
        for doubt in doubts {
            match doubt {
                Doubt::Wrong(text) => self.faults.push(format!("{what}: {text}")),
                Doubt::Odd(text) if is_accepted => self.notes.push(format!("{what}: {text}")),
                Doubt::Odd(text) => {
                    self.faults.push(format!("{what}: {text} (if that is right: --accept {ours})"));
                }
            }
        }
    }

    fn note(&mut self, what: &str, entry: &Listed) {
        if !entry.left_out.is_empty() {
            self.notes.push(format!("{what}: left out {}", entry.left_out.join(", ")));
        }
        self.notes.extend(entry.remarks.iter().map(|remark| format!("{what}: {remark}")));
    }
}

/// A code for a new price: what codes may not hold becomes a hyphen.
fn code_of(name: &str) -> String {
    let letter = |char: char| match char {
        'a'..='z' | '0'..='9' | '.' | '_' | ':' | '-' => char,
        'A'..='Z' => char.to_ascii_lowercase(),
        _ => '-',
    };
    name.chars().map(letter).take(CODE_CHARS_MAX).collect()
}

/// What was there with what the file says in its place; the same amount stays as written.
fn merged(before: &[MeterPrice], file: &[MeterPrice], currency: Currency) -> Vec<MeterPrice> {
    let kept = before.iter().map(|old| match bounds::find(file, old.meter, &old.when) {
        Some(new) if !bounds::is_same(old, new, currency) => new.clone(),
        Some(_) | None => old.clone(),
    });
    let is_added = |new: &&MeterPrice| bounds::find(before, new.meter, &new.when).is_none();
    kept.chain(file.iter().filter(is_added).cloned()).collect()
}

impl fmt::Display for PriceDifference {
    /// A line for the price and one for each meter that changes, as `diff` marks them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.action {
            Action::Create => '+',
            Action::Change => '~',
            Action::Nothing => '=',
        };
        write!(f, "{mark} {} (price {})", self.what, self.code)?;
        for new in &self.after {
            let (meter, amount, per) = (named(new), &new.amount, new.per);
            match bounds::find(&self.before, new.meter, &new.when) {
                Some(old) if old == new => {}
                Some(old) => {
                    let (was, was_per) = (&old.amount, old.per);
                    write!(f, "\n    ~ {meter}: {was} per {was_per} -> {amount} per {per}")?;
                }
                None => write!(f, "\n    + {meter}: {amount} per {per}")?,
            }
        }
        Ok(())
    }
}

/// A meter, and when its price applies.
fn named(price: &MeterPrice) -> String {
    let over = price.when.input_tokens_over.map(|n| format!(" over {n} input tokens"));
    let tier = price.when.service_tier.as_ref().map(|tier| format!(" at {tier}"));
    format!("{}{}{}", price.meter.name(), over.unwrap_or_default(), tier.unwrap_or_default())
}

#[cfg(test)]
mod tests;
