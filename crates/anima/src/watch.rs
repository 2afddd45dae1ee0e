//! Proves the books while the node serves, and keeps money where it is when they do not hold.
//!
//! Each node looks often at what was posted lately and at all balances. At everything one node at a
//! time looks, for all: after a start, once a day, and again and again while something is refused;
//! the others read what it found. A breach is logged, counted and shown in the health report; where
//! money could be promised that is not there, new holds are refused, of one wallet where the breach
//! names one. Only a look at everything lifts what was refused. Not here: what the invariants are
//! (`anima-store`). Invariant: a settlement is never refused, for what it books was spent already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::{Interval, MissedTickBehavior};
use uuid::Uuid;

use anima_core::clock::{Clock, Timestamp};
use anima_core::failure::Failure;
use anima_store::ledger::money::InvoicedDay;
use anima_store::ledger::{Auditor, BREACHES_LISTED, Error, Finding, Scope, Turn, WholeLook};

use crate::http::reply::Refusal;
use crate::metrics::Metrics;
use crate::settings::Settings;

/// How far back a pass looks for new postings, milliseconds: several passes, so that a posting is
/// looked at even when passes fail for a while.
const BACK_MS: i64 = 600_000;

/// How long a turn lasts, milliseconds, unless its node goes on. It says so three times as often.
const TURN_MS: i64 = 120_000;

/// While the last look at everything found something that refuses nothing, one is due so many times
/// as often: it is being put right.
const SOONER: u32 = 24;

/// What a look at recent postings sees as well as one at everything.
const CURRENT: &[&str] = &["I2", "I4", "I6"];

/// How often a node looks.
#[derive(Debug, Clone, Copy)]
pub struct Rounds {
    /// The node, by its process start.
    pub node: Uuid,
    /// Between two looks at what is recent.
    pub often: Duration,
    /// Between two looks at everything, of all nodes together; `None`: only after a start, and
    /// while something is refused.
    pub whole: Option<Duration>,
}

impl Rounds {
    /// As it is set. `None` where there are no books, or nobody is to look.
    pub fn of(settings: &Settings, node: Uuid) -> Option<Self> {
        let often = settings.audit_every()?;
        Some(Self { node, often, whole: settings.audit_all_every() })
    }
}

/// Watches the books.
#[derive(Debug)]
pub struct Watch {
    auditor: Arc<dyn Auditor>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    /// What was found before is not believed to be all.
    started: Timestamp,
    known: RwLock<Known>,
}

/// What looks have found.
#[derive(Debug, Default)]
struct Known {
    /// The last look at everything, of any node, and when.
    whole: Option<(Timestamp, Seen)>,
    /// The last looks at what is recent, and when: what refuses stays until all is looked at.
    recent: Option<(Timestamp, Seen)>,
    /// Both.
    seen: Seen,
}

/// What a look found, and what follows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Seen {
    /// By invariant, in words.
    breaches: BTreeMap<&'static str, Vec<String>>,
    /// No holds at all, and the invariant that forbids them.
    all: Option<&'static str>,
    /// No holds on these wallets, by app.
    wallets: BTreeMap<String, &'static str>,
    /// No refunds, and the invariant that forbids them.
    refunds: Option<&'static str>,
}

impl Seen {
    fn of(findings: &[Finding]) -> Self {
        let mut seen = Self::default();
        for finding in findings.iter().filter(|finding| !finding.breaches.is_empty()) {
            seen.breaches.insert(finding.invariant, finding.breaches.clone());
            match finding.invariant {
                // Entries that cannot be believed: nobody can tell whose.
                "I1" | "I2" | "I5" | "I7" => {
                    seen.all = seen.all.or(Some(finding.invariant));
                    seen.refunds = seen.refunds.or(Some(finding.invariant));
                }
                // What was refunded, by which a further refund is judged.
                "I8" => seen.refunds = seen.refunds.or(Some(finding.invariant)),
                // More may be wrong than the list has room for.
                "I3" | "I4" if finding.breaches.len() >= BREACHES_LISTED => {
                    seen.all = seen.all.or(Some(finding.invariant));
                }
                // Balances: those that holds are judged against.
                "I3" | "I4" => {
                    let apps = finding.breaches.iter().filter_map(|breach| app_of(breach));
                    seen.wallets.extend(apps.map(|app| (app.to_owned(), finding.invariant)));
                }
                // Nothing is promised on these: they are for people to look into.
                _ => {}
            }
        }
        seen
    }

    /// What either of two looks found.
    fn join(mut self, other: Self) -> Self {
        for (invariant, breaches) in other.breaches {
            let all = self.breaches.entry(invariant).or_default();
            all.extend(breaches);
            all.sort_unstable();
            all.dedup();
            all.truncate(BREACHES_LISTED);
        }
        self.all = self.all.or(other.all);
        self.refunds = self.refunds.or(other.refunds);
        self.wallets.extend(other.wallets);
        self
    }

