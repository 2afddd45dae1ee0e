//! Random operations from a seed, against a small model of a ledger.
//!
//! Each step sends a handful of operations at once, each about another app, so that they share
//! batches and yet have one right answer each.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use uuid::Uuid;

use anima_core::clock::{Rng as _, SeededRng};
use anima_core::ledger::{Close, Entry, Hold, Settlement, collectable};

use super::fixtures::*;
use crate::ledger::{Error, LedgerStore, Settled};

const SEEDS: std::ops::Range<u64> = 0..4;
const STEPS: usize = 60;
const APPS: u64 = 5;

#[derive(Debug, Clone)]
enum Asked {
    Hold(Hold),
    Settle(Settlement),
    Post(Entry),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Held(Result<(), Error>),
    Settled(Result<Settled, Error>),
    /// Whether it was a replay.
    Posted(Result<bool, Error>),
}

#[derive(Debug, Default, Clone)]
struct Wallet {
    posted: i64,
    held: i64,
    floor: i64,
}

#[derive(Debug)]
struct Held {
    hold: Hold,
    closed: Option<(Settlement, Settled)>,
}

#[derive(Debug, Default)]
struct Model {
    wallets: BTreeMap<String, Wallet>,
    holds: BTreeMap<Uuid, Held>,
    entries: BTreeMap<(Uuid, i16, i16), Entry>,
}

impl Model {
    fn apply(&mut self, asked: &Asked) -> Answer {
        match asked {
            Asked::Hold(hold) => Answer::Held(self.hold(hold)),
            Asked::Settle(settlement) => Answer::Settled(self.settle(settlement)),
            Asked::Post(entry) => Answer::Posted(self.post(entry)),
        }
    }

    fn hold(&mut self, hold: &Hold) -> Result<(), Error> {
        if let Some(held) = self.holds.get(&hold.id) {
            let same = (&held.hold.app, held.hold.amount) == (&hold.app, hold.amount);
            return if same { Ok(()) } else { Err(Error::Conflict) };
        }
        let wallet = self.wallets.entry(hold.app.to_string()).or_default();
        let free = wallet.posted - wallet.held;
        if free >= hold.floor {
            wallet.floor = hold.floor;
        }
        if free - hold.amount < hold.floor {
            return Err(Error::InsufficientFunds { available: free - hold.floor });
        }
        wallet.held += hold.amount;
        self.holds.insert(hold.id, Held { hold: hold.clone(), closed: None });
        Ok(())
    }

    fn settle(&mut self, settlement: &Settlement) -> Result<Settled, Error> {
        let held = self.holds.get_mut(&settlement.hold).ok_or(Error::HoldUnknown)?;
        if held.hold.app != settlement.app {
            return Err(Error::Conflict);
        }
        if let Some((first, settled)) = &held.closed {
            let same = (&first.close, &first.attempts) == (&settlement.close, &settlement.attempts);
            let replay = Settled { replayed: true, ..*settled };
            return if same { Ok(replay) } else { Err(Error::Conflict) };
        }
        let wallet = self.wallets.get_mut(&*settlement.app).unwrap();
        let sale = match settlement.close {
            Close::Settle { sale, .. } => sale,
            Close::Release => 0,
        };
        let free = wallet.posted - wallet.held - wallet.floor;
        let charged = collectable(sale, held.hold.amount, free);
        wallet.posted -= charged;
        wallet.held -= held.hold.amount;
        let settled = Settled { charged, uncollected: sale - charged, replayed: false };
        held.closed = Some((settlement.clone(), settled));
        Ok(settled)
    }

    fn post(&mut self, entry: &Entry) -> Result<bool, Error> {
        let key = (entry.subject, entry.kind.number(), entry.seq);
        if let Some(first) = self.entries.get(&key) {
            return if first.legs == entry.legs { Ok(true) } else { Err(Error::Conflict) };
        }
        let leg = &entry.legs[0];
        let (code, change) = if leg.credit.is_gated() {
            (leg.credit.to_string(), leg.amount)
        } else {
            (leg.debit.to_string(), -leg.amount)
        };
        let app = code.strip_prefix("wallet:").unwrap().to_owned();
        let wallet = self.wallets.entry(app).or_default();
        let free = wallet.posted - wallet.held;
        if change < 0 && free + change < entry.floor {
            return Err(Error::InsufficientFunds { available: free - entry.floor });
        }
        wallet.posted += change;
        if free + change >= entry.floor {
            wallet.floor = entry.floor;
        }
        self.entries.insert(key, entry.clone());
        Ok(false)
    }
}

