//! The connection layer against a real server, behind a proxy that fails.

use std::time::Duration;

use anima_simulator::proxy::{Mode, Proxy};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;
use crate::redis_keys;
use crate::tests::redis_proxy;

mod topologies; // Sentinel and Cluster

async fn open() -> Option<(Proxy, Redis)> {
    let (proxy, url, prefix) = redis_proxy().await?;
    let redis = Redis::open(&url, Options { prefix, ..Options::default() }).unwrap();
    assert!(redis.ready(Duration::from_secs(5)).await.unwrap());
    Some((proxy, redis))
}

async fn becomes(redis: &Redis, up: bool) {
    let mut health = redis.health();
    let changed = tokio::time::timeout(Duration::from_secs(5), health.wait_for(|h| *h == up)).await;
    changed.expect("within five seconds").unwrap();
}

async fn echo(redis: &Redis) -> Result<String, Error> {
    let mut command = ::redis::cmd("ECHO");
    command.arg("hello");
    redis.command(&command).await
}

#[tokio::test]
async fn a_cut_connection_is_replaced_without_a_restart() {
    let Some((proxy, redis)) = open().await else { return };
    assert_eq!(echo(&redis).await.unwrap(), "hello");
    proxy.set(Mode::Cut);
    becomes(&redis, false).await;
    let began = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(echo(&redis).await, Err(Error::Down));
    }
    // Each would wait for its bound otherwise. No tighter: the machine may be at other things.
    assert!(began.elapsed() < redis.timeout() * 100, "a thousand refusals take no time");
    proxy.set(Mode::Open);
    becomes(&redis, true).await;
    assert_eq!(echo(&redis).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_connection_that_breaks_once_costs_a_command_at_most_its_bound() {
    let Some((proxy, redis)) = open().await else { return };
    proxy.cut(Duration::ZERO, Duration::from_millis(1)).await;
    let began = Instant::now();
    while echo(&redis).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_silent_network_is_noticed_within_the_bounds() {
    let Some((proxy, redis)) = open().await else { return };
    proxy.set(Mode::Silent);
    let mut unknown = 0;
    loop {
        let began = Instant::now();
        let error = echo(&redis).await.unwrap_err();
        assert!(began.elapsed() < redis.timeout() + Duration::from_secs(2));
        match error {
            Error::Unknown(_) => unknown += 1,
            Error::Down => break,
            Error::Refused(why) => panic!("{why}"),
        }
    }
    assert!(unknown <= Options::default().failures_max, "{unknown}");
    proxy.set(Mode::Open);
    becomes(&redis, true).await;
    assert_eq!(echo(&redis).await.unwrap(), "hello");
}

#[tokio::test]
async fn an_idle_node_notices_too() {
    let Some((proxy, redis)) = open().await else { return };
    proxy.set(Mode::Silent);
    becomes(&redis, false).await;
}

#[tokio::test]
async fn a_server_that_is_away_at_the_start_stops_nothing() {
    let Some((proxy, url, prefix)) = redis_proxy().await else { return };
    proxy.set(Mode::Cut);
    let redis = Redis::open(&url, Options { prefix, ..Options::default() }).unwrap();
    assert!(!redis.ready(Duration::from_millis(300)).await.unwrap());
    assert_eq!(echo(&redis).await, Err(Error::Down));
    proxy.set(Mode::Open);
    becomes(&redis, true).await;
    assert_eq!(echo(&redis).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_refused_login_is_told_apart_from_a_server_that_is_away() {
    let Some((_proxy, url, _)) = redis_proxy().await else { return };
    let url = url.replace("://", "://nobody:wrong@");
    let redis = Redis::open(&url, Options::default()).unwrap();
    let error = redis.ready(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
}

#[tokio::test]
async fn a_refused_command_does_not_open_the_breaker() {
    let Some((_proxy, redis)) = open().await else { return };
    for _ in 0..20 {
        let refused = redis.command::<()>(&::redis::cmd("NOSUCHCOMMAND")).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    }
    assert!(redis.is_up());
}

#[tokio::test]
async fn a_script_that_the_server_does_not_know_is_handed_over() {
    let Some((_proxy, redis)) = open().await else { return };
    // A text that no other test has: nobody has loaded it.
    let text = format!("return {{KEYS[1], ARGV[1], ARGV[2], '{}'}}", redis.0.options.prefix);
    let script = ::redis::Script::new(&text);
    for _ in 0..2 {
        let keys = [redis_keys::of_test("a")];
        let [key, first, second, _]: [String; 4] =
            redis.script(&script, &keys, vec!["x", "y"]).await.unwrap();
        assert_eq!(key, redis.key(&keys[0]));
        assert_eq!((first.as_str(), second.as_str()), ("x", "y"));
    }
}

#[tokio::test]
async fn a_pipeline_is_one_answer() {
    let Some((_proxy, redis)) = open().await else { return };
    let key = redis.key(&redis_keys::of_test("n"));
    let mut pipe = ::redis::pipe();
    pipe.atomic().incr(&key, 2).incr(&key, 3).pexpire(&key, 1_000).ignore();
    let counts: (i64, i64) = redis.pipeline(&pipe).await.unwrap();
    assert_eq!(counts, (2, 5));
}

/// A server that says this to INFO, or hangs up on who asks.
async fn who_says(words: Option<&'static str>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let (from, mut to) = client.into_split();
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(head)) = lines.next_line().await {
            let parts: usize = head.trim_start_matches('*').parse().unwrap();
            let mut said = Vec::new();
            for _ in 0..2 * parts {
                said.push(lines.next_line().await.unwrap().unwrap());
            }
            let answer = match said.get(1).map(String::as_str) {
                Some("PING") => "+PONG\r\n",
                Some("INFO") => match words {
                    Some(words) => words,
                    None => return,
                },
                _ => "+OK\r\n",
            };
            to.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn a_link_whose_server_did_not_say_which_one_it_is_is_not_handed_out() {
    let run = async |words| {
        let address = Address::parse(&who_says(words).await).unwrap();
        let bounds = (Duration::from_secs(5), Duration::from_secs(5));
        link::connect(&address, bounds).await.map(|(_, server)| server.run)
    };
    assert!(run(None).await.is_err(), "it hung up");
    assert!(run(Some("-BUSY a script runs\r\n")).await.is_err(), "it will say so later");
    assert_eq!(run(Some("-NOPERM not for you\r\n")).await.unwrap(), 0);
    assert_eq!(run(Some("+redis_version:7\r\n")).await.unwrap(), 0);
    let [one, other] = ["+run_id:a1\r\n", "+run_id:b2\r\n"];
    let (one, other) = (run(Some(one)).await.unwrap(), run(Some(other)).await.unwrap());
    assert!(one != 0 && other != 0 && one != other, "{one} {other}");
}
