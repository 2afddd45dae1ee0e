//! What changed between two revisions, as far as it can still be had.
//!
//! Not what follows from it. Invariant: what is given is all of it; where one event is missing, or
//! cannot be read since a newer node has written it, nothing is given.

use anima_core::clock::Timestamp;
use anima_core::config::{Resource, Version};
use anima_core::snapshot::Snapshot;
use anima_store::config::Error;
use anima_store::config::publish::{Event, Notice, PublishStore};
use anima_store::keys::KeyRecord;

use super::streams::Through;

/// Events read in one go; a node that is further behind loads everything (`reliability` 5).
const EVENTS_MAX: u32 = 1_000;

/// The changes after a revision up to another, when they are few enough to follow them.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn events(
    store: &dyn PublishStore,
    applied: i64,
    rev: i64,
) -> Result<Option<Vec<Event>>, Error> {
    if rev <= applied || rev - applied > i64::from(EVENTS_MAX) {
        return Ok(None);
    }
    let events = page(store, applied).await?;
    Ok(events.filter(|events| events.last().is_some_and(|last| last.rev >= rev)))
}

/// What switches and levers said to what runs, after a revision up to another, however many.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn notices(
    store: &dyn PublishStore,
    applied: i64,
    rev: i64,
) -> Result<Option<Vec<Notice>>, Error> {
    if rev < applied {
        // Another database, as far as anybody knows.
        return Ok(None);
    }
    let (mut at, mut found) = (applied, Vec::new());
    while at < rev {
        let events = page(store, at).await?.unwrap_or_default();
        let Some(last) = events.last() else { return Ok(None) };
        at = last.rev;
        let wanted = events.into_iter().filter(|event| event.rev <= rev);
        found.extend(wanted.flat_map(|event| event.notices).filter(acts));
    }
    Ok(Some(found))
}

async fn page(store: &dyn PublishStore, after: i64) -> Result<Option<Vec<Event>>, Error> {
    let events = match store.events(after, EVENTS_MAX).await {
        Err(Error::Damaged(why)) => {
            tracing::warn!(why, after, "failed to read what changed: reading everything");
            return Ok(None);
        }
        events => events?,
    };
    let whole = events.iter().zip(after + 1..).all(|(event, rev)| event.rev == rev);
    Ok(whole.then_some(events))
}

/// Whether a notice says something to what runs.
const fn acts(notice: &Notice) -> bool {
    match notice {
        Notice::Row { cut, .. } | Notice::Gateway { cut } => *cut,
        Notice::Circuit { .. } => true,
        Notice::Forget { .. } => false,
    }
}

/// What of that which a stream goes through is switched off, as switches that cut would name it.
pub(super) fn switched_off(
    through: &Through,
    snapshot: &Snapshot,
    record: Option<&KeyRecord>,
    now: Timestamp,
) -> Vec<Notice> {
    let (channel, alias) = (snapshot.channel(&through.channel), snapshot.alias(&through.alias));
    let group = through.group.as_deref().and_then(|code| snapshot.token_group(code));
    let key = record.and_then(|record| in_force(&record.key, now));
    let app = record.and_then(|record| in_force(&record.app, now));
    let rows = [
        channel.map(|row| (Resource::Channel, &*row.code, row.enabled)),
        alias.map(|row| (Resource::Alias, &*row.code, row.enabled)),
        group.map(|row| (Resource::TokenGroup, &*row.code, row.enabled)),
        key.map(|row| (Resource::UserApiKey, &*row.code, row.enabled)),
        app.map(|row| (Resource::App, &*row.code, row.enabled)),
    ];
    let off = rows.into_iter().flatten().filter(|(_, _, enabled)| !enabled);
    off.map(|(resource, code, _)| Notice::Row { resource, code: code.to_owned(), cut: true })
        .collect()
}

fn in_force<B>(versions: &[Version<B>], now: Timestamp) -> Option<&Version<B>> {
    versions.iter().find(|version| version.is_effective(now))
}