    /// Without what a later look has seen again.
    fn without_current(mut self) -> Self {
        self.breaches.retain(|invariant, _| !CURRENT.contains(invariant));
        self.wallets.retain(|_, invariant| !CURRENT.contains(invariant));
        self
    }

    fn is_frozen(&self) -> bool {
        self.all.is_some() || self.refunds.is_some() || !self.wallets.is_empty()
    }

    fn forbids(&self, app: &str) -> Option<&'static str> {
        self.all.or_else(|| self.wallets.get(app).copied())
    }
}

impl Known {
    fn joined(&self) -> Seen {
        let (whole, recent) = (self.whole.clone(), self.recent.clone());
        match (whole, recent) {
            (Some((then, whole)), Some((now, recent))) if now > then && !whole.is_frozen() => {
                whole.without_current().join(recent)
            }
            (Some((_, whole)), Some((_, recent))) => whole.join(recent),
            (whole, recent) => whole.or(recent).map(|(_, seen)| seen).unwrap_or_default(),
        }
    }

    /// What refuses is only forgotten for a look at everything.
    fn looked(&mut self, at: Timestamp, found: Seen) {
        let before = self.recent.take().map(|(_, seen)| seen).filter(Seen::is_frozen);
        let found = match before {
            Some(before) => before.join(found),
            None => found,
        };
        self.recent = Some((at, found));
    }

    fn looked_at_all(&mut self, at: Timestamp, found: Seen) {
        self.recent = self.recent.take().filter(|(then, _)| *then > at);
        self.whole = Some((at, found));
    }
}

/// The app whose wallet or promotional credit a breach is about.
fn app_of(breach: &str) -> Option<&str> {
    let code = breach.strip_prefix("wallet:").or_else(|| breach.strip_prefix("promo:"))?;
    code.split_once(" in ").map(|(app, _)| app)
}

impl Watch {
    /// A watch that has seen nothing yet.
    pub fn new(auditor: Arc<dyn Auditor>, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        let started = clock.now();
        Self { auditor, metrics, clock, started, known: RwLock::default() }
    }

    /// Whether a hold on an app's wallet may be placed.
    ///
    /// # Errors
    /// [`Failure::ServiceUnavailable`], with the invariant that forbids it.
    pub fn permit(&self, app: &str) -> Result<(), Refusal> {
        let Some(invariant) = self.known.read().seen.forbids(app) else { return Ok(()) };
        let message = format!(
            "New calls are refused: the books do not hold invariant {invariant}. Ask the operator."
        );
        Err(Refusal::new(Failure::ServiceUnavailable, message))
    }

