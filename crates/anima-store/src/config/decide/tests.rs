//! What changes decide to write: the table of windows.

use serde_json::json;

use anima_core::config::Version;

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_000);

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn window(version_no: i64, from: i64, to: Option<i64>) -> Window {
    Window { version_no, from: at(from), to: to.map(at) }
}

fn found(windows: Vec<Window>) -> Found {
    let head = Head {
        app: None,
        version_no: windows.iter().map(|w| w.version_no).max().unwrap_or(1),
        enabled: true,
        changed_at: at(0),
        deleted_at: None,
    };
    let latest = Version {
        code: "a".to_owned(),
        app: None,
        version_no: head.version_no,
        effective_from: at(0),
        effective_to: None,
        enabled: true,
        body: json!({}),
    };
    Found { head: Some(head), windows, latest: Some(latest), ..Found::default() }
}

fn add(found: &Found, from: Option<i64>, to: Option<i64>) -> Result<Writes, Error> {
    let read = found.head.as_ref().unwrap().version_no;
    let version = NewVersion {
        resource: Resource::Alias,
        code: "a".to_owned(),
        app: None,
        body: json!({}),
        scope: None,
        effective_from: from.map(at),
        effective_to: to.map(at),
        secret_hash: None,
    };
    decide(&Change::Add { version, read, action: "change" }, found, NOW)
}

/// The start and the end that are asked for.
type Wanted = (Option<i64>, Option<i64>);

/// The decision in short: cancelled, closed, and the window written.
type Short = (Vec<i64>, Option<(i64, i64)>, (i64, Option<i64>));

fn short(writes: Writes) -> Short {
    let window = writes.insert.unwrap();
    let close = writes.close.map(|(n, end)| (n, end.unwrap().micros()));
    (writes.cancel, close, (window.from.micros(), window.to.map(Timestamp::micros)))
}

#[test]
fn a_version_closes_what_is_in_force_and_ends_at_what_is_scheduled() {
    let open = [window(1, 10, None)];
    let one_ahead = [window(1, 10, Some(2_000)), window(2, 2_000, None)];
    let two_ahead =
        [window(1, 10, Some(2_000)), window(2, 2_000, Some(3_000)), window(3, 3_000, None)];
    let gap = [window(1, 10, Some(1_500)), window(2, 2_000, None)];
    let cases: [(&[Window], Wanted, Short); 11] = [
        (&open, (None, None), (vec![], Some((1, 1_000)), (1_000, None))),
        (&open, (Some(5_000), None), (vec![], Some((1, 5_000)), (5_000, None))),
        (&open, (Some(5_000), Some(6_000)), (vec![], Some((1, 5_000)), (5_000, Some(6_000)))),
        (&one_ahead, (None, None), (vec![], Some((1, 1_000)), (1_000, Some(2_000)))),
        (&one_ahead, (Some(1_200), None), (vec![], Some((1, 1_200)), (1_200, Some(2_000)))),
        (&one_ahead, (Some(2_500), None), (vec![], Some((2, 2_500)), (2_500, None))),
        (&one_ahead, (None, Some(2_000)), (vec![], Some((1, 1_000)), (1_000, Some(2_000)))),
        (&one_ahead, (Some(2_000), None), (vec![2], None, (2_000, None))),
        (&two_ahead, (Some(2_000), None), (vec![2], None, (2_000, Some(3_000)))),
        (&two_ahead, (None, Some(1_100)), (vec![], Some((1, 1_000)), (1_000, Some(1_100)))),
        (&gap, (Some(1_700), None), (vec![], None, (1_700, Some(2_000)))),
    ];
    for (windows, (from, to), expected) in cases {
        let writes = add(&found(windows.to_vec()), from, to).unwrap();
        assert_eq!(short(writes), expected, "{windows:?} + {from:?}..{to:?}");
    }
}

#[test]
fn a_version_that_would_swallow_a_scheduled_one_is_refused_and_names_it() {
    let found = found(vec![window(1, 10, Some(2_000)), window(2, 2_000, None)]);
    let Err(Error::Overlap(text)) = add(&found, None, Some(2_001)) else { panic!("not refused") };
    assert!(text.contains("version 2"), "{text}");
}

#[test]
fn an_empty_window_is_refused() {
    let found = found(vec![window(1, 10, None)]);
    assert!(matches!(add(&found, Some(2_000), Some(2_000)), Err(Error::Overlap(_))));
    assert!(matches!(add(&found, None, Some(500)), Err(Error::Overlap(_))));
}

#[test]
fn a_start_in_the_past_becomes_now() {
    let writes = add(&found(vec![window(1, 10, None)]), Some(20), None).unwrap();
    assert_eq!(short(writes).2, (1_000, None));
}

#[test]
fn changes_within_one_microsecond_are_a_microsecond_apart() {
    let mut found = found(vec![window(1, 10, Some(1_000)), window(2, 1_000, None)]);
    found.head.as_mut().unwrap().changed_at = NOW;
    let writes = add(&found, None, None).unwrap();
    assert_eq!(writes.head.changed_at, at(1_001));
    assert_eq!(short(writes), (vec![], Some((2, 1_001)), (1_001, None)));
}

#[test]
fn a_node_whose_clock_is_behind_does_not_write_into_the_past_of_the_row() {
    let mut found = found(vec![window(1, 10, Some(1_400)), window(2, 1_400, None)]);
    found.head.as_mut().unwrap().changed_at = at(1_400);
    let writes = add(&found, None, None).unwrap();
    assert_eq!(short(writes), (vec![], Some((2, 1_401)), (1_401, None)));
}

#[test]
fn deleting_closes_the_version_in_force_and_cancels_the_rest() {
    let found = found(vec![window(1, 10, Some(2_000)), window(2, 2_000, None)]);
    let change = Change::Delete { resource: Resource::Alias, code: "a".to_owned(), read: Some(2) };
    let writes = decide(&change, &found, NOW).unwrap();
    assert_eq!(writes.cancel, [2]);
    assert_eq!(writes.close, Some((1, Some(NOW))));
    assert_eq!(writes.head.deleted_at, Some(NOW));
    assert_eq!(writes.answer, Some(1));
}
