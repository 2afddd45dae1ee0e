//! Says, as long as this process serves, that it is alive.
//!
//! A node that was missed is told when it renews: others close what it had open, and its
//! settlements become corrections. It then goes on under a new id instead of ending itself: the
//! database refuses whatever it does under the old one, so nothing is gained by breaking off the
//! answers that still run. Invariant: no hold is placed between the loss of a lease and the next
//! one; the store sees to it. Source: `reliability` 1.5.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use anima_core::clock::mint_id;
use anima_store::ledger::{Error, Registration};

use super::Relay;

/// The part of [`TTL`] that is used. The rest is for what passes between looking and sending.
const USED: Duration = Duration::from_secs(14);

/// How long a lease lasts without renewal: three renewals may be lost.
pub const TTL: Duration = Duration::from_secs(15);

/// Between two renewals.
const EVERY: Duration = Duration::from_secs(5);

/// Between two tries to get a new lease, and after a renewal that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Until when this node may believe that nobody has taken over from it. A process that was stopped
/// and goes on finds it over: what it was about to send is not sent.
#[derive(Debug)]
pub struct Term {
    since: Instant,
    /// Milliseconds after `since`.
    ends_ms: AtomicU64,
    /// Counts the leases that this process has had.
    number: AtomicU64,
    /// The last one that it took: its number and its id.
    lease: Mutex<(u64, Uuid)>,
}

impl Term {
    /// The term of a lease that was asked for at `asked` under the id `node`.
    pub fn new(node: Uuid, asked: Instant) -> Self {
        let term = Self {
            since: asked,
            ends_ms: AtomicU64::new(0),
            number: AtomicU64::new(0),
            lease: Mutex::new((0, node)),
        };
        term.renewed(asked);
        term
    }

    /// The lease was renewed; the renewal was asked for at `asked`.
    fn renewed(&self, asked: Instant) {
        let ends = asked.duration_since(self.since) + USED;
        self.ends_ms.store(u64::try_from(ends.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// There is a new lease of id `node`, asked for at `asked`. What was held under the old one is
    /// not ours.
    pub fn replaced(&self, node: Uuid, asked: Instant) {
        let mut lease = self.lease.lock();
        let before = self.number.fetch_add(1, Ordering::AcqRel);
        *lease = (before.saturating_add(1), node);
        self.renewed(asked);
    }

    /// The lease is about to be given back. What was held under it, or claimed under it, is not
    /// sent any more: once it is back, others believe that.
    pub fn end(&self) {
        let _lease = self.lease.lock();
        self.number.fetch_add(1, Ordering::AcqRel);
        self.ends_ms.store(0, Ordering::Release);
    }

    /// The lease that an idempotency key is claimed under: its number, and its id. Both of one
    /// lease, for what the number covers is what others infer from the id.
    pub fn lease(&self) -> (u64, Uuid) {
        *self.lease.lock()
    }

    /// The lease that a hold is placed under.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Whether what was held under lease `number` is surely still ours.
    pub(super) fn covers(&self, number: u64) -> bool {
        let passed = Instant::now().duration_since(self.since).as_millis();
        let ends_ms = self.ends_ms.load(Ordering::Acquire);
        self.number() == number && passed < u128::from(ends_ms)
    }
}

/// What this process registers as.
pub fn registration(node: Uuid) -> Registration {
    Registration { node, host: host(), ttl: TTL }
}

/// The machine's name, for people. Empty where the system does not say.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{} {}", name.trim(), std::process::id())
}

/// Renews the lease until the task is aborted: every so often, and as soon as the database is back,
/// for the term may be over by then.
pub async fn run(relay: Arc<Relay>) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut returns = relay.dependencies.returns();
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = returns.next() => every.reset(),
        }
        let asked = Instant::now();
        // A network that fell silent keeps its connections: nothing would end the wait.
        let renewing = tokio::time::timeout(EVERY, relay.ledger.renew(TTL)).await;
        match renewing.unwrap_or_else(|_late| Err(silent())) {
            Ok(()) => relay.term.renewed(asked),
            Err(Error::Fenced) => {
                relay.metrics.recovery.leases_lost.inc();
                tracing::error!("the lease is lost: other nodes close what this one had open");
                start_again(&relay).await;
            }
            Err(error) => {
                tracing::warn!(%error, "failed to renew the lease");
                // While it is known to be down, its return is what counts.
                if !relay.dependencies.database_down() {
                    every.reset_after(RETRY);
                }
            }
        }
    }
}

/// What a wait without an end comes to.
fn silent() -> Error {
    Error::Unavailable(format!("no answer within {EVERY:?}"))
}

/// Takes a new id, however long that takes.
async fn start_again(relay: &Relay) {
    loop {
        let node = mint_id(relay.clock.now(), &*relay.rng);
        let asked = Instant::now();
        let registering = tokio::time::timeout(EVERY, relay.ledger.register(registration(node)));
        match registering.await.unwrap_or_else(|_late| Err(silent())) {
            Ok(()) => {
                relay.term.replaced(node, asked);
                return tracing::warn!(%node, "serving again, under a new id");
            }
            Err(error) => tracing::error!(%error, "failed to take a new lease"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_term_ends_before_the_lease_and_a_renewal_counts_from_when_it_was_asked_for() {
        let term = Term::new(Uuid::nil(), Instant::now());
        tokio::time::advance(Duration::from_secs(10)).await;
        let asked = Instant::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(term.covers(0));
        term.renewed(asked);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(term.covers(0));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!term.covers(0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_claimed_under_a_lease_that_was_replaced_or_given_back_is_not_covered() {
        let term = Term::new(Uuid::from_u128(1), Instant::now());
        let first = term.lease();
        assert_eq!(first.1, Uuid::from_u128(1));
        term.replaced(Uuid::from_u128(2), Instant::now());
        let second = term.lease();
        assert_eq!(second.1, Uuid::from_u128(2));
        assert!(!term.covers(first.0) && term.covers(second.0));
        term.end();
        // A renewal that was under way is told of.
        term.renewed(Instant::now());
        assert!(!term.covers(second.0) && !term.covers(term.lease().0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_lease_does_not_cover_what_was_held_under_the_old_one() {
        let term = Term::new(Uuid::nil(), Instant::now());
        let held_under = term.number();
        term.replaced(Uuid::nil(), Instant::now());
        assert!(!term.covers(held_under));
        assert!(term.covers(term.number()));
    }
}
