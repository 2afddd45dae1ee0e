//! Top-ups, balances, and the books.

use super::*;

#[tokio::test]
async fn a_topup_happens_once_per_key() {
    let desk = Desk::furnished().await;
    let body = json!({"amount": "10.00", "reference": "invoice 7"});
    let first = desk.topup("acme", "k1", body.clone()).await;
    assert_eq!(first.status, 201, "{}", first.text);
    assert_eq!((&first.body["amount"], &first.body["currency"]), (&json!("10.00"), &json!("USD")));
    assert_eq!(first.body["replayed"], false);
    assert_eq!(first.body["balance"]["posted"], "10.00");
    let again = desk.topup("acme", "k1", body).await;
    assert_eq!((again.status.as_u16(), &again.body["replayed"]), (200, &json!(true)));
    assert_eq!(again.body["id"], first.body["id"]);
    for other in [
        json!({"amount": "10.01", "reference": "invoice 7"}),
        json!({"amount": "10.00", "reference": "invoice 8"}),
    ] {
        let conflict = desk.topup("acme", "k1", other).await;
        assert_eq!((conflict.status.as_u16(), conflict.refusal().1), (409, "idempotency_conflict"));
    }
    desk.topup("acme", "k2", json!({"amount": "0.000000001"})).await;
    let balance = desk.row("/apps/acme/balance").await;
    assert_eq!(
        balance,
        json!({"currency": "USD", "posted": "10.000000001", "promo": "0.00", "held": "0.00",
            "available": "15.000000001", "credit_limit": "5.00"})
    );
    desk.post("/apps", json!({"code": "other"})).await;
    let other = desk.topup("other", "k1", json!({"amount": "1", "reference": "invoice 7"})).await;
    assert_eq!(other.status, 201, "a key belongs to its app");
}

#[tokio::test]
async fn a_topup_is_judged() {
    let desk = Desk::furnished().await;
    for (body, member) in [
        (json!({}), "amount"),
        (json!({"amount": 10}), "amount"),
        (json!({"amount": "0"}), "amount"),
        (json!({"amount": "-1"}), "amount"),
        (json!({"amount": "1e3"}), "amount"),
        (json!({"amount": "0.0000000001"}), "amount"),
        (json!({"amount": "99999999999999"}), "amount"),
        (json!({"amount": "1", "reference": "x".repeat(501)}), "reference"),
        (json!({"amount": "1", "currency": "EUR"}), "currency"),
    ] {
        let refused = desk.topup("acme", "k", body.clone()).await;
        assert_eq!((refused.refusal().0, refused.refusal().2), (400, member), "{body}");
    }
    let long = "k".repeat(256);
    let body = json!({"amount": "1"});
    assert_eq!(desk.topup("acme", &long, body.clone()).await.refusal().2, "Idempotency-Key");
    assert_eq!(desk.topup("acme", "", body.clone()).await.refusal().2, "Idempotency-Key");
    let none = desk.post("/apps/acme/topups", body.clone()).await;
    assert_eq!(none.refusal(), (400, "invalid_member", "Idempotency-Key"));
    assert_eq!(desk.topup("nobody", "k", body).await.status, 404);
    assert_eq!(desk.row("/apps/acme/balance").await["posted"], "0.00");
}

#[tokio::test]
async fn a_topup_is_in_the_books_and_in_the_log() {
    let desk = Desk::furnished().await;
    let body = json!({"amount": "10", "reference": "r", "reason": "paid by wire"});
    let topup = desk.topup("acme", "k", body).await.body;
    let trial = desk.row("/ledger/trial-balance").await;
    let accounts: Vec<&str> =
        trial["items"].as_array().unwrap().iter().map(|l| l["account"].as_str().unwrap()).collect();
    assert!(accounts.contains(&"psp_clearing") && accounts.contains(&"wallet:acme"));
    assert_eq!(
        trial["totals"],
        json!([{"currency": "USD", "debits": "10.00", "credits": "10.00"}])
    );
    let verified = desk.row("/ledger/verify").await;
    assert_eq!(verified["ok"], true);
    assert!(!verified["findings"].as_array().unwrap().is_empty());
    let record = desk.row("/audit?limit=1").await["items"][0].clone();
    assert_eq!((&record["action"], &record["code"]), (&json!("topup"), &json!("acme")));
    assert_eq!((&record["actor"], &record["reason"]), (&json!("admin"), &json!("paid by wire")));
    assert_eq!(record["after"]["id"], topup["id"]);
}

