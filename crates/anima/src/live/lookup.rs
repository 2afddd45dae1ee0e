//! What a look-up of a key found, and how long that is remembered.
//!
//! Not the look-up. Invariant: nothing is remembered for longer than SPEC 5 allows (L1), and what
//! was read at one moment does not end at one moment, neither on a node nor on all of them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anima_store::keys::KeyRecord;

/// How long a key may be served from memory (SPEC 5: L1).
const KEY_TTL: Duration = Duration::from_secs(30);
/// How long "no such key" is remembered: long enough to stop a flood of wrong keys from reaching
/// the database, short enough for a key that was just made on another node (`reliability` 5).
const UNKNOWN_TTL: Duration = Duration::from_secs(5);
/// Up to one part of so many is taken off, for each key on each node another bit of it.
const SPREAD: u32 = 10;

/// What a look-up found.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) record: Option<Arc<KeyRecord>>,
    /// How many times keys had been forgotten when the store was asked.
    pub(super) forgotten: u64,
    /// It was in memory when no key had been forgotten since: whatever forgets it from then on also
    /// finds it.
    pub(super) confirmed: AtomicBool,
}

/// How long a look-up is remembered.
#[derive(Debug)]
pub(super) struct Remembered {
    /// On which node.
    pub(super) node: String,
}

impl Remembered {
    fn time(&self, kid: &str, is_known: bool) -> Duration {
        let longest = if is_known { KEY_TTL } else { UNKNOWN_TTL };
        let mut hasher = DefaultHasher::new();
        (&self.node, kid).hash(&mut hasher);
        let [part, ..] = hasher.finish().to_be_bytes();
        longest.saturating_sub(longest / SPREAD * u32::from(part) / u32::from(u8::MAX))
    }
}

impl moka::Expiry<Box<str>, Arc<Lookup>> for Remembered {
    fn expire_after_create(
        &self,
        kid: &Box<str>,
        found: &Arc<Lookup>,
        _now: std::time::Instant,
    ) -> Option<Duration> {
        Some(self.time(kid, found.record.is_some()))
    }

    /// What was invalidated stays in the table for a while, and what is read then takes its place:
    /// its time begins anew, or reads would end too soon when everything is down.
    fn expire_after_update(
        &self,
        kid: &Box<str>,
        found: &Arc<Lookup>,
        now: std::time::Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(kid, found, now)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use moka::Expiry as _;

    use super::*;

    #[test]
    fn keys_that_were_read_together_are_read_again_one_by_one() {
        let nodes = ["a", "b"].map(|node| Remembered { node: node.to_owned() });
        for (is_known, longest) in [(true, KEY_TTL), (false, UNKNOWN_TTL)] {
            let times = |node: &Remembered| -> BTreeSet<Duration> {
                (0..100).map(|n| node.time(&format!("k{n}"), is_known)).collect()
            };
            for node in &nodes {
                let times = times(node);
                assert!(times.len() > 50, "{times:?}");
                assert!(*times.last().unwrap() <= longest);
                assert!(*times.first().unwrap() >= longest * 9 / 10);
            }
        }
        assert_ne!(nodes[0].time("k", true), nodes[1].time("k", true));
    }

    /// moka keeps what was invalidated for a while, and takes what is read then for an update.
    #[test]
    fn a_key_that_is_read_again_has_its_whole_time_again() {
        let remembered = Remembered { node: "a".to_owned() };
        let again = |record: Option<KeyRecord>| {
            let record = record.map(Arc::new);
            let confirmed = AtomicBool::new(false);
            let found = Arc::new(Lookup { record, forgotten: 0, confirmed });
            let now = tokio::time::Instant::now().into_std();
            remembered.expire_after_update(&"7f".into(), &found, now, Some(Duration::from_secs(1)))
        };
        let record = KeyRecord { secrets: vec![], key: vec![], app: vec![] };
        assert_eq!(again(Some(record)), Some(remembered.time("7f", true)));
        assert_eq!(again(None), Some(remembered.time("7f", false)));
    }
}
