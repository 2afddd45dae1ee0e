//! Examples and random sequences against the counters of one process.

use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::config::{LimitKind, OnOutage, Window};
use crate::quota::{
    Ask, Bound, Check, Counter, Pass, Rate, RuleName, Scope, Span, Tag, Verdict,
    book::{Birth, Book, LATE_US, Level, RIPENS_US},
};

const LEASE: i64 = 30_000_000;

fn bound(kind: LimitKind, check: Check) -> Bound {
    let app: Arc<str> = "acme".into();
    let window = (kind != LimitKind::Concurrency).then_some(Window::Minute);
    let rule = RuleName { kind, count: None, window, currency: None, rate: None, shadow: false };
    Bound {
        counter: Counter { scope: Scope::Key, code: "k1".into(), rule },
        tag: Tag::App(app),
        check,
        units: 1,
        on_outage: OnOutage::Share,
    }
}

pub(crate) fn slots(limit: i64) -> Bound {
    bound(LimitKind::Concurrency, Check::Slots { limit })
}

pub(crate) fn rate(limit: i64, period_s: i64, burst: i64) -> Bound {
    let rate = Rate { limit, period_us: period_s * 1_000_000, burst };
    bound(LimitKind::Requests, Check::Rate(rate))
}

pub(crate) fn purse(limit: i64) -> Bound {
    bound(LimitKind::Cost, Check::Purse { limit, span: span(0, 1_000_000_000) })
}

/// The purse of something else than the other's.
fn key_counter() -> Counter {
    Counter { scope: Scope::App, ..purse(0).counter }
}

/// Of a purse whose span has just begun to be looked at after a lease.
fn whole() -> Level {
    Level { used: 0, held: 0, reset_us: 1_000_000_000 - LEASE }
}

fn span(from: i64, to: i64) -> Span {
    Span { from: Timestamp::from_micros(from), to: Timestamp::from_micros(to) }
}

fn ask(id: u128, bounds: &[Bound], now: i64) -> Ask<'_> {
    let now = Timestamp::from_micros(now);
    Ask { id: Uuid::from_u128(id), bounds, now, lease_us: LEASE }
}

fn with(bound: Bound, units: i64) -> Bound {
    Bound { units, ..bound }
}

fn admitted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Admitted(_))
}

#[test]
fn a_refusal_by_one_limit_leaves_no_trace_in_the_others() {
    let mut book = Book::default();
    let bounds = [rate(10, 60, 10), with(purse(100), 60), slots(1)];
    assert!(book.seed(&bounds[1].counter, span(0, 1_000_000_000), 0));
    assert!(admitted(&book.admit(ask(1, &bounds, 0))));
    let before = book.clone();
    let Verdict::Refused(n, standings) = book.admit(ask(2, &bounds, 0)) else { panic!() };
    assert_eq!(book, before);
    assert_eq!(n, 1, "the purse stands in the way longest");
    assert_eq!(standings[1].pass, Pass::After(1_000_000_000));
    assert_eq!(standings[2].pass, Pass::WhenFree);
    assert_eq!(standings[0].remaining, 8, "what it would leave is what is told");
}

#[test]
fn the_same_call_again_takes_nothing_more() {
    let mut book = Book::default();
    let bounds = [rate(10, 60, 10), slots(1)];
    assert!(admitted(&book.admit(ask(1, &bounds, 0))));
    let before = book.clone();
    assert!(admitted(&book.admit(ask(1, &bounds, 0))));
    assert_eq!(book, before);
    let Verdict::Admitted(standings) = book.admit(ask(1, &bounds, 5)) else { panic!() };
    assert_eq!(standings[0].remaining, 9, "only the lease is longer");
    assert!(!admitted(&book.admit(ask(2, &bounds, LEASE + 2))), "the slot is kept until then");
    assert!(admitted(&book.admit(ask(2, &bounds, LEASE + 5))));
}

#[test]
fn a_purse_that_nobody_seeded_admits_nothing() {
    let mut book = Book::default();
    let bounds = [with(purse(100), 10)];
    assert_eq!(book.admit(ask(1, &bounds, 0)), Verdict::Unseeded(vec![0]));
    assert!(book.seed(&bounds[0].counter, span(0, 1_000_000_000), 95));
    assert!(!book.seed(&bounds[0].counter, span(0, 1_000_000_000), 0));
    assert!(matches!(book.admit(ask(1, &bounds, 0)), Verdict::Refused(0, _)));
}

