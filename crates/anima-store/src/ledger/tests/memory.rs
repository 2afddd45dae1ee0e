//! A ledger in memory: the tables as maps, judged by the judge of both databases.
//!
//! What the simulation runs on, and the third side of the differential test. It reads, judges and
//! writes in one step, as a transaction does; what it adds to the judge is what the databases add:
//! the posting gate, append-only rows, compare-and-set on a hold's state and owner, leases.
//! Invariant: a transaction that fails leaves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Account, Attempt, Component, EntryKind, Exposure, Leg, Phase, PriceRef};
use anima_core::money::{Currency, Multiplier};

use crate::ledger::booked::given_back;
use crate::ledger::control::OVERDUE;
use crate::ledger::digest::Digest;
use crate::ledger::directory::Directory;
use crate::ledger::judge::Judge;
use crate::ledger::operation::{Item, Operation, Verdict};
use crate::ledger::plan::{Booked, BookedTrueup, GateKey, Known, Plan, State, StoredHold, Wallet};
use crate::ledger::{Claimed, Error, trail};

pub(super) mod unlocked; // batches that are judged without locks

/// A hold's row.
#[derive(Debug, Clone)]
pub(super) struct HoldRow {
    pub(super) stored: StoredHold,
    pub(super) app: Arc<str>,
    currency: Currency,
    sale_price: PriceRef,
    fx: Option<PriceRef>,
    multiplier: Multiplier,
    exposure: Option<Exposure>,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Timestamp,
    phase: Phase,
    progress: i64,
    trail: Option<String>,
    /// It was taken over.
    pub(super) is_claimed: bool,
    /// What was taken; `None` while open and for a release.
    pub(super) settled: Option<i64>,
}

/// A leg's row.
#[derive(Debug, Clone)]
pub(super) struct LegRow {
    pub(super) subject: Uuid,
    pub(super) kind: i16,
    seq: i16,
    pub(super) leg: Leg,
}

/// A new wallet.
const EMPTY: Wallet =
    Wallet { debits: 0, credits: 0, held: 0, floor: 0, promo: 0, promo_id: None, changed: false };

/// A process's lease.
#[derive(Debug, Clone, Copy)]
struct Lease {
    expires_at: Timestamp,
    is_dead: bool,
}

/// What a planted bug changes about a transaction. All `false`: none.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is planted alone")]
pub(super) struct Bugs {
    /// A closed hold looks open to whoever settles it, and nothing else stops a second settlement.
    pub(super) settles_without_cas: bool,
    /// Wallets are judged as they were before the last transaction.
    pub(super) judges_stale_wallets: bool,
    /// Recovery resolves holds without putting its own id on them first.
    pub(super) recovers_unfenced: bool,
    /// A transaction that was given up and commits later is written as it was judged.
    pub(super) commits_late_unchecked: bool,
}

/// The tables.
#[derive(Debug, Default)]
pub(super) struct Memory {
    directory: Directory,
    ids: i64,
    pub(super) accounts: BTreeMap<i64, (Account, Currency)>,
    prices: BTreeMap<i64, PriceRef>,
    pub(super) wallets: BTreeMap<i64, Wallet>,
    /// As they were before the last transaction, for a planted bug.
    stale: BTreeMap<i64, Wallet>,
    pub(super) holds: BTreeMap<Uuid, HoldRow>,
    pub(super) gates: BTreeMap<GateKey, (Uuid, Digest)>,
    pub(super) legs: Vec<LegRow>,
    pub(super) attempts: BTreeMap<(Uuid, i16), Attempt>,
    /// Debits and credits.
    pub(super) house: BTreeMap<i64, (i128, i128)>,
    leases: BTreeMap<Uuid, Lease>,
    pub(super) bugs: Bugs,
}

/// The hold that an operation is about.
fn hold_of(operation: &Operation) -> Option<Uuid> {
    match operation {
        Operation::Hold(hold) => Some(hold.id),
        Operation::Settle(settle) => Some(settle.settlement.hold),
        Operation::TrueUp(correction) => Some(correction.settle.settlement.hold),
        Operation::Extend(extension) => Some(extension.hold),
        Operation::Checkpoint(_) | Operation::Post(_) => None,
    }
}