#[tokio::test]
async fn postings_are_found_by_every_form_of_an_id() {
    use anima_core::ledger::{Account, Component, Entry, EntryKind, Leg};
    let desk = Desk::furnished().await;
    let subject = Uuid::parse_str("0192f3c4-5678-7abc-8def-0123456789ab").unwrap();
    let leg = Leg {
        debit: Account::PspClearing,
        credit: Account::Wallet("acme".into()),
        amount: 2_500_000_000,
        currency: anima_core::money::Currency::USD,
        component: Component::Topup,
        attempt: None,
        price: None,
        estimate: false,
    };
    let (at, legs) = (desk.clock.now(), vec![leg]);
    let entry = Entry {
        subject,
        kind: EntryKind::Topup,
        seq: 0,
        legs,
        reference: "r".to_owned(),
        at,
        floor: 0,
    };
    desk.admin.stores.ledger.post(entry).await.unwrap();
    for id in [
        "req_0192f3c456787abc8def0123456789ab",
        "0192f3c456787abc8def0123456789ab",
        "0192f3c4-5678-7abc-8def-0123456789ab",
    ] {
        let page = desk.row(&format!("/ledger/postings?request_id={id}")).await;
        let posting = &page["items"][0];
        assert_eq!(posting["request_id"], "req_0192f3c456787abc8def0123456789ab");
        assert_eq!(
            (&posting["debit"], &posting["credit"]),
            (&json!("psp_clearing"), &json!("wallet:acme"))
        );
        assert_eq!((&posting["amount"], &posting["component"]), (&json!("2.50"), &json!("topup")));
    }
    for bad in ["", "?request_id=", "?request_id=req_5", "?request_id=x&y=1"] {
        assert_eq!(desk.get(&format!("/ledger/postings{bad}")).await.status, 400, "{bad}");
    }
    let none = desk.row("/ledger/postings?request_id=req_00000000000000000000000000000000").await;
    assert_eq!(none["items"], json!([]));
}

#[tokio::test]
async fn the_currency_of_a_wallet_is_for_ever() {
    let desk = Desk::furnished().await;
    let change = desk.patch("/apps/acme", json!({"currency": "EUR", "version_no": 1})).await;
    assert_eq!(change.refusal(), (400, "invalid_member", "currency"));
    desk.topup("acme", "k", json!({"amount": "3"})).await;
    desk.delete("/apps/acme").await;
    assert_eq!(desk.topup("acme", "k2", json!({"amount": "3"})).await.status, 404);
    assert_eq!(desk.row("/apps/acme/balance").await["posted"], "3.00", "the books outlive it");
    let again = desk.post("/apps", json!({"code": "acme", "currency": "EUR"})).await;
    assert_eq!(again.refusal(), (400, "invalid_member", "currency"));
    assert_eq!(desk.post("/apps", json!({"code": "acme"})).await.status, 201);
}

