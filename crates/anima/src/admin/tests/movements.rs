//! Refunds, adjustments, promotional credit, statements and reports, call by call.

use std::sync::Arc;

use anima_core::ledger::{Close, Hold, PriceRef, Settlement};
use anima_core::money::{Currency, Multiplier};
use anima_store::ledger::{Auditor, Error as LedgerError, Finding, Scope, Turn, WholeLook};

use super::*;
use crate::admin::apps;
use crate::admin::problem::Code;

/// A call that was charged so many nano-dollars, without an attempt.
async fn charged(desk: &Desk, n: u128, sale: i64) -> String {
    let id = Uuid::from_u128(n);
    let sale_price = PriceRef { code: "gpt-4o-sale".into(), version_no: 1 };
    let now = desk.clock.now();
    let hold = Hold {
        id,
        app: "acme".into(),
        kid: "k".into(),
        alias: "gpt-4o".into(),
        currency: Currency::USD,
        amount: sale,
        floor: -5_000_000_000,
        sale_price: sale_price.clone(),
        fx: None,
        multiplier: Multiplier::ONE,
        exposure: None,
        created_at: now,
        expires_at: now.plus_millis(60_000),
    };
    desk.admin.stores.ledger.hold(hold).await.unwrap();
    let settlement = Settlement {
        hold: id,
        app: "acme".into(),
        currency: Currency::USD,
        close: Close::Settle { sale, estimate: false },
        sale_price,
        conversion: None,
        attempts: vec![],
        at: now,
    };
    desk.admin.stores.ledger.settle(settlement).await.unwrap();
    format!("req_{}", id.simple())
}

async fn keyed(desk: &Desk, path: &str, key: &str, body: Value) -> Answer {
    let request = ask(Method::POST, path)
        .header("authorization", "Bearer at-admin")
        .header("idempotency-key", key);
    desk.send(request.body(Body::from(body.to_string())).unwrap()).await
}

fn words<'a>(answer: &'a Answer, names: &[&str]) -> Vec<&'a str> {
    names.iter().map(|name| answer.body[*name].as_str().unwrap_or_default()).collect()
}

#[tokio::test]
async fn a_refund_is_answered_once_and_never_above_the_charge() {
    let desk = Desk::furnished().await;
    desk.topup("acme", "k", json!({"amount": "10"})).await;
    let request = charged(&desk, 7, 900_000_000).await;
    let body = json!({"request_id": request, "amount": "0.40", "reference": "case 12"});
    let first = keyed(&desk, "/apps/acme/refunds", "r1", body.clone()).await;
    assert_eq!(first.status, 201, "{}", first.text);
    assert_eq!(words(&first, &["amount", "to_promo", "refundable"]), ["0.40", "0.00", "0.50"]);
    assert_eq!(first.body["balance"]["posted"], "9.50");
    let again = keyed(&desk, "/apps/acme/refunds", "r1", body).await;
    assert_eq!((again.status.as_u16(), &again.body["id"]), (200, &first.body["id"]));
    let other = json!({"request_id": request, "amount": "0.41", "reference": "case 12"});
    let conflict = keyed(&desk, "/apps/acme/refunds", "r1", other).await;
    assert_eq!(conflict.refusal().1, "idempotency_conflict");
    let more = json!({"request_id": request, "amount": "0.51"});
    let refused = keyed(&desk, "/apps/acme/refunds", "r2", more).await;
    assert_eq!(refused.refusal(), (409, "amount_unavailable", "amount"));
    let rest = keyed(&desk, "/apps/acme/refunds", "r3", json!({"request_id": request})).await;
    assert_eq!(words(&rest, &["amount", "refundable"]), ["0.50", "0.00"]);
    for (body, refusal) in [
        (json!({}), (400, "invalid_member", "request_id")),
        (json!({"request_id": "x"}), (400, "invalid_member", "request_id")),
        (json!({"request_id": request, "amount": "0"}), (400, "invalid_member", "amount")),
        (json!({"request_id": Uuid::nil()}), (404, "not_found", "")),
    ] {
        let refused = keyed(&desk, "/apps/acme/refunds", "r4", body.clone()).await;
        assert_eq!(refused.refusal(), refusal, "{body}");
    }
    let record = desk.row("/audit?limit=1").await["items"][0].clone();
    assert_eq!((&record["action"], &record["code"]), (&json!("refund"), &json!("acme")));
    let postings = desk.row(&format!("/ledger/postings?request_id={request}")).await;
    assert_eq!(postings["items"].as_array().unwrap().len(), 3);
    assert_eq!(desk.row("/ledger/verify").await["ok"], true);
}

