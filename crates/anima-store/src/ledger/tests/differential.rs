//! Random sequences on a real database and on the one in memory: the same verdicts, the same books.
//!
//! One operation after the other, each alone, so that there is one right answer: holds,
//! settlements, releases, entries, extensions, checkpoints, corrections, replays, other content
//! under a used id, hand-overs from node to node, and what the former node still tries. The judge
//! is the same on both sides; what is compared is everything around it: what is read under lock and
//! what is written. Invariant: a sequence that differs is shrunk to the shortest that does.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use tokio::time::Instant;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Attempt, Hold, Settlement};
use anima_core::money::Currency;

use super::fixtures::*;
use super::memory::Memory;
use super::recovery::Nodes;
use crate::ledger::operation::{Item, Operation, Verdict, Waiter, open};
use crate::ledger::{Claimed, Correction, Error, LedgerStore, SaleCorrection};

const APPS: [&str; 2] = ["acme", "zeta"];

/// When the holds of the fixtures are long overdue, as they are by the database's clock.
const LATER: Timestamp = Timestamp::from_micros(NOON.micros() + 86_400_000_000);

const MINUTE: std::time::Duration = std::time::Duration::from_mins(1);

/// What is asked for.
#[derive(Debug, Clone)]
enum Asked {
    Hold(Box<Hold>),
    Settle(Settlement),
    Post { n: u128, app: &'static str, amount: i64, seq: i16, floor: i64 },
    Extend { hold: Box<Hold>, amount: i64 },
    Checkpoint { hold: Box<Hold>, progress: i64 },
    TrueUp(Correction),
}

/// One step.
#[derive(Debug, Clone)]
enum Step {
    /// By the node that serves, or by the one before it.
    Ask { late: bool, asked: Asked },
    /// The node ends, another one starts and takes over what is open.
    HandOver,
    /// The node takes over its own holds but this one: those of the fixtures are overdue.
    Overdue { spared: u128 },
}

fn some_hold() -> impl Strategy<Value = Hold> {
    let amount = prop_oneof![Just(0_i64), Just(50), Just(100), Just(400)];
    (1_u128..6, 0..APPS.len(), amount, prop_oneof![Just(0_i64), Just(-100)])
        .prop_map(|(id, app, amount, floor)| Hold { floor, ..hold(id, APPS[app], amount) })
}

fn some_attempts() -> impl Strategy<Value = Vec<Attempt>> {
    let cost = prop_oneof![Just(0_i64), Just(3), Just(7)];
    proptest::collection::vec((any::<bool>(), cost), 0..3).prop_map(|drawn| {
        (1_i16..).zip(drawn).map(|(n, (served, cost))| attempt(n, served, cost)).collect()
    })
}

fn some_settlement() -> impl Strategy<Value = Settlement> {
    let sale = prop_oneof![Just(0_i64), Just(40), Just(90), Just(500)];
    (some_hold(), sale, any::<bool>(), some_attempts()).prop_map(|(hold, sale, sold, attempts)| {
        let plain = if sold { settle(&hold, sale) } else { release(&hold) };
        Settlement { attempts, ..plain }
    })
}

fn some_step() -> impl Strategy<Value = Step> {
    let both = |sale| if sale { SaleCorrection::BothWays } else { SaleCorrection::DownOnly };
    let amount = prop_oneof![Just(-100_i64), Just(50), Just(300)];
    let floor = prop_oneof![Just(0_i64), Just(-100)];
    let asked = prop_oneof![
        4 => some_hold().prop_map(|hold| Asked::Hold(Box::new(hold))),
        4 => some_settlement().prop_map(Asked::Settle),
        2 => (20_u128..24, 0..APPS.len(), amount, 0_i16..2, floor).prop_map(
            |(n, app, amount, seq, floor)| Asked::Post { n, app: APPS[app], amount, seq, floor }),
        2 => (some_hold(), prop_oneof![Just(80_i64), Just(200)]).prop_map(
            |(hold, amount)| Asked::Extend { hold: Box::new(hold), amount }),
        1 => (some_hold(), 0_i64..3).prop_map(
            |(hold, progress)| Asked::Checkpoint { hold: Box::new(hold), progress }),
        2 => (some_settlement(), any::<bool>()).prop_map(move |(settlement, up)| {
            Asked::TrueUp(Correction { sale: both(up), ..correction(settlement) })
        }),
    ];
    prop_oneof![
        14 => (prop::bool::weighted(0.2), asked)
            .prop_map(|(late, asked)| Step::Ask { late, asked }),
        1 => Just(Step::HandOver),
        1 => (1_u128..6).prop_map(|spared| Step::Overdue { spared }),
    ]
}

/// What came of a step, but for ids of journals, which depend on the time.
fn said(verdict: Verdict) -> String {
    match verdict {
        Verdict::Held(result) | Verdict::Extended(result) | Verdict::Checkpointed(result) => {
            format!("{result:?}")
        }
        Verdict::Settled(result) => format!("{result:?}"),
        Verdict::Posted(result) => format!("{:?}", result.map(|posted| posted.replayed)),
        Verdict::TruedUp(result) => {
            let shown = result.map(|t| (t.journal.is_some(), t.given_back, t.replayed));
            format!("{shown:?}")
        }
    }
}

/// A model of the database, and who is who.
struct Model {
    memory: Memory,
    serving: Uuid,
    former: Uuid,
}

impl Model {
    fn ask(&mut self, late: bool, asked: &Asked) -> String {
        let node = if late { self.former } else { self.serving };
        let operation = match asked.clone() {
            Asked::Hold(hold) => Operation::hold(*hold),
            Asked::Settle(settlement) => Operation::settle(settlement),
            Asked::Post { n, app, amount, seq, floor } => {
                Operation::post(entry(n, app, (amount, seq, floor)))
            }
            Asked::Extend { hold, amount } => open::extend(extension(&hold, amount)),
            Asked::Checkpoint { hold, progress } => open::checkpoint(checkpoint(&hold, progress)),
            Asked::TrueUp(correction) => open::true_up(correction),
        };
        let operation = match operation {
            Ok(operation) => operation,
            Err(error) => return format!("{:?}", Err::<(), _>(error)),
        };
        let item = Item { operation, waiter: Waiter::Own, since: Instant::now() };
        let verdicts = self.memory.transact(node, NOON, &[item]).unwrap();
        said(verdicts.into_iter().next().unwrap())
    }
}

fn entry(n: u128, app: &str, (amount, seq, floor): (i64, i16, i64)) -> anima_core::ledger::Entry {
    anima_core::ledger::Entry { seq, floor, ..topup(n, app, amount) }
}

async fn ask(ledger: &dyn LedgerStore, asked: &Asked) -> String {
    said(match asked.clone() {
        Asked::Hold(hold) => Verdict::Held(ledger.hold(*hold).await),
        Asked::Settle(settlement) => Verdict::Settled(ledger.settle(settlement).await),
        Asked::Post { n, app, amount, seq, floor } => {
            Verdict::Posted(ledger.post(entry(n, app, (amount, seq, floor))).await)
        }
        Asked::Extend { hold, amount } => {
            Verdict::Extended(ledger.extend(extension(&hold, amount)).await)
        }
        Asked::Checkpoint { hold, progress } => {
            Verdict::Checkpointed(ledger.checkpoint(vec![checkpoint(&hold, progress)]).await)
        }
        Asked::TrueUp(correction) => Verdict::TruedUp(ledger.true_up(correction).await),
    })
}

/// What a take-over found, but for the time.
fn shown(claimed: Result<Vec<Claimed>, Error>) -> String {
    let mut claimed = claimed.unwrap();
    claimed.sort_by_key(|claimed| claimed.hold);
    for claimed in &mut claimed {
        claimed.resolve_by = NOON;
    }
    format!("{claimed:#?}")
}

/// Runs sequences, each on a database of its own, which `open` makes.
pub(super) fn run<F: Future<Output = Option<Nodes>>>(open: impl Fn() -> F, cases: u32) {
    let config = Config { cases, rng_seed: RngSeed::Fixed(3), ..Config::default() };
    let config = Config { failure_persistence: None, ..config };
    let sequences = proptest::collection::vec(some_step(), 1..60);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outcome = TestRunner::new(config).run(&sequences, |steps| {
        runtime.block_on(async {
            let Some(nodes) = open().await else { return Ok(()) };
            follow(&nodes, steps).await.map_err(TestCaseError::fail)
        })
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

async fn follow(nodes: &Nodes, steps: Vec<Step>) -> Result<(), String> {
    let (mut node, first) = (100_u128, Uuid::from_u128(100));
    let mut model = Model { memory: Memory::default(), serving: first, former: first };
    model.memory.register(first, NOON.plus_millis(60_000));
    let mut serving = nodes.open(node);
    serving.register(registration(node, MINUTE)).await.unwrap();
    let mut former = std::sync::Arc::clone(&serving);
    for (at, step) in steps.into_iter().enumerate() {
        let (theirs, ours) = match &step {
            Step::Ask { late, asked } => {
                let ledger = if *late { &former } else { &serving };
                (ask(&**ledger, asked).await, model.ask(*late, asked))
            }
            Step::HandOver => {
                serving.release().await.unwrap();
                node += 1;
                let id = Uuid::from_u128(node);
                former = std::mem::replace(&mut serving, nodes.open(node));
                serving.register(registration(node, MINUTE)).await.unwrap();
                let theirs = serving.claim_orphans(1_000, MINUTE).await;
                model.memory.end(model.serving);
                model.memory.register(id, NOON.plus_millis(60_000));
                (model.former, model.serving) = (model.serving, id);
                (shown(theirs), shown(model.memory.claim(id, NOON)))
            }
            Step::Overdue { spared } => {
                let spared = BTreeSet::from([Uuid::from_u128(*spared)]);
                let theirs = serving.claim_overdue(spared.clone(), MINUTE).await;
                let ours = model.memory.claim_overdue(model.serving, &spared, LATER);
                (format!("{theirs:?}"), format!("{:?}", ours.map(|claimed| claimed.len())))
            }
        };
        if theirs != ours {
            return Err(format!("step {at}, {step:?}:\nthe database says {theirs}\nnot {ours}"));
        }
    }
    compare(&*serving, &model.memory).await
}

/// The books at the end: balances, and every posting of everything.
async fn compare(ledger: &dyn LedgerStore, memory: &Memory) -> Result<(), String> {
    for app in APPS {
        let theirs = ledger.balance(app, Currency::USD).await.unwrap();
        let theirs = (theirs.posted, theirs.held, theirs.floor);
        let ours = memory.balance(app);
        if theirs != ours {
            return Err(format!("{app} has {theirs:?} in the database, not {ours:?}"));
        }
    }
    for n in (1..6).chain(20..24) {
        let subject = Uuid::from_u128(n);
        let row = |kind: i16, amount: i64, debit: String, credit: String| {
            format!("{kind} {debit} {credit} {amount}")
        };
        let theirs = ledger.postings(subject).await.unwrap();
        let theirs = theirs.into_iter().map(|p| {
            let tail = format!("{:?} {:?} {}", p.component, p.attempt, p.estimate);
            row(p.kind.number(), p.amount, p.debit, p.credit) + &tail
        });
        let ours = memory.legs.iter().filter(|row| row.subject == subject).map(|found| {
            let leg = &found.leg;
            let tail = format!("{:?} {:?} {}", leg.component, leg.attempt, leg.estimate);
            row(found.kind, leg.amount, leg.debit.to_string(), leg.credit.to_string()) + &tail
        });
        let (mut theirs, mut ours): (Vec<_>, Vec<_>) = (theirs.collect(), ours.collect());
        theirs.sort();
        ours.sort();
        if theirs != ours {
            return Err(format!("{n}: the database has {theirs:#?}, not {ours:#?}"));
        }
    }
    assert_clean(ledger).await;
    Ok(())
}
