//! `GET /usage` against the books and the truth log of the simulated provider.
//!
//! Calls are made over HTTP, one of each kind; then every report must come to what was posted about
//! them and to what the provider worked, however it is grouped.

use http::Method;
use serde_json::{Value, json};

use crate::testapp::{BACKUP_SECRET, MAIN_SECRET, Reply, TestApp, nano, on_both};

on_both! {
    a_report_is_what_was_posted_and_what_was_worked;
    a_true_up_and_a_refund_are_of_the_call_that_they_correct;
    who_has_no_token_sees_nothing;
}

async fn usage(app: &TestApp, query: &str) -> Vec<Value> {
    let page = app.admin(Method::GET, &format!("/usage?{query}"), &Value::Null).await;
    assert_eq!(page["next"], Value::Null, "{page}");
    page["items"].as_array().unwrap().clone()
}

fn sum(lines: &[Value], name: &str) -> i64 {
    let figure =
        |line: &Value| line[name].as_str().map_or_else(|| line[name].as_i64().unwrap(), nano);
    lines.iter().map(figure).sum()
}

fn meter(lines: &[Value], of: &str, name: &str) -> i64 {
    lines.iter().map(|line| line[of][name].as_i64().unwrap_or(0)).sum()
}

/// What was posted about calls: charged, to providers, of that estimated, of that wasted.
async fn posted(app: &TestApp, replies: &[&Reply]) -> [i64; 4] {
    let mut sums = [0; 4];
    for reply in replies {
        for leg in app.legs(reply).await {
            sums[0] += if leg.debit == "wallet:acme" { leg.amount } else { 0 };
            sums[1] += if leg.credit.starts_with("payable") { leg.amount } else { 0 };
            let is_estimated = leg.credit.starts_with("payable_estimated");
            sums[2] += if is_estimated { leg.amount } else { 0 };
            sums[3] += if leg.debit == "wasted_cost" { leg.amount } else { 0 };
        }
    }
    sums
}

async fn a_report_is_what_was_posted_and_what_was_worked(app: &TestApp) {
    assert_eq!(usage(app, "group_by=channel,day").await, [Value::Null; 0]);
    app.channel("backup", BACKUP_SECRET, json!({})).await;
    app.alias("two", "chat", &[("main", "sim-chat"), ("backup", "sim-other")]).await;
    let (path, other) = app.mint("acme", json!({})).await;
    let kid = path.rsplit('/').next().unwrap();
    app.fault("reasoning:5+cached:4");
    let plain = app.ask("chat").await;
    let streamed = app.ask_stream("chat").await;
    app.script(&json!([{"match": {"key": MAIN_SECRET}, "do": "status:500"}]));
    let fallen_back = app.ask_as(&other, "two").await;
    let failed = app.ask("chat").await;
    app.fault("status:429");
    let refused = app.ask("chat").await;
    app.settled().await;
    assert_eq!([plain.status, streamed.status, fallen_back.status], [200; 3]);
    assert!(failed.status >= 500 && refused.status == 429, "{failed:?} {refused:?}");
    let all = [&plain, &streamed, &fallen_back, &failed, &refused];
    let [charge, cost, estimated, wasted] = posted(app, &all).await;
    assert!(charge > cost - wasted && wasted > 0);
    for groups in ["", "channel", "channel,day", "alias,app,key,model,hour", "month", "key"] {
        let lines = usage(app, &format!("group_by={groups}")).await;
        let money = ["charge", "cost", "cost_estimated", "cost_wasted", "margin", "refunds"];
        let money = money.map(|name| sum(&lines, name));
        assert_eq!(money, [charge, cost, estimated, wasted, charge - cost, 0], "{groups}");
        let counts = ["requests", "errors", "open", "attempts", "failed_attempts"];
        assert_eq!(counts.map(|name| sum(&lines, name)), [5, 2, 0, 6, 3], "{groups}");
        let (mut prompt, mut cached, mut answer) = (0, 0, 0);
        for reply in [&plain, &streamed, &fallen_back] {
            let calls = app.calls_of(reply).await;
            let worked = &calls.last().unwrap().billed;
            prompt += worked.prompt_tokens;
            cached += worked.cached_tokens;
            answer += worked.completion_tokens;
        }
        let of = |name| u64::try_from(meter(&lines, "meters", name)).unwrap();
        assert_eq!(of("cached_input_tokens"), cached, "{groups}");
        assert_eq!(of("input_tokens") + cached, prompt, "{groups}");
        assert_eq!(of("output_tokens") + of("reasoning_tokens"), answer, "{groups}");
        assert_eq!(u64::try_from(sum(&lines, "tokens")).unwrap(), prompt + answer, "{groups}");
        assert!(meter(&lines, "meters_wasted", "input_tokens") > 0, "{groups}");
    }
    // One call, by its key: its first attempt was `main`'s, its answer `backup`'s.
    let [charge, cost, estimated, wasted] = posted(app, &[&fallen_back]).await;
    let lines = usage(app, &format!("group_by=channel,alias&key={kid}")).await;
    let shown = |name: &str| lines.iter().map(|l| l[name].clone()).collect::<Vec<_>>();
    assert_eq!(shown("channel"), ["backup", "main"]);
    assert_eq!(shown("alias"), ["two", "two"]);
    assert_eq!(shown("requests"), [1, 0]);
    assert_eq!(shown("attempts"), [1, 1]);
    let money =
        |name: &str| shown(name).iter().map(|m| nano(m.as_str().unwrap())).collect::<Vec<_>>();
    assert_eq!(money("charge"), [charge, 0]);
    assert_eq!(money("cost"), [cost - wasted, wasted]);
    assert_eq!(money("cost_estimated"), [0, estimated]);
    // The whole is what the accounts say.
    let lines = usage(app, "").await;
    let books = app.trial_balance().await;
    let credit = |code: &str| books.get(code).map_or(0, |(debits, credits)| credits - debits);
    assert_eq!(sum(&lines, "revenue"), credit("revenue"));
    assert_eq!(sum(&lines, "cost"), -credit("cost_of_sales") - credit("wasted_cost"));
    assert_eq!(sum(&lines, "charge"), nano("100.00") - credit("wallet:acme"));
    assert_eq!(
        usage(app, "from=2020-01-01T00:00:00Z&to=2020-12-31T00:00:00Z").await,
        [Value::Null; 0]
    );
}

