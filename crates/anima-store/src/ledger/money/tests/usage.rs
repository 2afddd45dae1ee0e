//! What calls used, cost and were charged, by channel, alias, app, key and time.

use std::collections::BTreeMap;
use std::sync::Arc;

use anima_core::ledger::{Attempt, Hold, Settlement};
use anima_core::usage::{Meter, Usage, UsageSource};
use uuid::Uuid;

use super::*;
use crate::ledger::money::{Group, LineKey, Quantity, Span, UsageLine, UsageOf, UsagePage};
use crate::ledger::tests::fixtures::{attempt, correction, eur, hold, release, settle, topup};
use crate::ledger::{Correction, SaleCorrection};

const HOUR_MS: i64 = 3_600_000;

/// One line for each of these.
#[derive(Debug, Clone, Copy)]
struct Apart<'a>(Option<Span>, &'a [Group]);

const NOTHING: Apart<'_> = Apart(None, &[]);

const ALL: Apart<'_> = Apart(Some(Span::Hour), Group::ALL);

fn of(Apart(span, by): Apart<'_>) -> UsageOf {
    UsageOf {
        from: Timestamp::from_micros(0),
        to: NOON.plus_millis(1_000 * HOUR_MS),
        only: BTreeMap::new(),
        span,
        by: by.iter().copied().collect(),
        after: LineKey::default(),
        limit: 200,
    }
}

fn only(named: &[(Group, &str)]) -> BTreeMap<Group, String> {
    named.iter().map(|(group, code)| (*group, (*code).to_owned())).collect()
}

async fn lines(desk: &Desk, of: UsageOf) -> Vec<UsageLine> {
    let UsagePage { lines, has_more } = desk.money.usage(of).await.unwrap();
    assert!(!has_more);
    lines
}

/// The only line.
async fn line(desk: &Desk, of: UsageOf) -> UsageLine {
    let mut lines = lines(desk, of).await;
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.remove(0)
}

fn on(channel: &str, told: Attempt) -> Attempt {
    Attempt { channel: channel.into(), ..told }
}

/// A call of an app, a key and an alias, so many hours after noon.
fn call(n: u128, (app, kid, alias): (&str, &str, &str), hours: i64) -> Hold {
    Hold {
        kid: kid.into(),
        alias: alias.into(),
        created_at: NOON.plus_millis(hours * HOUR_MS),
        ..hold(n, app, 200)
    }
}

async fn close(desk: &Desk, open: &Hold, settlement: Settlement) {
    desk.ledger.hold(open.clone()).await.unwrap();
    desk.ledger.settle(settlement).await.unwrap();
}

/// Sales with a fallback, in another currency, of nothing; a failure with and without a cost; a
/// call that runs; a refund, corrections up and down. Two apps, three keys, two aliases, three
/// hours.
async fn busy(desk: &Desk) {
    desk.ledger.post(topup(901, "acme", 10_000)).await.unwrap();
    desk.ledger.post(topup(902, "other", 10_000)).await.unwrap();
    desk.money.grant(grant(951, "acme", 30, 48)).await.unwrap();
    let plain = call(1, ("acme", "k1", "gpt"), 0);
    close(desk, &plain, settle(&plain, 90)).await;
    let fallback = call(2, ("acme", "k2", "gpt"), 0);
    let attempts = vec![on("azure", attempt(1, false, 3)), attempt(2, true, 40)];
    close(desk, &fallback, Settlement { attempts, ..settle(&fallback, 100) }).await;
    let foreign = call(3, ("acme", "k1", "claude"), 1);
    close(desk, &foreign, exchange::converted(&foreign, 200)).await;
    let free = call(4, ("other", "k3", "gpt"), 1);
    let mut told = on("azure", attempt(1, true, 5));
    told.cost = None;
    close(desk, &free, Settlement { attempts: vec![told], ..settle(&free, 0) }).await;
    let failed = call(5, ("other", "k3", "gpt"), 2);
    let mut told = attempt(1, false, 6);
    told.cost.as_mut().unwrap().currency = eur();
    close(desk, &failed, Settlement { attempts: vec![told], ..release(&failed) }).await;
    let unsent = call(6, ("other", "k3", "claude"), 2);
    close(desk, &unsent, release(&unsent)).await;
    desk.ledger.hold(call(7, ("other", "k3", "claude"), 2)).await.unwrap();
    desk.money.refund(refund(2, "acme", Some(25), 1)).await.unwrap();
    let less = Settlement { attempts: vec![attempt(1, true, 4)], ..settle(&plain, 70) };
    desk.ledger.true_up(correction(less)).await.unwrap();
    // Came when nobody waited for it any more: not sold, and yet it costs.
    let known = Settlement { attempts: vec![attempt(1, false, 9)], ..release(&unsent) };
    desk.ledger.true_up(correction(known)).await.unwrap();
}

