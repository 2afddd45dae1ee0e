//! What streams through this node now, so that a switch that says `cut` can end it.
//!
//! One short lock when a stream begins and when it ends, none for its chunks: those look at an
//! atomic of their own. Invariant: a stream that was admitted before a cut and begins after it is
//! ended too, for cuts are remembered as long as a call may take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use anima_core::config::Resource;
use anima_store::config::publish::Notice;

/// How long a cut is remembered: longer than a call waits for its upstream.
const REMEMBERED: Duration = Duration::from_mins(15);
/// Cuts remembered at most; the oldest go first.
const CUTS_MAX: usize = 256;

/// What a stream goes through.
#[derive(Debug, Clone)]
pub struct Through {
    /// The channel that answers.
    pub channel: Arc<str>,
    /// The model that was asked for.
    pub alias: Arc<str>,
    /// The key.
    pub kid: Arc<str>,
    /// Its app.
    pub app: Arc<str>,
    /// Its token group.
    pub group: Option<Arc<str>>,
    /// When the call came in.
    pub since: Instant,
}

impl Through {
    /// Whether a switch that says `cut` is about this stream.
    fn is_cut_by(&self, notice: &Notice) -> bool {
        match notice {
            Notice::Gateway { cut } => *cut,
            Notice::Row { resource, code, cut: true } => match resource {
                Resource::Channel => *self.channel == **code,
                Resource::Alias => *self.alias == **code,
                Resource::UserApiKey => *self.kid == **code,
                Resource::App => *self.app == **code,
                Resource::TokenGroup => self.group.as_deref() == Some(code),
                Resource::Price | Resource::Quota | Resource::FxRate => false,
            },
            Notice::Row { cut: false, .. } | Notice::Circuit { .. } | Notice::Forget { .. } => {
                false
            }
        }
    }
}

/// The streams of a node.
#[derive(Debug, Default, Clone)]
pub struct Streams {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    running: BTreeMap<u64, (Through, End)>,
    cuts: Vec<(Instant, Notice)>,
}

/// How a stream learns that it is to end.
#[derive(Debug, Clone)]
struct End {
    now: Arc<AtomicBool>,
    wake: CancellationToken,
}

impl End {
    fn ring(&self) {
        self.now.store(true, Ordering::Relaxed);
        self.wake.cancel();
    }
}

/// A stream is known as long as this lives.
#[derive(Debug)]
pub struct Entered {
    id: u64,
    end: End,
    state: Arc<Mutex<State>>,
}

impl Entered {
    /// Whether a switch has ended it.
    pub fn is_cut(&self) -> bool {
        self.end.now.load(Ordering::Relaxed)
    }

    /// Whether it is to end, by a switch or with the whole node.
    pub fn is_woken(&self) -> bool {
        self.end.wake.is_cancelled()
    }

    /// Wakes whoever waits when it is ended, by a switch or with the whole node.
    pub fn wake(&self) -> CancellationToken {
        self.end.wake.clone()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.state.lock().running.remove(&self.id);
    }
}

impl Streams {
    /// Takes a stream in. `node` ends all of them.
    pub fn enter(&self, through: Through, node: &CancellationToken) -> Entered {
        let end = End { now: Arc::default(), wake: node.child_token() };
        let mut state = self.state.lock();
        let late =
            |(at, notice): &(Instant, Notice)| through.since <= *at && through.is_cut_by(notice);
        if state.cuts.iter().any(late) {
            end.ring();
        }
        state.last += 1;
        let id = state.last;
        state.running.insert(id, (through, end.clone()));
        Entered { id, end, state: Arc::clone(&self.state) }
    }

    /// What each of them goes through.
    pub fn running(&self) -> Vec<Through> {
        self.state.lock().running.values().map(|(through, _)| through.clone()).collect()
    }

    /// Ends what a switch cuts, and says how many streams that were.
    pub fn cut(&self, notice: &Notice) -> usize {
        if !matches!(notice, Notice::Row { cut: true, .. } | Notice::Gateway { cut: true }) {
            return 0;
        }
        let now = Instant::now();
        let mut state = self.state.lock();
        state.cuts.retain(|(at, _)| now.duration_since(*at) < REMEMBERED);
        if state.cuts.len() >= CUTS_MAX {
            state.cuts.remove(0);
        }
        state.cuts.push((now, notice.clone()));
        let through = state.running.values().filter(|(through, _)| through.is_cut_by(notice));
        through.map(|(_, end)| end.ring()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(channel: &str, kid: &str) -> Through {
        Through {
            channel: channel.into(),
            alias: "chat".into(),
            kid: kid.into(),
            app: "acme".into(),
            group: Some("gold".into()),
            since: Instant::now(),
        }
    }

    fn row(resource: Resource, code: &str, cut: bool) -> Notice {
        Notice::Row { resource, code: code.to_owned(), cut }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_ends_what_goes_through_and_nothing_else() {
        let (streams, node) = (Streams::default(), CancellationToken::new());
        let main = streams.enter(through("main", "k1"), &node);
        let other = streams.enter(through("other", "k2"), &node);
        assert_eq!(streams.cut(&row(Resource::Channel, "main", false)), 0);
        assert_eq!(streams.cut(&row(Resource::Channel, "main", true)), 1);
        assert!(main.is_cut() && main.wake().is_cancelled() && !other.is_cut());
        assert_eq!(streams.cut(&row(Resource::UserApiKey, "k2", true)), 1);
        assert!(other.is_cut() && !node.is_cancelled());
        let third = streams.enter(through("third", "k3"), &node);
        assert_eq!(streams.cut(&row(Resource::TokenGroup, "gold", true)), 3);
        assert!(third.is_cut());
        drop((main, other, third));
        assert_eq!(streams.cut(&Notice::Gateway { cut: true }), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_was_admitted_before_the_cut_and_streams_after_it_is_ended() {
        let (streams, node) = (Streams::default(), CancellationToken::new());
        let early = through("main", "k1");
        tokio::time::advance(Duration::from_millis(5)).await;
        streams.cut(&row(Resource::Channel, "main", true));
        tokio::time::advance(Duration::from_millis(5)).await;
        assert!(streams.enter(early, &node).is_cut());
        // The channel was switched on again, and this call came in afterwards.
        assert!(!streams.enter(through("main", "k1"), &node).is_cut());
    }
}
