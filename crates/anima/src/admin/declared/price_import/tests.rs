//! Imports into a real SQLite file: what is chosen, merged, doubted and refused.

use serde_json::json;

use super::*;
use crate::admin::declared::apply;
use crate::admin::tests::{Desk as Bench, actor};
use crate::price_file::read as read_file;

const CSV: &str = "\
provider,model,mode,input_per_mtok,output_per_mtok,cached_input_per_mtok,\
cache_write_per_mtok,unit_price,unit,source
openai,gpt-5,chat,1.25,10,0.125,,,,x; retires 2026-12-11
azure,gpt-5,chat,1.5,12,,,,,x
acme,odd,chat,0,1,,,,,x
acme,wrong,chat,-1,1,,,,,x
acme,sized,image_generation,,,,,0.1,image@4k,x
";

async fn furnished() -> Bench {
    let bench = Bench::open().await;
    let channel = json!({"code": "main", "provider": "openai",
        "base_url": "https://a.example/v1", "credentials": [{"code": "a", "secret": "s"}]});
    let route = |model| json!({"channel": "main", "model": model, "priority": 1, "weight": 1});
    let document = json!({
        "channels": [channel],
        "aliases": [{"code": "Smart/one", "kind": "chat",
            "routes": [route("gpt-5"), route("my-own")]}],
    });
    let plan = plan(&bench.admin, &actor(), document).await.unwrap();
    apply(&bench.admin, &actor(), &plan, false).await.unwrap();
    bench.clock.advance_millis(1);
    bench
}

fn order() -> Order {
    Order {
        channel: Some("main".to_owned()),
        models: Vec::new(),
        aliases: Vec::new(),
        provider: Some("openai".to_owned()),
        multiplier: "1".to_owned(),
        accept: Vec::new(),
        change_max: 3,
    }
}

fn name(text: &str) -> Named {
    Named { ours: text.to_owned(), theirs: None }
}

async fn planned(bench: &Bench, csv: &str, order: &Order) -> Result<Import, Vec<String>> {
    let listed = read_file(csv).unwrap();
    let planned = plan_import(&bench.admin, &actor(), &listed, order).await;
    planned.map_err(|refused| refused.faults)
}

