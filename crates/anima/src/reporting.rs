//! Channels whose answers lack usage: a share per channel over the last hour, and the alarm.
//!
//! An answer without usage is counted by ourselves and booked as an estimate; now and then that is
//! nothing, but a channel that does it often sells on our guesses. Not here: what is booked.
//! Invariant: noting an answer never waits for a look. Source: `reliability` 1.6, row 5.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::MissedTickBehavior;

use crate::metrics::Alarms;
use crate::relay::Relay;

/// Between two looks.
const EVERY: Duration = Duration::from_mins(1);

/// Looks that a share is over.
const LOOKS: usize = 60;

/// The share of answers without usage above which an alarm is due, per thousand.
const PER_THOUSAND: u64 = 5;

/// So many are never an alarm: one odd answer is above every share where there are few.
const FEW: u64 = 2;

/// Whole answers of a channel since the start, and those of them without usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Answers {
    all: u64,
    missing: u64,
}

#[derive(Debug, Default)]
struct Tally {
    all: AtomicU64,
    missing: AtomicU64,
}

impl Tally {
    fn read(&self) -> Answers {
        let missing = self.missing.load(Ordering::Relaxed);
        Answers { all: self.all.load(Ordering::Relaxed), missing }
    }
}

/// What the looks at a channel saw.
#[derive(Debug, Default)]
struct Seen {
    /// The oldest first.
    looks: VecDeque<Answers>,
    alarmed: bool,
}

impl Seen {
    /// Takes a look in; gives the answers of the last hour.
    fn look(&mut self, now: Answers) -> Answers {
        let is_full = self.looks.len() >= LOOKS;
        let then = if is_full { self.looks.pop_front() } else { None }.unwrap_or_default();
        self.looks.push_back(now);
        Answers {
            all: now.all.saturating_sub(then.all),
            missing: now.missing.saturating_sub(then.missing),
        }
    }
}

impl Answers {
    const fn per_million(self) -> u64 {
        let all = if self.all == 0 { 1 } else { self.all };
        self.missing.saturating_mul(1_000_000) / all
    }

    const fn is_too_often(self) -> bool {
        let share = self.missing.saturating_mul(1_000);
        self.missing > FEW && share > self.all.saturating_mul(PER_THOUSAND)
    }
}

/// Watches what channels report.
#[derive(Debug, Default)]
pub struct Reporting {
    channels: RwLock<HashMap<Arc<str>, Arc<Tally>>>,
    seen: Mutex<BTreeMap<Arc<str>, Seen>>,
}

impl Reporting {
    /// Notes a whole answer of a channel.
    pub fn note(&self, channel: &Arc<str>, reported: bool) {
        let known = self.channels.read().get(channel).cloned();
        let tally = known.unwrap_or_else(|| {
            Arc::clone(self.channels.write().entry(Arc::clone(channel)).or_default())
        });
        tally.all.fetch_add(1, Ordering::Relaxed);
        if !reported {
            tally.missing.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Looks once: raises the alarm of channels that begin to report too little, and lowers it.
    fn look(&self, alarms: &Alarms) {
        let channels: Vec<_> = {
            let channels = self.channels.read();
            channels.iter().map(|(channel, tally)| (Arc::clone(channel), tally.read())).collect()
        };
        let mut seen = self.seen.lock();
        for (channel, answers) in channels {
            let seen = seen.entry(Arc::clone(&channel)).or_default();
            let Answers { all, missing } = seen.look(answers);
            alarms.usage_missing(&channel, Answers { all, missing }.per_million());
            let is_alarm = Answers { all, missing }.is_too_often();
            let before = std::mem::replace(&mut seen.alarmed, is_alarm);
            let channel = &*channel;
            match (before, is_alarm) {
                (false, true) => {
                    alarms.usage_alarm(channel);
                    tracing::error!(channel, missing, all, "a channel does not report usage");
                }
                (true, false) => tracing::info!(channel, "the channel reports usage again"),
                (true, true) | (false, false) => {}
            }
        }
    }
}

/// Looks every so often, until the task is aborted.
pub async fn run(relay: Arc<Relay>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        relay.reporting.look(&relay.metrics.alarms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn alarmed(reporting: &Reporting, channel: &str) -> bool {
        reporting.look(&Metrics::new().unwrap().alarms);
        reporting.seen.lock().get(channel).is_some_and(|seen| seen.alarmed)
    }

    fn noted(reporting: &Reporting, channel: &str, (reported, missing): (u64, u64)) {
        let channel: Arc<str> = channel.into();
        (0..reported).for_each(|_| reporting.note(&channel, true));
        (0..missing).for_each(|_| reporting.note(&channel, false));
    }

    #[test]
    fn more_than_half_a_percent_is_an_alarm_of_that_channel_alone() {
        let reporting = Reporting::default();
        noted(&reporting, "good", (10_000, 50));
        noted(&reporting, "bad", (10_000, 51));
        assert!(!alarmed(&reporting, "good"));
        assert!(alarmed(&reporting, "bad"));
    }

    #[test]
    fn one_odd_answer_of_a_channel_that_is_little_used_is_no_alarm() {
        let reporting = Reporting::default();
        noted(&reporting, "a", (1, 2));
        assert!(!alarmed(&reporting, "a"));
        noted(&reporting, "a", (0, 1));
        assert!(alarmed(&reporting, "a"));
    }

    #[test]
    fn after_an_hour_of_good_answers_the_alarm_is_over() {
        let reporting = Reporting::default();
        noted(&reporting, "a", (10, 5));
        assert!(alarmed(&reporting, "a"));
        for _ in 1..LOOKS {
            noted(&reporting, "a", (10, 0));
            assert!(alarmed(&reporting, "a"));
        }
        noted(&reporting, "a", (10, 0));
        assert!(!alarmed(&reporting, "a"));
    }
}
