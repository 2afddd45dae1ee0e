//! A Redis that forgets: everything (FLUSHALL), or its last writes (a replica that takes over).
//!
//! Keys of this test alone are removed or put back as they were, which is what its counters see of
//! either. The ledger is a map here. Whatever happens in which order, the ledger never passes the
//! limit, and at rest the counters agree with it again (`reliability` 2.3).

use std::time::Duration;

use redis::cmd;
use tokio::time::Instant;

use super::*;
use crate::tests::redis_servers::Watched;

/// Longer than a failover takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What calls hold or were charged.
type Ledger = BTreeMap<u128, i64>;

struct World {
    place: Place,
    redis: Redis,
    pattern: String,
    ledger: Ledger,
    open: BTreeMap<u128, i64>,
}

const LIMIT: i64 = 500;

impl World {
    fn money(&self, units: i64) -> Bound {
        purse(&self.place.app, Scope::App, LIMIT, units)
    }

    fn bounds(&self, units: i64) -> [Bound; 2] {
        [self.money(units), slots(&self.place.app, Scope::App, 1_000)]
    }

    fn spent(&self) -> i64 {
        self.ledger.values().sum()
    }

    async fn admit(&mut self, id: u128, units: i64, now: i64) {
        let bounds = self.bounds(units);
        let mut verdict = admit(&self.place, id, &bounds, now).await;
        if matches!(verdict, Verdict::Unseeded(_)) {
            self.place.store.seed(&self.money(0), self.spent()).await.unwrap();
            verdict = admit(&self.place, id, &bounds, now).await;
        }
        if admitted(&verdict) {
            self.ledger.insert(id, units);
            self.open.insert(id, units);
        }
        assert!(self.spent() <= LIMIT, "{} spent", self.spent());
    }

    async fn close(&mut self, units: i64, now: i64) {
        let Some((id, held)) = self.open.pop_first() else { return };
        let used = units.min(held);
        self.ledger.insert(id, used);
        close(&self.place, id, &self.bounds(used), now).await;
    }

    /// What the counters believe too much of what was spent.
    async fn drift(&self, now: i64) -> Option<(i64, i64)> {
        let seen = self.place.store.look(&self.money(0), at(now)).await.unwrap()?;
        let holds: Vec<u128> = seen.holds.iter().map(Uuid::as_u128).collect();
        let known = self.ledger.iter().filter(|(id, _)| !holds.contains(id));
        Some((seen.mended, seen.spent - known.map(|(_, units)| units).sum::<i64>()))
    }

    /// As a node does before it believes another server.
    async fn raise(&self, now: i64) {
        if let Some((mended, drift)) = self.drift(now).await.filter(|(_, drift)| *drift < 0) {
            assert!(self.place.store.repair(&self.money(0), (mended, -drift)).await.unwrap());
        }
    }

    async fn keys(&self) -> Vec<String> {
        self.redis.command(cmd("KEYS").arg(&self.pattern)).await.unwrap()
    }

    async fn forget(&self) {
        for key in self.keys().await {
            let _gone: i64 = self.redis.command(cmd("DEL").arg(key)).await.unwrap();
        }
    }

    async fn copy(&self) -> Vec<(String, Vec<u8>)> {
        let mut copy = vec![];
        for key in self.keys().await {
            let value: Option<Vec<u8>> = self.redis.command(cmd("DUMP").arg(&key)).await.unwrap();
            copy.extend(value.map(|value| (key, value)));
        }
        copy
    }

    async fn fail_over(&self, replica: &[(String, Vec<u8>)]) {
        self.forget().await;
        for (key, value) in replica {
            let mut restore = cmd("RESTORE");
            let _ok: String =
                self.redis.command(restore.arg(key).arg(600_000).arg(value)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_redis_that_forgets_never_lets_a_budget_be_overspent() {
    let Some((_proxy, url, prefix)) = crate::tests::redis_proxy().await else { return };
    let pattern = format!("{prefix}:*");
    let timeout = Duration::from_secs(30);
    let options = Options { timeout, prefix, ..Options::default() };
    let redis = Redis::open(&url, options).unwrap();
    assert!(redis.ready(Duration::from_secs(5)).await.unwrap());
    for seed in 0..4 {
        let rng = SeededRng::new(seed);
        let pick = |most: u64| i64::try_from(rng.next_u64() % most).unwrap();
        let store = Arc::new(RedisQuotas::with_callers_time(redis.clone()));
        let place = Place { store, app: format!("app{seed}").into() };
        let (ledger, open) = Default::default();
        let (redis, pattern) = (redis.clone(), pattern.clone());
        let mut world = World { place, redis, pattern, ledger, open };
        let (mut now, mut replica) = (0, vec![]);
        for id in 0..250_u128 {
            // Also backwards, as a server's clock may go after a fail-over.
            now = (now + pick(4_000_000) - 500_000).max(0);
            match pick(40) {
                0 => world.forget().await,
                1 | 2 => replica = world.copy().await,
                3 => {
                    world.fail_over(&replica).await;
                    world.raise(now).await;
                }
                4..=22 => world.admit(id, pick(40), now).await,
                _ => world.close(pick(25), now).await,
            }
        }
        while !world.open.is_empty() {
            world.close(pick(25), now).await;
        }
        let later = now + LEASE;
        let (_, before) = world.drift(later).await.unwrap_or_default();
        assert!(before >= 0, "the counter knows of all that was spent");
        if let Some((mended, drift)) = world.drift(later).await {
            assert!(world.place.store.repair(&world.money(0), (mended, -drift)).await.unwrap());
            assert_eq!(used(&world.place, &world.money(0), later).await, world.spent());
        }
        assert_eq!(used(&world.place, &world.bounds(0)[1], later).await, 0, "no slot is lost");
    }
}

/// What a primary was told last may not have reached the replica that takes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_over_knows_no_budget_until_the_ledger_says_it() {
    let Some(servers) = Watched::start().await else { return };
    let redis = Redis::open(&servers.url(), Options::default()).unwrap();
    assert!(redis.ready(PATIENCE).await.unwrap());
    let store = Arc::new(RedisQuotas::new(redis, Uuid::from_u128(1), Arc::default()));
    let place = Place { store, app: "failed-over".into() };
    let bounds = [purse(&place.app, Scope::App, 100, 10)];
    place.store.seed(&bounds[0], 40).await.unwrap();
    assert!(admitted(&admit(&place, 1, &bounds, 0).await));
    assert_eq!(used(&place, &bounds[0], 0).await, 50);
    servers.fail_over().await;
    let began = Instant::now();
    loop {
        // Until the node has noticed, the old primary answers, or nobody does.
        let ask = Ask { id: Uuid::from_u128(2), bounds: &bounds, now: at(0), lease_us: LEASE };
        match place.store.admit(ask).await {
            Ok(Verdict::Unseeded(_)) => break,
            Ok(_) | Err(_) => assert!(began.elapsed() < PATIENCE, "it goes on as before"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    place.store.seed(&bounds[0], 70).await.unwrap();
    assert_eq!(used(&place, &bounds[0], 0).await, 70, "and what calls held is part of it");
    // A call from before has been counted by the ledger.
    close(&place, 1, &bounds, 0).await;
    assert_eq!(used(&place, &bounds[0], 0).await, 70);
    assert!(admitted(&admit(&place, 3, &bounds, 0).await));
}
