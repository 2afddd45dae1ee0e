//! One request: what everybody knows of it, and what is wrong with that.
//!
//! Each rule looks at one class of findings. Not here: sums over requests.
//! Invariant: amounts that are not marked as estimates must be the provider's own usage at its
//! price, to the last unit; estimates are allowed only where the provider's report did not arrive.

use std::collections::{BTreeMap, BTreeSet};

use anima_simulator::{Call, Outcome};
use anyhow::Result;

use crate::books::{Attempt, Hold, Leg};
use crate::load::Seen;
use crate::money::{COST, SALE, owed};

use super::Class;

/// A request.
#[derive(Debug, Default)]
pub(super) struct Case<'a> {
    pub(super) hold: Option<&'a Hold>,
    pub(super) attempts: Option<&'a BTreeMap<i64, Attempt>>,
    /// In the order in which they were posted.
    pub(super) legs: &'a [Leg],
    /// The provider's truth, by the attempt's number.
    pub(super) calls: Vec<(i64, &'a Call)>,
    pub(super) seen: Option<&'a Seen>,
    /// It came under an idempotency key that is another call's by now, or was.
    pub(super) is_taken_over: bool,
}

/// Findings of one request.
type Found = Vec<(Class, String)>;

impl Case<'_> {
    /// Everything that is wrong.
    ///
    /// # Errors
    /// When an amount does not fit.
    pub(super) fn judge(&self) -> Result<Found> {
        let mut found = Vec::new();
        self.unresolved(&mut found);
        self.lost(&mut found)?;
        self.double(&mut found);
        self.phantom(&mut found);
        self.wrong_costs(&mut found)?;
        self.wrong_sale(&mut found)?;
        Ok(found)
    }

    fn unresolved(&self, found: &mut Found) {
        if let Some(hold) = self.hold.filter(|hold| hold.is_open()) {
            let (state, node, sent) = (&hold.state, &hold.node, self.calls.len());
            found.push((Class::Unresolved, format!("{state} of node {node}, {sent} calls sent")));
        }
    }

    fn lost(&self, found: &mut Found) -> Result<()> {
        let mut lost = |what: String| found.push((Class::Lost, what));
        let state = self.hold.map_or("not there", |hold| hold.state.as_str());
        if self.is_answered() && !self.is_sold() && !self.is_given_away() {
            lost(format!("the client has the whole answer, nothing is sold, the hold is {state}"));
        }
        let Some(hold) = self.hold else {
            if !self.calls.is_empty() {
                lost("it reached the provider without a hold".to_owned());
            }
            return Ok(());
        };
        if hold.is_open() || self.is_covered()? {
            return Ok(());
        }
        for (n, call) in &self.calls {
            let cost = owed(&COST, &call.billed)?;
            if cost > 0 && self.costs(*n).next().is_none() {
                let how = call.outcome;
                lost(format!("attempt {n} costs {cost} ({how:?}) and nothing is booked"));
            }
        }
        let served = self.attempts.is_some_and(|all| all.values().any(|a| a.served));
        if served && !self.is_sold() && !self.is_given_away() {
            lost(format!("an attempt served, the hold is {state}, and nothing is sold"));
        }
        Ok(())
    }

    fn double(&self, found: &mut Found) {
        let mut double = |what: String| found.push((Class::Double, what));
        let closing: Vec<&Leg> = self.legs.iter().filter(|leg| leg.is_of_closing()).collect();
        let sales = closing.iter().filter(|leg| leg.sold().is_some()).count();
        if sales > 1 {
            double(format!("{sales} sales"));
        }
        let unpaid = closing.iter().filter(|leg| leg.unpaid().is_some()).count();
        if unpaid > 1 {
            double(format!("{unpaid} losses of one sale"));
        }
        for n in self.numbers() {
            let of = |leg: &&&Leg| leg.is_cost() && leg.attempt == Some(n);
            let costs = closing.iter().filter(of).count();
            if costs > 1 {
                double(format!("{costs} costs of attempt {n}"));
            }
        }
        let journals: BTreeSet<&String> = closing.iter().map(|leg| &leg.journal).collect();
        if journals.len() > 1 {
            double(format!("{} journals close it", journals.len()));
        }
    }

    fn phantom(&self, found: &mut Found) {
        let mut phantom = |what: String| found.push((Class::Phantom, what));
        let worked = self.calls.iter().any(|(_, call)| call.status == Some(200));
        if self.is_sold() && !worked {
            phantom("a sale, and the provider answered nothing".to_owned());
        }
        for n in self.numbers() {
            if !self.is_made(n) && self.owed_for(n) != (0, 0) && !self.is_exposed(n) {
                phantom(format!("a cost of attempt {n}, which the provider never got"));
            }
        }
    }

    fn wrong_costs(&self, found: &mut Found) -> Result<()> {
        let mut wrong = |what: String| found.push((Class::Wrong, what));
        for (n, call) in &self.calls {
            let cost = owed(&COST, &call.billed)?;
            let (exact, estimated) = self.owed_for(*n);
            if exact != 0 && (exact != cost || estimated != 0) {
                let more = format!("booked are {exact} and by estimate {estimated}");
                wrong(format!("attempt {n} costs {cost}, {more}"));
            }
            if estimated != 0 && self.is_answered() && is_told(call) {
                wrong(format!("the cost of attempt {n} is an estimate in spite of a report"));
            }
        }
        Ok(())
    }

    fn wrong_sale(&self, found: &mut Found) -> Result<()> {
        let mut wrong = |what: String| found.push((Class::Wrong, what));
        // What no wallet covered is sold all the same.
        let sold = self.sold();
        let last = self.legs.iter().rfind(|leg| leg.sold().or_else(|| leg.unpaid()).is_some());
        if let (Some(leg), Some((_, call))) = (last, self.calls.last()) {
            let price = owed(&SALE, &call.billed)?;
            if !leg.estimate && sold != price {
                wrong(format!("it is worth {price}, sold for {sold}"));
            }
            if leg.estimate && self.is_answered() && is_told(call) {
                wrong("the sale is an estimate in spite of a report".to_owned());
            }
        }
        if let Some(hold) = self.hold {
            let said = (hold.settled, hold.uncollected);
            let closing = || self.legs.iter().filter(|leg| leg.is_of_closing());
            let posted: (i64, i64) =
                (closing().filter_map(Leg::sold).sum(), closing().filter_map(Leg::unpaid).sum());
            if said != posted {
                wrong(format!(
                    "the hold says {} was charged and {} was not, its journal {} and {}",
                    said.0, said.1, posted.0, posted.1
                ));
            }
        }
        Ok(())
    }

    /// What was sold, paid or not.
    fn sold(&self) -> i64 {
        self.legs.iter().filter_map(|leg| leg.sold().or_else(|| leg.unpaid())).sum()
    }

    /// Whether a client has all of it.
    fn is_answered(&self) -> bool {
        self.seen.is_some_and(|seen| seen.complete)
    }

    pub(super) fn is_sold(&self) -> bool {
        self.sold() > 0
    }

    /// Whether its answer was given in an outage, under a key that another call had taken over when
    /// the node that gave it could say so: nobody pays for it, by policy (`docs/ledger.md`, settled
    /// on disk).
    pub(super) fn is_given_away(&self) -> bool {
        let is_released = self.hold.is_some_and(|hold| hold.state == "RELEASED");
        self.is_taken_over && is_released && self.legs.iter().any(Leg::is_of_correction)
    }

    /// Whether the provider got an attempt.
    fn is_made(&self, n: i64) -> bool {
        self.calls.iter().any(|(made, _)| *made == n)
    }

    /// Whether one estimate stands for all calls of an orphan, and is enough.
    fn is_covered(&self) -> Result<bool> {
        let owed_in_all: i64 = self.legs.iter().map(|leg| leg.owed().0 + leg.owed().1).sum();
        let costs = self.calls.iter().map(|(_, call)| owed(&COST, &call.billed));
        let costs = costs.sum::<Result<i64>>()?;
        Ok(self.legs.iter().any(Leg::is_exposure) && owed_in_all >= costs)
    }

    /// Whether an orphan's estimate stands for an attempt that the provider never got: a first one
    /// that nobody knows was not sent, or a fallback that was written down and then not sent.
    pub(super) fn is_cautious(&self) -> bool {
        self.numbers().into_iter().any(|n| !self.is_made(n) && self.is_exposed(n))
    }

    /// Whether all that is booked for an attempt is an orphan's estimate.
    fn is_exposed(&self, n: i64) -> bool {
        let mut costs = self.costs(n).peekable();
        costs.peek().is_some() && costs.all(Leg::is_exposure)
    }

    /// What is booked for one attempt.
    fn costs(&self, n: i64) -> impl Iterator<Item = &Leg> {
        self.legs.iter().filter(move |leg| leg.is_cost() && leg.attempt == Some(n))
    }

    /// What the books say that we owe for one attempt: as reported, and by estimate.
    fn owed_for(&self, n: i64) -> (i64, i64) {
        self.costs(n).map(Leg::owed).fold((0, 0), |sum, leg| (sum.0 + leg.0, sum.1 + leg.1))
    }

    /// The attempts that have costs.
    fn numbers(&self) -> BTreeSet<i64> {
        self.legs.iter().filter(|leg| leg.is_cost()).filter_map(|leg| leg.attempt).collect()
    }
}

/// Whether the provider said what the call used.
fn is_told(call: &Call) -> bool {
    call.reported.is_some() && call.outcome == Outcome::Answered
}
