//! The judgement on hand-made requests: each kind of damage is found, and what is right is not.

use anima_simulator::{Call, Outcome, Usage};
use serde_json::json;

use super::*;
use crate::books::Attempt;
use crate::money::{SALE, owed};
use crate::once::{Told, Under};

const ID: &str = "0199c0de0000700080000000000000aa";

/// A call that was answered, billed and told.
fn call(n: i64) -> Call {
    let text = json!({
        "number": n, "id": format!("simcall_{n}"), "received_ms": 0,
        "attempt_id": format!("{ID}-{n}"), "request_id": ID, "key_tail": null,
        "endpoint": "chat", "model": "sim-chat", "stream": false, "rule": null, "status": 200,
        "billed": {"prompt_tokens": 9, "completion_tokens": 16, "cached_tokens": 0,
            "reasoning_tokens": 0},
        "reported": {"prompt_tokens": 9, "completion_tokens": 16, "total_tokens": 25},
        "chunks": 0, "caller_left": false, "outcome": "answered",
    });
    serde_json::from_value(text).unwrap()
}

fn worth(rates: &money::Rates) -> i64 {
    owed(rates, &Usage { prompt_tokens: 9, completion_tokens: 16, ..Usage::default() }).unwrap()
}

fn leg(component: i64, amount: i64) -> Leg {
    let sale = component == 1;
    Leg {
        journal: "j1".to_owned(),
        kind: 1,
        debit: if sale { "wallet:acme" } else { "cost_of_sales" }.to_owned(),
        credit: if sale { "revenue" } else { "payable:main" }.to_owned(),
        amount,
        component,
        attempt: (!sale).then_some(1),
        estimate: false,
    }
}

/// Everything about one request that went well.
struct World {
    books: Books,
    truth: Vec<Call>,
    seen: Vec<Seen>,
}

fn world() -> World {
    let mut books = Books::default();
    let hold = Hold {
        kid: "k".to_owned(),
        node: "n".to_owned(),
        state: "SETTLED".to_owned(),
        settled: worth(&SALE),
        uncollected: 0,
        created_us: 1,
        closed_us: Some(2),
    };
    books.holds.insert(ID.to_owned(), hold);
    let attempt = Attempt { served: true, source: "provider".to_owned() };
    books.attempts.entry(ID.to_owned()).or_default().insert(1, attempt);
    let legs = vec![leg(1, worth(&SALE)), leg(2, worth(&COST))];
    books.legs.insert(ID.to_owned(), legs);
    let seen =
        Seen { request_id: Some(ID.to_owned()), status: Some(200), complete: true, once: None };
    World { books, truth: vec![call(1)], seen: vec![seen] }
}

impl World {
    fn legs(&mut self) -> &mut Vec<Leg> {
        self.books.legs.get_mut(ID).unwrap()
    }

    fn hold(&mut self) -> &mut Hold {
        self.books.holds.get_mut(ID).unwrap()
    }

    fn classes(&self) -> Vec<Class> {
        let audit = audit(&self.books, &self.truth, &self.seen).unwrap();
        Class::ALL.into_iter().filter(|class| audit.count(*class) > 0).collect()
    }

    /// As a node left it that died after the dispatch.
    fn orphaned(mut self) -> Self {
        let hold = self.hold();
        (hold.state, hold.settled, hold.closed_us) = ("HELD".to_owned(), 0, None);
        self.books.attempts.clear();
        self.books.legs.clear();
        self.seen[0].complete = false;
        self
    }

    /// As recovery closes it without a look-up.
    fn estimated(mut self) -> Self {
        self = self.orphaned();
        let hold = self.hold();
        (hold.state, hold.closed_us) = ("RELEASED".to_owned(), Some(3));
        let mut exposure = leg(10, 1_000_000);
        (exposure.debit, exposure.credit) = ("exposure".into(), "payable_estimated:main".into());
        (exposure.kind, exposure.estimate) = (2, true);
        self.books.legs.insert(ID.to_owned(), vec![exposure]);
        self
    }
}

#[test]
fn a_call_that_went_well_is_no_finding() {
    assert_eq!(world().classes(), []);
}

