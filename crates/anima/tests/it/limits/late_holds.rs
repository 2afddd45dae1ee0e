//! Calls whose holds are in the ledger so late that they ask their budgets again.
//!
//! A trigger in the database keeps holds back for as long as a table has a row, and for a moment
//! longer, while the keys of this test alone are taken out of Redis. What is booked at the end is
//! checked by the books themselves.

use anima_core::money::{Currency, Money};
use anima_simulator::proxy::Proxy;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::limited;
use crate::testapp::{Backend, TestApp, eventually, nano, redis_behind_proxy};

/// A hold that was kept back is late: longer after its ticket than a quarter of a second.
const KEPT_BACK: [&str; 3] = [
    "CREATE TABLE gate (is_shut boolean)",
    "CREATE FUNCTION kept_back() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
         IF EXISTS (SELECT FROM gate) THEN
             WHILE EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.01); END LOOP;
             PERFORM pg_sleep(0.26);
         END IF;
         RETURN NULL;
     END $$",
    "CREATE TRIGGER kept_back BEFORE INSERT ON hold
     FOR EACH STATEMENT EXECUTE FUNCTION kept_back()",
];

struct World {
    app: TestApp,
    redis: Proxy,
    prefix: String,
}

impl World {
    async fn start() -> Option<Self> {
        let place = Backend::Postgres.place().await?;
        let (redis, url) = redis_behind_proxy().await?;
        let prefix = format!("anima_late_{}_{}", std::process::id(), redis.address().port());
        let settings =
            format!("redis_url = \"{url}\"\nredis_prefix = \"{prefix}\"\nredis_timeout_ms = 5000");
        let app = Box::pin(TestApp::start(place, &settings)).await;
        for statement in KEPT_BACK {
            app.place.run(statement).await;
        }
        Some(Self { app, redis, prefix })
    }

    /// Redis loses all that this test knows there.
    async fn forgets(&self) {
        let mut redis = tokio::net::TcpStream::connect(self.redis.address()).await.unwrap();
        let all = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do";
        let eval =
            format!("EVAL \"{all} redis.call('DEL', key) end return 1\" 0 {}*\r\n", self.prefix);
        redis.write_all(eval.as_bytes()).await.unwrap();
        let mut done = [0; 4];
        redis.read_exact(&mut done).await.unwrap();
        assert_eq!(&done, b":1\r\n");
    }

    /// What calls hold of the only budget of a key, when they hold something.
    async fn held(&self, key: &str) -> i64 {
        eventually("it has its ticket", async || {
            let shown = self.app.admin(Method::GET, &format!("{key}/limits"), &Value::Null).await;
            shown["items"][0]["held"].as_str().map(nano).filter(|held| *held > 0)
        })
        .await
    }

    async fn shut(&self) {
        self.app.place.run("INSERT INTO gate VALUES (true)").await;
    }

    async fn open(&self) {
        self.app.place.run("DELETE FROM gate").await;
    }

    /// A key with a budget for so much.
    async fn key(&self, code: &str, units: i64) -> (String, String) {
        let limit = Money::new(units, Currency::USD).to_string();
        let limits = json!([{"kind": "cost", "window": "1d", "limit": limit}]);
        limited(&self.app, code, limits).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_late_hold_is_counted_once_where_redis_lost_its_budget() {
    let Some(world) = World::start().await else { return };
    let app = &world.app;
    let mut units = 1_000_000_000;
    for code in ["wide", "narrow"] {
        let (path, key) = world.key(code, units).await;
        let before = app.balance().await;
        world.shut().await;
        let (reply, held) = tokio::join!(app.ask_as(&key, "chat"), async {
            let held = world.held(&path).await;
            world.forgets().await;
            world.open().await;
            held
        });
        assert_eq!(reply.status, 200, "{code}: {held} of {units} held, {reply:?}");
        app.settled().await;
        if code == "narrow" {
            let spent = before - app.balance().await;
            eventually("the budget knows what was spent", async || {
                let shown = app.admin(Method::GET, &format!("{path}/limits"), &Value::Null).await;
                (shown["items"][0]["used"].as_str().map(nano) == Some(spent)).then_some(())
            })
            .await;
        }
        // For one call, and not for two.
        units = held * 3 / 2;
    }
    // Of two that are late the budget covers one, and the other's hold is given back.
    let (path, key) = world.key("one", units).await;
    world.shut().await;
    // One that is made costs less than it held: it must still run when the other asks again.
    app.fault("latency:3000");
    let (forgot, forgotten) = tokio::sync::oneshot::channel();
    let (first, second, ()) = tokio::join!(
        app.ask_as(&key, "chat"),
        async {
            world.held(&path).await;
            world.forgets().await;
            forgot.send(()).unwrap();
            app.ask_as(&key, "chat").await
        },
        async {
            // What is held from here on is the other call's.
            forgotten.await.unwrap();
            world.held(&path).await;
            world.open().await;
        }
    );
    assert_eq!(first.refusal(), (429, "insufficient_quota".to_owned()), "{first:?}");
    assert_eq!(second.status, 200, "{second:?}");
    Box::pin(world.app.finish()).await;
}