struct Dice(SeededRng);

impl Dice {
    fn below(&self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }

    fn amount(&self, bound: u64) -> i64 {
        i64::try_from(self.below(bound)).unwrap()
    }

    fn asked(&self, app: &str, app_no: u64) -> Asked {
        // Few ids per app, so that they meet again; now and then another app's.
        let owner = if self.below(20) == 0 { self.below(APPS) } else { app_no };
        let id = u128::from(1_000 * (owner + 1) + self.below(40));
        match self.below(10) {
            0..4 => {
                let mut asked = hold(id, app, self.amount(4) * 50);
                asked.floor = -(self.amount(3) * 100);
                Asked::Hold(asked)
            }
            4..8 => {
                let held = hold(id, app, 0);
                let mut settlement = settle(&held, self.amount(6) * 40);
                settlement.attempts = vec![attempt(1, self.below(2) == 0, self.amount(5))];
                if self.below(4) == 0 {
                    settlement.close = Close::Release;
                }
                Asked::Settle(settlement)
            }
            _ => {
                let amount = [-100, 50, 200][usize::try_from(self.below(3)).unwrap()];
                let mut entry = topup(id, app, amount);
                entry.seq = i16::try_from(self.below(3)).unwrap();
                entry.floor = -(self.amount(3) * 100);
                Asked::Post(entry)
            }
        }
    }
}

async fn ask(ledger: &dyn LedgerStore, asked: Asked) -> Answer {
    match asked {
        Asked::Hold(hold) => Answer::Held(ledger.hold(hold).await),
        Asked::Settle(settlement) => Answer::Settled(ledger.settle(settlement).await),
        Asked::Post(entry) => Answer::Posted(ledger.post(entry).await.map(|p| p.replayed)),
    }
}

/// Runs all seeds, each on books of its own.
pub(super) async fn run<F: Future<Output = Option<Books>>>(open: impl Fn() -> F) {
    for seed in SEEDS {
        let Some(books) = open().await else { return };
        audit(&books.ledger, seed).await;
    }
}

async fn audit(ledger: &Arc<dyn LedgerStore>, seed: u64) {
    let dice = Dice(SeededRng::new(seed));
    let mut model = Model::default();
    for step in 0..STEPS {
        let mut calls = JoinSet::new();
        let mut used = std::collections::BTreeSet::new();
        for app_no in 0..APPS {
            let app = format!("app{app_no}");
            let asked = dice.asked(&app, app_no);
            // Two operations on one id at once would have two right answers.
            let id = match &asked {
                Asked::Hold(hold) => hold.id,
                Asked::Settle(settlement) => settlement.hold,
                Asked::Post(entry) => entry.subject,
            };
            if !used.insert(id) {
                continue;
            }
            let expected = model.apply(&asked);
            let ledger = Arc::clone(ledger);
            calls.spawn(async move {
                let answer = ask(&*ledger, asked.clone()).await;
                assert_eq!(answer, expected, "seed {seed}, step {step}: {asked:?}");
            });
        }
        calls.join_all().await;
    }
    for (app, expected) in &model.wallets {
        let expected = (expected.posted, expected.held, expected.floor);
        assert_eq!(wallet(&**ledger, app).await, expected, "seed {seed}, {app}");
    }
    for (id, held) in &model.holds {
        let postings = ledger.postings(*id).await.unwrap();
        let sold = |by_us| {
            let sold = postings.iter().filter(|p| p.credit == "revenue");
            sold.filter(|p| (p.debit == "exposure") == by_us).map(|p| p.amount).sum::<i64>()
        };
        let settled = held.closed.as_ref().map(|(_, settled)| settled);
        let expected = settled.map_or((0, 0), |settled| (settled.charged, settled.uncollected));
        assert_eq!((sold(false), sold(true)), expected, "seed {seed}, {id}");
    }
    assert_clean(&**ledger).await;
}
