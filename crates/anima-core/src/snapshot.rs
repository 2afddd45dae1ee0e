//! The configuration in force at one instant, with every reference resolved.
//!
//! Compiled once from [`Tables`], then only read; a request keeps one from admission to settlement.
//! A [`Timeline`] also holds the snapshots of the instants ahead at which a window opens or closes,
//! so a scheduled change fires to the microsecond without a message. Invariant: a snapshot never
//! changes, and a route in it always has its channel.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use crate::clock::Timestamp;
use crate::config::{
    self, Channel, Fallbacks, Kind, Price, QueueMode, RetryBudget, Side, Tables, Version,
};
use crate::ledger::fx::FxRate;
use crate::money::{Currency, Multiplier};
use crate::pricing::{MeterRate, PriceList};
use crate::quota::Rule;

/// A channel as routes see it.
#[derive(Debug)]
pub struct ChannelEntry {
    /// Its code.
    pub code: Arc<str>,
    /// Position of this version in [`Tables::channels`], for parallel lists outside this crate.
    pub index: usize,
    /// The live switch.
    pub enabled: bool,
    /// What it says.
    pub body: Channel,
}

/// One place an alias can go, with its price.
#[derive(Debug)]
pub struct RouteEntry {
    /// Where.
    pub channel: Arc<ChannelEntry>,
    /// The model's name there.
    pub model: Arc<str>,
    /// A higher number goes first.
    pub priority: i32,
    /// Share inside the priority.
    pub weight: u32,
    /// What the provider charges us. `None` when no price is in force.
    pub cost: Option<Arc<PriceList>>,
    /// What the program keeps beside it: the route's health.
    pub beside: Beside,
}

/// A place where the program keeps what it has looked up for an entry of a snapshot, so that it is
/// looked up once and not with every request.
#[derive(Debug, Default)]
pub struct Beside(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Beside {
    /// What is kept here, made by the first who asks. `None` when it is of another type.
    pub fn kept<T: Any + Send + Sync>(&self, make: impl FnOnce() -> Arc<T>) -> Option<&T> {
        self.0.get_or_init(|| make()).downcast_ref()
    }
}

/// An alias with its routes and prices.
#[derive(Debug)]
pub struct AliasEntry {
    /// The name that clients use.
    pub code: Arc<str>,
    /// Which endpoints serve it.
    pub kind: Kind,
    /// The live switch.
    pub enabled: bool,
    /// In no particular order. May be empty when its channels are gone.
    pub routes: Vec<RouteEntry>,
    /// The attempt budget.
    pub retry: RetryBudget,
    /// Where its calls go when its own routes fail.
    pub fallbacks: Fallbacks,
    /// What the program keeps beside it: how often its calls were tried again.
    pub beside: Beside,
    /// In force since; shown as `created` in the model list.
    pub since: Timestamp,
    sale: BTreeMap<(Option<String>, Currency), Arc<PriceList>>,
}

impl AliasEntry {
    /// The customer's price: the token group's own, else the general one.
    pub fn sale_price(&self, group: Option<&str>, currency: Currency) -> Option<&Arc<PriceList>> {
        let own = group.and_then(|g| self.sale.get(&(Some(g.to_owned()), currency)));
        own.or_else(|| self.sale.get(&(None, currency)))
    }

    /// The customer's prices in all currencies: the token group's own before the general ones.
    pub fn sale_prices(&self, group: Option<&str>) -> impl Iterator<Item = &Arc<PriceList>> {
        let own = self
            .sale
            .iter()
            .filter(move |(key, _)| group.is_some_and(|group| key.0.as_deref() == Some(group)));
        let general = self.sale.iter().filter(|(key, _)| key.0.is_none());
        own.chain(general).map(|(_, list)| list)
    }
}

/// A token group.
#[derive(Debug)]
pub struct TokenGroupEntry {
    /// Its code.
    pub code: Arc<str>,
    /// The live switch.
    pub enabled: bool,
    /// Factor on sale prices.
    pub multiplier: Multiplier,
    /// The quota's code.
    pub quota: Option<String>,
    /// What happens over a limit to calls of its keys that do not say so themselves.
    pub queue_mode: Option<QueueMode>,
    all_aliases: bool,
    aliases: BTreeSet<String>,
}

impl TokenGroupEntry {
    /// Whether keys of the group may use the alias.
    pub fn allows(&self, alias: &str) -> bool {
        self.all_aliases || self.aliases.contains(alias)
    }
}

/// A quota, compiled.
#[derive(Debug)]
pub struct QuotaEntry {
    /// Its code.
    pub code: Arc<str>,
    /// The live switch: off, it limits nothing.
    pub enabled: bool,
    /// All of them hold together.
    pub rules: Vec<Rule>,
}

/// The configuration in force at one instant.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Number of the last change that it contains.
    pub rev: i64,
    channels: BTreeMap<String, Arc<ChannelEntry>>,
    aliases: BTreeMap<String, Arc<AliasEntry>>,
    token_groups: BTreeMap<String, Arc<TokenGroupEntry>>,
    quotas: BTreeMap<String, Arc<QuotaEntry>>,
    fx: BTreeMap<(Currency, Currency), Arc<FxRate>>,
}