#[test]
fn an_answer_that_is_not_sold_is_lost() {
    let mut world = world();
    world.legs().remove(0);
    world.hold().settled = 0;
    assert_eq!(world.classes(), [Class::Lost]);
    let mut world = self::world().orphaned();
    world.seen[0].complete = true;
    assert_eq!(world.classes(), [Class::Lost, Class::Unresolved]);
}

#[test]
fn a_call_whose_cost_is_not_booked_is_lost_and_so_is_one_without_a_hold() {
    let mut world = world();
    world.legs().remove(1);
    assert_eq!(world.classes(), [Class::Lost]);
    let mut world = self::world();
    world.truth.push(call(2));
    assert_eq!(world.classes(), [Class::Lost]);
    let mut world = self::world().orphaned();
    world.books.holds.clear();
    assert_eq!(world.classes(), [Class::Lost]);
}

#[test]
fn a_second_sale_or_cost_is_double() {
    for n in [0, 1] {
        let mut world = world();
        let mut again = world.legs()[n].clone();
        again.journal = "j2".to_owned();
        world.legs().push(again);
        assert!(world.classes().contains(&Class::Double), "{n}");
    }
}

#[test]
fn books_without_a_call_are_phantoms() {
    let mut world = world();
    world.truth.clear();
    assert_eq!(world.classes(), [Class::Phantom]);
    let mut world = self::world();
    let mut other = leg(3, 5);
    other.attempt = Some(2);
    world.legs().push(other);
    assert_eq!(world.classes(), [Class::Phantom]);
}

#[test]
fn another_amount_is_wrong_by_one_unit_on_either_side() {
    for n in [0, 1] {
        let mut world = world();
        world.legs()[n].amount += 1;
        assert_eq!(world.classes(), [Class::Wrong], "{n}");
    }
}

#[test]
fn an_estimate_in_spite_of_a_report_is_wrong_and_without_one_it_is_not() {
    let mut world = world();
    for leg in world.legs() {
        leg.estimate = true;
        leg.amount += 7;
    }
    world.legs()[1].credit = "payable_estimated:main".to_owned();
    world.hold().settled += 7;
    assert_eq!(world.classes(), [Class::Wrong]);
    world.truth[0].reported = None;
    assert_eq!(world.classes(), []);
}

#[test]
fn an_orphan_is_unresolved_until_a_policy_resolves_it() {
    assert_eq!(world().orphaned().classes(), [Class::Unresolved]);
    assert_eq!(world().estimated().classes(), []);
}

#[test]
fn one_estimate_covers_every_call_of_an_orphan_when_it_is_enough() {
    let mut world = world().estimated();
    world.truth.push(call(2));
    assert_eq!(world.classes(), []);
    world.legs()[0].amount = 1;
    assert_eq!(world.classes(), [Class::Lost]);
}

#[test]
fn an_estimate_for_a_call_that_was_never_made_is_counted_and_no_phantom() {
    let mut world = world().estimated();
    world.truth.clear();
    assert_eq!(world.classes(), []);
    assert_eq!(audit(&world.books, &[], &[]).unwrap().cautious, 1);
}

#[test]
fn a_correction_is_judged_by_what_it_leads_to() {
    let mut world = world().estimated();
    let mut less = world.legs()[0].clone();
    let cost = worth(&COST);
    (less.debit, less.credit) = ("payable_estimated:main".into(), "exposure".into());
    (less.kind, less.amount) = (10, 1_000_000 - cost);
    let mut over = less.clone();
    (over.credit, over.amount) = ("payable:main".into(), cost);
    world.legs().extend([less, over]);
    assert_eq!(world.classes(), []);
    world.legs()[2].amount -= 1;
    assert_eq!(world.classes(), [Class::Wrong]);
}

