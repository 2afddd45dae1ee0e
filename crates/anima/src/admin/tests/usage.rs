//! What `GET /usage` takes and refuses, and how its pages follow one another.

use anima_core::ledger::{Close, Hold, PriceRef, Settlement};
use anima_core::money::{Currency, Multiplier};

use super::*;

const HOUR_MS: i64 = 3_600_000;

/// A call of a key that was charged so many nano-dollars, so many hours before ten.
async fn charged(desk: &Desk, n: u128, kid: &str, (sale, hours): (i64, i64)) {
    let sale_price = PriceRef { code: "gpt-4o-sale".into(), version_no: 1 };
    let at = Timestamp::parse("2026-11-22T10:00:00Z").unwrap().plus_millis(-hours * HOUR_MS);
    let hold = Hold {
        id: Uuid::from_u128(n),
        app: "acme".into(),
        kid: kid.into(),
        alias: "gpt-4o".into(),
        currency: Currency::USD,
        amount: sale,
        floor: -5_000_000_000,
        sale_price: sale_price.clone(),
        fx: None,
        multiplier: Multiplier::ONE,
        exposure: None,
        created_at: at,
        expires_at: at.plus_millis(60_000),
    };
    let settlement = Settlement {
        hold: hold.id,
        app: "acme".into(),
        currency: Currency::USD,
        close: Close::Settle { sale, estimate: false },
        sale_price,
        conversion: None,
        attempts: vec![],
        at,
    };
    desk.admin.stores.ledger.hold(hold).await.unwrap();
    desk.admin.stores.ledger.settle(settlement).await.unwrap();
}

async fn usage(desk: &Desk, query: &str) -> Value {
    desk.row(&format!("/usage?{query}")).await
}

fn shown(page: &Value, members: &[&str]) -> Vec<String> {
    let items = page["items"].as_array().unwrap().iter();
    let line = |item: &Value| {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let texts = members.iter().map(|name| text(&item[*name]));
        texts.collect::<Vec<_>>().join(" ")
    };
    items.map(line).collect()
}

#[tokio::test]
async fn a_line_has_every_member_of_the_document() {
    let desk = Desk::furnished().await;
    charged(&desk, 1, "k1", (400_000_000, 1)).await;
    let page = usage(&desk, "group_by=channel,day&from=&to=").await;
    let now = desk.clock.now();
    assert_eq!(
        page,
        json!({
            "items": [{
                "channel": null, "day": "2026-11-22", "currency": "USD",
                "requests": 1, "errors": 0, "open": 0,
                "attempts": 0, "failed_attempts": 0, "estimated_attempts": 0,
                "tokens": 0, "meters": {}, "meters_estimated": {}, "meters_wasted": {},
                "charge": "0.40", "refunds": "0.00", "revenue": "0.40", "uncollected": "0.00",
                "fx": "0.00", "cost": "0.00", "cost_estimated": "0.00", "cost_wasted": "0.00",
                "margin": "0.40",
            }],
            "next": null,
            "from": now.plus_millis(-30 * 24 * HOUR_MS), "to": now,
        })
    );
    let document: Value = serde_json::from_str(&crate::admin::openapi()).unwrap();
    let schema = &document["components"]["schemas"]["UsagePage"]["properties"];
    let required = schema["items"]["items"]["required"].as_array().unwrap();
    let always = page["items"][0].as_object().unwrap().keys();
    let always: Vec<_> =
        always.filter(|name| !["channel", "day"].contains(&name.as_str())).collect();
    let mut required: Vec<_> = required.iter().map(|name| name.as_str().unwrap()).collect();
    required.sort_unstable();
    assert_eq!(always, required);
}

