//! Proves the books while the node serves, and keeps money where it is when they do not hold.
//!
//! The first pass after a start looks at everything, later ones at what was posted lately and at
//! all balances. A breach is logged, counted and shown in the health report; where money could be
//! promised that is not there, new holds are refused, of one wallet where the breach names one.
//! From then on each pass looks at everything, and the first that finds nothing lifts the
//! refusal. Not here: what the invariants are (`anima-store`). Invariant: a settlement is never
//! refused, for what it books was spent already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::MissedTickBehavior;

use anima_core::clock::Clock;
use anima_core::failure::Failure;
use anima_store::ledger::money::InvoicedDay;
use anima_store::ledger::{Auditor, BREACHES_LISTED, Finding, Scope};

use crate::http::reply::Refusal;
use crate::metrics::Metrics;

/// How far back a pass looks for new postings, milliseconds: several passes, so that a posting is
/// looked at even when passes fail for a while.
const BACK_MS: i64 = 600_000;

/// Watches the books.
#[derive(Debug)]
pub struct Watch {
    auditor: Arc<dyn Auditor>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    seen: RwLock<Seen>,
    /// All books were looked at since the start: what was refused before it is known.
    has_seen_all: AtomicBool,
}

/// What the last pass found, and what follows.
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

    fn is_frozen(&self) -> bool {
        self.all.is_some() || self.refunds.is_some() || !self.wallets.is_empty()
    }

    fn forbids(&self, app: &str) -> Option<&'static str> {
        self.all.or_else(|| self.wallets.get(app).copied())
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
        let (seen, has_seen_all) = (RwLock::default(), AtomicBool::new(false));
        Self { auditor, metrics, clock, seen, has_seen_all }
    }

    /// Whether a hold on an app's wallet may be placed.
    ///
    /// # Errors
    /// [`Failure::ServiceUnavailable`], with the invariant that forbids it.
    pub fn permit(&self, app: &str) -> Result<(), Refusal> {
        let Some(invariant) = self.seen.read().forbids(app) else { return Ok(()) };
        let message = format!(
            "New calls are refused: the books do not hold invariant {invariant}. Ask the operator."
        );
        Err(Refusal::new(Failure::ServiceUnavailable, message))
    }

    /// The invariant for which no refund may be made now.
    pub fn forbids_refunds(&self) -> Option<&'static str> {
        self.seen.read().refunds
    }

    /// Invariants that did not hold at the last pass, and whether they forbid anything.
    pub fn breaches(&self) -> Vec<(&'static str, bool)> {
        let seen = self.seen.read();
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
    pub async fn run(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look().await;
        }
    }

    /// Looks once.
    pub(crate) async fn look(&self) {
        let now = self.clock.now();
        // What only all rows can tell is lifted by a look at all rows, and a start knows of none.
        let is_whole = !self.has_seen_all.load(Ordering::Relaxed) || self.seen.read().is_frozen();
        let recent = Scope::Recent(now.plus_millis(-BACK_MS));
        let scope = if is_whole { Scope::Everything } else { recent };
        match self.auditor.audit(now, scope).await {
            Ok(findings) => {
                self.has_seen_all.fetch_or(is_whole, Ordering::Relaxed);
                self.note(&findings);
            }
            Err(error) => {
                self.metrics.audited("failed");
                tracing::warn!(%error, "failed to check the books");
            }
        }
    }

    fn note(&self, findings: &[Finding]) {
        let found = Seen::of(findings);
        self.metrics.audited(if found.breaches.is_empty() { "clean" } else { "breached" });
        for finding in findings.iter().filter(|finding| finding.not_applicable.is_none()) {
            self.metrics.breaches(finding.invariant, finding.breaches.len());
        }
        let before = std::mem::replace(&mut *self.seen.write(), found.clone());
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

#[cfg(test)]
mod tests {
    use anima_core::clock::Timestamp;
    use anima_store::ledger::Error;

    use super::*;

    fn finding(invariant: &'static str, breaches: &[&str]) -> Finding {
        Finding {
            invariant,
            statement: "",
            not_applicable: None,
            checked: 1,
            breaches: breaches.iter().map(|b| (*b).to_owned()).collect(),
        }
    }

    #[test]
    fn clean_books_forbid_nothing() {
        let seen = Seen::of(&[finding("I1", &[]), finding("I4", &[])]);
        assert!(!seen.is_frozen());
        assert_eq!(seen, Seen::default());
    }

    #[test]
    fn a_breach_of_one_wallet_freezes_that_wallet_alone() {
        let seen = Seen::of(&[finding("I4", &["wallet:acme in USD: 5 posted"])]);
        assert_eq!(seen.forbids("acme"), Some("I4"));
        assert_eq!(seen.forbids("zeta"), None);
    }

    #[test]
    fn more_breaches_than_are_listed_freeze_everything() {
        let breach = "wallet:acme in USD: 5 posted";
        let almost = Seen::of(&[finding("I3", &[breach; BREACHES_LISTED - 1])]);
        assert_eq!(almost.forbids("zeta"), None);
        let full = Seen::of(&[finding("I3", &[breach; BREACHES_LISTED])]);
        assert_eq!(full.forbids("zeta"), Some("I3"));
    }

    #[test]
    fn entries_that_cannot_be_believed_freeze_everything() {
        for invariant in ["I1", "I2", "I5", "I7"] {
            assert_eq!(Seen::of(&[finding(invariant, &["x"])]).forbids("zeta"), Some(invariant));
        }
    }

    #[test]
    fn a_breach_of_the_refunds_forbids_refunds_and_nothing_else() {
        let seen = Seen::of(&[finding("I8", &["x"])]);
        assert_eq!((seen.refunds, seen.forbids("acme")), (Some("I8"), None));
        assert!(seen.is_frozen());
        assert_eq!(Seen::of(&[finding("I1", &["x"])]).refunds, Some("I1"));
        assert_eq!(Seen::of(&[finding("I4", &["wallet:acme in USD: 5"])]).refunds, None);
    }

    /// Remembers what it was asked to look at, and always finds the same.
    #[derive(Debug, Default)]
    struct Asked {
        scopes: parking_lot::Mutex<Vec<Scope>>,
        away: AtomicBool,
    }

    #[async_trait::async_trait]
    impl Auditor for Asked {
        async fn audit(&self, _now: Timestamp, scope: Scope) -> Result<Vec<Finding>, Error> {
            if self.away.load(Ordering::Relaxed) {
                return Err(Error::Unavailable("away".to_owned()));
            }
            self.scopes.lock().push(scope);
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn the_first_pass_that_succeeds_after_a_start_looks_at_everything() {
        let (asked, clock) = (Arc::new(Asked::default()), Arc::new(crate::clock::SystemClock));
        let metrics = Arc::new(Metrics::new().unwrap());
        let watch = Watch::new(Arc::clone(&asked) as _, metrics, clock);
        asked.away.store(true, Ordering::Relaxed);
        watch.look().await;
        asked.away.store(false, Ordering::Relaxed);
        watch.look().await;
        watch.look().await;
        let scopes = asked.scopes.lock();
        assert!(matches!(scopes[..], [Scope::Everything, Scope::Recent(_)]), "{scopes:?}");
    }

    #[test]
    fn what_is_for_people_to_look_into_forbids_nothing() {
        for invariant in ["I6", "I9", "I10", "I14"] {
            let seen = Seen::of(&[finding(invariant, &["wallet:acme in USD"])]);
            assert!(!seen.is_frozen() && seen.breaches.contains_key(invariant));
        }
        assert!(!Seen::of(&[finding("I3", &["revenue in USD: off"])]).is_frozen());
    }
}