async fn a_true_up_and_a_refund_are_of_the_call_that_they_correct(app: &TestApp) {
    app.fault("usage-missing");
    let reply = app.ask("chat").await;
    assert_eq!(reply.status, 200);
    app.settled().await;
    let line = usage(app, "group_by=channel,hour").await.remove(0);
    assert_eq!((&line["estimated_attempts"], &line["cost_estimated"]), (&json!(1), &line["cost"]));
    assert_eq!(
        (&line["meters_estimated"], line["channel"].as_str()),
        (&line["meters"], Some("main"))
    );
    let report = json!({"attempts": [{"n": 1, "usage": {"input_tokens": 1, "output_tokens": 1}}],
        "reason": "came late", "reference": "bill 7"});
    app.create(&format!("/requests/{}/true-up", reply.request_id()), &report).await;
    let after = usage(app, "group_by=channel,hour").await.remove(0);
    assert_eq!(after["hour"], line["hour"]);
    assert_eq!(
        (&after["meters"], &after["tokens"]),
        (&json!({"input_tokens": 1, "output_tokens": 1}), &json!(2))
    );
    assert_eq!((&after["estimated_attempts"], &after["meters_estimated"]), (&json!(0), &json!({})));
    assert_eq!(after["cost_estimated"], "0.00");
    let left = nano("100.00") - app.balance().await;
    assert_eq!(sum(std::slice::from_ref(&after), "charge"), left);
    let refund = json!({"request_id": reply.request_id()});
    app.create("/apps/acme/refunds", &refund).await;
    let after = usage(app, "").await.remove(0);
    assert_eq!((&after["refunds"], &after["requests"]), (&after["charge"], &json!(1)));
    assert_eq!(app.balance().await, nano("100.00"));
}

async fn who_has_no_token_sees_nothing(app: &TestApp) {
    let headers = [("authorization", "Bearer nobody")];
    let reply = app.raw(Method::GET, "/api/admin/v1/usage", &headers, "").await;
    assert_eq!(reply.status, 401);
    let key = format!("Bearer {}", app.key);
    let headers = [("authorization", key.as_str())];
    let reply = app.raw(Method::GET, "/api/admin/v1/usage", &headers, "").await;
    assert_eq!(reply.status, 401, "a customer's key is no admin token");
}