type Sums = BTreeMap<Currency, [i64; 8]>;

fn sums(lines: &[UsageLine]) -> Sums {
    let mut sums = Sums::new();
    for l in lines {
        let amounts = [
            l.charge - l.refunds,
            l.revenue,
            l.refunds,
            l.uncollected,
            l.fx,
            l.cost,
            l.cost_estimated,
            l.margin(),
        ];
        let sum = sums.entry(l.currency).or_default();
        sum.iter_mut().zip(amounts).for_each(|(sum, amount)| *sum += amount);
    }
    sums
}

fn counts(lines: &[UsageLine]) -> [i64; 7] {
    lines.iter().fold([0; 7], |sum, l| {
        let counts = [
            l.requests,
            l.errors,
            l.open,
            l.attempts,
            l.failed_attempts,
            l.estimated_attempts,
            l.tokens(),
        ];
        std::array::from_fn(|n| sum[n] + counts[n])
    })
}

/// What the accounts say, by class, of everything but top-ups and grants.
async fn booked(desk: &Desk, came_in: i64) -> Sums {
    let mut sums = Sums::new();
    let balances = desk.ledger.trial_balance().await.unwrap();
    for currency in [Currency::USD, eur()] {
        let of = |classes: &[i16]| {
            let wanted =
                balances.iter().filter(|l| l.currency == currency && classes.contains(&l.class));
            i64::try_from(wanted.map(|l| l.credits - l.debits).sum::<i128>()).unwrap()
        };
        let came_in = if currency == Currency::USD { came_in } else { 0 };
        let amounts = [
            came_in - of(&[2010, 2020]),
            of(&[4010]),
            -of(&[4020]),
            0,
            of(&[5070]),
            of(&[2030, 2031]),
            of(&[2031]),
            of(&[4010, 4020, 5010, 5020, 5030, 5070]),
        ];
        sums.insert(currency, amounts);
    }
    sums
}

/// Every choice of what lines are kept apart by.
fn choices() -> Vec<(Option<Span>, Vec<Group>)> {
    let spans = [None, Some(Span::Hour), Some(Span::Day), Some(Span::Month)];
    let sets = (0..32_usize).map(|bits| {
        let chosen = Group::ALL.iter().enumerate().filter(|(n, _)| bits & (1 << n) > 0);
        chosen.map(|(_, group)| *group).collect::<Vec<_>>()
    });
    sets.flat_map(|by| spans.map(|span| (span, by.clone()))).collect()
}

pub(super) async fn every_amount_is_what_the_accounts_say(desk: Arc<Desk>) {
    assert_eq!(lines(&desk, of(ALL)).await, []);
    busy(&desk).await;
    let booked = booked(&desk, 20_030).await;
    // 90 + 100 + 110 - 20 charged, 25 given back; 4 + 3 + 40 + 7 + 9 to providers, and 6 in euros.
    assert_eq!(booked[&Currency::USD][..3], [255, 170, 25]);
    assert_eq!((booked[&Currency::USD][5], booked[&eur()][5]), (63, 6));
    for (span, by) in choices() {
        let apart = Apart(span, &by);
        let lines = lines(&desk, of(apart)).await;
        assert_eq!(sums(&lines), booked, "{apart:?}");
        // Six are over and one runs; the two that were released failed.
        assert_eq!(counts(&lines), [6, 2, 1, 7, 3, 0, 4 * 16], "{apart:?}");
        assert!(lines.is_sorted_by(|a, b| a.key < b.key), "each key once, in order: {apart:?}");
    }
    let whole = lines(&desk, of(NOTHING)).await;
    assert_eq!(whole.iter().map(|l| l.currency).collect::<Vec<_>>(), [eur(), Currency::USD]);
    let meters = &whole[1].meters;
    let quantity = |served, wasted| Quantity { served, estimated: 0, wasted };
    assert_eq!(meters["input_tokens"], quantity(44, 33));
    assert_eq!(meters["output_tokens"], quantity(20, 15));
    assert!(whole[0].meters.is_empty(), "counts stand beside the wallet's currency");
}

