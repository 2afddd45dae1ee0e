//! A Redis that forgets: everything (FLUSHALL), or its last writes (a replica that takes over); and
//! a budget that is set on a key in use, of which no counters know either.
//!
//! Keys of this test alone are removed or put back as they were, which is what its counters see of
//! either. The ledger is a map here, written and read in later steps than the counters, as nodes
//! do. Whatever happens in which order, what is sent never passes the limit in the ledger, and at
//! rest the counters know of all of it (`reliability` 2.3).

use std::time::Duration;

use redis::cmd;
use tokio::time::Instant;

use super::*;
use crate::tests::redis_servers::Watched;

/// Longer than a failover takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What calls hold or were charged.
type Ledger = BTreeMap<u128, i64>;

/// Copies of keys.
type Copied = Vec<(String, Vec<u8>)>;

/// A call that has its ticket, and since when on its node's clock.
struct Coming {
    units: i64,
    asked: i64,
    has_budget: bool,
}

/// What a node is about to seed.
struct Reading {
    birth: i64,
    ripe: i64,
    read: Option<i64>,
}

/// The server that forgets.
struct Server {
    redis: Redis,
    pattern: String,
    run: u32,
    replica: Copied,
}

struct World {
    place: Place,
    /// `None`: counters of one process, which forget nothing.
    server: Option<Server>,
    /// The clocks of nodes, and how far the server's is from them.
    now: i64,
    skew: i64,
    coming: BTreeMap<u128, Coming>,
    /// Their holds are in the ledger; their budgets are to be asked again.
    asking: BTreeMap<u128, i64>,
    /// They were sent, or have ended.
    sent: Ledger,
    open: BTreeMap<u128, i64>,
    /// Three nodes.
    readings: [Option<Reading>; 3],
    has_budget: bool,
    seeds: usize,
    again: usize,
}

const LIMIT: i64 = 120;

impl World {
    fn of(place: Place, server: Option<Server>) -> Self {
        let (coming, asking, sent, open) = Default::default();
        let (now, skew, has_budget, seeds, again) = Default::default();
        let readings = [None, None, None];
        Self {
            place,
            server,
            now,
            skew,
            coming,
            asking,
            sent,
            open,
            readings,
            has_budget,
            seeds,
            again,
        }
    }

    fn money(&self, units: i64) -> Bound {
        purse(&self.place.app, Scope::App, LIMIT, units)
    }

    /// What a call asks for.
    fn bounds(&self, (units, has_budget): (i64, bool)) -> Vec<Bound> {
        let slots = slots(&self.place.app, Scope::App, 1_000);
        let money = has_budget.then(|| self.money(units));
        money.into_iter().chain([slots]).collect()
    }

    /// The counters' time.
    fn at(&self) -> i64 {
        (self.now + self.skew).max(0)
    }

    /// What the ledger says: also of calls that may yet be refused.
    fn ledger(&self) -> i64 {
        self.sent.values().chain(self.asking.values()).sum()
    }

    async fn admit(&mut self, id: u128, units: i64, node: usize) {
        let coming: i64 = self.coming.values().map(|coming| coming.units).sum();
        if !self.has_budget && self.ledger() + coming + units > LIMIT {
            // Nothing bounds them, and the budget that is set covers them as it happens.
            return;
        }
        let (bounds, at) = (self.bounds((units, self.has_budget)), self.at());
        match admit(&self.place, id, &bounds, at).await {
            Verdict::Admitted(_) => {
                let coming = Coming { units, asked: self.now, has_budget: self.has_budget };
                self.coming.insert(id, coming);
            }
            Verdict::Unseeded(_) => self.begin_to_seed(node).await,
            Verdict::Refused(..) => {}
        }
    }

    async fn begin_to_seed(&mut self, node: usize) {
        let birth = self.place.store.birth(&self.money(0), at(self.at())).await.unwrap();
        if let (Some(birth), None) = (birth, &self.readings[node]) {
            let ripe = self.now + birth.wait_us;
            self.readings[node] = Some(Reading { birth: birth.name, ripe, read: None });
        }
    }

    /// A node that is about to seed takes its next step.
    async fn seed(&mut self, node: usize) {
        let spent = self.ledger();
        let Some(reading) = &mut self.readings[node] else { return };
        if let Some(read) = reading.read {
            let seed = (reading.birth, read);
            self.seeds += usize::from(self.place.store.seed(&self.money(0), seed).await.unwrap());
            self.readings[node] = None;
        } else if reading.ripe <= self.now {
            reading.read = Some(spent);
        }
    }

