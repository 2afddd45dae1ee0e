//! References resolve, and scheduled windows open and close to the microsecond.

use super::*;
use crate::config::{Alias, Route, TokenGroup};

fn version<B>(code: &str, from: i64, to: Option<i64>, body: B) -> Version<B> {
    Version {
        code: code.into(),
        app: None,
        version_no: 1,
        effective_from: Timestamp::from_micros(from),
        effective_to: to.map(Timestamp::from_micros),
        enabled: true,
        body,
    }
}

fn price(json: serde_json::Value) -> Price {
    serde_json::from_value(json).unwrap()
}

fn sale(amount: &str) -> Price {
    price(serde_json::json!({
        "side": "sale", "alias": "chat", "currency": "USD",
        "meters": [{"meter": "input_tokens", "per": 1000, "amount": amount}]
    }))
}

fn fx(rate: &str) -> config::FxRate {
    let (from, to) = (Currency::USD, Currency::parse("EUR").unwrap());
    config::FxRate { from, to, rate: rate.to_owned(), spread: "0".to_owned() }
}

#[test]
fn a_price_in_another_currency_needs_a_rate_in_force() {
    let snapshot = |at| Snapshot::compile(&tables(), Timestamp::from_micros(at));
    let eur = Currency::parse("EUR").unwrap();
    let digits = |at| snapshot(at).fx(Currency::USD, eur).map(|rate| rate.digits);
    assert_eq!((digits(99), digits(100)), (Some(9), Some(8)));
    assert!(snapshot(1).fx(eur, Currency::USD).is_none());
    let alias = Arc::clone(snapshot(1).alias("chat").unwrap());
    assert!(alias.sale_price(None, eur).is_none());
    let lists: Vec<_> = alias.sale_prices(Some("vip")).map(|list| list.currency).collect();
    assert_eq!(lists, [Currency::USD]);
    let mut off = tables();
    off.fx_rates[0].enabled = false;
    assert!(Snapshot::compile(&off, Timestamp::from_micros(1)).fx(Currency::USD, eur).is_none());
}

fn tables() -> Tables {
    let channel: Channel = serde_json::from_value(serde_json::json!({
        "provider": "openai_compatible", "base_url": "http://127.0.0.1/v1"
    }))
    .unwrap();
    let route = |channel: &str| Route {
        channel: channel.into(),
        model: "m".into(),
        priority: 0,
        weight: 1,
    };
    let alias = Alias {
        kind: Kind::Chat,
        routes: vec![route("up"), route("gone")],
        fallbacks: Fallbacks::default(),
        retry: RetryBudget::default(),
    };
    let group = TokenGroup {
        aliases: vec!["chat".into()],
        multiplier: "1.5".into(),
        quota: None,
        queue_mode: None,
    };
    Tables {
        rev: 9,
        channels: vec![version("up", 0, None, channel)],
        aliases: vec![version("chat", 0, None, alias)],
        prices: vec![version("p", 0, Some(100), sale("1")), version("p", 100, None, sale("2"))],
        quotas: vec![],
        token_groups: vec![version("vip", 0, None, group)],
        fx_rates: vec![
            version("usd-eur", 0, Some(100), fx("0.9")),
            version("usd-eur", 100, None, fx("0.8")),
        ],
    }
}

fn amount(snapshot: &Snapshot) -> i64 {
    let alias = snapshot.alias("chat").unwrap();
    alias.sale_price(None, Currency::USD).unwrap().rates[0].rate.units
}

#[test]
fn a_route_without_its_channel_is_left_out() {
    let snapshot = Snapshot::compile(&tables(), Timestamp::from_micros(1));
    assert_eq!(snapshot.alias("chat").unwrap().routes.len(), 1);
    assert_eq!(snapshot.rev, 9);
}

#[test]
fn a_scheduled_price_takes_effect_to_the_microsecond() {
    let timeline = Timeline::compile(&tables(), Timestamp::from_micros(1));
    assert_eq!(amount(timeline.at(Timestamp::from_micros(99)).unwrap()), 1_000_000_000);
    assert_eq!(amount(timeline.at(Timestamp::from_micros(100)).unwrap()), 2_000_000_000);
}

#[test]
fn a_group_price_wins_over_the_general_one() {
    let mut tables = tables();
    let mut own = sale("7");
    own.token_group = Some("vip".into());
    tables.prices.push(version("vip-price", 0, None, own));
    let snapshot = Snapshot::compile(&tables, Timestamp::from_micros(1));
    let alias = snapshot.alias("chat").unwrap();
    let units = |group| alias.sale_price(group, Currency::USD).unwrap().rates[0].rate.units;
    assert_eq!(units(Some("vip")), 7_000_000_000);
    assert_eq!(units(Some("other")), 1_000_000_000);
    assert!(alias.sale_price(None, Currency::parse("EUR").unwrap()).is_none());
}

#[test]
fn a_token_group_allows_what_it_lists() {
    let snapshot = Snapshot::compile(&tables(), Timestamp::from_micros(1));
    let group = snapshot.token_group("vip").unwrap();
    assert!(group.allows("chat") && !group.allows("other"));
    assert_eq!(group.multiplier.ppm(), 1_500_000);
}
