//! Both sides of each call, to the last unit, against the truth log; and calls that must not be
//! made for want of money or of a price.

use std::sync::Arc;

use http::Method;
use serde_json::json;

use crate::testapp::{
    COST, Leg, Rates, Reply, SALE, TestApp, eventually, nano, on_both, owed, price, prompt,
};

on_both! {
    each_call_is_booked_to_the_last_unit;
    an_empty_wallet_buys_nothing;
    a_credit_limit_is_money_that_can_be_spent;
    without_a_sale_price_nothing_is_sold;
    without_a_cost_price_nothing_is_bought;
    a_disabled_price_is_none;
    a_multiplier_moves_the_sale_and_not_the_cost;
    a_price_of_the_groups_own_wins;
    a_price_that_changes_during_a_call_counts_from_the_next;
    two_hundred_at_once_cannot_spend_what_is_not_there;
    more_than_the_wallet_has_is_charged_down_to_its_floor;
    a_failed_call_gives_its_hold_back;
    a_large_hold_is_refused_where_a_small_one_is_not;
}

async fn each_call_is_booked_to_the_last_unit(app: &TestApp) {
    let before = app.balance().await;
    let mut spent = 0;
    let mut owed_to_main = 0;
    for (n, fault) in
        ["", "reasoning:7", "cached:3", "reasoning:5+cached:1000", "answer-tokens:1", "pace:1"]
            .into_iter()
            .enumerate()
    {
        app.fault(fault);
        for stream in [false, true] {
            let body = json!({"model": "chat", "n": 1 + n % 2,
                "messages": [{"role": "user", "content": "x".repeat(7 + 13 * n)}]});
            let reply =
                if stream { app.stream(body).await.whole().await } else { app.chat(body).await };
            let [call] = &app.calls_of(&reply).await[..] else { panic!("one call: {reply:?}") };
            let (sale, cost) = (owed(&SALE, &call.billed, 1_000), owed(&COST, &call.billed, 1_000));
            let legs = app.legs(&reply).await;
            let lines: Vec<_> = legs.iter().map(Leg::line).collect();
            assert_eq!(
                lines,
                [
                    ("wallet:acme", "revenue", sale, false),
                    ("cost_of_sales", "payable:main", cost, false),
                ],
                "{fault} {call:?}"
            );
            assert_eq!(legs[0].price, Some(("chat-sale".into(), 1)));
            assert_eq!(legs[1].price, Some(("main-sim-chat-cost".into(), 1)));
            assert_eq!((legs[0].attempt, legs[1].attempt), (None, Some(1)));
            spent += sale;
            owed_to_main += cost;
        }
    }
    assert_eq!(app.balance().await, before - spent);
    let books = app.trial_balance().await;
    assert_eq!(books["revenue"], (0, spent));
    assert_eq!(books["cost_of_sales"], (owed_to_main, 0));
    assert_eq!(books["payable:main"], (0, owed_to_main));
}

/// Refused for want of money: nothing was sent and nothing was posted.
async fn assert_broke(app: &TestApp, reply: &Reply) {
    assert_eq!(reply.refusal(), (429, "insufficient_quota".into()), "{reply:?}");
    assert_eq!(reply.json()["error"]["type"], "insufficient_quota");
    assert_eq!(reply.header("x-should-retry"), "false");
    assert_eq!(reply.header("retry-after"), "");
    assert_eq!(reply.header("x-anima-attempts"), "0");
    assert!(app.calls_of(reply).await.is_empty());
    assert!(app.legs(reply).await.is_empty());
}

async fn an_empty_wallet_buys_nothing(app: &TestApp) {
    app.app("poor", "0", json!({})).await;
    let (_, key) = app.mint("poor", json!({})).await;
    assert_broke(app, &app.ask_as(&key, "chat").await).await;
    app.create("/apps/poor/topups", &json!({"amount": "1"})).await;
    assert_eq!(app.ask_as(&key, "chat").await.status, 200);
}

async fn a_credit_limit_is_money_that_can_be_spent(app: &TestApp) {
    app.app("debtor", "0", json!({"credit_limit": "0.008"})).await;
    let (_, key) = app.mint("debtor", json!({})).await;
    let mut answered = 0;
    let refused = loop {
        let reply = app.ask_as(&key, "chat").await;
        if reply.status != 200 {
            break reply;
        }
        answered += 1;
        assert!(answered < 1_000);
    };
    assert_broke(app, &refused).await;
    let (posted, held, available) = app.wallet("debtor").await;
    assert!(answered > 0 && posted < 0 && held == 0 && available >= 0, "{posted} {available}");
    assert_eq!(available, posted + nano("0.008"));
    app.patch("/apps/debtor", json!({"credit_limit": "0"})).await;
    assert_broke(app, &app.ask_as(&key, "chat").await).await;
}

