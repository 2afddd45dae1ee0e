//! The calls with a key that this node is making, so that those who ask again wait for the call and
//! not on the database.
//!
//! Not the guarantee, which is the store's: only what keeps a thousand waiters from asking it.
//! Invariant: a place is left when its holder is dropped, however it ends.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use anima_store::idempotency::Claim;

use super::Kept;

type Id = (Arc<str>, [u8; 32]);
type Answer = Option<Arc<Kept>>;

/// A running call.
#[derive(Debug)]
struct Running {
    content_hash: [u8; 32],
    answer: watch::Receiver<Answer>,
}

type Places = Arc<Mutex<HashMap<Id, Running>>>;

/// The running calls by key.
#[derive(Debug, Default)]
pub(super) struct Registry(Places);

/// How one stands to a key.
#[derive(Debug)]
pub(super) enum Joined {
    /// Nobody else here has it.
    First(Place),
    /// Somebody has it for the same request. The channel closes without an answer when there is
    /// none for others.
    Running(watch::Receiver<Answer>),
    /// Somebody has it for another request.
    Conflict,
}

/// The place of the call that runs.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    id: Id,
    answer: watch::Sender<Answer>,
}

impl Registry {
    /// Takes the place of a key, or finds who has it.
    pub(super) fn join(&self, claim: &Claim) -> Joined {
        let id = (Arc::clone(&claim.kid), claim.key_hash);
        let mut places = self.0.lock();
        if let Some(running) = places.get(&id) {
            let same = running.content_hash == claim.content_hash;
            return if same { Joined::Running(running.answer.clone()) } else { Joined::Conflict };
        }
        let (sender, answer) = watch::channel(None);
        places.insert(id.clone(), Running { content_hash: claim.content_hash, answer });
        Joined::First(Place { places: Arc::clone(&self.0), id, answer: sender })
    }
}

impl Place {
    /// Gives those who wait an answer.
    pub(super) fn pass_on(&self, kept: Arc<Kept>) {
        self.answer.send_replace(Some(kept));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use anima_core::clock::Timestamp;
    use uuid::Uuid;

    use super::*;

    fn claim(content: u8) -> Claim {
        let at = Timestamp::from_micros(0);
        Claim {
            kid: "k".into(),
            key_hash: [1; 32],
            content_hash: [content; 32],
            call: Uuid::nil(),
            node: Uuid::nil(),
            at,
            stale_at: at,
            expires_at: at,
        }
    }

    #[tokio::test]
    async fn a_place_that_is_left_wakes_who_waits_and_is_free() {
        let registry = Registry::default();
        let Joined::First(place) = registry.join(&claim(1)) else { panic!("free") };
        let Joined::Running(mut waiting) = registry.join(&claim(1)) else { panic!("running") };
        assert!(matches!(registry.join(&claim(2)), Joined::Conflict));
        drop(place);
        assert!(waiting.wait_for(Option::is_some).await.is_err());
        assert!(matches!(registry.join(&claim(2)), Joined::First(_)));
    }

    #[tokio::test]
    async fn an_answer_reaches_who_waits_after_the_place_is_left() {
        let registry = Registry::default();
        let Joined::First(place) = registry.join(&claim(1)) else { panic!("free") };
        let Joined::Running(mut waiting) = registry.join(&claim(1)) else { panic!("running") };
        place.pass_on(Arc::new(Kept::default()));
        drop(place);
        assert!(waiting.wait_for(Option::is_some).await.is_ok());
    }
}
