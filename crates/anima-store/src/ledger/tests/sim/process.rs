//! One process of the gateway: a writer, a heartbeat, a recovery pass, and the calls it is given.
//!
//! The writer's loop and its queue are the product's own; only the database behind them is not.
//! Messages to it are held up, lost before they arrive, doubled, lose their answer, or are given up
//! and commit later; every other batch is judged by what was read without locks.
//! Invariant: nothing of a process outlives its death.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::call;
use super::recover;
use super::world::{LEASE_MS, World};
use crate::ledger::batch::{self, Failure};
use crate::ledger::operation::{Item, Verdict, Waiter};
use crate::ledger::queue::{Queue, queue};
use crate::ledger::tests::fixtures::Counts;
use crate::ledger::tests::memory::unlocked::Reading;

/// What a process acts with.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: Uuid,
    pub(super) world: Arc<World>,
    pub(super) ledger: Queue,
    /// Until when it may believe that it is believed alive, microseconds: as of when it last asked.
    lease: AtomicI64,
    /// Calls that it makes: nobody here takes their holds for orphans.
    pub(super) running: Mutex<BTreeSet<Uuid>>,
}

impl Process {
    /// Passes a point.
    pub(super) async fn step(&self, point: &'static str) {
        self.world.step(self.id, point).await;
    }

    /// Whether its lease is good for as long as a message may take: past it, nothing new is begun.
    pub(super) fn has_lease(&self) -> bool {
        let may = self.world.now().micros() < self.lease.load(Ordering::Relaxed);
        may || self.world.bugs().ignores_its_lease
    }
}

/// The database, as a writer sees it.
#[derive(Debug)]
struct Wire {
    id: Uuid,
    world: Arc<World>,
}

impl batch::Engine for Wire {
    async fn commit(&mut self, items: &[Item]) -> Result<Vec<Verdict>, Failure> {
        self.step("writer.taken").await;
        let faults = self.world.state.lock().faults;
        let stormy = !self.world.state.lock().calm;
        self.step("writer.sent").await;
        if self.world.is_cut_off() || stormy && self.world.chance(faults.lost / 2) {
            return Err(Failure::Lost("the message was lost".to_owned()));
        }
        if self.world.refuses(items) {
            return Err(Failure::Refused("what is in it".to_owned()));
        }
        let mut verdicts = match self.unlocked(items, stormy).await? {
            Some(verdicts) => verdicts,
            None => self.world.transact(self.id, items)?,
        };
        self.step("writer.applied").await;
        if stormy && self.world.chance(faults.doubled) {
            verdicts = self.world.transact(self.id, items)?;
            self.step("writer.doubled").await;
        }
        if stormy && self.world.chance(faults.lost / 2) {
            self.step("writer.answer_lost").await;
            return Err(Failure::Lost("the answer was lost".to_owned()));
        }
        self.step("writer.answered").await;
        Ok(verdicts)
    }
}

impl Wire {
    async fn step(&self, point: &'static str) {
        self.world.step(self.id, point).await;
    }

    /// Writes a batch by what was read without locks, as every other one is. `None` when it has to
    /// be judged under lock.
    async fn unlocked(
        &self,
        items: &[Item],
        stormy: bool,
    ) -> Result<Option<Vec<Verdict>>, Failure> {
        if self.world.chance(500_000) {
            return Ok(None);
        }
        let Some(reading) = self.world.read_unlocked(self.id, items) else { return Ok(None) };
        self.step("writer.read").await;
        let faults = self.world.state.lock().faults;
        if stormy && self.world.chance(faults.lost / 2) {
            self.commits_later(reading, items);
            self.step("writer.given_up").await;
            return Err(Failure::Lost("it took too long".to_owned()));
        }
        let verdicts = self.world.write_unlocked(reading, items);
        if verdicts.is_none() {
            self.step("writer.met").await;
        }
        Ok(verdicts)
    }

    /// The batch is under way and its connection is given up: it is written whenever the database
    /// comes to it, whatever has become of the process.
    fn commits_later(&self, reading: Reading, items: &[Item]) {
        let copy = |item: &Item| Item {
            operation: item.operation.clone(),
            waiter: Waiter::Own,
            since: item.since,
        };
        let items: Vec<Item> = items.iter().map(copy).collect();
        let world = Arc::clone(&self.world);
        let entered = world.enter();
        tokio::spawn(async move {
            world.dawdle(20_000).await;
            if !world.is_over() {
                world.write_unlocked(reading, &items);
            }
            drop(entered);
        });
    }
}

/// Keeps one place of the cluster filled: starts a process, feeds it, and starts another one when
/// it dies. Ends when the world says so.
pub(super) async fn place(world: Arc<World>, mut requests: Vec<call::Request>) {
    while !world.is_over() {
        let id = world.mint();
        let mut tasks = start(&world, id);
        let lease = AtomicI64::new(world.now().plus_millis(LEASE_MS).micros());
        let (world_of, running) = (Arc::clone(&world), Mutex::default());
        let process = Process { id, world: world_of, ledger: tasks.ledger, lease, running };
        let process = Arc::new(process);
        let tasks = &mut tasks.tasks;
        tasks.spawn(heartbeat(Arc::clone(&process)));
        tasks.spawn(recover::run(Arc::clone(&process)));
        while world.is_alive(id) && !world.is_over() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = world.now();
            while let Some(next) = requests.pop_if(|next| next.at <= now) {
                tasks.spawn(call::run(Arc::clone(&process), next));
            }
            while let Some(ended) = tasks.try_join_next() {
                if let Err(error) = ended {
                    world.fail(format!("a task panicked: {error}"));
                }
            }
        }
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        world.dawdle(10_000).await;
    }
}

struct Started {
    ledger: Queue,
    tasks: JoinSet<()>,
}

fn start(world: &Arc<World>, id: Uuid) -> Started {
    world.born(id);
    let (ledger, lanes) = queue();
    let wire = Wire { id, world: Arc::clone(world) };
    let mut tasks = JoinSet::new();
    tasks.spawn(batch::run(wire, lanes, Arc::new(Counts::default())));
    Started { ledger, tasks }
}

async fn heartbeat(process: Arc<Process>) {
    loop {
        process.step("lease.before").await;
        let asked = process.world.now();
        process.step("lease.sent").await;
        if process.world.is_cut_off() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        }
        let until = process.world.now().plus_millis(LEASE_MS);
        let renewed = process.world.state.lock().store.renew(process.id, until);
        process.step("lease.after").await;
        if renewed.is_err() {
            process.step("lease.lost").await;
            // What runs may end: it is refused, and corrected. Then the process ends too.
            process.lease.store(0, Ordering::Relaxed);
            process.world.dawdle(120_000).await;
            return process.world.give_up(process.id, "lease.lost");
        }
        process.lease.store(asked.plus_millis(LEASE_MS).micros(), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
}