    /// The invariant for which no refund may be made now.
    pub fn forbids_refunds(&self) -> Option<&'static str> {
        self.known.read().seen.refunds
    }

    /// Invariants that did not hold at the last looks, and whether they forbid anything.
    pub fn breaches(&self) -> Vec<(&'static str, bool)> {
        let seen = &self.known.read().seen;
        let forbids = |invariant| {
            seen.all == Some(invariant)
                || seen.refunds == Some(invariant)
                || seen.wallets.values().any(|i| *i == invariant)
        };
        seen.breaches.keys().map(|invariant| (*invariant, forbids(*invariant))).collect()
    }

    /// Raises the alarm for days of an invoice of which the books say something else.
    pub(crate) fn invoiced(&self, channel: &str, off: &[&InvoicedDay]) {
        for day in off {
            let (day, billed, difference) = (day.day, day.billed, day.difference());
            tracing::error!(channel, day, billed, difference, "an invoice is not what was booked");
        }
        self.metrics.alarms.invoice_days_off(channel, off.len());
    }

    /// Looks at the books every so often, until the task is aborted.
    pub async fn run(self: Arc<Self>, rounds: Rounds) {
        let recent = async {
            let mut ticks = ticks(rounds.often);
            loop {
                ticks.tick().await;
                self.look().await;
            }
        };
        let whole = async {
            let mut ticks = ticks(rounds.often);
            loop {
                ticks.tick().await;
                self.look_at_all_in_turn(&rounds).await;
            }
        };
        tokio::join!(recent, whole);
    }

    /// Looks once at what is recent.
    pub(crate) async fn look(&self) {
        let now = self.clock.now();
        let scope = Scope::Recent(now.plus_millis(-BACK_MS));
        match self.auditor.audit(now, scope).await {
            Ok(findings) => {
                self.metrics.audits.looked(outcome(&findings));
                self.note(&findings, |known| known.looked(now, Seen::of(&findings)));
            }
            Err(error) => {
                self.metrics.audits.looked("failed");
                tracing::warn!(%error, "failed to check the books");
            }
        }
    }

    /// Takes over what the last look at everything found, and looks anew when that is due and it is
    /// this node's turn.
    pub(crate) async fn look_at_all_in_turn(&self, rounds: &Rounds) {
        let last = match self.auditor.last_look().await {
            Ok(last) => last,
            Err(error) => {
                tracing::warn!(%error, "failed to read the last look at all books");
                return;
            }
        };
        let after = last.as_ref().map(|look| look.at);
        if let Some(look) = last {
            self.take_over(look);
        }
        let now = self.clock.now();
        if !self.is_due(after, now, rounds) {
            return;
        }
        let outcome = self.look_at_all(now, after, rounds.node).await;
        match &outcome {
            Ok(Some(found)) => self.metrics.audits.looked_at_all(found),
            Ok(None) => tracing::debug!("another node looks at all books"),
            Err(error) => {
                self.metrics.audits.looked_at_all("failed");
                tracing::warn!(%error, "failed to check all books");
            }
        }
    }

    /// Looks at everything, if it is this node's turn. `None` when it is not, or is no more.
    async fn look_at_all(
        &self,
        now: Timestamp,
        after: Option<Timestamp>,
        node: Uuid,
    ) -> Result<Option<&'static str>, Error> {
        let turn = |now: Timestamp| Turn { node, now, until: now.plus_millis(TURN_MS), after };
        if !self.auditor.take_turn(turn(now)).await? {
            return Ok(None);
        }
        let began = tokio::time::Instant::now();
        let findings = tokio::select! {
            findings = self.auditor.audit(now, Scope::Everything) => findings?,
            () = self.keep(turn) => return Ok(None),
        };
        let found = outcome(&findings);
        let look = WholeLook { at: now, findings };
        if !self.auditor.end_turn(node, look.clone()).await? {
            return Ok(None);
        }
        self.metrics.audits.took(began.elapsed());
        self.take_over(look);
        Ok(Some(found))
    }

    /// Keeps a turn until another node has it.
    async fn keep(&self, turn: impl Fn(Timestamp) -> Turn) {
        let every = Duration::from_millis(TURN_MS.unsigned_abs() / 3);
        let mut ticks = ticks(every);
        ticks.reset();
        loop {
            ticks.tick().await;
            match self.auditor.take_turn(turn(self.clock.now())).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "failed to keep the turn to look at all books");
                }
            }
        }
    }

    /// Whether everything is to be looked at, when it was last looked at `last`.
    fn is_due(&self, last: Option<Timestamp>, now: Timestamp, rounds: &Rounds) -> bool {
        // After a start, and where a clock was set back.
        let Some(last) = last.filter(|last| *last >= self.started && *last <= now) else {
            return true;
        };
        let (is_frozen, is_breached) = {
            let known = self.known.read();
            let found = |(_, seen): &(Timestamp, Seen)| !seen.breaches.is_empty();
            (known.seen.is_frozen(), known.whole.as_ref().is_some_and(found))
        };
        let rest = match rounds.whole {
            _ if is_frozen => Some(rounds.often),
            Some(whole) if is_breached => Some(whole / SOONER),
            whole => whole,
        };
        let passed = u128::try_from(now.since(last)).unwrap_or(0);
        rest.is_some_and(|rest| passed >= rest.as_micros())
    }

    /// Takes over what a look at everything found, whoever looked.
    fn take_over(&self, look: WholeLook) {
        let WholeLook { at, findings } = look;
        self.metrics.audits.last_at(at);
        if self.known.read().whole.as_ref().is_some_and(|(known, _)| *known == at) {
            return;
        }
        self.note(&findings, |known| known.looked_at_all(at, Seen::of(&findings)));
    }

    fn note(&self, findings: &[Finding], learn: impl FnOnce(&mut Known)) {
        let (before, found) = {
            let mut known = self.known.write();
            learn(&mut known);
            let found = known.joined();
            (std::mem::replace(&mut known.seen, found.clone()), found)
        };
        for finding in findings.iter().filter(|finding| finding.not_applicable.is_none()) {
            let breaches = found.breaches.get(finding.invariant).map_or(0, Vec::len);
            self.metrics.audits.breaches(finding.invariant, breaches);
        }
        if before == found {
            return;
        }
        for (invariant, breaches) in &found.breaches {
            let (first, count) = (breaches.first().map_or("", String::as_str), breaches.len());
            tracing::error!(invariant, count, first, "the books do not hold");
        }
        let apps: BTreeSet<_> = found.wallets.keys().map(String::as_str).collect();
        if found.is_frozen() {
            let (all, refunds) = (found.all, found.refunds);
            tracing::error!(all, ?apps, refunds, "new holds or refunds are refused");
        } else if before.is_frozen() {
            tracing::info!("the books hold again: nothing is refused any longer");
        }
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn outcome(findings: &[Finding]) -> &'static str {
    if findings.iter().all(|finding| finding.breaches.is_empty()) { "clean" } else { "breached" }
}

#[cfg(test)]
mod tests;
