//! Those who wait while the shared counters are away: each node lets its own wait by itself.
//!
//! Nobody is moved from one line to the other: a node that attends to a line in which its calls are
//! not has them ask for themselves, and those that must wait on join again at their old place.
//! Calls that leave or are served while the shared lines are away are taken out of them later.
//! Invariant: nobody is told that the counters are away because of its waiting.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use parking_lot::Mutex;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::queue::Ahead;
use anima_core::queue::line::{Attended, Joined, Joining};
use anima_core::quota::share::alone;
use anima_core::quota::{Ask, Bound, Tag, Verdict};

use super::{SharedQuotas, by_share};
use crate::pubsub::Subscription;
use crate::quota::line::{InTurn, LineExits, LineStore, LineView, Waits};
use crate::quota::{QuotaStore as _, Unavailable};

/// Calls that a node remembers to take out; of more each turn that comes is found to be nobody's.
const GONE_MAX: usize = 65_536;

/// Calls that the shared lines may take for waiting, and that do not.
#[derive(Debug, Default)]
pub(super) struct Gone(Mutex<BTreeSet<(Tag, Uuid)>>);

impl Gone {
    fn note(&self, tag: &Tag, id: Uuid) {
        let mut gone = self.0.lock();
        if gone.len() < GONE_MAX {
            gone.insert((tag.clone(), id));
        }
    }

    fn forget(&self, tag: &Tag, id: Uuid) {
        let mut gone = self.0.lock();
        if !gone.is_empty() {
            gone.remove(&(tag.clone(), id));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    fn by_tag(&self) -> BTreeMap<Tag, Vec<Uuid>> {
        let mut all: BTreeMap<Tag, Vec<Uuid>> = BTreeMap::new();
        for (tag, id) in self.0.lock().iter() {
            all.entry(tag.clone()).or_default().push(*id);
        }
        all
    }

    /// Takes them out of the shared lines.
    pub(super) async fn clear(
        &self,
        shared: &dyn LineExits,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        for (tag, ids) in self.by_tag() {
            shared.leave_all(&tag, &ids, now).await?;
            for id in ids {
                self.forget(&tag, id);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl LineExits for SharedQuotas {
    async fn leave(&self, tag: &Tag, id: Uuid, now: Timestamp) -> Result<bool, Unavailable> {
        let here = self.own.load_full().leave(tag, id, now).await?;
        if !self.is_away() {
            match self.shared.leave(tag, id, now).await {
                Ok(there) => return Ok(here || there),
                Err(_logged) => self.leave_shared(),
            }
        }
        self.gone.note(tag, id);
        Ok(here)
    }

    fn served(&self, tag: &Tag, id: Uuid) {
        if self.is_away() {
            self.gone.note(tag, id);
        }
    }

    async fn disown(&self, tag: &Tag, id: Uuid, now: Timestamp) -> Result<(), Unavailable> {
        let disowned = self.shared.disown(tag, id, now).await;
        if disowned.is_err() {
            self.gone.note(tag, id);
        }
        disowned
    }
}

#[async_trait]
impl LineView for SharedQuotas {
    async fn ahead(&self, tag: &Tag, call: (&str, Uuid)) -> Result<Ahead, Unavailable> {
        if !self.is_away()
            && let Ok(ahead) = self.shared.ahead(tag, call).await
        {
            return Ok(ahead);
        }
        self.own.load_full().ahead(tag, call).await
    }

    async fn waiting(&self) -> Result<Vec<Waits>, Unavailable> {
        if !self.is_away()
            && let Ok(waiting) = self.shared.waiting().await
        {
            return Ok(waiting);
        }
        self.own.load_full().waiting().await
    }
}

#[async_trait]
impl LineStore for SharedQuotas {
    async fn admit_in_turn(&self, ask: Ask<'_>) -> Result<InTurn, Unavailable> {
        if !self.is_away() || self.comes_back(false, (ask.now, ask.lease_us)).await {
            match self.heard(ask, self.shared.admit_in_turn(ask)).await {
                Ok(said) => return Ok(said),
                Err(_logged) => self.leave_shared(),
            }
        }
        let own = self.own.load_full();
        match own.behind(ask.bounds) {
            Some(tag) => Ok(InTurn::Behind(tag)),
            None => self.admit(ask).await.map(InTurn::Judged),
        }
    }

    async fn admit_at_once(&self, ask: Ask<'_>) -> Result<Verdict, Unavailable> {
        if !self.is_away() || self.comes_back(false, (ask.now, ask.lease_us)).await {
            match self.heard(ask, self.shared.admit_at_once(ask)).await {
                Ok(verdict) => return Ok(verdict),
                Err(_logged) => self.leave_shared(),
            }
        }
        let own = self.own.load_full();
        let judge = async |ask: Ask<'_>| own.admit_at_once(ask).await;
        let verdict = by_share(ask, self.nodes(), judge).await?;
        if matches!(verdict, Verdict::Admitted(_)) && !self.remember(ask) {
            // The shared counters came back meanwhile: nobody would tell them of the call.
            return self.heard(ask, self.shared.admit_at_once(ask)).await;
        }
        Ok(verdict)
    }

    async fn join(
        &self,
        tag: &Tag,
        joining: Joining<'_>,
        now: Timestamp,
    ) -> Result<Joined, Unavailable> {
        self.gone.forget(tag, joining.id);
        if !self.is_away() {
            // Not what its turn claims.
            let joined = match self.undo_before(joining.id, now).await {
                Ok(()) => self.shared.join(tag, joining, now).await,
                Err(error) => Err(error),
            };
            match joined {
                Ok(joined) => return Ok(joined),
                Err(_logged) => self.leave_shared(),
            }
        }
        let nodes = self.nodes();
        let own = |bound: &Bound| alone(bound, nodes);
        let bounds: Vec<Bound> = joining.bounds.iter().filter_map(own).collect();
        self.own.load_full().join(tag, Joining { bounds: &bounds, ..joining }, now).await
    }

    async fn attend(
        &self,
        tag: &Tag,
        ids: &[Uuid],
        now: Timestamp,
    ) -> Result<Attended, Unavailable> {
        if !self.is_away() {
            match self.shared.attend(tag, ids, now).await {
                Ok(attended) => return Ok(attended),
                Err(_logged) => self.leave_shared(),
            }
        }
        self.own.load_full().attend(tag, ids, now).await
    }

    fn called(&self) -> Vec<Uuid> {
        self.own.load_full().called()
    }

    async fn calls(&self) -> Option<Subscription> {
        self.shared.calls().await
    }
}