fn brief(lines: &[UsageLine]) -> Vec<(String, [i64; 6])> {
    let figures =
        |l: &UsageLine| [l.requests, l.errors, l.attempts, l.charge, l.cost, l.cost_wasted];
    let key = |k: &LineKey| {
        let parts = [&k.span, &k.channel, &k.model, &k.alias, &k.app, &k.key, &k.currency];
        let parts: Vec<&str> =
            parts.into_iter().filter(|part| !part.is_empty()).map(String::as_str).collect();
        parts.join(" ")
    };
    lines.iter().map(|l| (key(&l.key), figures(l))).collect()
}

fn wanted<const N: usize>(lines: [(&str, [i64; 6]); N]) -> Vec<(String, [i64; 6])> {
    lines.map(|(key, figures)| (key.to_owned(), figures)).to_vec()
}

pub(super) async fn a_line_is_of_its_own_calls_however_they_are_kept_apart(desk: Arc<Desk>) {
    busy(&desk).await;
    let by = async |apart: Apart<'_>| brief(&lines(&desk, of(apart)).await);
    assert_eq!(
        by(Apart(None, &[Group::Channel])).await,
        wanted([
            // It runs: nothing was sent for it yet.
            ("USD", [0; 6]),
            ("azure USD", [1, 0, 2, 0, 3, 3]),
            ("openai EUR", [0, 0, 0, 0, 6, 6]),
            ("openai USD", [5, 2, 5, 280, 60, 9]),
        ])
    );
    assert_eq!(
        by(Apart(None, &[Group::Alias])).await,
        wanted([
            ("claude EUR", [0; 6]),
            ("claude USD", [2, 1, 2, 110, 16, 9]),
            ("gpt EUR", [0, 0, 0, 0, 6, 6]),
            ("gpt USD", [4, 1, 5, 170, 47, 3]),
        ])
    );
    assert_eq!(
        by(Apart(None, &[Group::App, Group::Key])).await,
        wanted([
            ("acme k1 EUR", [0; 6]),
            ("acme k1 USD", [2, 0, 2, 180, 11, 0]),
            ("acme k2 USD", [1, 0, 2, 100, 43, 3]),
            ("other k3 EUR", [0, 0, 0, 0, 6, 6]),
            ("other k3 USD", [3, 2, 3, 0, 9, 9]),
        ])
    );
    assert_eq!(
        by(Apart(None, &[Group::Model])).await,
        wanted([
            ("USD", [0; 6]),
            ("gpt-5 EUR", [0, 0, 0, 0, 6, 6]),
            ("gpt-5 USD", [6, 2, 7, 280, 63, 12]),
        ])
    );
    assert_eq!(
        by(Apart(Some(Span::Hour), &[Group::Channel, Group::App])).await,
        wanted([
            ("2026-09-21T14:00:00Z azure acme USD", [0, 0, 1, 0, 3, 3]),
            ("2026-09-21T14:00:00Z openai acme USD", [2, 0, 2, 170, 44, 0]),
            ("2026-09-21T15:00:00Z azure other USD", [1, 0, 1, 0, 0, 0]),
            ("2026-09-21T15:00:00Z openai acme EUR", [0; 6]),
            ("2026-09-21T15:00:00Z openai acme USD", [1, 0, 1, 110, 7, 0]),
            ("2026-09-21T16:00:00Z other USD", [0; 6]),
            ("2026-09-21T16:00:00Z openai other EUR", [0, 0, 0, 0, 6, 6]),
            ("2026-09-21T16:00:00Z openai other USD", [2, 2, 2, 0, 9, 9]),
        ])
    );
    let hour = UsageOf {
        from: NOON.plus_millis(2 * HOUR_MS),
        only: only(&[(Group::Alias, "claude")]),
        ..of(Apart(None, &[Group::Channel]))
    };
    let open = lines(&desk, hour).await;
    let shown: Vec<_> = open.iter().map(|l| (l.key.channel.as_str(), l.requests, l.open)).collect();
    assert_eq!(shown, [("", 0, 1), ("openai", 1, 0)]);
}