#[tokio::test]
async fn the_log_tells_each_change_newest_first_in_pages() {
    let desk = Desk::furnished().await;
    let request = ask(Method::PATCH, "/apps/acme")
        .header("authorization", "Bearer at-operator")
        .header("x-anima-reason", "fraud, case 12");
    desk.send(request.body(Body::from(r#"{"enabled":false}"#)).unwrap()).await;
    let first = desk.row("/audit?limit=1").await;
    let record = &first["items"][0];
    assert_eq!((&record["action"], &record["actor"]), (&json!("switch"), &json!("operator")));
    assert_eq!((&record["resource"], &record["code"]), (&json!("app"), &json!("acme")));
    assert_eq!(record["reason"], "fraud, case 12");
    assert_eq!(
        (&record["before"]["enabled"], &record["after"]["enabled"]),
        (&json!(true), &json!(false))
    );
    let next = first["next"].as_i64().unwrap();
    let second = desk.row(&format!("/audit?before={next}&limit=200")).await;
    assert_eq!(second["items"].as_array().unwrap().len(), payloads::examples().len());
    assert_eq!(second["next"], Value::Null);
    assert_eq!(desk.get("/audit?before=x").await.refusal().2, "before");
}

#[tokio::test]
async fn an_invoice_is_noted_once_and_a_day_that_is_off_is_said() {
    let desk = Desk::furnished().await;
    let path = "/ledger/invoices";
    let body = json!({"channel": "up", "currency": "USD", "reference": "bill 7", "reason": "May",
        "days": [{"day": "2026-05-01", "amount": "0"}, {"day": "2026-05-02", "amount": "1.5"}]});
    for _ in 0..2 {
        let noted = desk.post(path, body.clone()).await;
        assert_eq!((noted.status.as_u16(), &noted.body["off"]), (201, &json!(1)), "{}", noted.text);
        let day = &noted.body["days"][1];
        assert_eq!((&day["billed"], &day["difference"]), (&json!("1.50"), &json!("1.50")), "{day}");
        assert_eq!((&day["difference_percent"], &day["off"]), (&json!("100.00"), &json!(true)));
        assert_eq!(noted.body["days"][0]["difference_percent"], Value::Null);
    }
    let listed = desk.row("/ledger/invoices?channel=up&limit=5").await;
    let days: Vec<_> = listed["items"].as_array().unwrap().iter().map(|d| &d["day"]).collect();
    assert_eq!(days, ["2026-05-02", "2026-05-01"]);
    assert_eq!(desk.row("/ledger/invoices?channel=other").await["items"], json!([]));
    let verified = desk.row("/ledger/verify").await;
    let breached = verified["findings"].as_array().unwrap().iter().find(|f| f["ok"] == false);
    assert_eq!(breached.unwrap()["invariant"], "I12", "{verified}");
    let record = desk.row("/audit?limit=1").await["items"][0].clone();
    assert_eq!((&record["action"], &record["code"]), (&json!("invoice"), &json!("up")));
    assert_eq!(record["reason"], "May");
}

#[tokio::test]
async fn a_bad_invoice_is_refused_and_nothing_of_it_is_noted() {
    let desk = Desk::furnished().await;
    let day = json!({"day": "2026-05-01", "amount": "1"});
    for (member, bad, told) in [
        ("currency", json!("Dollar"), "currency"),
        ("reference", json!(" "), "reference"),
        ("reference", json!("x".repeat(501)), "reference"),
        ("days", json!([]), "days"),
        ("days", json!([day, day]), "days[1].day"),
        ("days", json!([day, {"day": "2026-02-29", "amount": "1"}]), "days[1].day"),
        ("days", json!([day, {"day": "2026-05-02T00:00:00Z", "amount": "1"}]), "days[1].day"),
        ("days", json!([{"day": "2026-05-01", "amount": "-1"}]), "days[0].amount"),
        ("days", json!([{"day": "2026-05-01", "amount": "0.0000000001"}]), "days[0].amount"),
        ("days", json!([{"day": "2026-05-01"}]), "days[0].amount"),
        ("total", json!("1"), "total"),
    ] {
        let mut body =
            json!({"channel": "up", "currency": "USD", "reference": "bill 7", "days": [day]});
        body[member] = bad.clone();
        let refused = desk.post("/ledger/invoices", body).await;
        let members = &refused.body["errors"][0]["member"];
        assert_eq!(
            (refused.status.as_u16(), members),
            (400, &json!(told)),
            "{bad}: {}",
            refused.text
        );
    }
    let body = json!({"channel": "nowhere", "currency": "USD", "reference": "b", "days": [day]});
    let refused = desk.post("/ledger/invoices", body).await;
    assert_eq!((refused.status.as_u16(), refused.refusal().1), (422, "unknown_reference"));
    assert_eq!(desk.row("/ledger/invoices").await["items"], json!([]));
}
