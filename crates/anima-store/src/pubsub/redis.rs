//! Messages between nodes over Redis pub/sub.
//!
//! One connection per process listens for all topics. It is asked for a sign of life every second,
//! so that a half-open one is noticed, and made anew when it is lost; everybody who listens is then
//! told that messages may be missing. Invariant: a topic is never taken for live before Redis has
//! confirmed it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::{PubSubSink, PubSubStream};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::{Delivery, Hub, PubSub, Subscription};
use crate::redis::{self, Error, Redis};
use crate::redis_keys::Topic;

/// Between two signs of life.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long a sign of life, or the confirmation of a topic, may take.
const ANSWER: Duration = Duration::from_secs(1);
/// How long making the connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// The first pause between two tries; doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);
/// Short: until then kill switches arrive by their poll alone.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Messages between nodes. The listener ends with this value.
#[derive(Debug)]
pub struct RedisPubSub {
    redis: Redis,
    hub: Arc<Hub>,
    /// Topics that Redis has confirmed on the present connection.
    live: watch::Receiver<BTreeSet<Topic>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for RedisPubSub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RedisPubSub {
    /// Starts to listen.
    pub fn new(redis: Redis) -> Self {
        let hub = Arc::new(Hub::default());
        let (confirmed, live) = watch::channel(BTreeSet::new());
        let listener = Listener { redis: redis.clone(), hub: Arc::clone(&hub), confirmed };
        Self { redis, hub, live, task: tokio::spawn(listener.run()) }
    }
}

#[async_trait]
impl PubSub for RedisPubSub {
    async fn publish(&self, topic: &Topic, message: &[u8]) -> Result<(), Error> {
        let mut command = ::redis::cmd("PUBLISH");
        command.arg(self.redis.topic(topic)).arg(message);
        self.redis.command(&command).await
    }

    async fn subscribe(&self, topic: &Topic) -> Subscription {
        let place = self.hub.enter(topic);
        let mut live = self.live.clone();
        let confirmed = live.wait_for(|topics| topics.contains(topic));
        // Where Redis is away nobody waits for it: the listener says `Missed` when it is back.
        drop(timeout(self.redis.timeout(), confirmed).await);
        self.hub.listen(place)
    }
}

struct Listener {
    redis: Redis,
    hub: Arc<Hub>,
    confirmed: watch::Sender<BTreeSet<Topic>>,
}

impl Listener {
    async fn run(self) {
        let mut pause = PAUSE;
        loop {
            let began = Instant::now();
            let ended = self.listen().await;
            self.confirmed.send_replace(BTreeSet::new());
            tracing::debug!(why = ended, "the subscription to redis ended");
            if began.elapsed() > PAUSE_MAX {
                pause = PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Listens until the connection is of no use any more, and says why.
    async fn listen(&self) -> String {
        let connected = redis::subscriber(&self.redis, CONNECT).await;
        let (mut sink, mut stream) = match connected {
            Ok(connection) => connection.split(),
            Err(error) => return error.to_string(),
        };
        let mut probe = tokio::time::interval(PROBE_EVERY);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(why) = self.align(&mut sink).await {
                return why;
            }
            if let Err(why) = self.until_changed(&mut sink, &mut stream, &mut probe).await {
                return why;
            }
        }
    }

    /// Passes messages on until the hub's topics change.
    async fn until_changed(
        &self,
        sink: &mut PubSubSink,
        stream: &mut PubSubStream,
        probe: &mut tokio::time::Interval,
    ) -> Result<(), String> {
        loop {
            tokio::select! {
                message = stream.next() => {
                    let message = message.ok_or("the connection was closed")?;
                    self.pass_on(&message);
                }
                () = self.hub.changed.notified() => return Ok(()),
                _ = probe.tick() => {
                    let alive = timeout(ANSWER, sink.ping::<::redis::Value>()).await;
                    alive.map_err(|_late| "no sign of life".to_owned())?
                        .map_err(|error| error.to_string())?;
                }
            }
        }
    }

    fn pass_on(&self, message: &::redis::Msg) {
        let name = message.get_channel_name();
        let topics = self.confirmed.borrow();
        let topic = topics.iter().find(|topic| self.redis.topic(topic) == name);
        if let Some(topic) = topic {
            let bytes = Bytes::copy_from_slice(message.get_payload_bytes());
            self.hub.deliver(topic, Delivery::Message(bytes));
        }
    }

    /// Makes Redis send what the hub wants, no more and no less.
    async fn align(&self, sink: &mut PubSubSink) -> Result<(), String> {
        let wanted: BTreeSet<Topic> = self.hub.topics().into_iter().collect();
        let live = self.confirmed.borrow().clone();
        let added: Vec<&Topic> = wanted.difference(&live).collect();
        let gone: Vec<String> = live.difference(&wanted).map(|t| self.redis.topic(t)).collect();
        let late = |_| "a subscription was not confirmed".to_owned();
        if !added.is_empty() {
            let names: Vec<String> = added.iter().map(|topic| self.redis.topic(topic)).collect();
            let confirmed = timeout(ANSWER, sink.subscribe(names)).await.map_err(late)?;
            confirmed.map_err(|error| error.to_string())?;
        }
        if !gone.is_empty() {
            let confirmed = timeout(ANSWER, sink.unsubscribe(gone)).await.map_err(late)?;
            confirmed.map_err(|error| error.to_string())?;
        }
        // Those who listen already heard nothing until now. `Missed` goes out before the topic
        // counts as live, so that whoever waits for that does not see it.
        for topic in added {
            self.hub.deliver(topic, Delivery::Missed);
        }
        self.confirmed.send_replace(wanted);
        Ok(())
    }
}