impl Memory {
    /// Makes one transaction of a batch, as process `node`.
    pub(super) fn transact(
        &mut self,
        node: Uuid,
        posted_at: Timestamp,
        items: &[Item],
    ) -> Result<Vec<Verdict>, String> {
        self.intern(items);
        let mut known = self.load(node, items);
        let mut judge = Judge {
            directory: &self.directory,
            node,
            posted_at,
            known: &mut known,
            plan: Plan::default(),
        };
        let verdicts = judge.judge(items);
        let plan = judge.plan;
        self.write(node, &plan, &known)?;
        Ok(verdicts)
    }

    fn intern(&mut self, items: &[Item]) {
        let missing = self.directory.missing(items);
        for (account, currency) in missing.accounts {
            self.ids += 1;
            if account.is_gated() {
                self.wallets.insert(self.ids, EMPTY);
            }
            self.accounts.insert(self.ids, (account.clone(), currency));
            self.directory.learn_account(account, currency, self.ids);
        }
        for price in missing.prices {
            self.ids += 1;
            self.prices.insert(self.ids, price.clone());
            self.directory.learn_price(price, self.ids);
        }
    }

    fn load(&self, node: Uuid, items: &[Item]) -> Known {
        let is_fenced = self.leases.get(&node).is_some_and(|lease| lease.is_dead);
        let mut known = Known { is_fenced, ..Known::default() };
        let wallets = if self.bugs.judges_stale_wallets { &self.stale } else { &self.wallets };
        for item in items {
            item.operation.each_wallet(|account, currency| {
                let id = self.directory.account(account, currency).unwrap();
                let wallet = wallets.get(&id).or_else(|| self.wallets.get(&id)).unwrap();
                known.wallets.insert(id, Wallet { changed: false, ..*wallet });
            });
            if let Operation::Post(post) = &item.operation {
                let entry = &post.entry;
                let key = (entry.subject, entry.kind.number(), entry.seq);
                known.gates.extend(self.gates.get(&key).map(|gate| (key, *gate)));
            }
            let Some(id) = hold_of(&item.operation) else { continue };
            let found = self.holds.get(&id).map(|row| (id, self.seen(node, &row.stored, item)));
            known.holds.extend(found);
            if let Operation::TrueUp(_) = item.operation {
                known.booked.insert(id, self.booked(id));
            }
        }
        known
    }

    fn booked(&self, hold: Uuid) -> Booked {
        let legs = self.legs.iter().filter(|row| row.subject == hold).map(|row| row.leg.clone());
        let trueup = |key: &GateKey| key.0 == hold && key.1 == EntryKind::Trueup.number();
        let trueups = self.gates.iter().filter(|(key, _)| trueup(key));
        let trueups = trueups.map(|(key, &(journal, digest))| {
            let is_its = |row: &&LegRow| (row.subject, row.kind, row.seq) == *key;
            let legs = self.legs.iter().filter(is_its).map(|row| row.leg.clone());
            let given_back = given_back(&legs.collect::<Vec<_>>());
            BookedTrueup { seq: key.2, journal, digest, given_back }
        });
        let attempts = self.attempts.range((hold, i16::MIN)..=(hold, i16::MAX));
        Booked {
            legs: legs.collect(),
            trueups: trueups.collect(),
            attempts: attempts.map(|(key, _)| key.1).collect(),
        }
    }

    /// A hold as a transaction sees it, which a planted bug may falsify.
    fn seen(&self, node: Uuid, stored: &StoredHold, item: &Item) -> StoredHold {
        let mut seen = stored.clone();
        let settles = matches!(item.operation, Operation::Settle(_));
        let open = matches!(stored.state, State::Open { .. });
        if settles && !open && self.bugs.settles_without_cas {
            seen.state = State::Open { node };
        }
        seen
    }

    fn write(&mut self, node: Uuid, plan: &Plan<'_>, known: &Known) -> Result<(), String> {
        self.refuse_impossible(node, plan)?;
        self.write_rows(node, plan, known);
        Ok(())
    }

