//! What a node does beside answering, for as long as it runs.
//!
//! Not what each task does. Invariant: what works with the database begins when that is open.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use anima_store::shared::SharedState;

use crate::circuits;
use crate::relay::stream::unread;
use crate::relay::{Relay, admission, keeper, lease, recovery};
use crate::reporting;

/// What keeps calls and their money in order.
pub(super) fn of_calls(
    relay: &Arc<Relay>,
    state: Arc<dyn SharedState>,
    opened: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    vec![
        tokio::spawn(Arc::clone(&relay.dependencies).run()),
        after(opened, lease::run(Arc::clone(relay))),
        after(opened, keeper::run(Arc::clone(relay))),
        after(opened, admission::run(Arc::clone(relay))),
        after(opened, admission::repair::run(Arc::clone(relay))),
        after(opened, recovery::run(Arc::clone(relay))),
        after(opened, Arc::clone(&relay.records).run()),
        after(opened, Arc::clone(&relay.shortfalls).run()),
        tokio::spawn(unread::run(Arc::clone(relay))),
        tokio::spawn(reporting::run(Arc::clone(relay))),
        tokio::spawn(circuits::run(Arc::clone(&relay.circuits), Arc::clone(&relay.live), state)),
    ]
}

/// Does something in the background once the database has been opened.
pub(crate) fn after<T: Send + 'static>(
    opened: &CancellationToken,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<()> {
    let opened = opened.clone();
    tokio::spawn(async move {
        opened.cancelled().await;
        work.await;
    })
}