#[tokio::test]
async fn an_adjustment_says_why_and_respects_the_floor() {
    let desk = Desk::furnished().await;
    let adjust =
        async |key: &str, body: Value| keyed(&desk, "/apps/acme/adjustments", key, body).await;
    let given = adjust("a1", json!({"amount": "2", "reason": "an apology"})).await;
    assert_eq!((given.status.as_u16(), &given.body["balance"]["posted"]), (201, &json!("2.00")));
    let taken = adjust("a2", json!({"amount": "-7", "reason": "a mistake"})).await;
    assert_eq!((taken.status.as_u16(), &taken.body["balance"]["posted"]), (201, &json!("-5.00")));
    let below = adjust("a3", json!({"amount": "-0.000000001", "reason": "more"})).await;
    assert_eq!(below.refusal(), (409, "amount_unavailable", "amount"));
    for (body, member) in [
        (json!({"amount": "1"}), "reason"),
        (json!({"amount": "1", "reason": " "}), "reason"),
        (json!({"amount": "0", "reason": "r"}), "amount"),
        (json!({"amount": 1, "reason": "r"}), "amount"),
    ] {
        assert_eq!(adjust("a4", body).await.refusal(), (400, "invalid_member", member));
    }
    let record = desk.row("/audit?limit=1").await["items"][0].clone();
    assert_eq!((&record["action"], &record["reason"]), (&json!("adjust"), &json!("a mistake")));
    desk.patch("/apps/acme", json!({"credit_limit": "6.00", "version_no": 1})).await;
    let now = adjust("a5", json!({"amount": "-1", "reason": "a higher limit"})).await;
    assert_eq!(now.status, 201, "{}", now.text);
    desk.patch("/apps/acme", json!({"credit_limit": "0", "version_no": 2})).await;
    assert_eq!(desk.row("/apps/acme/balance").await["available"], "-6.00");
    let refused = adjust("a6", json!({"amount": "-1", "reason": "no limit"})).await;
    assert_eq!(refused.refusal().1, "amount_unavailable");
    let paid = adjust("a7", json!({"amount": "1", "reason": "money in debt"})).await;
    assert_eq!(paid.body["balance"]["posted"], "-5.00");
}

#[tokio::test]
async fn credit_is_given_shown_used_and_expires() {
    let desk = Desk::furnished().await;
    let soon = json!({"amount": "1.00", "expires_at": desk.in_millis(60_000)});
    let first = keyed(&desk, "/apps/acme/promos", "p1", soon.clone()).await;
    assert_eq!(first.status, 201, "{}", first.text);
    assert_eq!(keyed(&desk, "/apps/acme/promos", "p1", soon).await.status, 200);
    let balance = desk.row("/apps/acme/balance").await;
    assert_eq!((&balance["promo"], &balance["available"]), (&json!("1.00"), &json!("6.00")));
    charged(&desk, 7, 400_000_000).await;
    desk.clock.advance_millis(61_000);
    let balance = desk.row("/apps/acme/balance").await;
    assert_eq!((&balance["promo"], &balance["available"]), (&json!("0.00"), &json!("5.00")));
    let metrics = crate::metrics::Metrics::new().unwrap();
    let (money, clock) = (Arc::clone(&desk.admin.stores.money), Arc::clone(&desk.clock));
    let round = || super::super::expiry::round(&*money, &*clock, &metrics);
    assert_eq!((round().await.unwrap(), round().await.unwrap()), (1, 0));
    let grant = desk.row("/apps/acme/promos").await["items"][0].clone();
    for (member, amount) in
        [("amount", "1.00"), ("used", "0.40"), ("expired", "0.60"), ("left", "0.00")]
    {
        assert_eq!(grant[member], amount, "{member}");
    }
    for (body, member) in [
        (json!({"amount": "1"}), "expires_at"),
        (json!({"amount": "1", "expires_at": "2020-01-01T00:00:00Z"}), "expires_at"),
        (json!({"amount": "-1", "expires_at": desk.in_millis(60_000)}), "amount"),
    ] {
        let refused = keyed(&desk, "/apps/acme/promos", "p2", body).await;
        assert_eq!(refused.refusal(), (400, "invalid_member", member));
    }
    assert_eq!(desk.row("/ledger/verify").await["ok"], true);
}

