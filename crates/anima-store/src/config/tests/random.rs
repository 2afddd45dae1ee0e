//! Random sequences of changes: whatever is written, no two windows of one row, or of one price
//! scope, overlap, and what has begun keeps its beginning.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::*;

/// Sequences per run: enough to reach every branch of `decide`, few enough for a disk that syncs.
const SEQUENCES: usize = 12;

/// One step: how long after the last one, at which row, and what.
#[derive(Debug, Clone)]
struct Step {
    pause: i64,
    row: usize,
    act: Act,
}

#[derive(Debug, Clone)]
enum Act {
    Write { scope: usize, from: Option<i64>, length: Option<i64> },
    Switch(bool),
    Delete,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop::option::of(-1_i64..12);
    let write = (0_usize..2, prop::option::of(-3_i64..12), length)
        .prop_map(|(scope, from, length)| Act::Write { scope, from, length });
    let act = prop_oneof![
        8 => write,
        1 => any::<bool>().prop_map(Act::Switch),
        1 => Just(Act::Delete),
    ];
    let step = (-1_i64..3, 0_usize..2, act);
    let step = step.prop_map(|(pause, row, act)| Step { pause, row, act });
    prop::collection::vec(step, 1..30)
}

pub(super) async fn no_sequence_leaves_two_versions_in_force(pair: Pair) {
    let config = Config { rng_seed: RngSeed::Fixed(5), ..Config::default() };
    let mut runner = TestRunner::new(config);
    for sequence in 0..SEQUENCES {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        play(&pair, sequence, &steps).await;
    }
}

async fn play(pair: &Pair, sequence: usize, steps: &[Step]) {
    let codes = [format!("s{sequence}-a"), format!("s{sequence}-b")];
    let mut now = NOW;
    let mut before = Vec::new();
    for step in steps {
        now = Timestamp::from_micros(now.micros() + step.pause);
        act(pair, sequence, &codes[step.row], &step.act, now).await;
        let mut after = Vec::new();
        for code in &codes {
            after.extend(pair.config.versions(Resource::Price, code).await.unwrap());
        }
        judge(&before, &after, now, steps);
        before = after;
    }
}

async fn act(pair: &Pair, sequence: usize, code: &str, act: &Act, now: Timestamp) {
    let at = |offset: i64| Timestamp::from_micros(now.micros() + offset);
    let result = match act {
        Act::Write { scope, from, length } => {
            let start = from.map(at);
            let end = length.map(|l| Timestamp::from_micros(start.unwrap_or(now).micros() + l));
            let version = NewVersion {
                scope: Some(format!("s{sequence}|{scope}")),
                effective_from: start,
                effective_to: end,
                ..draft(Resource::Price, code, json!({"scope": scope}))
            };
            match pair.create(version.clone(), now).await {
                Err(Error::Exists(_)) => {
                    let rows = pair.config.versions(Resource::Price, code).await.unwrap();
                    pair.add(rows[0].version_no, version, now).await
                }
                other => other,
            }
        }
        Act::Switch(enabled) => pair.switch(Resource::Price, code, *enabled, now).await,
        Act::Delete => pair.delete(Resource::Price, code, None, now).await,
    };
    match result {
        Ok(_) | Err(Error::NotFound(_)) => {}
        // The database has the last word, but the store is to know first.
        Err(Error::Overlap(text)) => assert!(!text.contains("database"), "{act:?}: {text}"),
        Err(other) => panic!("{act:?}: {other}"),
    }
}

fn judge(before: &[Row], after: &[Row], now: Timestamp, steps: &[Step]) {
    let empty = |r: &Row| r.effective_to == Some(r.effective_from);
    let end = |r: &Row| r.effective_to.unwrap_or(Timestamp::MAX);
    for (n, a) in after.iter().enumerate().filter(|(_, a)| !empty(a)) {
        for b in after.iter().skip(n + 1).filter(|b| !empty(b)) {
            let related = a.code == b.code || a.body == b.body;
            let meet = a.effective_from < end(b) && b.effective_from < end(a);
            assert!(!(related && meet), "{a:?} meets {b:?} in {steps:?}");
        }
    }
    for old in before {
        let same = |r: &&Row| r.code == old.code && r.version_no == old.version_no;
        let new = after.iter().find(same).unwrap();
        assert_eq!((new.effective_from, &new.body), (old.effective_from, &old.body));
        if end(old) <= now {
            assert_eq!(new.effective_to, old.effective_to, "history was rewritten in {steps:?}");
        }
    }
}
