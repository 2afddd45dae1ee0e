//! What calls used, cost and were charged, added up by channel, alias, app, key and time.
//!
//! A call counts as of when it was admitted, with all that was ever posted about it: corrections
//! and refunds change the figures of its own hour, so that requests, tokens and money of one line
//! are of the same calls. What was posted in a period is [`super::margin`]'s. Amounts are sums of
//! legs in the currency of the legs; counts stand in the line of the wallet's currency, so that
//! nothing is counted twice. Invariant: over all lines of a currency each amount is what the
//! accounts say of these calls. Source: SPEC 10 and 15.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use anima_core::clock::Timestamp;
use anima_core::money::Currency;
use anima_core::usage::Meter;

use super::{Books, currency_of, units};
use crate::ledger::Error;
use crate::ledger::session::{Failed, Mode, Record, Session, Value, Work};

mod sql;

/// How much of a period is added up at first. What a database sorts, SQLite keeps in memory, and a
/// PostgreSQL ends a statement after 30 s: so a slice is twice the last one while those are quick,
/// and half of it when one was slow. A slow one is some 200,000 calls; many small ones would be
/// slow, too, for a PostgreSQL may read whole tables for each.
const FIRST_SLICE_MS: i64 = 3_600_000;
/// The longest: after quiet weeks a busy day may follow.
const SLICE_MS_MAX: i64 = 24 * FIRST_SLICE_MS;
const QUICK: Duration = Duration::from_secs(2);
const SLOW: Duration = Duration::from_secs(6);

/// Until a report is given up, so that it does not keep old rows alive for long: a million calls
/// and more can be added up by then.
const WITHIN: Duration = Duration::from_mins(1);

/// Reads what calls used.
#[async_trait]
pub trait UsageReports: Send + Sync + std::fmt::Debug {
    /// A page of lines, by their keys.
    ///
    /// # Errors
    /// [`UsageError::TooLong`]: ask for less; [`Error::Unavailable`].
    async fn usage(&self, of: UsageOf) -> Result<UsagePage, UsageError>;
}

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// The ledger refused or failed.
    #[error(transparent)]
    Ledger(#[from] Error),
    /// There are too many calls in the period to add them up in time.
    #[error("the report takes too long")]
    TooLong,
}

/// How long a line's span is, by the calendar of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// From a full hour on.
    Hour,
    /// From midnight on.
    Day,
    /// From the first of a month on.
    Month,
}

/// What lines are kept apart by, beside time and currency, in the order of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Where it went.
    Channel,
    /// The upstream model.
    Model,
    /// The alias that was asked for.
    Alias,
    /// Whose call.
    App,
    /// Asked with which key, by its `kid`.
    Key,
}

impl Group {
    /// Each of them.
    pub const ALL: &'static [Self] =
        &[Self::Channel, Self::Model, Self::Alias, Self::App, Self::Key];

    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Model => "model",
            Self::Alias => "alias",
            Self::App => "app",
            Self::Key => "key",
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageOf {
    /// Of calls that were admitted from here on.
    pub from: Timestamp,
    /// And before here.
    pub to: Timestamp,
    /// Which of them; what is not named here is not asked for.
    pub only: BTreeMap<Group, String>,
    /// One line for each of these spans.
    pub span: Option<Span>,
    /// One line for each of these.
    pub by: BTreeSet<Group>,
    /// The page's lines come after this one.
    pub after: LineKey,
    /// So many lines at most.
    pub limit: u32,
}

/// What a line is of, in the order of lines; empty for what lines are not kept apart by, or what a
/// call never had. The one with nothing in it comes before all others.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineKey {
    /// The span, as RFC 3339 writes it, down to what tells it: `2026-01`, `2026-01-31`.
    pub span: String,
    /// Where it went.
    pub channel: String,
    /// The upstream model.
    pub model: String,
    /// The alias.
    pub alias: String,
    /// The app.
    pub app: String,
    /// The key's `kid`.
    pub key: String,
    /// Code of the amounts' currency.
    pub currency: String,
}

/// Quantities of one meter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantity {
    /// In upstream calls that answered a customer.
    pub served: i64,
    /// What of that is our own count.
    pub estimated: i64,
    /// In upstream calls that did not.
    pub wasted: i64,
}

/// One line. Amounts are in units of its currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageLine {
    /// What it is of.
    pub key: LineKey,
    /// Of the amounts.
    pub currency: Currency,
    /// Calls that are over. Each counts once: for the channel that answered it, else for the last
    /// that was tried.
    pub requests: i64,
    /// What of them nobody answered.
    pub errors: i64,
    /// Calls that are not over; nothing of them is counted otherwise.
    pub open: i64,
    /// Upstream calls.
    pub attempts: i64,
    /// What of them answered no customer.
    pub failed_attempts: i64,
    /// What of them was counted by us, because the provider reported nothing.
    pub estimated_attempts: i64,
    /// By name of the meter.
    pub meters: BTreeMap<String, Quantity>,
    /// Taken from wallets and promotional credit, corrections included.
    pub charge: i64,
    /// Given back by refunds.
    pub refunds: i64,
    /// Sales in their price's currency, collected or not.
    pub revenue: i64,
    /// What of the sales no wallet covered.
    pub uncollected: i64,
    /// What conversions earned.
    pub fx: i64,
    /// What providers charge.
    pub cost: i64,
    /// What of that rests on our own estimate, and is not confirmed.
    pub cost_estimated: i64,
    /// What of it is of upstream calls that answered nobody.
    pub cost_wasted: i64,
}