#[tokio::test]
async fn a_statement_is_json_or_csv_and_adds_up() {
    let desk = Desk::furnished().await;
    let body = json!({"amount": "10", "fee": "0.30", "reference": "=1+1, \"x\""});
    let topup = desk.topup("acme", "k", body).await;
    assert_eq!(
        (&topup.body["fee"], &topup.body["balance"]["posted"]),
        (&json!("0.30"), &json!("10.00"))
    );
    charged(&desk, 7, 400_000_000).await;
    // The database's clock says when something was posted.
    let page = desk.row(&format!("/ledger/postings?request_id={:032x}", 7)).await;
    let month = page["items"][0]["posted_at"].as_str().unwrap().get(..7).unwrap().to_owned();
    let statement = desk.row(&format!("/apps/acme/statement?month={month}")).await;
    assert_eq!(statement["opening"], json!({"wallet": "0.00", "promo": "0.00"}));
    assert_eq!(statement["closing"], json!({"wallet": "9.60", "promo": "0.00"}));
    let kinds: Vec<_> = statement["lines"].as_array().unwrap().iter().map(|l| &l["kind"]).collect();
    assert_eq!(kinds, ["sales", "topup"]);
    let csv = desk.get(&format!("/apps/acme/statement?month={month}&format=csv")).await;
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    assert!(csv.header("content-disposition").contains(&format!("acme-{month}.csv")));
    let lines: Vec<&str> = csv.text.split("\r\n").collect();
    assert_eq!(lines.len(), 6, "{}", csv.text);
    assert!(lines[3].contains(",\"'=1+1, \"\"x\"\"\",1,10.00,0.00,USD"), "{}", lines[3]);
    for (query, member) in
        [("", "month"), ("?month=2026-13", "month"), ("?month=2026-01&format=pdf", "format")]
    {
        let refused = desk.get(&format!("/apps/acme/statement{query}")).await;
        assert_eq!(refused.refusal(), (400, "invalid_member", member));
    }
    assert_eq!(desk.get("/apps/nobody/statement?month=2026-01").await.status, 404);
}