impl Snapshot {
    /// Resolves what is in force at `at`.
    ///
    /// Rows that do not compile (they were checked when written, so this takes a damaged row) are
    /// left out: a missing price refuses calls, which is the safe side.
    pub fn compile(tables: &Tables, at: Timestamp) -> Self {
        let mut snapshot = Self { rev: tables.rev, ..Self::default() };
        for (index, row) in tables.channels.iter().enumerate() {
            if row.is_effective(at) {
                let entry = ChannelEntry {
                    code: row.code.as_str().into(),
                    index,
                    enabled: row.enabled,
                    body: row.body.clone(),
                };
                snapshot.channels.insert(row.code.clone(), Arc::new(entry));
            }
        }
        let books = Books::compile(&tables.prices, at);
        for (code, row) in config::effective(&tables.aliases, at) {
            let entry = snapshot.alias_entry(row, &books);
            snapshot.aliases.insert(code.to_owned(), Arc::new(entry));
        }
        for (code, row) in config::effective(&tables.token_groups, at) {
            let Ok(multiplier) = row.body.factor() else {
                continue;
            };
            let entry = TokenGroupEntry {
                code: code.into(),
                enabled: row.enabled,
                multiplier,
                quota: row.body.quota.clone(),
                queue_mode: row.body.queue_mode,
                all_aliases: row.body.aliases.iter().any(|a| a == "*"),
                aliases: row.body.aliases.iter().cloned().collect(),
            };
            snapshot.token_groups.insert(code.to_owned(), Arc::new(entry));
        }
        for (code, row) in config::effective(&tables.quotas, at) {
            let rules = row.body.limits.iter().map(Rule::of).collect();
            let entry = QuotaEntry { code: code.into(), enabled: row.enabled, rules };
            snapshot.quotas.insert(code.to_owned(), Arc::new(entry));
        }
        for row in tables.fx_rates.iter().filter(|row| row.enabled && row.is_effective(at)) {
            if let Ok(rate) = row.body.compile(&row.code, row.version_no) {
                snapshot.fx.insert((rate.from, rate.to), Arc::new(rate));
            }
        }
        snapshot
    }

    /// The rate at which prices in `from` are paid from wallets in `to`.
    pub fn fx(&self, from: Currency, to: Currency) -> Option<&Arc<FxRate>> {
        self.fx.get(&(from, to))
    }

    /// The alias of that name.
    pub fn alias(&self, code: &str) -> Option<&Arc<AliasEntry>> {
        self.aliases.get(code)
    }

    /// All aliases, by name.
    pub fn aliases(&self) -> impl Iterator<Item = &Arc<AliasEntry>> {
        self.aliases.values()
    }

    /// The channel of that code.
    pub fn channel(&self, code: &str) -> Option<&Arc<ChannelEntry>> {
        self.channels.get(code)
    }

    /// All channels, by code.
    pub fn channels(&self) -> impl Iterator<Item = &Arc<ChannelEntry>> {
        self.channels.values()
    }

    /// The token group of that code.
    pub fn token_group(&self, code: &str) -> Option<&Arc<TokenGroupEntry>> {
        self.token_groups.get(code)
    }

    /// The quota of that code.
    pub fn quota(&self, code: &str) -> Option<&Arc<QuotaEntry>> {
        self.quotas.get(code)
    }

