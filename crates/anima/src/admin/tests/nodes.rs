//! `GET /nodes`: this node, others, and those that are gone.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::Desk;
use crate::nodes::Report;

async fn listed(desk: &Desk) -> Vec<(String, bool, bool)> {
    let answer = desk.get("/nodes").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let items = answer.body["items"].as_array().unwrap();
    let read = |item: &serde_json::Value| {
        let is = |member: &str| item[member].as_bool().unwrap();
        (item["id"].as_str().unwrap().to_owned(), is("alive"), is("answering"))
    };
    items.iter().map(read).collect()
}

#[tokio::test]
async fn nodes_are_listed_while_they_are_heard_of() {
    let desk = Desk::open().await;
    let own = ("desk".to_owned(), true, true);
    assert_eq!(listed(&desk).await, std::slice::from_ref(&own));
    let other = Report { id: "other".to_owned(), in_flight: 3, ..desk.admin.nodes.own() };
    let text = json!(other).to_string();
    desk.admin.stores.nodes.publish("other", other.seen_at, text).await.unwrap();
    desk.admin.nodes.meet().await;
    assert_eq!(listed(&desk).await, [own.clone(), ("other".to_owned(), true, false)]);
    let count = desk.admin.nodes.live_count();
    assert_eq!(count.load(Ordering::Relaxed), 2);
    // It falls silent: listed for a while, and counted no more.
    desk.clock.advance_millis(11_000);
    desk.admin.nodes.meet().await;
    assert_eq!(listed(&desk).await, [own.clone(), ("other".to_owned(), false, false)]);
    assert_eq!(count.load(Ordering::Relaxed), 1);
    desk.clock.advance_millis(600_000);
    desk.admin.nodes.meet().await;
    assert_eq!(listed(&desk).await, [own]);
}

#[tokio::test]
async fn a_node_says_what_it_is() {
    let desk = Desk::open().await;
    let answer = desk.get("/nodes").await;
    let node = &answer.body["items"][0];
    assert_eq!(node["roles"], json!(["gateway", "worker", "admin"]));
    assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&node["degraded"], &node["in_flight"]), (&json!(null), &json!(0)));
    assert_eq!(desk.get("/nodes?role=worker").await.status, 400);
}