#[tokio::test]
async fn margins_payables_and_earlier_trial_balances_are_read() {
    let desk = Desk::furnished().await;
    desk.topup("acme", "k", json!({"amount": "10"})).await;
    let request = charged(&desk, 7, 400_000_000).await;
    let one = desk.row(&format!("/ledger/margin?request_id={request}&group_by=alias")).await;
    assert_eq!(
        one["items"],
        json!([{"alias": "gpt-4o", "currency": "USD", "revenue": "0.40", "refunds": "0.00",
            "cost": "0.00", "waste": "0.00", "uncollected": "0.00", "fx": "0.00",
            "margin": "0.40", "sales": 1}])
    );
    let all = desk.row("/ledger/margin?from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
    for (query, member) in [("", "from"), ("?from=x", "from")] {
        let refused = desk.get(&format!("/ledger/margin{query}")).await;
        assert_eq!(refused.refusal(), (400, "invalid_member", member));
    }
    let bad = desk.get(&format!("/ledger/margin?request_id={request}&group_by=key")).await;
    assert_eq!(bad.refusal().2, "group_by");
    assert_eq!(desk.row("/ledger/payables").await["items"], json!([]));
    let before = desk.row("/ledger/trial-balance?at=2020-01-01T00:00:00Z").await;
    assert_eq!(before["items"], json!([]));
    let now = desk.row("/ledger/trial-balance").await;
    assert_eq!(desk.row("/ledger/trial-balance?at=2100-01-01T00:00:00Z").await, now);
}

#[tokio::test]
async fn a_rate_is_a_row_and_one_pair_has_one_rate() {
    let desk = Desk::furnished().await;
    let rate = json!({"code": "usd-eur", "from": "USD", "to": "EUR", "rate": "0.92",
        "spread": "0.01"});
    let created = desk.post("/fx-rates", rate.clone()).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let eur = Currency::parse("EUR").unwrap();
    let pinned = || desk.admin.live.pin(desk.clock.now()).unwrap().snapshot;
    assert_eq!(pinned().fx(Currency::USD, eur).unwrap().convert(1_000).unwrap().owed, 929);
    let mut rival = rate;
    rival["code"] = json!("other");
    assert_eq!(desk.post("/fx-rates", rival).await.refusal().1, "window_overlap");
    let changed = desk.patch("/fx-rates/usd-eur", json!({"rate": "0.93", "version_no": 1})).await;
    assert_eq!((&changed.body["rate"], &changed.body["spread"]), (&json!("0.93"), &json!("0.01")));
    assert_eq!(pinned().fx(Currency::USD, eur).unwrap().reference.version_no, 2);
    desk.patch("/fx-rates/usd-eur", json!({"enabled": false})).await;
    assert!(pinned().fx(Currency::USD, eur).is_none());
    for (member, value) in [("rate", "0"), ("rate", "x"), ("spread", "2"), ("to", "USD")] {
        let mut bad = json!({"code": "bad", "from": "USD", "to": "GBP", "rate": "1"});
        bad[member] = json!(value);
        assert_eq!(desk.post("/fx-rates", bad).await.refusal(), (400, "invalid_member", member));
    }
}

/// Books whose refunds cannot be believed.
#[derive(Debug)]
struct Breached;

#[async_trait::async_trait]
impl Auditor for Breached {
    async fn audit(&self, _now: Timestamp, _scope: Scope) -> Result<Vec<Finding>, LedgerError> {
        Ok(vec![Finding {
            invariant: "I8",
            statement: "",
            not_applicable: None,
            checked: 1,
            breaches: vec!["more was refunded than was charged".to_owned()],
        }])
    }

    async fn last_look(&self) -> Result<Option<WholeLook>, LedgerError> {
        Ok(None)
    }

    async fn take_turn(&self, _turn: Turn) -> Result<bool, LedgerError> {
        Ok(false)
    }

    async fn end_turn(&self, _node: Uuid, _look: WholeLook) -> Result<bool, LedgerError> {
        Ok(false)
    }
}

#[tokio::test]
async fn a_refund_is_refused_while_refunds_cannot_be_believed() {
    let desk = Desk::furnished().await;
    desk.topup("acme", "k", json!({"amount": "10"})).await;
    let request = charged(&desk, 7, 900_000_000).await;
    let metrics = Arc::new(crate::metrics::Metrics::new().unwrap());
    let watch = Watch::new(Arc::new(Breached), metrics, desk.clock.clone());
    watch.look().await;
    let admin = Admin { watch: Arc::new(watch), ..desk.admin.clone() };
    let actor = Actor { name: "admin".to_owned(), reason: String::new() };
    let body = json!({"request_id": request});
    let refused = apps::refund(&admin, &actor, "acme", "r1", body.clone()).await.unwrap_err();
    assert_eq!(refused.code, Code::BooksBreached);
    assert!(refused.detail.contains("I8"), "{refused}");
    apps::refund(&desk.admin, &actor, "acme", "r1", body).await.unwrap();
}