    fn alias_entry(&self, row: &Version<config::Alias>, books: &Books) -> AliasEntry {
        let routes = row
            .body
            .routes
            .iter()
            .filter_map(|route| {
                let channel = self.channels.get(&route.channel)?;
                let scope = (route.channel.clone(), route.model.clone());
                Some(RouteEntry {
                    channel: Arc::clone(channel),
                    model: route.model.as_str().into(),
                    priority: route.priority,
                    weight: route.weight,
                    cost: books.cost.get(&scope).cloned(),
                    beside: Beside::default(),
                })
            })
            .collect();
        AliasEntry {
            code: row.code.as_str().into(),
            kind: row.body.kind,
            enabled: row.enabled,
            routes,
            retry: row.body.retry,
            fallbacks: row.body.fallbacks.clone(),
            beside: Beside::default(),
            since: row.effective_from,
            sale: books.sale.get(&row.code).cloned().unwrap_or_default(),
        }
    }
}

/// Sale prices of one alias, by token group and currency.
type SaleBook = BTreeMap<(Option<String>, Currency), Arc<PriceList>>;

/// The price lists in force, by what they are for.
#[derive(Debug, Default)]
struct Books {
    cost: BTreeMap<(String, String), Arc<PriceList>>,
    sale: BTreeMap<String, SaleBook>,
}

impl Books {
    fn compile(prices: &[Version<Price>], at: Timestamp) -> Self {
        let mut books = Self::default();
        for row in prices.iter().filter(|p| p.enabled && p.is_effective(at)) {
            let Some(list) = price_list(row).map(Arc::new) else {
                continue;
            };
            let body = &row.body;
            match (body.side, &body.channel, &body.model, &body.alias) {
                (Side::Cost, Some(channel), Some(model), _) => {
                    books.cost.insert((channel.clone(), model.clone()), list);
                }
                (Side::Sale, _, _, Some(alias)) => {
                    let book = books.sale.entry(alias.clone()).or_default();
                    book.insert((body.token_group.clone(), body.currency), list);
                }
                (Side::Cost | Side::Sale, ..) => {}
            }
        }
        books
    }
}

fn price_list(row: &Version<Price>) -> Option<PriceList> {
    compile_price(&row.code, row.version_no, &row.body)
}

/// A price as written, ready to compute with. `None` when it does not compile; it was checked when
/// it was written, so this takes a damaged row.
pub fn compile_price(code: &str, version_no: i64, price: &Price) -> Option<PriceList> {
    let currency = price.currency;
    let rates = price.meters.iter().map(|price| {
        let rate = price.rate(currency).ok()?;
        Some(MeterRate { meter: price.meter, rate, when: price.when.clone() })
    });
    Some(PriceList {
        code: code.to_owned(),
        version_no,
        currency,
        rates: rates.collect::<Option<_>>()?,
    })
}

/// Snapshots for now and for each instant ahead at which the configuration changes by itself.
#[derive(Debug, Default)]
pub struct Timeline {
    /// Sorted by instant; empty only when nothing was ever compiled.
    steps: Vec<(Timestamp, Arc<Snapshot>)>,
}

impl Timeline {
    /// At most this many instants ahead are compiled in; later ones are compiled when the
    /// configuration is next read, which happens at the latest when the last one is passed.
    const STEPS_MAX: usize = 64;

    /// Compiles the snapshots from `now` on.
    pub fn compile(tables: &Tables, now: Timestamp) -> Self {
        let mut instants = BTreeSet::from([now]);
        boundaries(&tables.channels, &mut instants);
        boundaries(&tables.aliases, &mut instants);
        boundaries(&tables.prices, &mut instants);
        boundaries(&tables.quotas, &mut instants);
        boundaries(&tables.token_groups, &mut instants);
        boundaries(&tables.fx_rates, &mut instants);
        let steps = instants
            .into_iter()
            .filter(|at| *at >= now)
            .take(Self::STEPS_MAX)
            .map(|at| (at, Arc::new(Snapshot::compile(tables, at))))
            .collect();
        Self { steps }
    }

    /// The snapshot in force at `now`.
    pub fn at(&self, now: Timestamp) -> Option<&Arc<Snapshot>> {
        let later = self.steps.partition_point(|(from, _)| *from <= now);
        self.steps.get(later.saturating_sub(1)).map(|(_, snapshot)| snapshot)
    }

    /// Whether more instants may lie ahead than were compiled, so that it must be made anew.
    pub fn is_spent(&self, now: Timestamp) -> bool {
        self.steps.len() >= Self::STEPS_MAX && self.steps.last().is_some_and(|(at, _)| *at <= now)
    }
}

fn boundaries<B>(rows: &[Version<B>], instants: &mut BTreeSet<Timestamp>) {
    for row in rows {
        instants.insert(row.effective_from);
        instants.extend(row.effective_to);
    }
}

#[cfg(test)]
mod tests;
