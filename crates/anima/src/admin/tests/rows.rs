//! Versions, windows, switches, history and pages.

use super::*;

#[tokio::test]
async fn a_stale_version_is_refused_with_the_current_row_and_changes_nothing() {
    let desk = Desk::furnished().await;
    let first = desk.patch("/apps/acme", json!({"name": "One", "version_no": 1})).await;
    assert_eq!((first.status.as_u16(), first.header("etag")), (200, "\"2\""));
    let stale = desk.patch("/apps/acme", json!({"name": "Two", "version_no": 1})).await;
    assert_eq!(stale.refusal().0, 409);
    assert_eq!(stale.body["code"], "version_conflict");
    assert_eq!(stale.header("content-type"), "application/problem+json");
    assert_eq!(stale.header("etag"), "\"2\"");
    assert_eq!(stale.body["current"], first.body);
    assert_eq!(desk.row("/apps/acme").await, first.body);
    assert_eq!(desk.row("/apps/acme/versions").await["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_version_can_be_stated_in_the_header() {
    let desk = Desk::furnished().await;
    let patch = async |tag: &str, body: Value| {
        let request = ask(Method::PATCH, "/apps/acme")
            .header("authorization", "Bearer at-admin")
            .header("if-match", tag);
        desk.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    assert_eq!(patch("\"1\"", json!({"name": "One"})).await.status, 200);
    assert_eq!(patch("\"1\"", json!({"name": "Two"})).await.refusal().1, "version_conflict");
    assert_eq!(patch("W/\"2\"", json!({"name": "Two"})).await.status, 200);
    assert_eq!(patch("*", json!({"name": "x"})).await.refusal().2, "If-Match");
    let differ = patch("\"3\"", json!({"name": "x", "version_no": 2})).await;
    assert_eq!(differ.refusal(), (400, "invalid_member", "version_no"));
    assert_eq!(patch("\"1\"", json!({"enabled": false})).await.status, 409);
}

#[tokio::test]
async fn a_change_needs_a_version_and_something_to_change() {
    let desk = Desk::furnished().await;
    let none = desk.patch("/apps/acme", json!({"name": "x"})).await;
    assert_eq!(none.refusal(), (428, "version_required", "version_no"));
    let empty = desk.patch("/apps/acme", json!({"version_no": 1})).await;
    assert_eq!(empty.refusal().1, "nothing_to_change");
    let renamed = desk.patch("/apps/acme", json!({"code": "b", "version_no": 1})).await;
    assert_eq!(renamed.refusal(), (400, "invalid_member", "code"));
}

#[tokio::test]
async fn null_resets_an_optional_member_and_refuses_for_a_required_one() {
    let desk = Desk::furnished().await;
    let body = json!({"quota": null, "credit_limit": null, "version_no": 1});
    let reset = desk.patch("/apps/acme", body).await;
    assert_eq!(reset.body["quota"], Value::Null);
    assert_eq!(reset.body["credit_limit"], "0");
    assert_eq!(reset.body["token_group"], "gold");
    let required = desk.patch("/channels/up", json!({"provider": null, "version_no": 1})).await;
    assert_eq!(required.refusal(), (400, "invalid_member", "provider"));
    let merged = json!({"timeouts": {"idle_ms": 7}, "version_no": 1});
    let merged = desk.patch("/channels/up", merged).await.body;
    assert_eq!(
        (&merged["timeouts"]["idle_ms"], &merged["timeouts"]["total_ms"]),
        (&json!(7), &json!(4000))
    );
}

#[tokio::test]
async fn the_switch_needs_no_version_and_survives_changes() {
    let desk = Desk::furnished().await;
    for path in [
        "/channels/up",
        "/aliases/gpt-4o",
        "/apps/acme",
        "/token-groups/gold",
        "/prices/up-cost",
        "/quotas/basic",
    ] {
        let off = desk.patch(path, json!({"enabled": false, "reason": "incident"})).await;
        assert_eq!((off.status.as_u16(), &off.body["enabled"]), (200, &json!(false)), "{path}");
        assert_eq!(off.body["version_no"], 1);
    }
    let renamed = desk.patch("/apps/acme", json!({"name": "x", "version_no": 1})).await;
    assert_eq!(renamed.body["enabled"], false);
    let both = json!({"name": "y", "enabled": true, "version_no": 2});
    let both = desk.patch("/apps/acme", both).await.body;
    assert_eq!((&both["enabled"], &both["version_no"]), (&json!(true), &json!(3)));
    let off = desk.post("/apps", json!({"code": "off", "enabled": false})).await;
    assert_eq!((off.status.as_u16(), &off.body["enabled"]), (201, &json!(false)));
    assert_eq!(desk.row("/apps/off").await["enabled"], false);
}

#[tokio::test]
async fn a_scheduled_change_waits_for_its_time_and_is_not_pulled_ahead() {
    let desk = Desk::furnished().await;
    let later = desk.in_millis(60_000);
    let body = json!({"name": "Later", "quota": null, "effective_from": later, "version_no": 1});
    let scheduled = desk.patch("/apps/acme", body).await;
    assert_eq!((scheduled.status.as_u16(), &scheduled.body["version_no"]), (200, &json!(2)));
    let now = desk.get("/apps/acme").await;
    assert_eq!((&now.body["name"], &now.body["version_no"]), (&json!("Acme"), &json!(1)));
    assert_eq!(now.header("etag"), "\"2\"", "the tag is what a write must state");
    let hasty = desk.patch("/apps/acme", json!({"credit_limit": "6", "version_no": 2})).await;
    assert_eq!((&hasty.body["name"], &hasty.body["quota"]), (&json!("Acme"), &json!("basic")));
    assert_eq!(hasty.body["effective_to"], json!(later));
    desk.clock.advance_millis(60_000);
    let row = desk.row("/apps/acme").await;
    assert_eq!((&row["name"], &row["version_no"]), (&json!("Later"), &json!(2)));
    assert_eq!(row["credit_limit"], "5.00");
}

#[tokio::test]
async fn a_schedule_is_corrected_by_the_same_start() {
    let desk = Desk::furnished().await;
    let later = desk.in_millis(60_000);
    let body = |name: &str, read: i64| {
        let from = later.as_str();
        json!({"name": name, "effective_from": from, "version_no": read})
    };
    assert_eq!(desk.patch("/apps/acme", body("Typo", 1)).await.status, 200);
    assert_eq!(desk.patch("/apps/acme", body("Right", 2)).await.status, 200);
    desk.clock.advance_millis(60_000);
    assert_eq!(desk.row("/apps/acme").await["name"], "Right");
}

#[tokio::test]
async fn a_window_is_judged() {
    let desk = Desk::furnished().await;
    let past = json!({"name": "x", "effective_from": "2020-01-01T00:00:00Z", "version_no": 1});
    let past = desk.patch("/apps/acme", past).await;
    assert_eq!(past.refusal(), (400, "invalid_member", "effective_from"));
    let empty = json!({"effective_to": "2020-01-01T00:00:00Z", "version_no": 1});
    let empty = desk.patch("/apps/acme", empty).await;
    assert_eq!(empty.refusal(), (400, "invalid_member", "effective_to"));
    let (from, to) = (desk.in_millis(50_000), desk.in_millis(90_000));
    let next = json!({"name": "next", "effective_from": from, "version_no": 1});
    assert_eq!(desk.patch("/apps/acme", next).await.status, 200);
    let across = json!({"name": "x", "effective_to": to, "version_no": 2});
    let across = desk.patch("/apps/acme", across).await;
    assert_eq!(across.refusal().1, "window_overlap");
}

#[tokio::test]
async fn a_new_row_can_start_in_the_future_and_end() {
    let desk = Desk::open().await;
    let (from, to) = (desk.in_millis(10_000), desk.in_millis(20_000));
    let body = json!({"code": "promo", "effective_from": from, "effective_to": to});
    assert_eq!(desk.post("/apps", body).await.status, 201);
    let read = desk.row("/apps/promo").await;
    assert_eq!((&read["effective_from"], &read["effective_to"]), (&json!(from), &json!(to)));
    desk.clock.advance_millis(30_000);
    assert_eq!(desk.row("/apps/promo").await["version_no"], 1, "an ended row is still there");
    let revived = desk.patch("/apps/promo", json!({"name": "again", "version_no": 1})).await;
    assert_eq!((revived.status.as_u16(), &revived.body["effective_to"]), (200, &Value::Null));
}

#[tokio::test]
async fn a_row_that_starts_in_the_future_can_be_sent_back() {
    let desk = Desk::open().await;
    let body = json!({"code": "promo", "effective_from": desk.in_millis(10_000)});
    let created = desk.post("/apps", body).await.body;
    let again = desk.patch("/apps/promo", created.clone()).await;
    assert_eq!(again.status, 200, "{}", again.text);
    assert_eq!(again.body["effective_from"], created["effective_from"]);
}

#[tokio::test]
async fn prices_of_one_scope_do_not_overlap() {
    let desk = Desk::furnished().await;
    let mut twin = payloads::examples()[4].1.clone();
    twin["code"] = json!("twin");
    let refused = desk.post("/prices", twin).await;
    assert_eq!(refused.refusal().0, 409);
    assert_eq!(refused.body["code"], "window_overlap");
}

#[tokio::test]
async fn any_version_can_be_restored() {
    let desk = Desk::furnished().await;
    desk.patch("/apps/acme", json!({"name": "Two", "version_no": 1})).await;
    let path = "/apps/acme/versions/1/restore";
    assert_eq!(desk.post(path, json!({})).await.refusal().1, "version_required");
    assert_eq!(desk.post(path, json!({"version_no": 1})).await.refusal().1, "version_conflict");
    let odd = desk.post(path, json!({"version_no": 2, "name": "x"})).await;
    assert_eq!(odd.refusal(), (400, "unknown_member", "name"));
    let restored = desk.post(path, json!({"version_no": 2, "reason": "oops"})).await;
    assert_eq!(restored.status, 200, "{}", restored.text);
    assert_eq!((&restored.body["name"], &restored.body["version_no"]), (&json!("Acme"), &json!(3)));
    let versions = desk.row("/apps/acme/versions").await;
    let names: Vec<&str> =
        versions["items"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Acme", "Two", "Acme"]);
    let none = desk.post("/apps/acme/versions/9/restore", json!({"version_no": 3})).await;
    assert_eq!(none.refusal().0, 404);
    let word = desk.post("/apps/acme/versions/one/restore", json!({"version_no": 3})).await;
    assert_eq!(word.refusal().0, 404);
    let audit = desk.row("/audit?limit=1").await;
    assert_eq!(audit["items"][0]["action"], "restore");
    assert_eq!(audit["items"][0]["reason"], "oops");
}

#[tokio::test]
async fn a_restored_version_may_not_name_what_is_gone() {
    let desk = Desk::furnished().await;
    desk.patch("/apps/acme", json!({"quota": null, "version_no": 1})).await;
    desk.delete("/quotas/basic").await;
    let restored = desk.post("/apps/acme/versions/1/restore", json!({"version_no": 2})).await;
    assert_eq!(restored.refusal(), (422, "unknown_reference", "quota"));
}

#[tokio::test]
async fn a_deleted_row_is_gone_but_its_history_stays_and_its_code_is_free() {
    let desk = Desk::furnished().await;
    let stale = desk
        .call("at-admin", Method::DELETE, "/quotas/basic", Some(json!({"version_no": 7})))
        .await;
    assert_eq!(stale.refusal().1, "version_conflict");
    let gone = desk.delete("/quotas/basic").await;
    assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
    assert_eq!(desk.get("/quotas/basic").await.refusal().1, "not_found");
    assert_eq!(desk.delete("/quotas/basic").await.refusal().1, "not_found");
    let change = desk.patch("/quotas/basic", json!({"limits": [], "version_no": 1})).await;
    assert_eq!(change.refusal().1, "not_found");
    assert_eq!(desk.patch("/quotas/basic", json!({"enabled": true})).await.status, 404);
    assert_eq!(desk.row("/quotas").await["items"], json!([]));
    assert_eq!(desk.row("/quotas/basic/versions").await["items"].as_array().unwrap().len(), 1);
    let again = desk.post("/quotas", json!({"code": "basic", "limits": []})).await;
    assert_eq!((again.status.as_u16(), &again.body["version_no"]), (201, &json!(2)));
}

#[tokio::test]
async fn a_code_is_taken_once() {
    let desk = Desk::furnished().await;
    let twice = desk.post("/apps", json!({"code": "acme"})).await;
    assert_eq!(twice.refusal().1, "already_exists");
    assert_eq!(twice.status, 409);
}

#[tokio::test]
async fn lists_come_in_pages_by_code() {
    let desk = Desk::open().await;
    for n in 0..5 {
        desk.post("/apps", json!({"code": format!("app-{n}")})).await;
    }
    let mut seen = Vec::new();
    let mut path = "/apps?limit=2".to_owned();
    loop {
        let page = desk.row(&path).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|row| row["code"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/apps?limit=2&after={next}");
    }
    assert_eq!(seen, ["app-0", "app-1", "app-2", "app-3", "app-4"]);
    for bad in ["limit=0", "limit=201", "limit=x"] {
        assert_eq!(desk.get(&format!("/apps?{bad}")).await.refusal().2, "limit");
    }
    let unknown = desk.get("/apps?page=2").await;
    assert_eq!(unknown.refusal(), (400, "unknown_member", "page"));
}
