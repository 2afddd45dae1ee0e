//! Those who wait while the shared counters are away: each node lets its own wait by itself.
//!
//! Nobody is moved from one line to the other: a node that attends to a line in which its calls are
//! not has them ask for themselves, and those that must wait on join again at their old place.
//! Invariant: nobody is told that the counters are away because of its waiting.

use async_trait::async_trait;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::queue::line::{Attended, Joined, Joining};
use anima_core::quota::share::alone;
use anima_core::quota::{Ask, Bound, Tag};

use super::SharedQuotas;
use crate::pubsub::Subscription;
use crate::quota::line::{InTurn, LineStore, Waits};
use crate::quota::{QuotaStore as _, Unavailable};

#[async_trait]
impl LineStore for SharedQuotas {
    async fn admit_in_turn(&self, ask: Ask<'_>) -> Result<InTurn, Unavailable> {
        if !self.is_away() || self.comes_back(false, (ask.now, ask.lease_us)).await {
            match self.shared.admit_in_turn(ask).await {
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

    async fn join(
        &self,
        tag: &Tag,
        joining: Joining<'_>,
        now: Timestamp,
    ) -> Result<Joined, Unavailable> {
        if !self.is_away() {
            match self.shared.join(tag, joining, now).await {
                Ok(joined) => return Ok(joined),
                Err(_logged) => self.leave_shared(),
            }
        }
        let nodes = self.nodes();
        let own = |bound: &Bound| alone(bound, nodes);
        let bounds: Vec<Bound> = joining.bounds.iter().filter_map(own).collect();
        self.own.load_full().join(tag, Joining { bounds: &bounds, ..joining }, now).await
    }

    async fn leave(&self, tag: &Tag, id: Uuid, now: Timestamp) -> Result<bool, Unavailable> {
        let here = self.own.load_full().leave(tag, id, now).await?;
        if self.is_away() {
            return Ok(here);
        }
        self.shared.leave(tag, id, now).await.map(|there| here || there)
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

    async fn waiting(&self) -> Result<Vec<Waits>, Unavailable> {
        if !self.is_away()
            && let Ok(waiting) = self.shared.waiting().await
        {
            return Ok(waiting);
        }
        self.own.load_full().waiting().await
    }

    fn called(&self) -> Vec<Uuid> {
        self.own.load_full().called()
    }

    async fn calls(&self) -> Option<Subscription> {
        self.shared.calls().await
    }
}