#[test]
fn the_bank_check_sees_a_wallet_that_does_not_add_up() {
    let mut world = world();
    let credit = money::nano(CREDIT).unwrap();
    for app in APPS {
        world.books.wallets.insert(format!("wallet:{app}"), (credit, 0));
    }
    let sold = worth(&SALE);
    // The wallet on its own, and what was sold in all.
    assert_eq!(bank(&APPS, &world.books).unwrap().len(), 2);
    world.books.wallets.insert("wallet:acme".to_owned(), (credit - sold, 0));
    assert!(bank(&APPS, &world.books).unwrap().is_empty());
    assert_eq!(call(1).outcome, Outcome::Answered);
}

/// A wallet that had but a part of what was sold.
fn short(paid: i64) -> World {
    let mut world = world();
    let mut loss = leg(11, worth(&SALE) - paid);
    (loss.debit, loss.credit) = ("exposure".to_owned(), "revenue".to_owned());
    loss.attempt = None;
    world.legs()[0].amount = paid;
    world.legs().insert(1, loss);
    let hold = world.hold();
    (hold.settled, hold.uncollected) = (paid, worth(&SALE) - paid);
    let credit = money::nano(CREDIT).unwrap();
    for app in APPS {
        world.books.wallets.insert(format!("wallet:{app}"), (credit, 0));
    }
    world.books.wallets.insert("wallet:acme".to_owned(), (credit - paid, 0));
    world
}

#[test]
fn what_no_wallet_covered_and_what_one_paid_are_together_the_sale() {
    let mut world = short(5);
    assert_eq!(world.classes(), []);
    let audit = audit(&world.books, &world.truth, &world.seen).unwrap();
    assert_eq!((audit.unpaid, audit.bank), (worth(&SALE) - 5, vec![]));
    // Nothing was paid.
    world.legs().remove(0);
    world.legs()[0].amount = worth(&SALE);
    let hold = world.hold();
    (hold.settled, hold.uncollected) = (0, worth(&SALE));
    assert_eq!(world.classes(), []);
}

#[test]
fn a_loss_that_is_not_posted_or_not_right_is_a_finding() {
    let mut world = short(5);
    world.legs().remove(1);
    assert_eq!(world.classes(), [Class::Wrong]);
    let mut world = short(5);
    world.legs()[1].amount += 1;
    assert_eq!(world.classes(), [Class::Wrong]);
    let mut world = short(5);
    let again = world.legs()[1].clone();
    world.legs().push(again);
    assert_eq!(world.classes(), [Class::Double, Class::Wrong]);
    // Taken off a wallet, and said to be a loss all the same.
    let mut world = short(5);
    let (posted, _) = world.books.wallets["wallet:acme"];
    world.books.wallets.insert("wallet:acme".to_owned(), (posted - 1, 0));
    assert_eq!(bank(&APPS, &world.books).unwrap().len(), 2);
}

#[test]
fn a_correction_takes_a_loss_back() {
    let mut world = short(5);
    let mut back = world.legs()[1].clone();
    (back.debit, back.credit) = ("revenue".to_owned(), "exposure".to_owned());
    (back.kind, back.amount) = (10, 3);
    world.legs().push(back);
    // Sold for less than it is worth; the books agree with themselves.
    assert_eq!(world.classes(), [Class::Wrong]);
    let found = audit(&world.books, &world.truth, &world.seen).unwrap();
    assert_eq!((found.unpaid, found.bank), (worth(&SALE) - 8, vec![]));
}

/// One more client that asked under a key: with its own id, and what was told.
fn asked(own: &str, original: Option<&str>, answer: u64) -> Seen {
    let under = Under { name: "call-1".to_owned(), kid: "k".to_owned(), first_us: 0 };
    let original = original.map(str::to_owned);
    let told = Told { under, original, answer, code: String::new() };
    let request_id = Some(own.to_owned());
    Seen { request_id, status: Some(200), complete: true, once: Some(told) }
}

/// Another request of the same key, after the first, as `like` was.
fn another(world: &mut World, like: World, created_us: i64) -> String {
    let id = ID.replace("aa", "bb");
    let World { mut books, truth, .. } = like;
    let mut hold = books.holds.remove(ID).unwrap();
    hold.created_us = created_us;
    world.books.holds.insert(id.clone(), hold);
    let attempts = books.attempts.remove(ID).unwrap_or_default();
    world.books.attempts.insert(id.clone(), attempts);
    let mut legs = books.legs.remove(ID).unwrap_or_default();
    for leg in &mut legs {
        leg.journal = "j2".to_owned();
    }
    world.books.legs.insert(id.clone(), legs);
    world.truth.extend(truth.into_iter().map(|call| Call {
        request_id: Some(id.clone()),
        attempt_id: Some(format!("{id}-1")),
        ..call
    }));
    id
}

