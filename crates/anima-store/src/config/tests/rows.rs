//! Rules about one row: versions, windows, the switch, deletion.

use anima_core::config::effective;

use super::*;

const ALIAS: Resource = Resource::Alias;

fn alias(code: &str, model: &str) -> NewVersion {
    draft(ALIAS, code, body(model))
}

fn from(seconds: i64, version: NewVersion) -> NewVersion {
    NewVersion { effective_from: Some(later(seconds)), ..version }
}

/// The model of the alias that is in force, per instant; `None` when there is none.
async fn models(pair: &Pair, now: Timestamp, instants: &[Timestamp]) -> Vec<Option<String>> {
    let tables = pair.config.tables(now).await.unwrap();
    let model = |at: &Timestamp| {
        let row = effective(&tables.aliases, *at).get("a").copied().cloned();
        row.map(|r| r.body.routes[0].model.clone())
    };
    instants.iter().map(model).collect()
}

/// Number, start and end of each version, oldest first, in seconds after the beginning.
async fn windows(pair: &Pair, code: &str) -> Vec<(i64, i64, Option<i64>)> {
    let seconds = |at: Timestamp| at.since(NOW) / 1_000_000;
    let mut rows = pair.config.versions(ALIAS, code).await.unwrap();
    rows.reverse();
    rows.iter()
        .map(|r| (r.version_no, seconds(r.effective_from), r.effective_to.map(seconds)))
        .collect()
}

pub(super) async fn a_new_row_is_in_force_at_once(pair: Pair) {
    assert_eq!(pair.config.rev().await.unwrap(), 0);
    let row = pair.create(alias("a", "m1"), NOW).await.unwrap();
    assert_eq!((row.version_no, row.effective_from, row.effective_to), (1, NOW, None));
    assert!(row.enabled);
    assert_eq!(row.body, body("m1"));
    assert_eq!(pair.config.rev().await.unwrap(), 1);
    assert_eq!(pair.config.versions(ALIAS, "a").await.unwrap(), [row]);
    assert_eq!(models(&pair, NOW, &[NOW]).await, [Some("m1".to_owned())]);
    assert_eq!(pair.config.tables(NOW).await.unwrap().rev, 1);
}

pub(super) async fn a_code_exists_once(pair: Pair) {
    pair.create(alias("a", "m1"), NOW).await.unwrap();
    let again = pair.create(alias("a", "m2"), later(1)).await;
    assert_eq!(again, Err(Error::Exists(ALIAS)));
    assert_eq!(pair.config.rev().await.unwrap(), 1);
    // Another resource is another name space.
    let group = draft(Resource::TokenGroup, "a", json!({}));
    pair.create(group, later(1)).await.unwrap();
}

pub(super) async fn a_stale_version_is_refused_with_the_latest(pair: Pair) {
    pair.create(alias("a", "m1"), NOW).await.unwrap();
    let second = pair.add(1, alias("a", "m2"), later(1)).await.unwrap();
    assert_eq!(second.version_no, 2);
    let stale = pair.add(1, alias("a", "m3"), later(2)).await;
    assert_eq!(stale, Err(Error::VersionConflict(Box::new(second))));
    assert_eq!(pair.config.rev().await.unwrap(), 2);
    assert_eq!(pair.config.audit(None, 10).await.unwrap().len(), 2);
    let unknown = pair.add(1, alias("b", "m"), later(2)).await;
    assert_eq!(unknown, Err(Error::NotFound(ALIAS)));
}