    /// A call writes its hold, and is sent if that was not too late.
    fn hold(&mut self, nth: usize) {
        let ids: Vec<u128> = self.coming.keys().copied().collect();
        let Some(id) = ids.get(nth % ids.len().max(1)) else { return };
        let Coming { units, asked, has_budget } = self.coming.remove(id).unwrap();
        if self.now - asked < LATE_US {
            self.send(*id, units);
        } else if has_budget {
            self.asking.insert(*id, units);
        }
    }

    fn send(&mut self, id: u128, units: i64) {
        self.sent.insert(id, units);
        self.open.insert(id, units);
        let sent: i64 = self.sent.values().sum();
        assert!(sent <= LIMIT, "{sent} sent");
    }

    /// A call whose hold was late asks its budget again.
    async fn ask_again(&mut self, node: usize) {
        let Some((id, units)) = self.asking.pop_first() else { return };
        let (bounds, at) = ([self.money(units)], self.at());
        match extend(&self.place, id, &bounds, at).await {
            Verdict::Admitted(_) => self.send(id, units),
            Verdict::Refused(..) => {
                close(&self.place, id, &self.bounds((0, true)), at).await;
            }
            Verdict::Unseeded(_) => {
                self.asking.insert(id, units);
                self.begin_to_seed(node).await;
            }
        }
        self.again += 1;
    }

    async fn close(&mut self, units: i64) {
        let Some((id, held)) = self.open.pop_first() else { return };
        let used = units.min(held);
        self.sent.insert(id, used);
        close(&self.place, id, &self.bounds((used, true)), self.at()).await;
    }

    /// What the counters believe too much of what was spent.
    async fn drift(&self, us: i64) -> Option<(i64, i64)> {
        let seen = self.place.store.look(&self.money(0), at(us)).await.unwrap()?;
        let holds: Vec<u128> = seen.holds.iter().map(Uuid::as_u128).collect();
        let known = self.sent.iter().filter(|(id, _)| !holds.contains(id));
        Some((seen.mended, seen.spent - known.map(|(_, units)| units).sum::<i64>()))
    }

    /// Something happens to the server.
    async fn strike(&mut self, how: i64, skew: i64) {
        let Some(server) = &mut self.server else { return };
        match how {
            0 => server.forget().await,
            1 => server.replica = server.copy().await,
            _ => {
                server.fail_over().await;
                // Also backwards, as a server's clock may go after a fail-over.
                self.skew = skew;
                let store = RedisQuotas::with_callers_time(server.redis.clone());
                self.place.store = Arc::new(store.of_run(server.run));
            }
        }
    }

    /// All calls end, and what the counters know is compared.
    async fn comes_to_rest(&mut self) {
        self.coming.clear();
        while let Some((id, _)) = self.asking.pop_first() {
            close(&self.place, id, &self.bounds((0, true)), self.at()).await;
        }
        while !self.open.is_empty() {
            self.close(1).await;
        }
        let later = self.at() + LEASE;
        if let Some((mended, drift)) = self.drift(later).await {
            assert!(drift >= 0, "the counter knows of all that was spent, but {drift}");
            assert!(self.place.store.repair(&self.money(0), (mended, -drift)).await.unwrap());
            let spent: i64 = self.sent.values().sum();
            assert_eq!(used(&self.place, &self.money(0), later).await, spent);
        }
        let slots = &self.bounds((0, false))[0];
        assert_eq!(used(&self.place, slots, later).await, 0, "no slot is lost");
    }
}

impl Server {
    async fn keys(&self) -> Vec<String> {
        self.redis.command(cmd("KEYS").arg(&self.pattern)).await.unwrap()
    }

    async fn forget(&self) {
        for key in self.keys().await {
            let _gone: i64 = self.redis.command(cmd("DEL").arg(key)).await.unwrap();
        }
    }

    async fn copy(&self) -> Copied {
        let mut copy = vec![];
        for key in self.keys().await {
            let value: Option<Vec<u8>> = self.redis.command(cmd("DUMP").arg(&key)).await.unwrap();
            copy.extend(value.map(|value| (key, value)));
        }
        copy
    }

    /// Another process goes on with the copy.
    async fn fail_over(&mut self) {
        self.forget().await;
        for (key, value) in &self.replica {
            let mut restore = cmd("RESTORE");
            let _ok: String =
                self.redis.command(restore.arg(key).arg(600_000).arg(value)).await.unwrap();
        }
        self.run += 1;
    }
}