    fn write_rows(&mut self, node: Uuid, plan: &Plan<'_>, known: &Known) {
        self.stale.clone_from(&self.wallets);
        self.write_holds(node, plan);
        let keys: BTreeMap<Uuid, GateKey> = plan.journals.iter().map(|j| (j.id, j.key)).collect();
        for journal in &plan.journals {
            self.gates.insert(journal.key, (journal.id, journal.digest));
        }
        for row in &plan.legs {
            let (subject, kind, seq) = keys[&row.journal];
            let account = |id| self.accounts[&id].0.clone();
            let leg = Leg {
                debit: account(row.debit_id),
                credit: account(row.credit_id),
                amount: row.amount,
                currency: row.currency,
                component: Component::from_number(row.component).unwrap(),
                attempt: row.attempt,
                price: row.price_id.map(|id| self.prices[&id].clone()),
                estimate: row.estimate,
            };
            self.legs.push(LegRow { subject, kind, seq, leg });
        }
        for row in &plan.attempts {
            self.attempts.insert((row.hold, row.attempt.n), row.attempt.clone());
        }
        for (id, wallet) in known.wallets.iter().filter(|(_, wallet)| wallet.changed) {
            self.wallets.insert(*id, *wallet);
        }
        for (id, (debits, credits)) in &plan.house {
            let sums = self.house.entry(*id).or_default();
            sums.0 += debits;
            sums.1 += credits;
        }
    }

    fn write_holds(&mut self, node: Uuid, plan: &Plan<'_>) {
        for row in &plan.holds {
            let hold = row.hold;
            let stored = StoredHold {
                account_id: row.account_id,
                price_id: row.price_id,
                amount: hold.amount,
                kid: Arc::clone(&hold.kid),
                alias: Arc::clone(&hold.alias),
                state: State::Open { node },
                created_at: hold.created_at,
            };
            let new = HoldRow {
                stored,
                app: Arc::clone(&hold.app),
                currency: hold.currency,
                sale_price: hold.sale_price.clone(),
                fx: hold.fx.clone(),
                multiplier: hold.multiplier,
                exposure: hold.exposure.clone(),
                created_at: hold.created_at,
                expires_at: hold.expires_at,
                phase: Phase::Intent,
                progress: 0,
                trail: None,
                is_claimed: false,
                settled: None,
            };
            self.holds.insert(hold.id, new);
        }
        for (id, (_, amount)) in &plan.extensions {
            self.holds.get_mut(id).unwrap().stored.amount = *amount;
        }
        for (id, written) in &plan.checkpoints {
            // What was taken over is no longer a call that runs.
            let runs =
                |row: &&mut HoldRow| row.stored.state == State::Open { node } && !row.is_claimed;
            let Some(row) = self.holds.get_mut(id).filter(runs) else { continue };
            let (_, running) = trail::read(row.trail.as_deref());
            let stored = (running.map_or(0, |running| running.n), row.phase.number(), row.progress);
            let checkpoint = &written.checkpoint;
            let told = (written.attempt(), checkpoint.phase.number(), checkpoint.progress);
            if told < stored {
                continue;
            }
            row.phase = written.checkpoint.phase;
            row.progress = written.checkpoint.progress;
            row.trail = Some(written.trail.clone());
        }
        for row in &plan.closings {
            if let Some(hold) = self.holds.get_mut(&row.id) {
                let (charged, uncollected) = (row.settled.unwrap_or(0), row.uncollected);
                let digest = row.digest;
                hold.stored.state = State::Closed { node, charged, uncollected, digest };
                hold.settled = row.settled;
                hold.trail = None;
            }
        }
    }

    /// What the databases refuse by themselves.
    fn refuse_impossible(&self, node: Uuid, plan: &Plan<'_>) -> Result<(), String> {
        let closings = plan.closings.iter().map(|row| row.id);
        let touched = closings.chain(plan.extensions.keys().copied());
        for id in touched.filter(|_| !self.bugs.settles_without_cas) {
            let new = plan.holds.iter().any(|hold| hold.hold.id == id);
            let state = self.holds.get(&id).map(|hold| hold.stored.state);
            let ours = state == Some(State::Open { node });
            if !(new || ours) {
                return Err(format!("hold {id} is not open, or not ours"));
            }
        }
        let free = |key| !self.gates.contains_key(key) || self.bugs.settles_without_cas;
        if let Some(journal) = plan.journals.iter().find(|journal| !free(&journal.key)) {
            return Err(format!("{:?} was posted before", journal.key));
        }
        Ok(())
    }

