//! Keys that another node has: one that is at work, and one that died in the middle.
//!
//! The other node is a second opening of the node's database. What it writes is also the golden
//! form of a claim and of a kept answer: a node of another version must understand it.

use std::sync::Arc;

use anima::secrets::{self, Secrets, kid_of};
use anima_core::clock::{Clock as _, Timestamp};
use anima_core::ledger::{Close, Hold, PriceRef, Settlement};
use anima_core::money::{Currency, Multiplier};
use anima_store::database::{self, Opener, Stores};
use anima_store::idempotency::{Claim, Ending, UsedKey, Verdict};
use serde_json::Value;
use uuid::Uuid;

use super::{ask, is_replay};
use crate::testapp::{TestApp, eventually, on_both, prompt};

on_both! {
    a_call_of_another_node_is_waited_for;
    a_call_that_died_uncharged_is_made;
    a_call_whose_node_was_missed_before_its_hold_is_made;
    a_node_that_was_missed_takes_keys_under_its_new_lease;
    a_call_that_died_charged_is_not_made_again;
    a_call_that_was_answered_in_an_outage_is_not_made_again;
}

/// Another node, with a claim on the key `once` for a chat.
struct Other {
    stores: Stores,
    secrets: Secrets,
    claim: Claim,
}

const CALL: Uuid = Uuid::from_u128(0xCA11);
const NODE: Uuid = Uuid::from_u128(0xDEAD);

fn now() -> Timestamp {
    anima::clock::SystemClock.now()
}

impl Other {
    async fn claims(app: &TestApp, body: &Value) -> Self {
        let observer = Arc::new(anima::metrics::Metrics::new().unwrap());
        let opener = Opener { node: NODE, observer };
        let stores = database::open(&app.location(), &opener).await.unwrap();
        let file = std::fs::read_to_string(app.data_dir().join("master.key")).unwrap();
        let secrets = Secrets::new(&secrets::parse_master_key(&file).unwrap()).unwrap();
        let kid = kid_of(&app.key).unwrap();
        let body = body.to_string();
        let claim = Claim {
            kid: kid.into(),
            key_hash: secrets.fingerprint(&[b"key", kid.as_bytes(), b"once"]),
            content_hash: secrets.fingerprint(&[
                b"POST",
                b"chat_completions",
                b"chat",
                &[0, 0],
                body.as_bytes(),
            ]),
            call: CALL,
            node: NODE,
            at: now(),
            stale_at: now().plus_millis(60_000),
            expires_at: now().plus_millis(60_000),
        };
        assert_eq!(stores.idempotency.claim(&claim).await.unwrap(), Verdict::Fresh);
        Self { stores, secrets, claim }
    }

    async fn answers(&self, stored: &str) {
        let sealed = self.secrets.seal_bytes(&format!("idempotency|{CALL}"), stored.as_bytes());
        let ending = Ending::Kept(sealed.unwrap());
        assert!(self.stores.idempotency.end(&self.claim, ending).await.unwrap());
    }

    /// Holds money for the call, and closes the hold as it was closed a while ago.
    async fn held_and(&self, close: Close) {
        let sale_price = PriceRef { code: "chat-sale".into(), version_no: 1 };
        let hold = Hold {
            id: CALL,
            app: "acme".into(),
            kid: Arc::clone(&self.claim.kid),
            alias: "chat".into(),
            currency: Currency::USD,
            amount: 1_000,
            floor: 0,
            sale_price: sale_price.clone(),
            fx: None,
            multiplier: Multiplier::ONE,
            exposure: None,
            created_at: now(),
            expires_at: now().plus_millis(60_000),
        };
        self.stores.ledger.hold(hold).await.unwrap();
        let settlement = Settlement {
            hold: CALL,
            app: "acme".into(),
            currency: Currency::USD,
            close,
            sale_price,
            conversion: None,
            attempts: Vec::new(),
            at: now().plus_millis(-20_000),
        };
        self.stores.ledger.settle(settlement).await.unwrap();
    }
}