pub(super) async fn of_parallel_writers_of_one_version_one_wins(pair: Pair) {
    pair.create(alias("a", "m"), NOW).await.unwrap();
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let pair = pair.clone();
            tokio::spawn(async move { pair.add(1, alias("a", &format!("m{n}")), later(n)).await })
        })
        .collect();
    let mut won = Vec::new();
    let mut lost = 0;
    for writer in writers {
        match writer.await.unwrap() {
            Ok(row) => won.push(row),
            Err(Error::VersionConflict(latest)) => {
                assert_eq!(latest.version_no, 2);
                lost += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((won.len(), lost), (1, 7));
    let latest = pair.config.versions(ALIAS, "a").await.unwrap();
    assert_eq!(latest[0], won[0]);
    assert_eq!(pair.config.rev().await.unwrap(), 2);
}

pub(super) async fn revisions_have_no_gap(pair: Pair) {
    let writers: Vec<_> = (0..12)
        .map(|n| {
            let pair = pair.clone();
            let code = format!("a{}", n % 8);
            tokio::spawn(async move { pair.create(alias(&code, "m"), NOW).await.is_ok() })
        })
        .collect();
    let mut written = 0;
    for writer in writers {
        written += i64::from(writer.await.unwrap());
    }
    assert_eq!(written, 8);
    assert_eq!(pair.config.rev().await.unwrap(), written);
}

pub(super) async fn scheduled_versions_take_over_at_their_instants(pair: Pair) {
    pair.create(alias("a", "m1"), NOW).await.unwrap();
    pair.add(1, from(10, alias("a", "m2")), later(1)).await.unwrap();
    pair.add(2, from(20, alias("a", "m3")), later(2)).await.unwrap();
    assert_eq!(windows(&pair, "a").await, [(1, 0, Some(10)), (2, 10, Some(20)), (3, 20, None)]);
    let just_before = Timestamp::from_micros(later(10).micros() - 1);
    let seen = models(&pair, later(3), &[later(3), just_before, later(10), later(20)]).await;
    let named = |n: &str| Some(n.to_owned());
    assert_eq!(seen, [named("m1"), named("m1"), named("m2"), named("m3")]);
    // What has ended is no longer loaded.
    assert_eq!(pair.config.tables(later(10)).await.unwrap().aliases.len(), 2);
    // A row may also begin in the future.
    pair.create(from(30, alias("b", "m")), later(2)).await.unwrap();
    let tables = pair.config.tables(later(2)).await.unwrap();
    assert!(!effective(&tables.aliases, later(2)).contains_key("b"));
    assert!(effective(&tables.aliases, later(30)).contains_key("b"));
}

pub(super) async fn a_change_ends_where_the_next_scheduled_version_begins(pair: Pair) {
    pair.create(alias("a", "m1"), NOW).await.unwrap();
    pair.add(1, from(10, alias("a", "m2")), later(1)).await.unwrap();
    let now = pair.add(2, alias("a", "m3"), later(5)).await.unwrap();
    assert_eq!(now.effective_to, Some(later(10)));
    assert_eq!(windows(&pair, "a").await, [(1, 0, Some(5)), (2, 10, None), (3, 5, Some(10))]);
    // An end of its own leaves a gap, which is what it says.
    let short = NewVersion { effective_to: Some(later(8)), ..alias("a", "m4") };
    pair.add(3, short, later(6)).await.unwrap();
    let seen = models(&pair, later(6), &[later(7), later(9), later(10)]).await;
    assert_eq!(seen, [Some("m4".to_owned()), None, Some("m2".to_owned())]);
}

pub(super) async fn a_window_over_a_scheduled_version_is_refused(pair: Pair) {
    pair.create(alias("a", "m1"), NOW).await.unwrap();
    pair.add(1, from(10, alias("a", "m2")), later(1)).await.unwrap();
    let wide = NewVersion { effective_to: Some(later(11)), ..alias("a", "m3") };
    let Err(Error::Overlap(text)) = pair.add(2, wide, later(2)).await else {
        panic!("not refused");
    };
    assert!(text.contains("version 2"), "{text}");
    let empty = NewVersion { effective_to: Some(later(2)), ..alias("a", "m3") };
    assert!(matches!(pair.add(2, empty, later(2)).await, Err(Error::Overlap(_))));
    assert_eq!(pair.config.rev().await.unwrap(), 2);
    assert_eq!(windows(&pair, "a").await, [(1, 0, Some(10)), (2, 10, None)]);
}

pub(super) async fn a_scheduled_version_is_corrected_by_one_of_the_same_start(pair: Pair) {
    pair.create(alias("a", "m1"), NOW).await.unwrap();
    pair.add(1, from(10, alias("a", "wrong")), later(1)).await.unwrap();
    pair.add(2, from(10, alias("a", "right")), later(2)).await.unwrap();
    // The replaced one stays in the history with an empty window.
    assert_eq!(windows(&pair, "a").await, [(1, 0, Some(10)), (2, 10, Some(10)), (3, 10, None)]);
    assert_eq!(models(&pair, later(2), &[later(10)]).await, [Some("right".to_owned())]);
}

pub(super) async fn changes_in_one_microsecond_do_not_collide(pair: Pair) {
    pair.create(alias("a", "m1"), NOW).await.unwrap();
    let step = |n: i64| Timestamp::from_micros(NOW.micros() + n);
    let second = pair.add(1, alias("a", "m2"), NOW).await.unwrap();
    assert_eq!(second.effective_from, step(1));
    let third = pair.add(2, alias("a", "m3"), NOW).await.unwrap();
    assert_eq!(third.effective_from, step(2));
    // Nor does a node whose clock is behind write into the past of the row.
    let fourth = pair.add(3, alias("a", "m4"), later(-5)).await.unwrap();
    assert_eq!((fourth.effective_from, fourth.effective_to), (step(3), None));
    pair.delete(ALIAS, "a", None, NOW).await.unwrap();
    let fifth = pair.create(alias("a", "m5"), NOW).await.unwrap();
    assert_eq!(fifth.effective_from, step(4));
}

pub(super) async fn a_switch_is_of_the_row_and_not_of_a_version(pair: Pair) {
    pair.create(alias("a", "m1"), NOW).await.unwrap();
    pair.add(1, from(10, alias("a", "m2")), later(1)).await.unwrap();
    let row = pair.switch(ALIAS, "a", false, later(2)).await.unwrap();
    assert_eq!((row.version_no, row.enabled), (1, false));
    assert_eq!(pair.config.rev().await.unwrap(), 3);
    let all_off = async |now| {
        let tables = pair.config.tables(now).await.unwrap();
        tables.aliases.iter().all(|v| !v.enabled)
    };
    assert!(all_off(later(2)).await);
    // Neither what was scheduled nor a further version turns it on.
    assert!(all_off(later(10)).await);
    let row = pair.add(2, alias("a", "m3"), later(11)).await.unwrap();
    assert!(!row.enabled);
    let row = pair.switch(ALIAS, "a", true, later(12)).await.unwrap();
    assert_eq!((row.version_no, row.enabled), (3, true));
    let unknown = pair.switch(ALIAS, "b", true, later(12)).await;
    assert_eq!(unknown, Err(Error::NotFound(ALIAS)));
}

pub(super) async fn deleting_ends_the_row_and_keeps_its_history(pair: Pair) {
    pair.create(alias("a", "m1"), NOW).await.unwrap();
    pair.add(1, from(10, alias("a", "m2")), later(1)).await.unwrap();
    let stale = pair.delete(ALIAS, "a", Some(1), later(2)).await;
    assert!(matches!(stale, Err(Error::VersionConflict(row)) if row.version_no == 2));
    let row = pair.delete(ALIAS, "a", Some(2), later(3)).await.unwrap();
    assert_eq!((row.version_no, row.effective_to), (1, Some(later(3))));
    assert_eq!(windows(&pair, "a").await, [(1, 0, Some(3)), (2, 10, Some(10))]);
    assert_eq!(pair.config.tables(later(3)).await.unwrap().aliases, []);
    assert_eq!(pair.config.tables(NOW).await.unwrap().aliases, []);
    assert_eq!(pair.listed(ALIAS, None, None, later(3)).await, []);
    let gone = Err(Error::NotFound(ALIAS));
    assert_eq!(pair.delete(ALIAS, "a", None, later(4)).await, gone);
    assert_eq!(pair.switch(ALIAS, "a", true, later(4)).await, gone);
    assert_eq!(pair.add(2, alias("a", "m3"), later(4)).await, gone);
    assert_eq!(pair.config.rev().await.unwrap(), 3);
}

pub(super) async fn a_deleted_code_is_made_again_with_the_next_number(pair: Pair) {
    pair.create(alias("a", "m1"), NOW).await.unwrap();
    pair.switch(ALIAS, "a", false, later(1)).await.unwrap();
    pair.delete(ALIAS, "a", None, later(2)).await.unwrap();
    let row = pair.create(alias("a", "m2"), later(5)).await.unwrap();
    assert_eq!((row.version_no, row.enabled), (2, true));
    assert_eq!(windows(&pair, "a").await, [(1, 0, Some(2)), (2, 5, None)]);
    assert_eq!(models(&pair, later(5), &[later(5)]).await, [Some("m2".to_owned())]);
    pair.add(2, alias("a", "m3"), later(6)).await.unwrap();
}
