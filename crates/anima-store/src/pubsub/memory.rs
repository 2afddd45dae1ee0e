//! Messages within one process: the embedded twin of Redis.
//!
//! Nothing gets lost but to a reader that lags far behind. Invariant: publishing never waits.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Delivery, Hub, PubSub, Subscription};
use crate::redis::Error;
use crate::redis_keys::Topic;

/// Messages within this process.
#[derive(Debug, Default)]
pub struct MemoryPubSub(Arc<Hub>);

#[async_trait]
impl PubSub for MemoryPubSub {
    async fn publish(&self, topic: &Topic, message: &[u8]) -> Result<(), Error> {
        self.0.deliver(topic, Delivery::Message(Bytes::copy_from_slice(message)));
        Ok(())
    }

    async fn subscribe(&self, topic: &Topic) -> Subscription {
        let place = self.0.enter(topic);
        self.0.listen(place)
    }
}
