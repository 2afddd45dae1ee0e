//! Prices in one currency and wallets in another, and credit that is used before money.

use anima_core::ledger::{Checkpoint, Hold, PriceRef};
use anima_core::money::Currency;
use anima_core::usage::{Meter, Usage};
use serde_json::json;

use crate::hard_cases::{another_process, hold, now, streaming};
use crate::testapp::{Leg, SALE, TestApp, eventually, on_both, owed};

on_both! {
    a_price_in_dollars_is_paid_from_a_wallet_in_euros;
    an_orphan_in_another_currency_is_sold_at_the_rate_that_it_pinned;
    credit_is_used_before_money;
}

async fn a_price_in_dollars_is_paid_from_a_wallet_in_euros(app: &TestApp) {
    app.app("europe", "10", json!({"currency": "EUR"})).await;
    let (_, key) = app.mint("europe", json!({})).await;
    assert_ne!(app.ask_as(&key, "chat").await.status, 200, "there is no rate");
    let rate = json!({"code": "usd-eur", "from": "USD", "to": "EUR", "rate": "0.8",
        "spread": "0.01"});
    app.create("/fx-rates", &rate).await;
    let before = app.wallet("europe").await.0;
    let reply = app.ask_as(&key, "chat").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let [call] = &app.calls_of(&reply).await[..] else { panic!("one call") };
    let sale = owed(&SALE, &call.billed, 1_000);
    // Half to even, in whole units of each: the rate alone, and with one percent on top.
    let rounded = |product: i128, divisor: i128| {
        let (whole, rest) = (product / divisor, product % divisor);
        let up = rest * 2 > divisor || (rest * 2 == divisor && whole % 2 == 1);
        i64::try_from(whole + i128::from(up)).unwrap()
    };
    let plain = rounded(i128::from(sale) * 8, 10);
    let all = rounded(i128::from(sale) * 8 * 101, 1_000);
    let legs = app.legs(&reply).await;
    let lines: Vec<_> = legs.iter().take(3).map(Leg::line).collect();
    assert_eq!(
        lines,
        [
            ("wallet:europe", "fx_position", plain, false),
            ("wallet:europe", "fx_result", all - plain, false),
            ("fx_position", "revenue", sale, false),
        ]
    );
    assert_eq!(legs[0].price, Some(("fx:usd-eur".into(), 1)));
    assert_eq!(legs[2].price, Some(("chat-sale".into(), 1)));
    assert_eq!(app.wallet("europe").await, (before - all, 0, before - all));
    app.switch("/fx-rates/usd-eur", false).await;
    assert_ne!(app.ask_as(&key, "chat").await.status, 200, "the rate is switched off");
}

async fn an_orphan_in_another_currency_is_sold_at_the_rate_that_it_pinned(app: &TestApp) {
    app.app("europe", "10", json!({"currency": "EUR"})).await;
    let rate = json!({"code": "usd-eur", "from": "USD", "to": "EUR", "rate": "0.8"});
    app.create("/fx-rates", &rate).await;
    app.patch("/fx-rates/usd-eur", json!({"rate": "0.5"})).await;
    let orphan = Hold {
        app: "europe".into(),
        currency: Currency::parse("EUR").unwrap(),
        fx: Some(PriceRef { code: "fx:usd-eur".into(), version_no: 1 }),
        expires_at: now().plus_millis(3_600_000),
        ..hold(1)
    };
    let dead = another_process(app).await.ledger;
    dead.hold(orphan.clone()).await.unwrap();
    let used = Usage::default().with(Meter::InputTokens, 1_000).with(Meter::OutputTokens, 500);
    let seen = Checkpoint { expires_at: now().plus_millis(-1_000), ..streaming(&orphan, used) };
    dead.checkpoint(vec![seen]).await.unwrap();
    eventually("the hold is closed", async || (app.wallet("europe").await.1 == 0).then_some(()))
        .await;
    let usage = anima_simulator::Usage {
        prompt_tokens: 1_000,
        completion_tokens: 500,
        ..Default::default()
    };
    let sale = owed(&SALE, &usage, 1_000);
    let legs = app.postings(&orphan.id.to_string()).await;
    let sold: Vec<_> = legs.iter().take(2).map(Leg::line).collect();
    let plain = legs[0].amount;
    assert!((plain * 10 - sale * 8).abs() <= 5, "{plain} of {sale}");
    assert_eq!(
        sold,
        [("wallet:europe", "fx_position", plain, true), ("fx_position", "revenue", sale, true)]
    );
    assert_eq!(legs[0].price, Some(("fx:usd-eur".into(), 1)));
}

async fn credit_is_used_before_money(app: &TestApp) {
    app.app("young", "0", json!({})).await;
    let (_, key) = app.mint("young", json!({})).await;
    let credit = json!({"amount": "1", "expires_at": "2100-01-01T00:00:00Z"});
    app.create("/apps/young/promos", &credit).await;
    let reply = app.ask_as(&key, "chat").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let legs = app.legs(&reply).await;
    assert_eq!((legs[0].debit.as_str(), legs[0].credit.as_str()), ("promo:young", "revenue"));
    let (posted, held, available) = app.wallet("young").await;
    assert_eq!((posted, held, available), (0, 0, 1_000_000_000 - legs[0].amount));
    let back = json!({"request_id": reply.request_id()});
    app.create("/apps/young/refunds", &back).await;
    assert_eq!(app.wallet("young").await, (0, 0, 1_000_000_000));
}