pub(super) async fn a_correction_and_a_refund_change_the_hour_of_their_call(desk: Arc<Desk>) {
    desk.ledger.post(topup(901, "acme", 1_000)).await.unwrap();
    let open = call(1, ("acme", "k1", "gpt"), 0);
    let estimate = Settlement { attempts: vec![attempt(1, true, 7)], ..settle(&open, 90) };
    close(&desk, &open, estimate).await;
    let hourly = || of(Apart(Some(Span::Hour), &[]));
    let before = line(&desk, hourly()).await;
    assert_eq!((before.charge, before.refunds, before.cost, before.margin()), (90, 0, 7, 83));
    desk.money.refund(refund(1, "acme", Some(20), 1)).await.unwrap();
    let known = Settlement {
        attempts: vec![attempt(1, true, 5)],
        at: NOON.plus_millis(50 * HOUR_MS),
        ..settle(&open, 60)
    };
    desk.ledger.true_up(correction(known)).await.unwrap();
    let after = line(&desk, hourly()).await;
    assert_eq!(after.key, before.key);
    let back = 1_000 - wallet(&desk, "acme").await.0;
    assert_eq!((after.charge - after.refunds, after.refunds, after.cost), (back, 20, 5));
    assert_eq!((after.requests, after.attempts), (1, 1));
}

pub(super) async fn what_was_learnt_last_of_an_attempt_counts(desk: Arc<Desk>) {
    desk.ledger.post(topup(901, "acme", 1_000)).await.unwrap();
    let open = call(1, ("acme", "k1", "gpt"), 0);
    let mut told = attempt(1, true, 7);
    told.cost.as_mut().unwrap().estimate = true;
    told.usage_source = UsageSource::Counted;
    close(&desk, &open, Settlement { attempts: vec![told.clone()], ..settle(&open, 90) }).await;
    let read = async || {
        let line = line(&desk, of(NOTHING)).await;
        let money = (line.cost, line.cost_estimated);
        (line.meters["input_tokens"], line.tokens(), line.estimated_attempts, money)
    };
    let quantity = |served, estimated| Quantity { served, estimated, wasted: 0 };
    assert_eq!(read().await, (quantity(11, 11), 16, 1, (7, 7)));
    // Its cost is told alone: of what was used nothing new is known.
    let report = |key: u128, told: Attempt| Correction {
        sale: SaleCorrection::Keep,
        report: Some(Uuid::from_u128(key)),
        ..correction(Settlement { attempts: vec![told], ..release(&open) })
    };
    let mut cost = told.clone();
    (cost.usage, cost.usage_source) = (Usage::default(), UsageSource::None);
    cost.cost.as_mut().unwrap().estimate = false;
    cost.cost.as_mut().unwrap().amount = 8;
    desk.ledger.true_up(report(1, cost.clone())).await.unwrap();
    assert_eq!(read().await, (quantity(11, 11), 16, 1, (8, 0)));
    let mut usage = cost.clone();
    usage.usage = Usage::default().with(Meter::InputTokens, 20).with(Meter::OutputTokens, 1);
    usage.usage_source = UsageSource::Provider;
    usage.cost.as_mut().unwrap().amount = 9;
    desk.ledger.true_up(report(2, usage)).await.unwrap();
    assert_eq!(read().await, (quantity(20, 0), 21, 0, (9, 0)));
    desk.ledger.true_up(report(3, cost)).await.unwrap();
    assert_eq!(read().await, (quantity(20, 0), 21, 0, (8, 0)));
    // A call that was not sold is no failure any more when its answer turns out to be delivered.
    let late = call(2, ("acme", "k1", "gpt"), 0);
    let lost = Settlement { attempts: vec![attempt(1, false, 3)], ..release(&late) };
    close(&desk, &late, lost).await;
    assert_eq!(counts(&lines(&desk, of(NOTHING)).await)[..5], [2, 1, 0, 2, 1]);
    let settlement = Settlement { attempts: vec![attempt(1, true, 3)], ..settle(&late, 50) };
    let sold = Correction { sale: SaleCorrection::Delivered, ..correction(settlement) };
    desk.ledger.true_up(sold).await.unwrap();
    let line = line(&desk, of(NOTHING)).await;
    assert_eq!(counts(std::slice::from_ref(&line))[..5], [2, 0, 0, 2, 0]);
    assert_eq!((line.charge, line.cost, line.cost_wasted), (140, 11, 0));
}

pub(super) async fn a_period_is_half_open(desk: Arc<Desk>) {
    desk.ledger.post(topup(901, "acme", 1_000)).await.unwrap();
    let open = call(1, ("acme", "k1", "gpt"), 0);
    close(&desk, &open, settle(&open, 90)).await;
    let at = NOON.micros();
    let within = [(at, at + 1, 1), (at - 1, at, 0), (at + 1, at + 2, 0), (at, at, 0)];
    for (from, to, count) in within {
        let (from, to) = (Timestamp::from_micros(from), Timestamp::from_micros(to));
        assert_eq!(lines(&desk, UsageOf { from, to, ..of(ALL) }).await.len(), count);
    }
}