#[test]
fn a_new_span_is_a_new_purse() {
    let mut book = Book::default();
    let next = Bound {
        check: Check::Purse { limit: 100, span: span(1_000_000_000, 2_000_000_000) },
        ..purse(100)
    };
    book.seed(&next.counter, span(0, 1_000_000_000), 100);
    let bounds = [next];
    assert_eq!(book.admit(ask(1, &bounds, 1_000_000_000)), Verdict::Unseeded(vec![0]));
}

#[test]
fn a_correction_replaces_the_estimate() {
    let mut book = Book::default();
    let bounds = [with(purse(100), 60), with(rate(100, 60, 100), 50)];
    book.seed(&bounds[0].counter, span(0, 1_000_000_000), 0);
    assert!(admitted(&book.admit(ask(1, &bounds, 0))));
    let used = [with(purse(100), 7), with(rate(100, 60, 100), 10)];
    assert!(book.close(Uuid::from_u128(1), &used, 0));
    assert!(!book.close(Uuid::from_u128(1), &used, 0), "once");
    assert_eq!(book.level(&bounds[0], 0).unwrap().used, 7);
    assert_eq!(book.level(&bounds[1], 0).unwrap().used, 10);
}

#[test]
fn what_an_owner_that_is_gone_held_of_a_purse_counts_as_spent() {
    let mut book = Book::default();
    let bounds = [with(purse(100), 60), slots(1)];
    book.seed(&bounds[0].counter, span(0, 1_000_000_000), 0);
    assert!(admitted(&book.admit(ask(1, &bounds, 0))));
    assert!(matches!(book.admit(ask(2, &bounds, LEASE - 1)), Verdict::Refused(..)));
    let small = [with(purse(100), 30), slots(1)];
    assert!(admitted(&book.admit(ask(2, &small, LEASE))), "the slot is back");
    assert_eq!(book.level(&bounds[0], LEASE).unwrap().used, 90);
    // The owner was not gone, only late: what it really used stands instead.
    assert!(book.close(Uuid::from_u128(1), &[with(purse(100), 5), slots(1)], LEASE));
    assert_eq!(book.level(&bounds[0], LEASE).unwrap().used, 35);
}

#[test]
fn more_is_held_of_all_purses_or_of_none() {
    let mut book = Book::default();
    let own = |units| with(Bound { counter: key_counter(), ..purse(50) }, units);
    let of_app = |units| with(purse(100), units);
    for purse in [own(0), of_app(0)] {
        book.seed(&purse.counter, span(0, 1_000_000_000), 0);
    }
    assert!(admitted(&book.admit(ask(1, &[own(20), of_app(20)], 0))));
    assert!(admitted(&book.admit(ask(2, &[of_app(30)], 0))));
    assert!(admitted(&book.extend(ask(1, &[own(45), of_app(45)], 0))));
    assert!(admitted(&book.extend(ask(1, &[own(45), of_app(45)], 0))), "the same again");
    let used = |book: &mut Book| [own(0), of_app(0)].map(|b| book.level(&b, 0).unwrap().used);
    assert_eq!(used(&mut book), [45, 75]);
    let Verdict::Refused(n, standings) = book.extend(ask(1, &[own(51), of_app(51)], 0)) else {
        panic!()
    };
    assert_eq!((n, standings[0].remaining, standings[1].remaining), (0, 5, 19));
    assert_eq!(used(&mut book), [45, 75], "nothing was taken");
    assert!(admitted(&book.extend(ask(1, &[own(10), of_app(10)], 0))), "less is given back");
    assert_eq!(used(&mut book), [10, 40]);
    assert!(book.close(Uuid::from_u128(1), &[own(4), of_app(4)], 0));
    assert_eq!(used(&mut book), [4, 34]);
}

#[test]
fn what_is_held_more_after_the_hold_expired_counts_once() {
    let mut book = Book::default();
    book.seed(&purse(100).counter, span(0, 1_000_000_000), 0);
    assert!(admitted(&book.admit(ask(1, &[with(purse(100), 20)], 0))));
    assert_eq!(book.level(&purse(100), LEASE).unwrap(), Level { used: 20, held: 0, ..whole() });
    assert!(admitted(&book.extend(ask(1, &[with(purse(100), 30)], LEASE))));
    assert_eq!(book.level(&purse(100), LEASE).unwrap(), Level { used: 30, held: 30, ..whole() });
}

