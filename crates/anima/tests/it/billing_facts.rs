//! The facts most likely to cause a billing bug (`reference/README.md`) that are about what the
//! gateway does: 9 as it is booked, and 10.
//!
//! Not here: facts 1 to 9 as they are read, one test each (`billing` of the wire's tests).

use http::Method;
use serde_json::{Value, json};

use crate::testapp::{Leg, Reply, TestApp, nano, on_both};

on_both! {
    a_picture_that_is_asked_for_in_a_second_place_is_held_and_paid;
    a_lost_answer_to_a_paid_job_is_unknown_and_not_failed;
    what_no_report_tells_is_counted_here_and_never_free;
    one_picture_with_two_rates_is_paid_once;
}

const IMAGES: &str = "/v1/images/generations";
const SALE: &str = "0.04";
const COST: &str = "0.03";

/// The alias `image`, by way of `first` and, when that fails, `second`.
async fn pictures(app: &TestApp) {
    let price = async |scope: Value, amount: &str| {
        let mut row = scope;
        row["currency"] = json!("USD");
        row["meters"] = json!([{"meter": "images", "per": 1, "amount": amount}]);
        app.create("/prices", &row).await;
    };
    for channel in ["first", "second"] {
        app.channel(channel, "sk-main", json!({})).await;
        let scope = json!({"code": format!("{channel}-cost"), "side": "cost", "channel": channel,
            "model": "sim-image"});
        price(scope, COST).await;
    }
    app.unpriced_alias("image", "image", &[("first", "sim-image"), ("second", "sim-image")]).await;
    price(json!({"code": "image-sale", "side": "sale", "alias": "image"}), SALE).await;
}

fn sides(legs: &[Leg]) -> Vec<(&str, i64, bool)> {
    legs.iter().map(|leg| (leg.debit.as_str(), leg.amount, leg.estimate)).collect()
}

/// Fact 9.
async fn a_picture_that_is_asked_for_in_a_second_place_is_held_and_paid(app: &TestApp) {
    pictures(app).await;
    app.app("poor", "0.10", json!({})).await;
    let poor = app.mint("poor", json!({})).await.1;
    let ask = async |more: Value| {
        let mut body = json!({"model": "image", "prompt": "a cat", "n": 1});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let headers = [("x-api-key", poor.as_str())];
        app.raw(Method::POST, IMAGES, &headers, body.to_string()).await
    };
    // Three come to more than there is, whoever says that it is three.
    for more in [json!({"n": 3}), json!({"batch_size": 3}), json!({"metadata": {"n": "3"}})] {
        let reply = ask(more.clone()).await;
        assert_eq!(reply.refusal(), (429, "insufficient_quota".into()), "{more}");
    }
    assert!(app.calls().await.is_empty());
    // What is paid in the end is what was made.
    let reply = ask(json!({"metadata": {"n": "2"}})).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let legs = app.legs(&reply).await;
    let made = i64::try_from(reply.json()["data"].as_array().unwrap().len()).unwrap();
    assert_eq!(
        sides(&legs),
        [("wallet:poor", made * nano(SALE), false), ("cost_of_sales", made * nano(COST), false)]
    );
}

/// One attempt, no second buy, nothing for the customer, and the whole cost as an estimate.
async fn assert_unknown(app: &TestApp, reply: &Reply, count: i64, what: &str) {
    assert!(reply.status >= 500, "{what}: {reply:?}");
    assert_eq!(reply.header("x-should-retry"), "false", "{what}");
    assert_eq!(reply.header("x-anima-attempts"), "1", "{what}: no other channel is asked");
    assert_eq!(app.calls_of(reply).await.len(), 1, "{what}");
    let legs = app.legs(reply).await;
    assert_eq!(sides(&legs), [("wasted_cost", count * nano(COST), true)], "{what}");
}