async fn a_call_of_another_node_is_waited_for(app: &TestApp) {
    let other = Other::claims(app, &prompt("chat")).await;
    let stored =
        "{\"status\":200,\"headers\":[[\"content-type\",\"application/json\"]]}\n{\"a\":1}";
    let body = prompt("chat");
    let meanwhile = async {
        let waits =
            async || app.metrics().await.contains("anima_inflight_requests 1").then_some(());
        eventually("the call waits", waits).await;
        other.answers(stored).await;
    };
    let ((), reply) = tokio::join!(meanwhile, ask(app, "once", &body));
    assert_eq!((reply.status, is_replay(&reply), reply.text().as_str()), (200, true, "{\"a\":1}"));
    assert!(app.calls().await.is_empty());
}

async fn a_call_that_died_uncharged_is_made(app: &TestApp) {
    let other = Other::claims(app, &prompt("chat")).await;
    other.held_and(Close::Release).await;
    let reply = ask(app, "once", &prompt("chat")).await;
    assert_eq!((reply.status, is_replay(&reply)), (200, false));
    assert!(is_replay(&ask(app, "once", &prompt("chat")).await));
    // The dead one comes back, and its answer is not kept.
    let ending = Ending::Kept(vec![1]);
    assert!(!other.stores.idempotency.end(&other.claim, ending).await.unwrap());
    assert_eq!(app.calls().await.len(), 1);
}

/// On SQLite nobody can miss a node: its file is locked.
async fn a_node_that_was_missed_takes_keys_under_its_new_lease(app: &TestApp) {
    if !app.place.can_be_closed() {
        return;
    }
    app.place.run("UPDATE node_lease SET state = 'DEAD', expires_at = 0").await;
    let reply = eventually("keys are taken again", async || {
        let reply = ask(app, "once", &prompt("chat")).await;
        assert!(reply.status == 200 || reply.status == 503, "{reply:?}");
        (reply.status == 200).then_some(reply)
    })
    .await;
    assert!(!is_replay(&reply) && is_replay(&ask(app, "once", &prompt("chat")).await));
    assert!(app.metrics().await.contains("anima_leases_lost_total 1"));
    assert_eq!(app.calls().await.len(), 1);
}

/// On SQLite the start of the next process marks the one before: the store's tests.
async fn a_call_whose_node_was_missed_before_its_hold_is_made(app: &TestApp) {
    const MISSED: &str = "
        INSERT INTO node_lease (id, host, started_at, expires_at, state)
        SELECT node, '', 0, 0, 'DEAD' FROM idempotency";
    if !app.place.can_be_closed() {
        return;
    }
    let other = Other::claims(app, &prompt("chat")).await;
    app.place.run(MISSED).await;
    let reply = ask(app, "once", &prompt("chat")).await;
    assert_eq!((reply.status, is_replay(&reply)), (200, false));
    assert!(is_replay(&ask(app, "once", &prompt("chat")).await));
    // What it would say now changes nothing.
    other.stores.idempotency.abandon(&other.claim).await.unwrap();
    assert!(is_replay(&ask(app, "once", &prompt("chat")).await));
    assert_eq!(app.calls().await.len(), 1);
}

async fn a_call_that_died_charged_is_not_made_again(app: &TestApp) {
    let other = Other::claims(app, &prompt("chat")).await;
    other.held_and(Close::Settle { sale: 7, estimate: true }).await;
    let before = app.balance().await;
    for _ in 0..2 {
        let reply = ask(app, "once", &prompt("chat")).await;
        assert_eq!(reply.refusal(), (409, "idempotency_answer_gone".to_owned()));
        assert!(reply.text().contains(&CALL.simple().to_string()), "{reply:?}");
    }
    assert_eq!((app.calls().await.len(), app.balance().await), (0, before));
}

/// Its hold was released before the disk of its node was back, and it is sold all the same.
async fn a_call_that_was_answered_in_an_outage_is_not_made_again(app: &TestApp) {
    let other = Other::claims(app, &prompt("chat")).await;
    other.held_and(Close::Release).await;
    let Claim { kid, key_hash: hash, .. } = &other.claim;
    let key = UsedKey { kid: Arc::clone(kid), hash: *hash };
    assert!(other.stores.idempotency.retire(&key, CALL).await.unwrap());
    for _ in 0..2 {
        let reply = ask(app, "once", &prompt("chat")).await;
        assert_eq!(reply.refusal(), (409, "idempotency_answer_gone".to_owned()));
        assert!(reply.text().contains(&CALL.simple().to_string()), "{reply:?}");
    }
    assert!(app.calls().await.is_empty());
}