async fn without_a_sale_price_nothing_is_sold(app: &TestApp) {
    app.unpriced_alias("free", "chat", &[("main", "sim-chat")]).await;
    let reply = app.ask("free").await;
    assert_eq!(reply.refusal(), (402, "model_not_priced".into()));
    assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    // A price that lacks a meter which every chat uses is none.
    let mut partly = price(&SALE, json!({"code": "partly", "side": "sale", "alias": "free"}));
    partly["meters"].as_array_mut().unwrap().truncate(2);
    app.create("/prices", &partly).await;
    assert_eq!(app.ask("free").await.refusal(), (402, "model_not_priced".into()));
    assert!(app.calls().await.is_empty());
}

async fn without_a_cost_price_nothing_is_bought(app: &TestApp) {
    app.unpriced_alias("unknown-cost", "chat", &[("main", "sim-dear")]).await;
    let scope = json!({"code": "s", "side": "sale", "alias": "unknown-cost"});
    app.create("/prices", &price(&SALE, scope)).await;
    assert_eq!(app.ask("unknown-cost").await.refusal(), (402, "model_not_priced".into()));
    assert!(app.calls().await.is_empty());
}

async fn a_disabled_price_is_none(app: &TestApp) {
    for path in ["/prices/chat-sale", "/prices/main-sim-chat-cost"] {
        app.switch(path, false).await;
        assert_eq!(app.ask("chat").await.refusal(), (402, "model_not_priced".into()), "{path}");
        app.switch(path, true).await;
        assert_eq!(app.ask("chat").await.status, 200, "{path}");
    }
    assert_eq!(app.calls().await.len(), 2);
}

async fn a_multiplier_moves_the_sale_and_not_the_cost(app: &TestApp) {
    app.create("/token-groups", &json!({"code": "dear", "aliases": ["*"], "multiplier": "1.375"}))
        .await;
    let (_, key) = app.mint("acme", json!({"token_group": "dear"})).await;
    let reply = app.ask_as(&key, "chat").await;
    let [call] = &app.calls_of(&reply).await[..] else { panic!("one call: {reply:?}") };
    let amounts: Vec<_> = app.legs(&reply).await.iter().map(|leg| leg.amount).collect();
    assert_eq!(amounts, [owed(&SALE, &call.billed, 1_375), owed(&COST, &call.billed, 1_000)]);
}

async fn a_price_of_the_groups_own_wins(app: &TestApp) {
    const OWN: Rates = Rates { input: "0.5", cached: "0.25", output: "0.125" };
    app.create("/token-groups", &json!({"code": "kept", "aliases": ["chat"]})).await;
    let scope = json!({"code": "own", "side": "sale", "alias": "chat", "token_group": "kept"});
    app.create("/prices", &price(&OWN, scope)).await;
    let (_, key) = app.mint("acme", json!({"token_group": "kept"})).await;
    let reply = app.ask_as(&key, "chat").await;
    let [call] = &app.calls_of(&reply).await[..] else { panic!("one call: {reply:?}") };
    let legs = app.legs(&reply).await;
    assert_eq!(legs[0].amount, owed(&OWN, &call.billed, 1_000));
    assert_eq!(legs[0].price, Some(("own".into(), 1)));
    assert_eq!(app.legs(&app.ask("chat").await).await[0].price, Some(("chat-sale".into(), 1)));
}

async fn a_price_that_changes_during_a_call_counts_from_the_next(app: &TestApp) {
    const DEARER: Rates = Rates { input: "99", cached: "99", output: "99" };
    // The stream is under way when the prices change: its second chunk comes after that.
    app.fault("pace:50+chunks:8");
    let mut running = app.stream(prompt("chat")).await;
    assert_eq!(running.status, 200);
    running.next().await.unwrap();
    let id = running.header("x-anima-request-id").to_owned();
    for code in ["chat-sale", "main-sim-chat-cost"] {
        let meters = price(&DEARER, json!({}))["meters"].clone();
        app.patch(&format!("/prices/{code}"), json!({ "meters": meters })).await;
    }
    assert!(running.whole().await.text().ends_with("data: [DONE]\n\n"));
    app.fault("");
    let next = app.ask("chat").await;
    let calls = app.calls().await;
    for (id, rates, version) in
        [(id.as_str(), (SALE, COST), 1), (next.request_id(), (DEARER, DEARER), 2)]
    {
        let call = &calls[usize::from(version == 2)];
        let legs = app.postings(id).await;
        assert_eq!(legs[0].amount, owed(&rates.0, &call.billed, 1_000));
        assert_eq!(legs[1].amount, owed(&rates.1, &call.billed, 1_000));
        assert!(legs.iter().all(|l| l.price.as_ref().unwrap().1 == version), "{legs:?}");
    }
}

