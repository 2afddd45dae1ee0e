//! The limits that a caller is under, and what happens to a call that is over them.
//!
//! Found once per request beside the key; not here: counting and judging. Invariant: a quota that a
//! row names and that is not in force refuses the call, because nobody meant "without limits". One
//! that is switched off limits nothing.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use anima_core::clock::Timestamp;
use anima_core::config::{App, Key, LimitKind, QueueMode};
use anima_core::failure::Failure;
use anima_core::money::Currency;
use anima_core::quota::calendar;
use anima_core::quota::rule::{Holder, Take};
use anima_core::quota::{Bound, Rule, Scope, Tag};
use anima_core::snapshot::{QuotaEntry, TokenGroupEntry};

use super::reply::Refusal;
use crate::live::Pinned;

/// How long a call may wait when its key does not say.
const WAIT: Duration = Duration::from_secs(30);
/// How many calls of a key may wait when it does not say.
const QUEUE_MAX: usize = 100;

/// How long a task waits for its turn before it makes room for others and comes back.
const TASK_WAIT: Duration = Duration::from_mins(1);

/// The limits of a caller.
#[derive(Debug, Clone)]
pub struct Terms {
    limits: Vec<(Holder, Arc<QuotaEntry>)>,
    zone: TimeZone,
    /// What happens over a limit.
    pub mode: QueueMode,
    /// How long a call may wait.
    pub wait: Duration,
    /// How many calls of the key may wait.
    pub max_queue: usize,
    /// How many tasks of the key may wait, when it says so.
    pub max_tasks: Option<u64>,
}

impl Terms {
    /// Finds the limits of a key, its app and its token group.
    ///
    /// # Errors
    /// [`Failure::KeyDisabled`] when a quota is not in force.
    pub fn find(
        pinned: &Pinned,
        (kid, key): (&Arc<str>, &Key),
        (code, app): (&Arc<str>, &App),
        group: Option<&TokenGroupEntry>,
    ) -> Result<Self, Refusal> {
        let mut limits = Vec::new();
        let mut find = |quota: Option<&str>, scope, code: &Arc<str>, tag| {
            let Some(quota) = quota else { return Ok::<(), Refusal>(()) };
            let found = pinned.snapshot.quota(quota).ok_or_else(|| not_in_force(quota))?;
            if found.enabled && !found.rules.is_empty() {
                let holder = Holder { scope, code: Arc::clone(code), tag };
                limits.push((holder, Arc::clone(found)));
            }
            Ok(())
        };
        find(key.quota.as_deref(), Scope::Key, kid, Tag::App(Arc::clone(code)))?;
        find(app.quota.as_deref(), Scope::App, code, Tag::App(Arc::clone(code)))?;
        if let Some(group) = group {
            let tag = Tag::TokenGroup(Arc::clone(&group.code));
            find(group.quota.as_deref(), Scope::TokenGroup, &group.code, tag)?;
        }
        let zone = if limits.is_empty() { None } else { calendar::zone(&app.time_zone) };
        let mode = key.queue_mode.or_else(|| group.and_then(|group| group.queue_mode));
        Ok(Self {
            limits,
            zone: zone.unwrap_or(TimeZone::UTC),
            mode: mode.unwrap_or(QueueMode::Reject),
            wait: key.wait_timeout_ms.map_or(WAIT, |ms| Duration::from_millis(ms.into())),
            max_queue: key
                .max_queue
                .map_or(QUEUE_MAX, |most| usize::try_from(most).unwrap_or(QUEUE_MAX)),
            max_tasks: key.max_queue.map(u64::from),
        })
    }

    /// The same limits for a task: where one is in its way it waits, whatever the key's mode is
    /// now. It stands in the durable queue already, so no other bound applies.
    pub fn of_task(&self) -> Self {
        let (mode, wait, max_queue) = (QueueMode::Wait, TASK_WAIT, usize::MAX);
        Self { mode, wait, max_queue, ..self.clone() }
    }

    /// Whether nothing limits the caller.
    pub fn is_free(&self) -> bool {
        self.limits.is_empty()
    }

    /// Whether tokens are limited.
    pub fn counts_tokens(&self) -> bool {
        self.limits(LimitKind::Tokens)
    }

    /// Whether money is limited.
    pub fn counts_cost(&self) -> bool {
        self.limits(LimitKind::Cost)
    }

    /// Whether there is a budget that refuses.
    pub fn has_budget(&self) -> bool {
        let refuses = |rule: &Rule| rule.kind() == LimitKind::Cost && !rule.is_shadow();
        self.limits.iter().any(|(_, quota)| quota.rules.iter().any(refuses))
    }

    fn limits(&self, kind: LimitKind) -> bool {
        self.limits.iter().any(|(_, quota)| quota.rules.iter().any(|rule| rule.kind() == kind))
    }

    /// Every limit as it applies to a call at `now`.
    pub fn bounds(&self, now: Timestamp, currency: Currency, take: Take) -> Vec<Bound> {
        let rules = self
            .limits
            .iter()
            .flat_map(|(holder, quota)| quota.rules.iter().map(move |rule| (holder, rule)));
        rules
            .filter_map(|(holder, rule)| rule.bind(holder, (now, &self.zone), (currency, take)))
            .collect()
    }
}

fn not_in_force(quota: &str) -> Refusal {
    let message = format!("The quota `{quota}` of this API key is not in force now.");
    Refusal::new(Failure::KeyDisabled, message)
}