pub(super) async fn spans_are_those_of_utc(desk: Arc<Desk>) {
    desk.ledger.post(topup(901, "acme", 1_000)).await.unwrap();
    let instants = [
        "2024-02-29T23:59:59.999999Z",
        "2024-03-01T00:00:00Z",
        "2024-12-31T23:59:59.999999Z",
        "2025-01-01T00:59:59.999999Z",
        "2025-01-01T01:00:00Z",
    ];
    for (n, instant) in (1..).zip(instants) {
        let created_at = Timestamp::parse(instant).unwrap();
        let open = Hold { created_at, ..call(n, ("acme", "k1", "gpt"), 0) };
        close(&desk, &open, settle(&open, 1)).await;
    }
    let spans = async |span| {
        let lines = lines(&desk, of(Apart(Some(span), &[]))).await;
        lines.into_iter().map(|l| format!("{} {}", l.key.span, l.requests)).collect::<Vec<_>>()
    };
    assert_eq!(
        spans(Span::Hour).await,
        [
            "2024-02-29T23:00:00Z 1",
            "2024-03-01T00:00:00Z 1",
            "2024-12-31T23:00:00Z 1",
            "2025-01-01T00:00:00Z 1",
            "2025-01-01T01:00:00Z 1",
        ]
    );
    assert_eq!(
        spans(Span::Day).await,
        ["2024-02-29 1", "2024-03-01 1", "2024-12-31 1", "2025-01-01 2"]
    );
    assert_eq!(spans(Span::Month).await, ["2024-02 1", "2024-03 1", "2024-12 1", "2025-01 2"]);
}

pub(super) async fn a_filter_leaves_what_a_line_of_its_own_would_show(desk: Arc<Desk>) {
    busy(&desk).await;
    let apart = lines(&desk, of(Apart(None, Group::ALL))).await;
    for key in apart.iter().map(|line| &line.key) {
        let only: Vec<_> = Group::ALL.iter().map(|group| (*group, key.of(*group))).collect();
        let only = self::only(&only);
        if !key.channel.is_empty() {
            let left = lines(&desk, UsageOf { only, ..of(Apart(None, Group::ALL)) }).await;
            let same = apart.iter().filter(|l| {
                LineKey { currency: String::new(), ..l.key.clone() }
                    == LineKey { currency: String::new(), ..key.clone() }
            });
            assert_eq!(left, same.cloned().collect::<Vec<_>>());
        }
    }
    let azure = only(&[(Group::Channel, "azure")]);
    let left = lines(&desk, UsageOf { only: azure, ..of(NOTHING) }).await;
    assert_eq!(brief(&left), wanted([("USD", [1, 0, 2, 0, 3, 3])]));
    for named in [&[(Group::Channel, "nowhere")][..], &[(Group::App, "acme"), (Group::Key, "k3")]] {
        let only = only(named);
        assert_eq!(lines(&desk, UsageOf { only, ..of(NOTHING) }).await, []);
    }
}

pub(super) async fn pages_follow_one_another_whatever_their_size(desk: Arc<Desk>) {
    busy(&desk).await;
    // In the order of their bytes, whatever the database's collation.
    for (n, alias) in (20..).zip(["B", "a", "b", "Ä", "a-b", "a.b"]) {
        let open = call(n, ("acme", "k1", alias), 1);
        close(&desk, &open, settle(&open, 1)).await;
    }
    let all = lines(&desk, of(ALL)).await;
    assert!(all.is_sorted_by(|a, b| a.key < b.key));
    for limit in 1..=u32::try_from(all.len()).unwrap() + 1 {
        let mut pages = Vec::new();
        let mut asked = UsageOf { limit, ..of(ALL) };
        loop {
            let UsagePage { lines, has_more } = desk.money.usage(asked.clone()).await.unwrap();
            assert!(lines.len() <= usize::try_from(limit).unwrap());
            pages.extend(lines);
            if !has_more {
                break;
            }
            // What comes meanwhile before the page changes nothing after it.
            asked.after = pages.last().unwrap().key.clone();
        }
        assert_eq!(pages, all, "{limit}");
    }
}