#[tokio::test]
async fn calls_are_grouped_filtered_and_of_the_period() {
    let desk = Desk::furnished().await;
    for (n, (kid, sale, hours)) in
        (1..).zip([("k1", 1, 0), ("k2", 2, 1), ("k1", 4, 11), ("k1", 8, 31 * 24)])
    {
        charged(&desk, n, kid, (sale * 100_000_000, hours)).await;
    }
    let charges = async |query: &str| {
        let page = usage(&desk, query).await;
        shown(&page, &["hour", "day", "month", "key", "requests", "charge"])
    };
    assert_eq!(charges("").await, ["null null null null 3 0.70"]);
    // `to` is not of the period.
    assert_eq!(charges("to=2026-11-22T10:00:00Z").await, ["null null null null 2 0.60"]);
    assert_eq!(charges("to=2026-11-22T10:00:00.000001Z").await, ["null null null null 3 0.70"]);
    assert_eq!(charges("key=k2").await, ["null null null null 1 0.20"]);
    assert_eq!(charges("app=acme&alias=gpt-4o&key=k1").await, ["null null null null 2 0.50"]);
    assert_eq!(charges("app=other").await, [""; 0]);
    assert_eq!(charges("channel=main").await, [""; 0]);
    assert_eq!(
        charges("group_by=key,day&to=2026-11-23T00:00:00Z").await,
        [
            "null 2026-11-21 null k1 1 0.40",
            "null 2026-11-22 null k1 1 0.10",
            "null 2026-11-22 null k2 1 0.20"
        ]
    );
    assert_eq!(
        charges("group_by=month&from=2026-10-01T00:00:00Z&to=2026-12-01T00:00:00%2B00:00").await,
        ["null null 2026-10 null 1 0.80", "null null 2026-11 null 3 0.70"]
    );
    assert_eq!(
        charges("group_by=hour&key=k2").await,
        ["2026-11-22T09:00:00Z null null null 1 0.20"]
    );
}

#[tokio::test]
async fn pages_belong_together_although_time_goes_on() {
    let desk = Desk::furnished().await;
    for (n, kid) in (1..).zip(["a", "b", "c", "d", "e"]) {
        charged(&desk, n, kid, (100_000_000, 1)).await;
    }
    let mut after = String::new();
    let mut period = Vec::new();
    let mut keys = Vec::new();
    for n in 0..3_u8 {
        let page = usage(&desk, &format!("group_by=key&limit=2&after={after}")).await;
        keys.extend(shown(&page, &["key", "requests"]));
        period.push((page["from"].clone(), page["to"].clone()));
        assert_eq!(period.last(), period.first());
        after = page["next"].as_str().unwrap_or_default().to_owned();
        assert_eq!(after.is_empty(), n == 2, "{page}");
        // What comes later is of no page of this report.
        desk.clock.advance_millis(2 * HOUR_MS);
        charged(&desk, 10 + u128::from(n), "e", (100_000_000, -1)).await;
    }
    assert_eq!(keys, ["a 1", "b 1", "c 1", "d 1", "e 1"]);
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_by_name() {
    let desk = Desk::furnished().await;
    charged(&desk, 1, "a", (1, 1)).await;
    charged(&desk, 2, "b", (1, 1)).await;
    let page = usage(&desk, "group_by=key&limit=1").await;
    let of_keys = format!("group_by=app&after={}", page["next"].as_str().unwrap());
    let long = "to=2026-11-01T00:00:00Z&from=2025-10-30T23:59:59Z";
    let day = "to=2026-11-01T00:00:00Z&from=2026-09-30T23:59:59Z&group_by=hour";
    for (query, member) in [
        ("group_by=chanel", "group_by"),
        ("group_by=hour,day", "group_by"),
        ("group_by=time", "group_by"),
        ("from=yesterday", "from"),
        ("to=2026-11-22", "to"),
        ("from=2026-11-22T10:01:00Z", "from"),
        (long, "from"),
        (day, "from"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("after=x", "after"),
        (of_keys.as_str(), "after"),
    ] {
        let refused = desk.get(&format!("/usage?{query}")).await;
        assert_eq!(refused.refusal(), (400, "invalid_member", member), "{query}");
    }
    let named = desk.get("/usage?group_by=chanel").await;
    assert!(
        named.text.contains(
            "expected some of channel,model,alias,app,key and at most one of hour,day,month"
        ),
        "{}",
        named.text
    );
    assert_eq!(
        desk.get("/usage?currency=USD").await.refusal(),
        (400, "unknown_member", "currency")
    );
    assert_eq!(desk.get("/usage?group_by=key&channel=%00").await.status, 400);
    for edge in [
        "to=2026-11-01T00:00:00Z&from=2026-10-01T00:00:00Z&group_by=hour",
        "from=2026-11-22T10:00:00Z&to=2026-11-22T10:00:00Z",
        "to=0001-01-01T00:00:00Z",
        "to=9999-12-30T00:00:00Z",
    ] {
        assert_eq!(desk.get(&format!("/usage?{edge}")).await.status, 200, "{edge}");
    }
}