#[test]
fn a_stored_answer_is_of_the_call_that_was_made() {
    let mut world = world();
    world.seen = vec![asked(ID, None, 7), asked("cc", Some(ID), 7)];
    assert_eq!(world.classes(), []);
    let once = audit(&world.books, &world.truth, &world.seen).unwrap().once;
    assert_eq!((once.keys, once.again, once.stored), (1, 1, 1));
    // The first client saw nothing, and the call is sold to the second.
    world.seen.remove(0);
    assert_eq!(world.classes(), []);
    world.seen[0].once.as_mut().unwrap().original = Some("dd".to_owned());
    assert_eq!(world.classes(), [Class::Lost, Class::Phantom]);
    (world.seen[0].status, world.seen[0].complete) = (Some(503), false);
    assert_eq!(world.classes(), [], "it shares the failure of one that was never held");
}

#[test]
fn another_answer_or_a_conflict_under_a_key_is_wrong() {
    let mut world = world();
    world.seen = vec![asked(ID, None, 7), asked("cc", Some(ID), 8)];
    assert_eq!(world.classes(), [Class::Wrong]);
    let refused = |code: &str| {
        let mut refused = asked("cc", None, 8);
        (refused.status, refused.complete) = (Some(409), false);
        refused.once.as_mut().unwrap().code = code.to_owned();
        refused
    };
    world.seen = vec![asked(ID, None, 7), refused("idempotency_answer_gone")];
    assert_eq!(world.classes(), []);
    world.seen = vec![asked(ID, None, 7), refused("idempotency_conflict")];
    assert_eq!(world.classes(), [Class::Wrong]);
}

#[test]
fn a_key_is_sold_once_and_sent_no_more_once_it_is_sold() {
    let mut world = world();
    world.seen = vec![asked(ID, None, 7)];
    another(&mut world, self::world(), 9);
    assert_eq!(world.classes(), [Class::Double]);
    let mut world = self::world();
    world.seen = vec![asked(ID, None, 7)];
    another(&mut world, self::world().estimated(), 9);
    assert_eq!(world.classes(), [Class::Double], "sent, and nothing sold");
    // What was given up before is no second sale, and a later key of the same API key is another.
    let mut world = self::world();
    world.hold().created_us = 5;
    world.seen = vec![asked(ID, None, 7)];
    another(&mut world, self::world().estimated(), 1);
    assert_eq!(world.classes(), []);
    let mut world = self::world();
    world.seen = vec![asked(ID, None, 7), asked("", None, 7)];
    let id = another(&mut world, self::world(), 9_000_000);
    world.seen[1].request_id = Some(id);
    world.seen[1].once.as_mut().unwrap().under.first_us = 9_000_000;
    assert_eq!(world.classes(), []);
}

#[test]
fn what_another_node_closed_is_given_away_and_not_lost_once_its_key_is_taken_over() {
    let mut world = world().estimated();
    world.truth[0].reported = None;
    world.seen = vec![asked(ID, None, 7)];
    assert_eq!(world.classes(), [Class::Lost]);
    let mut known = world.legs()[0].clone();
    (known.debit, known.credit) = ("payable_estimated:main".into(), "exposure".into());
    (known.kind, known.amount) = (10, 1);
    world.legs().push(known);
    assert_eq!(world.classes(), []);
    let audit = audit(&world.books, &world.truth, &world.seen).unwrap();
    assert_eq!(audit.given_away, 1);
    // A key that nobody took over is no reason.
    world.books.keyed.insert(ID.to_owned());
    assert_eq!(world.classes(), [Class::Lost]);
    let audit = self::audit(&world.books, &world.truth, &world.seen).unwrap();
    assert_eq!(audit.given_away, 0);
}