#[cfg(test)]
mod tests {
    use anima_core::config::Tables;
    use anima_store::config::publish::{Hatch, Hatches, NodeState};
    use anima_store::config::{Actor, Row};
    use async_trait::async_trait;
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;

    /// Events from the first to the last that are left. Every thousandth cuts.
    #[derive(Debug)]
    struct Left(i64, i64);

    fn nothing<T>() -> Result<T, Error> {
        Err(Error::Unavailable("only events".to_owned()))
    }

    #[async_trait]
    impl PublishStore for Left {
        async fn events(&self, after: i64, limit: u32) -> Result<Vec<Event>, Error> {
            let first = self.0.max(after + 1);
            let last = self.1.min(first + i64::from(limit) - 1);
            let event = |rev: i64| {
                let cut = Notice::Gateway { cut: rev % 1_000 == 0 };
                Event { rev, at: Timestamp::from_micros(rev), notices: vec![cut] }
            };
            Ok((first..=last).map(event).collect())
        }
        async fn acknowledge(&self, _: &str, _: i64, _: Timestamp) -> Result<(), Error> {
            nothing()
        }
        async fn acknowledged(&self, _: i64) -> Result<Vec<NodeState>, Error> {
            nothing()
        }
        async fn scheduled(&self, _: Timestamp) -> Result<Vec<(Resource, Row)>, Error> {
            nothing()
        }
        async fn hatches(&self) -> Result<Hatches, Error> {
            nothing()
        }
        async fn pull(&self, _: Hatch, _: &Actor, _: Timestamp) -> Result<i64, Error> {
            nothing()
        }
    }

    #[tokio::test]
    async fn what_switches_said_is_found_however_far_behind_a_node_is() {
        let cuts = async |left: Left, applied: i64, rev: i64| {
            notices(&left, applied, rev).await.unwrap().map(|notices| notices.len())
        };
        assert_eq!(cuts(Left(1, 5_500), 0, 5_500).await, Some(5));
        assert_eq!(cuts(Left(1, 5_500), 1_000, 4_999).await, Some(3), "up to there and no further");
        assert_eq!(cuts(Left(1, 5_500), 5_500, 5_500).await, Some(0));
        assert_eq!(cuts(Left(7, 5_500), 0, 5_500).await, None, "the first are gone");
        assert_eq!(cuts(Left(1, 5_499), 0, 5_500).await, None, "the last is not there");
        assert_eq!(cuts(Left(1, 5_500), 5_501, 5_500).await, None, "the number ran backward");
    }

    #[test]
    fn of_what_a_stream_goes_through_that_is_named_which_is_switched_off() {
        fn row<B: serde::de::DeserializeOwned>(
            code: &str,
            enabled: bool,
            body: serde_json::Value,
        ) -> Version<B> {
            Version {
                code: code.to_owned(),
                app: None,
                version_no: 1,
                effective_from: Timestamp::from_micros(0),
                effective_to: None,
                enabled,
                body: serde_json::from_value(body).unwrap(),
            }
        }
        let now = Timestamp::from_micros(1);
        let through = Through {
            channel: "main".into(),
            alias: "chat".into(),
            kid: "k".into(),
            app: "acme".into(),
            group: Some("gold".into()),
            since: Instant::now(),
        };
        let seen = |group: bool, key: bool| {
            let tables =
                Tables { token_groups: vec![row("gold", group, json!({}))], ..Tables::default() };
            let key = vec![row("k", key, json!({}))];
            let record = KeyRecord { secrets: vec![], key, app: vec![] };
            switched_off(&through, &Snapshot::compile(&tables, now), Some(&record), now)
        };
        let cut = |resource, code: &str| Notice::Row { resource, code: code.to_owned(), cut: true };
        assert!(seen(true, true).is_empty());
        assert_eq!(seen(false, true), [cut(Resource::TokenGroup, "gold")]);
        assert_eq!(seen(true, false), [cut(Resource::UserApiKey, "k")]);
    }
}