#[test]
fn what_is_spent_elsewhere_is_charged_once() {
    let mut book = Book::default();
    let (charge, next) = (Uuid::from_u128(7), Uuid::from_u128(8));
    assert!(!book.charge(&with(purse(100), 30), charge), "its seed will know");
    book.seed(&purse(100).counter, span(0, 1_000_000_000), 10);
    assert!(book.charge(&with(purse(100), 30), charge));
    assert!(!book.charge(&with(purse(100), 30), charge), "once");
    assert!(book.charge(&with(purse(100), 1), next));
    assert_eq!(book.level(&purse(100), 0).unwrap().used, 41);
}

#[test]
fn a_lease_that_is_renewed_is_kept() {
    let mut book = Book::default();
    let bounds = [slots(1)];
    assert!(admitted(&book.admit(ask(1, &bounds, 0))));
    assert_eq!(book.renew(&[Uuid::from_u128(1), Uuid::from_u128(9)], (LEASE - 1, LEASE)), 1);
    assert!(!admitted(&book.admit(ask(2, &bounds, LEASE + 1))));
}

#[test]
fn a_shadow_limit_counts_and_never_refuses() {
    let mut book = Book::default();
    let mut shadow = rate(60, 60, 1);
    shadow.counter.rule.shadow = true;
    let bounds = [shadow];
    assert!(admitted(&book.admit(ask(1, &bounds, 0))));
    let Verdict::Admitted(standings) = book.admit(ask(2, &bounds, 0)) else { panic!() };
    assert_eq!(standings[0].pass, Pass::After(1_000_000));
    assert!(admitted(&book.admit(ask(3, &bounds, 1_000_000))), "what it refused took nothing");
}

#[test]
fn a_warning_comes_once_with_the_call_that_crosses_four_fifths() {
    let mut book = Book::default();
    let bounds = [with(purse(100), 40)];
    book.seed(&bounds[0].counter, span(0, 1_000_000_000), 0);
    let warned = |verdict: Verdict| match verdict {
        Verdict::Admitted(standings) => standings[0].warn,
        refused @ (Verdict::Refused(..) | Verdict::Unseeded(_)) => panic!("{refused:?}"),
    };
    assert!(!warned(book.admit(ask(1, &bounds, 0))));
    assert!(warned(book.admit(ask(2, &bounds, 0))));
    assert!(!warned(book.admit(ask(3, &[with(purse(100), 10)], 0))));
}

#[test]
fn a_repair_is_of_what_was_seen() {
    let mut book = Book::default();
    book.seed(&purse(100).counter, span(0, 1_000_000_000), 50);
    assert!(admitted(&book.admit(ask(1, &[with(purse(100), 10)], 0))));
    let seen = book.look(&purse(100), 0).unwrap();
    assert_eq!((seen.spent, seen.holds.len()), (50, 1));
    assert!(book.repair(&purse(100), (seen.mended, -30)));
    assert!(!book.repair(&purse(100), (seen.mended, -30)), "somebody did");
    assert_eq!(book.level(&purse(100), 0).unwrap().used, 30);
}

#[test]
fn the_ledger_is_read_for_a_purse_when_it_knows_of_all_calls_from_before() {
    let (mut book, purse) = (Book::default(), purse(100));
    let birth = |name, wait_us| Some(Birth { name, wait_us });
    assert!(!book.seed_born(&purse, (7, 0)), "nobody has asked");
    assert_eq!(book.birth(&purse, 7), birth(7, RIPENS_US));
    assert_eq!(book.birth(&purse, 7 + LATE_US), birth(7, RIPENS_US - LATE_US));
    assert_eq!(book.birth(&purse, 7 + RIPENS_US), birth(7, 0));
    assert!(book.put_off(&purse));
    assert_eq!(book.birth(&purse, 7), birth(8, RIPENS_US), "a call was admitted meanwhile");
    assert_eq!(book.birth(&purse, 6), birth(9, RIPENS_US), "the clock went back");
    assert!(!book.seed_born(&purse, (7, 50)), "what was read for its life before");
    assert!(book.seed_born(&purse, (9, 60)));
    assert!(book.seed_born(&purse, (7, 50)), "it is seeded");
    assert!(!book.put_off(&purse), "it is seeded");
    assert_eq!((book.birth(&purse, 9), book.level(&purse, 9).unwrap().used), (None, 60));
    let check = Check::Purse { limit: 100, span: span(1_000_000_000, 2_000_000_000) };
    let next = Bound { check, ..purse };
    let waits = book.birth(&next, 1_000_000_000).map(|birth| birth.wait_us);
    assert_eq!(waits, Some(0), "calls of the next day have asked for its purse from the first");
}