    /// A process starts.
    pub(super) fn register(&mut self, node: Uuid, until: Timestamp) {
        self.leases.insert(node, Lease { expires_at: until, is_dead: false });
    }

    /// A process says that it lives.
    pub(super) fn renew(&mut self, node: Uuid, until: Timestamp) -> Result<(), Error> {
        let lease = self.leases.get_mut(&node).filter(|lease| !lease.is_dead);
        lease.ok_or(Error::Fenced)?.expires_at = until;
        Ok(())
    }

    /// A process ends, or is taken for dead.
    pub(super) fn end(&mut self, node: Uuid) {
        self.leases.get_mut(&node).unwrap().is_dead = true;
    }

    /// A wallet's posted, held and floor.
    pub(super) fn balance(&self, app: &str) -> (i64, i64, i64) {
        let account = Account::Wallet(app.into());
        let id = self.directory.account(&account, Currency::USD);
        let wallet = id.and_then(|id| self.wallets.get(&id));
        wallet.map_or((0, 0, 0), |w| (w.credits - w.debits, w.held, w.floor))
    }

    /// Takes over the process's own holds whose time is long over, but for these.
    pub(super) fn claim_overdue(
        &mut self,
        node: Uuid,
        spared: &BTreeSet<Uuid>,
        now: Timestamp,
    ) -> Result<Vec<Claimed>, Error> {
        if self.leases.get(&node).is_some_and(|lease| lease.is_dead) {
            return Err(Error::Fenced);
        }
        let since = now.micros().saturating_sub(OVERDUE);
        let mut claimed = Vec::new();
        for (id, row) in self.holds.iter_mut().filter(|(id, _)| !spared.contains(id)) {
            let is_own = row.stored.state == State::Open { node } && !row.is_claimed;
            if is_own && row.expires_at.micros() < since {
                row.is_claimed = true;
                claimed.push(row.claimed(*id, now));
            }
        }
        Ok(claimed)
    }

    /// Takes over the open holds of processes that are missed at `now`.
    pub(super) fn claim(&mut self, node: Uuid, now: Timestamp) -> Result<Vec<Claimed>, Error> {
        for lease in self.leases.values_mut() {
            lease.is_dead |= lease.expires_at < now;
        }
        let is_dead = |owner: &Uuid| self.leases.get(owner).is_some_and(|lease| lease.is_dead);
        if is_dead(&node) {
            return Err(Error::Fenced);
        }
        let mut claimed = Vec::new();
        for (id, row) in &mut self.holds {
            let State::Open { node: owner } = row.stored.state else { continue };
            let gone = match self.leases.get(&owner) {
                Some(lease) => lease.is_dead,
                None => row.expires_at < now,
            };
            if owner == node || !gone {
                continue;
            }
            if !self.bugs.recovers_unfenced {
                row.stored.state = State::Open { node };
            }
            row.is_claimed = true;
            claimed.push(row.claimed(*id, now));
        }
        Ok(claimed)
    }
}

impl HoldRow {
    fn claimed(&self, hold: Uuid, now: Timestamp) -> Claimed {
        let (ended, running) = trail::read(self.trail.as_deref());
        Claimed {
            hold,
            app: Arc::clone(&self.app),
            kid: Arc::clone(&self.stored.kid),
            alias: Arc::clone(&self.stored.alias),
            currency: self.currency,
            amount: self.stored.amount,
            sale_price: self.sale_price.clone(),
            fx: self.fx.clone(),
            multiplier: self.multiplier,
            exposure: self.exposure.clone(),
            created_at: self.created_at,
            resolve_by: now.plus_millis(40_000),
            phase: self.phase,
            progress: self.progress,
            ended,
            running,
        }
    }
}