/// A random sequence, in the middle of which a budget is set on the key. Gives how often it was
/// seeded, and how often calls asked it again.
async fn live(mut world: World, seed: u64) -> (usize, usize) {
    let rng = SeededRng::new(seed);
    let pick = |most: u64| i64::try_from(rng.next_u64() % most).unwrap();
    let place = |most: u64| usize::try_from(pick(most)).unwrap();
    for id in 0..600_u128 {
        world.has_budget = id > 60;
        world.now += pick(if pick(30) == 0 { 2_000_000 } else { 15_000 });
        match pick(40) {
            0 => world.strike(pick(3), pick(3_000_000) - 1_500_000).await,
            1..=12 => world.admit(id, pick(12), place(3)).await,
            13..=19 => world.hold(place(100)),
            20..=29 => world.seed(place(3)).await,
            30..=33 => world.ask_again(place(3)).await,
            _ => world.close(pick(3)).await,
        }
    }
    world.comes_to_rest().await;
    (world.seeds, world.again)
}

#[tokio::test]
async fn a_redis_that_forgets_never_lets_a_budget_be_overspent() {
    let Some((_proxy, url, prefix)) = crate::tests::redis_proxy().await else { return };
    let pattern = format!("{prefix}:*");
    let timeout = Duration::from_secs(30);
    let options = Options { timeout, prefix, ..Options::default() };
    let redis = Redis::open(&url, options).unwrap();
    assert!(redis.ready(Duration::from_secs(5)).await.unwrap());
    let (mut seeds, mut again) = (0, 0);
    for seed in 0..30 {
        let store = Arc::new(RedisQuotas::with_callers_time(redis.clone()).of_run(1));
        let place = Place { store, app: format!("app{seed}").into() };
        let (redis, pattern) = (redis.clone(), pattern.clone());
        let server = Server { redis, pattern, run: 1, replica: vec![] };
        let (seeded, asked) = live(World::of(place, Some(server)), seed).await;
        (seeds, again) = (seeds + seeded, again + asked);
    }
    assert!(seeds > 60 && again > 30, "{seeds} {again}");
}

/// A running stream that asks for more before its next renewal keeps its slot.
#[tokio::test]
async fn a_call_that_asks_for_more_after_a_flush_takes_its_slot_again() {
    let Some((_proxy, url, prefix)) = crate::tests::redis_proxy().await else { return };
    let pattern = format!("{prefix}:*");
    let redis = Redis::open(&url, Options { prefix, ..Options::default() }).unwrap();
    assert!(redis.ready(Duration::from_secs(5)).await.unwrap());
    let store = Arc::new(RedisQuotas::with_callers_time(redis.clone()).of_run(1));
    let place = Place { store, app: "flushed".into() };
    let server = Server { redis, pattern, run: 1, replica: vec![] };
    let one = slots(&place.app, Scope::App, 1);
    let bounds = |units| [one.clone(), purse(&place.app, Scope::App, 100, units)];
    let renewed = async |us| {
        let ticket = Ticket { id: Uuid::from_u128(1), bounds: bounds(0).as_slice().into() };
        place.store.renew(&[ticket], at(us), LEASE).await.unwrap();
        used(&place, &one, us).await
    };
    seeded(&*place.store, &bounds(0)[1], 0).await;
    assert!(admitted(&admit(&place, 1, &bounds(10), 0).await));
    server.forget().await;
    seeded(&*place.store, &bounds(0)[1], 10).await;
    for us in [0, 1] {
        assert!(admitted(&extend(&place, 1, &bounds(20)[1..], us).await));
        assert_eq!(renewed(us).await, 1, "it runs");
    }
    assert!(!admitted(&admit(&place, 2, &bounds(1), 2).await), "its slot is not given twice");
    assert!(close(&place, 1, &bounds(15), 3).await);
    assert_eq!(used(&place, &one, 3).await, 0);
    assert_eq!(renewed(4).await, 0, "it has ended");
}

#[tokio::test]
async fn a_budget_that_is_set_on_a_key_in_use_is_never_overspent() {
    for seed in 0..200 {
        let place = Place { store: Arc::new(MemoryQuotas::default()), app: "acme".into() };
        assert!(live(World::of(place, None), seed).await.0 > 0, "it is seeded");
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
    seeded(&*place.store, &bounds[0], 40).await;
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
    seeded(&*place.store, &bounds[0], 70).await;
    assert_eq!(used(&place, &bounds[0], 0).await, 70, "and what calls held is part of it");
    // A call from before has been counted by the ledger.
    close(&place, 1, &bounds, 0).await;
    assert_eq!(used(&place, &bounds[0], 0).await, 70);
    assert!(admitted(&admit(&place, 3, &bounds, 0).await));
}
