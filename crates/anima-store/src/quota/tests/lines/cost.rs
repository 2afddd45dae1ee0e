//! What a turn costs when many wait.
//!
//! The commands that a server runs for a turn are counted by itself; none of them is one whose work
//! grows with more than the logarithm of a line's length. The times are printed, for
//! `docs/limits.md`. Invariant: with 10,000 who wait a turn takes the commands that it takes with
//! 100.

use futures_util::future::join_all;
use tokio::time::Instant;

use super::*;
use crate::tests::redis_servers::Alone;

const TURNS: u128 = 50;
/// Joined at once, so that the test does not wait for each.
const AT_ONCE: usize = 200;
/// Commands whose work is that of one member, or of a bounded number, whatever the size of the key.
const BOUNDED: [&str; 19] = [
    "del",
    "evalsha",
    "exists",
    "get",
    "hdel",
    "hexists",
    "hget",
    "hincrby",
    "hset",
    "hsetnx",
    "pexpire",
    "publish",
    "set",
    "zadd",
    "zcard",
    "zrem",
    "zremrangebyscore",
    "zscore",
    "zrangebyscore",
];
/// Those that take a limit, which the scripts give them.
const LIMITED: [&str; 2] = ["zrange", "zrangebylex"];

/// Lets `count` calls wait for one slot that call 1 has: of one key, or each of its own.
async fn arrive(place: &Place, count: u128, of_one_key: bool) -> [Bound; 1] {
    let one = [slots(&place.app, Scope::App, 1)];
    assert!(admitted(&admit(place, 1, &one, 0).await));
    let ids: Vec<u128> = (2..count + 2).collect();
    for some in ids.chunks(AT_ONCE) {
        let joins = some.iter().map(async |id| {
            let tenant: Arc<str> = if of_one_key { "k".into() } else { format!("k{id}").into() };
            let asked = Joining { most: i64::MAX / 4, ..joining((*id, &tenant), &one) };
            let now = at(i64::try_from(*id).unwrap());
            let joined = place.store.join(&tag(place), asked, now).await.unwrap();
            assert!(matches!(joined, Joined::Waits(..)), "{joined:?}");
        });
        join_all(joins).await;
    }
    one
}

/// Ends the running call so many times, whose slot is the next one's then.
async fn turns(place: &Place, one: &[Bound]) {
    for id in 1..=TURNS {
        assert!(close(place, id, one, 1_000_000).await);
    }
    assert_eq!(absent(place, &[TURNS + 1, TURNS + 2], 1_000_000).await, [TURNS + 1]);
}

/// What the server ran for that many turns, and its microseconds for each.
async fn ran(
    server: &Alone,
    redis: &Redis,
    count: u128,
    of_one_key: bool,
) -> BTreeMap<String, u64> {
    let store = Arc::new(RedisQuotas::with_callers_time(redis.clone()));
    let place = Place { store, app: format!("{count}{of_one_key}").into() };
    let one = arrive(&place, count, of_one_key).await;
    let before = server.ran().await;
    turns(&place, &one).await;
    let after = server.ran().await;
    let since = |name: &String, (calls, us): (u64, u64)| {
        let (calls_before, us_before) = before.get(name).copied().unwrap_or_default();
        (calls - calls_before, us - us_before)
    };
    let used = after.iter().map(|(name, now)| (name.clone(), since(name, *now)));
    let used: BTreeMap<String, (u64, u64)> = used.filter(|(_, (calls, _))| *calls > 0).collect();
    let (runs, us) = used["evalsha"];
    eprintln!("{count} wait, of one key {of_one_key}: {} us a turn on the server", us / runs);
    let own = used.into_iter().map(|(name, (calls, _))| (name, calls));
    own.filter(|(name, _)| !["client|setinfo", "info", "ping", "time"].contains(&name.as_str()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_costs_with_ten_thousand_what_it_costs_with_a_hundred() {
    let Some(server) = Alone::start().await else { return };
    let timeout = Duration::from_secs(20);
    let redis = Redis::open(&server.url(), Options { timeout, ..Options::default() }).unwrap();
    assert!(redis.ready(Duration::from_secs(5)).await.unwrap());
    for of_one_key in [true, false] {
        // So that the server knows the scripts.
        ran(&server, &redis, 60, of_one_key).await;
        let few = ran(&server, &redis, 100, of_one_key).await;
        let many = ran(&server, &redis, 10_000, of_one_key).await;
        assert_eq!(few, many, "of one key: {of_one_key}");
        let known = |name: &&str| !BOUNDED.contains(name) && !LIMITED.contains(name);
        let other: Vec<&str> = many.keys().map(String::as_str).filter(known).collect();
        assert!(other.is_empty(), "commands whose work nobody has bounded: {other:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_limits_of_a_tag_are_looked_at_in_one_go() {
    let Some(server) = Alone::start().await else { return };
    let redis = Redis::open(&server.url(), Options::default()).unwrap();
    assert!(redis.ready(Duration::from_secs(5)).await.unwrap());
    let store = Arc::new(RedisQuotas::with_callers_time(redis));
    let place = Place { store, app: "acme".into() };
    let app = &place.app;
    let bounds = [
        slots(app, Scope::Key, 4),
        slots(app, Scope::TokenGroup, 4),
        slots(app, Scope::App, 4),
        rate(app, Scope::Key, 60, 60),
        rate(app, Scope::TokenGroup, 60, 60),
        rate(app, Scope::App, 60, 60),
    ];
    assert!(admitted(&admit(&place, 1, &bounds[..4], 0).await));
    let looks = async || server.ran().await.get("evalsha").map_or(0, |(calls, _)| *calls);
    let before = looks().await;
    let levels = place.store.levels(&bounds, at(0)).await.unwrap();
    assert_eq!(looks().await - before, 2, "of two tags");
    let used = levels.iter().map(|level| level.map_or(-1, |level| level.used));
    assert_eq!(used.collect::<Vec<_>>(), [1, 1, 1, 1, 0, 0]);
}

#[tokio::test]
async fn in_one_process_ten_thousand_wait_as_a_hundred_do() {
    for count in [100, 10_000] {
        let place = Place { store: Arc::new(MemoryQuotas::default()), app: "acme".into() };
        let one = arrive(&place, count, false).await;
        let began = Instant::now();
        turns(&place, &one).await;
        eprintln!("{count} wait in process: {:?} a turn", began.elapsed() / 50);
    }
}