#[test]
fn a_call_that_grows_after_midnight_leaves_the_new_day_alone() {
    let mut book = Book::default();
    let day = |n: i64| Check::Purse { limit: 100, span: span(n * 1_000, (n + 1) * 1_000) };
    let [old, new] = [0, 1].map(|n| Bound { check: day(n), ..purse(100) });
    for purse in [&old, &new] {
        let Check::Purse { span, .. } = purse.check else { panic!() };
        assert!(book.seed(&purse.counter, span, 10));
    }
    assert!(admitted(&book.admit(ask(1, &[with(old.clone(), 20)], 999))));
    assert!(admitted(&book.admit(ask(2, &[with(new.clone(), 30)], 1_001))));
    assert!(admitted(&book.extend(ask(1, &[with(old.clone(), 25)], 1_002))));
    assert!(book.close(Uuid::from_u128(1), &[with(old.clone(), 5)], 1_003));
    let used = [&old, &new].map(|purse| book.level(purse, 1_003).unwrap().used);
    assert_eq!(used, [15, 40]);
}

#[test]
fn what_says_nothing_any_more_is_forgotten() {
    let mut book = Book::default();
    let bounds = [rate(60, 60, 60), slots(4), with(purse(10), 1)];
    book.seed(&bounds[2].counter, span(0, 1_000_000_000), 0);
    assert!(admitted(&book.admit(ask(1, &bounds, 0))));
    book.sweep(10_000_000_000, 0);
    assert_eq!(book, Book::default());
}

#[derive(Debug, Clone)]
enum Step {
    Admit(u8, i64),
    Close(u8, i64),
    Renew(u8),
    Extend(u8, i64),
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), 0_i64..40).prop_map(|(id, units)| Step::Admit(id, units)),
        3 => (any::<u8>(), 0_i64..60).prop_map(|(id, units)| Step::Close(id, units)),
        1 => any::<u8>().prop_map(Step::Renew),
        2 => (any::<u8>(), 0_i64..80).prop_map(|(id, units)| Step::Extend(id, units)),
        2 => (0_i64..20_000_000).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn no_sequence_overspends_a_purse_or_its_slots(steps in prop::collection::vec(step(), 1..120)) {
        let mut book = Book::default();
        let (limit, most) = (100, 3);
        let all = span(0, 1_000_000_000_000);
        let purse = Bound { check: Check::Purse { limit, span: all }, ..purse(limit) };
        book.seed(&purse.counter, all, 0);
        let (mut now, mut open) = (0, std::collections::BTreeMap::new());
        for step in steps {
            match step {
                Step::Admit(id, units) => {
                    let bounds = [with(purse.clone(), units), slots(most)];
                    if admitted(&book.admit(ask(id.into(), &bounds, now))) {
                        open.entry(id).or_insert(units);
                    }
                }
                Step::Close(id, units) => {
                    // What is used stays within what was held, as settlements do.
                    let held = open.remove(&id).unwrap_or(0);
                    let used = [with(purse.clone(), units.min(held)), slots(most)];
                    book.close(Uuid::from_u128(id.into()), &used, now);
                }
                Step::Renew(id) => {
                    let expired = book.level(&slots(most), now).unwrap().used < most;
                    if expired {
                        book.renew(&[Uuid::from_u128(id.into())], (now, LEASE));
                    }
                }
                Step::Extend(id, units) => {
                    let more = [with(purse.clone(), units)];
                    if open.contains_key(&id) && admitted(&book.extend(ask(id.into(), &more, now)))
                    {
                        open.insert(id, units);
                    }
                }
                Step::Pass(us) => now += us,
            }
            let money = book.level(&purse, now).unwrap();
            prop_assert!((0..=limit).contains(&money.used), "{money:?}");
            prop_assert!(money.held >= 0);
            prop_assert!((0..=most).contains(&book.level(&slots(most), now).unwrap().used));
        }
    }
}