async fn imported(bench: &Bench, csv: &str, order: &Order) -> Vec<String> {
    let import = planned(bench, csv, order).await.unwrap();
    apply(&bench.admin, &actor(), &import.plan, false).await.unwrap();
    bench.clock.advance_millis(1);
    import.differences.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn both_books_are_filled_once_and_then_nothing_changes() {
    let bench = furnished().await;
    let both = Order { aliases: vec![name("Smart/one")], multiplier: "1.2".to_owned(), ..order() };
    let import = planned(&bench, CSV, &both).await.unwrap();
    let notes = [
        "my-own: is not in the file",
        "cost main gpt-5: retires 2026-12-11",
        "sale Smart/one: retires 2026-12-11",
    ];
    assert_eq!(import.notes.len(), 3);
    assert!(
        notes.iter().all(|note| import.notes.contains(&(*note).to_owned())),
        "{:?}",
        import.notes
    );
    assert_eq!(
        imported(&bench, CSV, &both).await,
        [
            "+ cost main gpt-5 (price cost-main-gpt-5)\n    + input_tokens: 1.25 per 1000000\n    \
             + output_tokens: 10 per 1000000\n    + cached_input_tokens: 0.125 per 1000000",
            "+ sale Smart/one (price sale-smart-one)\n    + input_tokens: 1.5 per 1000000\n    \
             + output_tokens: 12 per 1000000\n    + cached_input_tokens: 0.15 per 1000000",
        ]
    );
    let rev = bench.admin.stores.config.rev().await.unwrap();
    assert_eq!(rev, 2, "the furniture, and all of the import");
    let again = imported(&bench, CSV, &both).await;
    assert_eq!(
        again,
        ["= cost main gpt-5 (price cost-main-gpt-5)", "= sale Smart/one (price sale-smart-one)"]
    );
    assert_eq!(bench.admin.stores.config.rev().await.unwrap(), rev);
}

#[tokio::test]
async fn a_multiplier_that_gives_calls_away_or_overcharges_is_doubted() {
    let bench = furnished().await;
    for multiplier in ["0", "120"] {
        let aliases = vec![name("Smart/one")];
        let order = Order { aliases, multiplier: multiplier.to_owned(), ..order() };
        let faults = planned(&bench, CSV, &order).await.unwrap_err().join("\n");
        assert!(faults.contains("sale Smart/one: input_tokens is "), "{multiplier}: {faults}");
    }
}

fn meter(meter: &str, amount: &str, when: &Value) -> Value {
    json!({"meter": meter, "per": 1_000_000, "amount": amount, "when": when})
}

#[tokio::test]
async fn what_the_file_does_not_mention_stays() {
    let bench = furnished().await;
    let own = json!({"prices": [{"code": "mine", "side": "cost", "channel": "main",
        "model": "gpt-5", "currency": "USD", "meters": [
            meter("input_tokens", "1.250", &json!({})), meter("output_tokens", "8", &json!({})),
            meter("input_tokens", "2.5", &json!({"input_tokens_over": 272_000}))]}]});
    let plan = plan(&bench.admin, &actor(), own).await.unwrap();
    apply(&bench.admin, &actor(), &plan, false).await.unwrap();
    bench.clock.advance_millis(1);
    assert_eq!(
        imported(&bench, CSV, &order()).await,
        ["~ cost main gpt-5 (price mine)\n    \
             ~ output_tokens: 8 per 1000000 -> 10 per 1000000\n    \
             + cached_input_tokens: 0.125 per 1000000"]
    );
    let row = bench.admin.stores.config.versions(anima_core::config::Resource::Price, "mine").await;
    let price: Price = read(&row.unwrap()[0].body).unwrap();
    let amounts: Vec<_> = price.meters.iter().map(|meter| meter.amount.as_str()).collect();
    assert_eq!(amounts, ["1.250", "10", "2.5", "0.125"]);
}

#[tokio::test]
async fn a_leap_is_refused_unless_the_model_is_named() {
    let bench = furnished().await;
    imported(&bench, CSV, &order()).await;
    let dear = CSV.replace("gpt-5,chat,1.25,10", "gpt-5,chat,4,10");
    let refused = planned(&bench, &dear, &order()).await.unwrap_err();
    assert_eq!(
        refused,
        ["cost main gpt-5: input_tokens changes from 1.25 to 4, by more than 3 times \
          (if that is right: --accept gpt-5)"]
    );
    let accepting = Order { accept: vec!["gpt-5".to_owned()], ..order() };
    assert_eq!(imported(&bench, &dear, &accepting).await.len(), 1);
}

#[tokio::test]
async fn every_fault_is_said_and_nothing_is_written() {
    let bench = furnished().await;
    let rev = bench.admin.stores.config.rev().await.unwrap();
    let models = ["gpt-5", "odd", "wrong", "sized", "none"].map(name).to_vec();
    let all = Order { models, aliases: vec![name("nobody")], provider: None, ..order() };
    assert_eq!(
        planned(&bench, CSV, &all).await.unwrap_err(),
        [
            "gpt-5: has several prices in the file: choose with --provider: azure, openai",
            "cost main odd: input_tokens is free (if that is right: --accept odd)",
            "cost main wrong: input_tokens is negative: -1",
            "cost main sized: nothing that can be carried: image@4k",
            "none: is not in the file",
            "alias nobody: there is no such alias",
        ]
    );
    assert_eq!(bench.admin.stores.config.rev().await.unwrap(), rev);
    let nothing = Order { channel: Some("other".to_owned()), ..order() };
    assert_eq!(planned(&bench, CSV, &nothing).await.unwrap_err().len(), 1);
}

#[tokio::test]
async fn a_price_for_something_else_is_not_taken() {
    let bench = furnished().await;
    let own = json!({"prices": [{"code": "cost-main-gpt-5", "side": "cost", "channel": "main",
        "model": "other", "currency": "USD",
        "meters": [{"meter": "requests", "amount": "1"}]}]});
    let plan = plan(&bench.admin, &actor(), own).await.unwrap();
    apply(&bench.admin, &actor(), &plan, false).await.unwrap();
    bench.clock.advance_millis(1);
    assert_eq!(
        planned(&bench, CSV, &order()).await.unwrap_err(),
        ["cost main gpt-5: price cost-main-gpt-5 is there, and for something else"]
    );
}