/// Fact 10.
async fn a_lost_answer_to_a_paid_job_is_unknown_and_not_failed(app: &TestApp) {
    pictures(app).await;
    let ask = async |n: u64| {
        app.post(IMAGES, &json!({"model": "image", "prompt": "a cat", "n": n})).await
    };
    for (fault, count) in [("reset", 1), ("status:500", 2), ("bad-json", 3), ("content-length", 1)]
    {
        app.fault(fault);
        let reply = ask(count).await;
        assert_unknown(app, &reply, i64::try_from(count).unwrap(), fault).await;
    }
    app.fault("silent");
    let hasty = json!({"timeouts": {"first_byte_ms": 60, "total_ms": 60}});
    app.patch("/channels/first", hasty).await;
    assert_unknown(app, &ask(2).await, 2, "silent").await;
    // A refusal is known: nothing was made, and another channel may be asked.
    app.patch("/channels/first", json!({"timeouts": {}})).await;
    app.script(&json!([{"match": {"times": 1}, "do": "status:429"}]));
    let reply = ask(1).await;
    assert_eq!((reply.status, reply.header("x-anima-attempts")), (200, "2"), "{reply:?}");
}

/// An alias of a kind by way of a channel of its own, with the same rates on both sides.
async fn rated(app: &TestApp, kind: &str, meters: Value) {
    app.channel(kind, "sk-main", json!({})).await;
    app.unpriced_alias(kind, kind, &[(kind, "sim-units")]).await;
    for (side, scope) in
        [("sale", json!({"alias": kind})), ("cost", json!({"channel": kind, "model": "sim-units"}))]
    {
        let mut row = scope;
        row["code"] = json!(format!("{kind}-{side}"));
        row["side"] = json!(side);
        row["currency"] = json!("USD");
        row["meters"] = meters.clone();
        app.create("/prices", &row).await;
    }
}

fn per_million(meter: &str, amount: &str) -> Value {
    json!({"meter": meter, "per": 1_000_000, "amount": amount})
}

/// Pictures and reranks whose price list has tokens alone, from a provider that tells none; and
/// pictures by the piece, from one that tells nonsense.
async fn what_no_report_tells_is_counted_here_and_never_free(app: &TestApp) {
    let meters =
        json!([per_million("input_tokens", "5"), per_million("output_image_tokens", "40")]);
    rated(app, "image", meters).await;
    rated(app, "rerank", json!([per_million("input_tokens", "1000")])).await;
    let image = json!({"model": "image", "prompt": "a cat", "n": 2});
    let rerank = json!({"model": "rerank", "query": "which one?", "documents": ["a", "b"]});
    for fault in ["usage-missing", "usage-negative", "usage-absurd"] {
        app.fault(fault);
        for (path, body) in [(IMAGES, &image), ("/v1/rerank", &rerank)] {
            let reply = app.post(path, body).await;
            assert_eq!(reply.status, 200, "{fault} {path}: {reply:?}");
            let legs = app.legs(&reply).await;
            assert_eq!(legs.len(), 2, "{fault} {path}");
            for leg in &legs {
                assert!(leg.amount > 0 && leg.estimate, "{fault} {path}: {legs:?}");
            }
        }
    }
}

/// A list with a rate for the picture and one for its tokens.
async fn one_picture_with_two_rates_is_paid_once(app: &TestApp) {
    let piece = json!({"meter": "images", "per": 1, "amount": SALE});
    rated(app, "image", json!([piece, per_million("output_image_tokens", "40")])).await;
    for fault in ["usage-missing", "usage-negative", "usage-absurd"] {
        app.fault(fault);
        let reply = app.post(IMAGES, &json!({"model": "image", "prompt": "a cat", "n": 2})).await;
        let legs = app.legs(&reply).await;
        let owed = 2 * nano(SALE);
        assert_eq!(
            sides(&legs),
            [("wallet:acme", owed, false), ("cost_of_sales", owed, false)],
            "{fault}: {reply:?}"
        );
    }
}
