//! Messages to every node, this one included.
//!
//! Contract: a message that was published while a subscription was live reaches it at most once,
//! in the order of its publisher. Messages can be lost: then, and whenever that cannot be ruled
//! out, the subscription yields [`Delivery::Missed`], and its owner reads the truth from where it
//! is kept. Nothing is stored. Backends: [`memory`] within a process, [`redis`] between nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

use crate::redis::Error;
use crate::redis_keys::Topic;

pub mod memory;
pub mod redis;
#[cfg(test)]
mod tests;

/// Messages that a subscriber may lag behind before it is told that it missed some.
const BACKLOG: usize = 1_024;

/// What a subscription yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A message.
    Message(Bytes),
    /// Messages may have been lost before this; from here on they arrive.
    Missed,
}

/// Publishes and subscribes. See the module for the contract.
#[async_trait]
pub trait PubSub: Send + Sync + fmt::Debug {
    /// Sends a message to all who subscribe to the topic, on all nodes.
    ///
    /// # Errors
    /// When it is not known that it was sent. Subscribers may have it all the same.
    async fn publish(&self, topic: &Topic, message: &[u8]) -> Result<(), Error>;

    /// Subscribes. When this returns the subscription is live; where the backend is away it is live
    /// later and says so with [`Delivery::Missed`].
    async fn subscribe(&self, topic: &Topic) -> Subscription;
}

/// The end of a topic that one reader listens at. Ends when dropped.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Delivery>,
    _place: Place,
}

impl Subscription {
    /// The next delivery. Cancelling loses nothing.
    pub async fn next(&mut self) -> Delivery {
        match self.receiver.recv().await {
            Ok(delivery) => delivery,
            Err(broadcast::error::RecvError::Lagged(_)) => Delivery::Missed,
            // The hub holds the sender as long as this value has its place in it.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Who listens to what in this process.
#[derive(Debug, Default)]
struct Hub {
    topics: Mutex<BTreeMap<Topic, Listeners>>,
    /// Told when a topic comes or goes.
    changed: Notify,
}

#[derive(Debug)]
struct Listeners {
    sender: broadcast::Sender<Delivery>,
    places: usize,
}

/// A place in the hub: the topic stays as long as somebody has one.
#[derive(Debug)]
struct Place {
    hub: Arc<Hub>,
    topic: Topic,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut topics = self.hub.topics.lock();
        let Some(listeners) = topics.get_mut(&self.topic) else { return };
        listeners.places -= 1;
        if listeners.places == 0 {
            topics.remove(&self.topic);
            self.hub.changed.notify_one();
        }
    }
}

impl Hub {
    /// Takes a place. The topic is listened to from here on, though nobody hears it yet.
    fn enter(self: &Arc<Self>, topic: &Topic) -> Place {
        let mut topics = self.topics.lock();
        let listeners = topics.entry(topic.clone()).or_insert_with(|| {
            self.changed.notify_one();
            Listeners { sender: broadcast::Sender::new(BACKLOG), places: 0 }
        });
        listeners.places += 1;
        Place { hub: Arc::clone(self), topic: topic.clone() }
    }

    /// Starts to hear.
    fn listen(&self, place: Place) -> Subscription {
        let receiver = match self.topics.lock().get(&place.topic) {
            Some(listeners) => listeners.sender.subscribe(),
            None => broadcast::Sender::new(1).subscribe(),
        };
        Subscription { receiver, _place: place }
    }

    /// Hands a delivery to all listeners of a topic in this process.
    fn deliver(&self, topic: &Topic, delivery: Delivery) {
        if let Some(listeners) = self.topics.lock().get(topic) {
            // Nobody hears it when all have a place and none listens yet.
            drop(listeners.sender.send(delivery));
        }
    }

    fn topics(&self) -> Vec<Topic> {
        self.topics.lock().keys().cloned().collect()
    }
}