/// A page of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsagePage {
    /// By their keys.
    pub lines: Vec<UsageLine>,
    /// There are more.
    pub has_more: bool,
}

impl UsageLine {
    /// What is left, in units.
    pub const fn margin(&self) -> i64 {
        self.revenue
            .saturating_add(self.fx)
            .saturating_sub(self.refunds)
            .saturating_sub(self.uncollected)
            .saturating_sub(self.cost)
    }

    /// Tokens of prompts and answers, in upstream calls that answered.
    pub fn tokens(&self) -> i64 {
        let is_token = |name: &str| {
            Meter::parse(name).is_some_and(|meter| meter.is_input() || meter.is_output())
        };
        let counted = self.meters.iter().filter(|(name, _)| is_token(name));
        counted.fold(0, |sum, (_, quantity)| sum.saturating_add(quantity.served))
    }

    fn empty(key: LineKey) -> Result<Self, Error> {
        Ok(Self {
            currency: currency_of(&key.currency)?,
            key,
            requests: 0,
            errors: 0,
            open: 0,
            attempts: 0,
            failed_attempts: 0,
            estimated_attempts: 0,
            meters: BTreeMap::new(),
            charge: 0,
            refunds: 0,
            revenue: 0,
            uncollected: 0,
            fx: 0,
            cost: 0,
            cost_estimated: 0,
            cost_wasted: 0,
        })
    }

    /// Adds a row of the line.
    fn take(&mut self, record: &Record) -> Result<(), Error> {
        let sum = |n| record.sum(sql::FIRST_SUM.saturating_add(n));
        let add = |to: &mut i64, n| {
            *to = units(i128::from(*to).saturating_add(sum(n)?))?;
            Ok::<_, Error>(())
        };
        match record.int(sql::PART)? {
            sql::LEGS => {
                add(&mut self.charge, 0)?;
                add(&mut self.refunds, 1)?;
                add(&mut self.revenue, 2)?;
                add(&mut self.uncollected, 3)?;
                add(&mut self.fx, 4)?;
                add(&mut self.cost, 5)?;
                add(&mut self.cost_estimated, 6)?;
                add(&mut self.cost_wasted, 7)?;
            }
            sql::CALLS => {
                add(&mut self.requests, 0)?;
                add(&mut self.errors, 1)?;
                add(&mut self.open, 2)?;
            }
            sql::ATTEMPTS => {
                add(&mut self.attempts, 0)?;
                add(&mut self.failed_attempts, 1)?;
                add(&mut self.estimated_attempts, 2)?;
            }
            _ => {
                let quantity = self.meters.entry(record.text(sql::METER)?.to_owned()).or_default();
                add(&mut quantity.served, 0)?;
                add(&mut quantity.estimated, 1)?;
                add(&mut quantity.wasted, 2)?;
            }
        }
        Ok(())
    }
}

impl LineKey {
    /// Which of a group it is of.
    pub fn of(&self, group: Group) -> &str {
        match group {
            Group::Channel => &self.channel,
            Group::Model => &self.model,
            Group::Alias => &self.alias,
            Group::App => &self.app,
            Group::Key => &self.key,
        }
    }

    fn read(record: &Record) -> Result<Self, Error> {
        let text = |n| record.text(n).map(str::to_owned);
        Ok(Self {
            span: text(0)?,
            channel: text(1)?,
            model: text(2)?,
            alias: text(3)?,
            app: text(4)?,
            key: text(5)?,
            currency: text(6)?,
        })
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        i64::from(number).into()
    }
}

impl UsageOf {
    /// The account of the app that is asked for; empty for all.
    fn wallet(&self) -> String {
        self.only.get(&Group::App).map(|app| format!("wallet:{app}")).unwrap_or_default()
    }

    /// In the order in which the texts name them first.
    fn parameters(&self, is_postgres: bool) -> Vec<Value> {
        let only = |group| Value::from(self.only.get(&group).map_or("", String::as_str));
        let by = |group| Value::from(self.by.contains(&group));
        let after = &self.after;
        let text = |text: &String| Value::from(text.as_str());
        vec![
            sql::shape(self.span, is_postgres).into(),
            by(Group::Alias),
            by(Group::App),
            by(Group::Key),
            Value::from(self.wallet().as_str()),
            self.from.micros().into(),
            self.to.micros().into(),
            only(Group::Key),
            only(Group::Alias),
            by(Group::Channel),
            by(Group::Model),
            only(Group::Channel),
            only(Group::Model),
            text(&after.span),
            text(&after.channel),
            text(&after.model),
            text(&after.alias),
            text(&after.app),
            text(&after.key),
            text(&after.currency),
            self.limit.saturating_add(1).saturating_mul(sql::ROWS_OF_LINE).into(),
        ]
    }

