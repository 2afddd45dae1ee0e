//! The contract of permits, run against both backends.

use super::redis::RedisProbes;
use super::*;
use crate::redis::{Options, Redis};

/// Both backends, as far as there is a server.
async fn both() -> Vec<Arc<dyn ProbeStore>> {
    let mut backends: Vec<Arc<dyn ProbeStore>> = vec![Arc::new(MemoryProbes::default())];
    if let Some((url, prefix)) = crate::tests::redis() {
        let redis = Redis::open(&url, Options { prefix, ..Options::default() }).unwrap();
        assert!(redis.ready(std::time::Duration::from_secs(5)).await.unwrap());
        backends.push(Arc::new(RedisProbes(redis)));
    }
    backends
}

fn at(ms: i64) -> Timestamp {
    Timestamp::default().plus_millis(1_000_000 + ms)
}

fn asked(epoch: u64, token: u64, (now, until): (i64, i64), limit: u32) -> Asked {
    Asked { epoch, token, now: at(now), until: at(until), limit }
}

fn passed(epoch: u64, token: u64) -> Returned {
    Returned { epoch, token, passed: true, ends: false }
}

/// Numbers of openings are microseconds since 1970, which must fit what a script counts in.
const EPOCH: u64 = 1_900_000_000_000_000;

#[tokio::test]
async fn no_more_are_out_than_the_limit_and_every_outcome_gives_one_back() {
    for probes in both().await {
        let take =
            async |token| probes.take("a", asked(EPOCH, token, (0, 9_000), 2)).await.unwrap();
        assert!(take(1).await && take(2).await && !take(3).await);
        let neutral = Returned { passed: false, ..passed(EPOCH, 1) };
        assert_eq!(probes.give_back("a", neutral).await.unwrap(), 0);
        assert!(take(3).await && !take(4).await);
        assert_eq!(probes.give_back("a", passed(EPOCH, 3)).await.unwrap(), 1);
        assert!(!take(5).await, "one is out and one has passed");
        assert_eq!(probes.give_back("a", passed(EPOCH, 2)).await.unwrap(), 2);
        assert_eq!(probes.give_back("a", passed(EPOCH, 2)).await.unwrap(), 2, "it was back");
        let other = probes.take("{b}", asked(EPOCH, 1, (0, 9_000), 1)).await.unwrap();
        assert!(other, "circuits do not share permits");
    }
}

#[tokio::test]
async fn a_failed_probe_ends_its_opening_on_every_node() {
    for probes in both().await {
        let take = async |epoch, token| {
            probes.take("c", asked(epoch, token, (0, 9_000), 3)).await.unwrap()
        };
        assert!(take(EPOCH, 1).await && take(EPOCH, 2).await);
        let failed = Returned { passed: false, ends: true, ..passed(EPOCH, 1) };
        assert_eq!(probes.give_back("c", failed).await.unwrap(), 0);
        assert!(!take(EPOCH, 3).await, "a node that has not heard of it gets none");
        assert!(take(EPOCH + 7, 4).await && take(EPOCH + 7, 5).await);
        assert!(!take(EPOCH + 7, 6).await, "a probe of the opening before is still out");
        assert_eq!(probes.give_back("c", passed(EPOCH, 2)).await.unwrap(), 0, "it says nothing");
    }
}

#[tokio::test]
async fn the_permit_of_a_node_that_died_expires() {
    for probes in both().await {
        let take = async |token, now, until| {
            probes.take("d", asked(EPOCH, token, (now, until), 1)).await.unwrap()
        };
        assert!(take(1, 0, 10).await && !take(2, 9, 20).await);
        assert!(take(2, 10, 20).await);
        assert_eq!(probes.give_back("d", passed(EPOCH, 1)).await.unwrap(), 0);
        assert_eq!(probes.give_back("d", passed(EPOCH, 2)).await.unwrap(), 1);
    }
}

/// A shared backend that is away.
#[derive(Debug)]
struct Away;

#[async_trait]
impl ProbeStore for Away {
    async fn take(&self, _circuit: &str, _asked: Asked) -> Result<bool, Error> {
        Err(Error::Down)
    }

    async fn give_back(&self, _circuit: &str, _returned: Returned) -> Result<u32, Error> {
        Err(Error::Down)
    }
}

#[tokio::test]
async fn without_the_others_a_node_counts_its_own() {
    let probes = Probes::over(Arc::new(Away));
    let ask = |token| asked(EPOCH, token, (0, 9_000), 1);
    assert!(probes.take("e", ask(1)).await && !probes.take("e", ask(2)).await);
    assert_eq!(probes.give_back("e", ask(1), passed(EPOCH, 1)).await, 1);
}