async fn two_hundred_at_once_cannot_spend_what_is_not_there(app: &TestApp) {
    // Money for 20 calls by what each takes at most.
    let hold = {
        app.app("probe", "0.0000001", json!({})).await;
        let (_, key) = app.mint("probe", json!({})).await;
        let reply = app.ask_as(&key, "chat").await;
        assert_broke(app, &reply).await;
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        let needs = message.split_whitespace().find(|word| word.starts_with("0.")).unwrap();
        nano(needs)
    };
    let credit = hold * 20;
    let credit_text = format!("{}.{:09}", credit / 1_000_000_000, credit % 1_000_000_000);
    app.app("crowd", &credit_text, json!({})).await;
    let (_, key) = app.mint("crowd", json!({})).await;
    app.fault("reasoning:1000");
    let key = Arc::new(key);
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let (client, key) = (app.client.clone(), Arc::clone(&key));
            tokio::spawn(async move {
                let headers = [("x-api-key", key.as_str())];
                let body = prompt("chat").to_string();
                let path = "/v1/chat/completions";
                client.open(Method::POST, path, &headers, body.into()).await.whole().await
            })
        })
        .collect();
    let mut sales = 0;
    let mut answered: usize = 0;
    for call in calls {
        let reply = call.await.unwrap();
        let legs = app.legs(&reply).await;
        if reply.status == 200 {
            answered += 1;
            let settled: std::collections::BTreeSet<_> = legs.iter().map(|l| &l.journal).collect();
            assert_eq!((legs.len(), settled.len()), (2, 1), "{legs:?}");
            assert_eq!((legs[0].component.as_str(), legs[0].kind.as_str()), ("sale", "settle"));
            sales += legs[0].amount;
        } else {
            assert_broke(app, &reply).await;
        }
    }
    assert!((20..200).contains(&answered), "{answered} were answered");
    let (posted, still_held, available) = app.wallet("crowd").await;
    assert_eq!((posted, still_held), (credit - sales, 0));
    assert!(available >= 0);
    let served = app.calls().await;
    assert_eq!(served.len(), answered, "a refused call reaches no provider");
    assert_eq!(sales, served.iter().map(|c| owed(&SALE, &c.billed, 1_000)).sum::<i64>());
}

async fn more_than_the_wallet_has_is_charged_down_to_its_floor(app: &TestApp) {
    app.app("short", "0.0075", json!({})).await;
    let (_, key) = app.mint("short", json!({})).await;
    app.fault("reasoning:50000");
    let reply = app.ask_as(&key, "chat").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let [call] = &app.calls_of(&reply).await[..] else { panic!("one call") };
    let legs = app.legs(&reply).await;
    assert!(owed(&SALE, &call.billed, 1_000) > nano("0.0075"));
    assert_eq!((legs[0].amount, legs[0].estimate), (nano("0.0075"), false));
    assert_eq!(legs[1].amount, owed(&SALE, &call.billed, 1_000) - nano("0.0075"));
    assert_eq!(legs[2].amount, owed(&COST, &call.billed, 1_000));
    assert_eq!(app.wallet("short").await, (0, 0, 0));
    let lost = app.metrics().await;
    let lost = lost.lines().find(|l| l.starts_with("anima_uncollected_total ")).unwrap();
    assert!(!lost.ends_with(" 0"), "{lost}");
}

async fn a_failed_call_gives_its_hold_back(app: &TestApp) {
    let before = app.wallet("acme").await;
    for fault in ["status:500", "status:429", "status:400", "reset", "bad-json"] {
        app.fault(fault);
        let reply = app.ask("chat").await;
        assert_ne!(reply.status, 200, "{fault}");
        assert!(app.legs(&reply).await.iter().all(|leg| leg.component == "waste"), "{fault}");
        assert_eq!(app.wallet("acme").await, before, "{fault}");
    }
    // While a call runs its hold is on the wallet, and only there.
    app.fault("latency:200");
    let (reply, ()) = tokio::join!(app.ask("chat"), async {
        let held = eventually("the hold shows", async || {
            let (posted, held, available) = app.wallet("acme").await;
            (held > 0).then_some((posted, held, available))
        });
        let (posted, held, available) = held.await;
        assert_eq!((posted, available), (before.0, before.0 - held));
    });
    assert_eq!(reply.status, 200);
    assert_eq!(app.wallet("acme").await.1, 0);
}

async fn a_large_hold_is_refused_where_a_small_one_is_not(app: &TestApp) {
    app.app("careful", "0.001", json!({})).await;
    let (_, key) = app.mint("careful", json!({})).await;
    assert_broke(app, &app.ask_as(&key, "chat").await).await;
    let headers = [("x-api-key", key.as_str())];
    let mut body = prompt("chat");
    for (member, value, affordable) in [
        ("max_tokens", 16, true),
        ("max_tokens", 1_000_000_000_000_u64, false),
        ("max_completion_tokens", 20, true),
        ("n", 128, false),
    ] {
        body.as_object_mut()
            .unwrap()
            .retain(|name, _| matches!(name.as_str(), "model" | "messages"));
        body[member] = json!(value);
        let reply = app.raw(Method::POST, "/v1/chat/completions", &headers, body.to_string()).await;
        if affordable {
            assert_eq!(reply.status, 200, "{member}: {reply:?}");
        } else {
            assert_broke(app, &reply).await;
        }
    }
}