    /// Where lines after the last page's can begin: no earlier span has any.
    fn starts(&self) -> Timestamp {
        let of_span = match self.span {
            None => None,
            Some(Span::Hour) => Timestamp::parse(&self.after.span),
            Some(Span::Day) => Timestamp::parse(&format!("{}T00:00:00Z", self.after.span)),
            Some(Span::Month) => Timestamp::parse(&format!("{}-01T00:00:00Z", self.after.span)),
        };
        of_span.map_or(self.from, |starts| starts.max(self.from))
    }

    /// Whether the page's lines, and that there are more, cannot change by calls from `at` on.
    fn is_full(&self, lines: &BTreeMap<LineKey, UsageLine>, at: Timestamp) -> bool {
        let (Some(span), Some(first_left)) = (self.span, lines.keys().nth(self.most())) else {
            return false;
        };
        first_left.span < span.of(at)
    }

    /// When the first call from `at` on was admitted: there may be long spans without any.
    async fn first_call(
        &self,
        session: &mut Session<'_>,
        at: Timestamp,
    ) -> Result<Option<Timestamp>, Failed> {
        let parameters = [at.micros().into(), self.wallet().as_str().into()];
        let found = session.first(sql::FIRST_CALL, &parameters).await?;
        let first = found.map(|record| record.maybe_int(0)).transpose()?.flatten();
        Ok(first.map(Timestamp::from_micros).filter(|first| *first < self.to))
    }

    fn most(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }

    /// Adds the lines of one slice, and forgets those that no page begins with.
    async fn add(
        &self,
        session: &mut Session<'_>,
        lines: &mut BTreeMap<LineKey, UsageLine>,
    ) -> Result<(), Failed> {
        let is_postgres = session.is_postgres();
        let text = if is_postgres { sql::POSTGRES } else { sql::SQLITE };
        for record in session.query(text, &self.parameters(is_postgres)).await? {
            let key = LineKey::read(&record)?;
            match lines.entry(key) {
                Entry::Occupied(mut known) => known.get_mut().take(&record)?,
                Entry::Vacant(free) => {
                    let line = UsageLine::empty(free.key().clone())?;
                    free.insert(line).take(&record)?;
                }
            }
        }
        while lines.len() > self.most().saturating_add(1) {
            lines.pop_last();
        }
        Ok(())
    }
}

/// How long the slice after one that took so long is.
const fn next_slice_ms(last_ms: i64, took: Duration) -> i64 {
    if took.as_millis() < QUICK.as_millis() {
        let twice = last_ms.saturating_mul(2);
        if twice < SLICE_MS_MAX { twice } else { SLICE_MS_MAX }
    } else if took.as_millis() > SLOW.as_millis() && last_ms > 1_000 {
        last_ms / 2
    } else {
        last_ms
    }
}

impl Span {
    /// The span of an instant, as the database writes it.
    fn of(self, at: Timestamp) -> String {
        let text = at.to_string();
        let known = |length| text.get(..length).unwrap_or_default();
        match self {
            Self::Hour => format!("{}:00:00Z", known(13)),
            Self::Day => known(10).to_owned(),
            Self::Month => known(7).to_owned(),
        }
    }
}

impl Work for UsageOf {
    /// `None` when it took too long.
    type Output = Option<UsagePage>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let began = Instant::now();
        if session.is_postgres() {
            session.query(sql::INTERPRETED, &[]).await?;
        }
        let (mut from, mut slice_ms) = (self.starts(), FIRST_SLICE_MS);
        let mut lines = BTreeMap::new();
        while from < self.to && !self.is_full(&lines, from) {
            let before = began.elapsed();
            if before >= WITHIN {
                return Ok(None);
            }
            let Some(first) = self.first_call(session, from).await? else { break };
            from = first.plus_millis(slice_ms).min(self.to);
            let slice = Self { from: first, to: from, ..self.clone() };
            slice.add(session, &mut lines).await?;
            slice_ms = next_slice_ms(slice_ms, began.elapsed().saturating_sub(before));
        }
        let has_more = lines.len() > self.most();
        let lines = lines.into_values().take(self.most()).collect();
        Ok(Some(UsagePage { lines, has_more }))
    }
}

#[async_trait]
impl UsageReports for Books {
    async fn usage(&self, of: UsageOf) -> Result<UsagePage, UsageError> {
        self.run(of).await?.ok_or(UsageError::TooLong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_grow_while_they_are_quick_and_shrink_when_they_are_slow() {
        let after = |took| next_slice_ms(FIRST_SLICE_MS, took);
        assert_eq!(after(Duration::ZERO), 2 * FIRST_SLICE_MS);
        assert_eq!((after(QUICK), after(SLOW)), (FIRST_SLICE_MS, FIRST_SLICE_MS));
        assert_eq!(after(SLOW * 2), FIRST_SLICE_MS / 2);
        assert_eq!(next_slice_ms(1_000, SLOW * 2), 1_000);
        assert_eq!(next_slice_ms(SLICE_MS_MAX, Duration::ZERO), SLICE_MS_MAX);
    }
}
