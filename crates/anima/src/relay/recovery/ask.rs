//! Asks a provider what became of the calls of a request.
//!
//! Only channels whose settings say that it can be asked. Invariant: whatever goes wrong on the way
//! is "unclear", never "no such call".

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, header};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use anima_wire::adapter::Sent;
use anima_wire::adapter::look_up::{self, Answer};

use super::super::Relay;
use super::super::trial::target;
use super::calls::Candidate;
use crate::outbound::{self, Collected, Policy, Segments};

/// How long a provider may take to answer.
const WITHIN: Duration = Duration::from_secs(3);

/// Bytes of an answer: a call takes some 500.
const BYTES_MAX: usize = 256 * 1024;

/// Channels that did not answer in time in a pass: asking again would only cost as much again.
#[derive(Debug, Default)]
pub(super) struct Silent(Mutex<BTreeSet<Arc<str>>>);

impl Silent {
    fn knows(&self, channel: &str) -> bool {
        self.0.lock().contains(channel)
    }

    /// Remembers one. Whether it is new: of those that were asked at one time, the first says so.
    fn note(&self, channel: &Arc<str>) -> bool {
        self.0.lock().insert(Arc::clone(channel))
    }
}

/// Asks a candidate, unless its channel is silent. [`Answer::Never`] when it cannot be asked.
pub(super) async fn ask(
    relay: &Relay,
    silent: &Silent,
    request_id: Uuid,
    candidate: &Candidate,
) -> Answer {
    if silent.knows(&candidate.channel) {
        return Answer::Unclear;
    }
    let asked = Instant::now();
    let answer = ask_now(relay, request_id, candidate).await;
    let is_late = matches!(answer, Answer::Unclear) && asked.elapsed() >= WITHIN;
    if is_late && silent.note(&candidate.channel) {
        tracing::warn!(
            channel = %candidate.channel,
            "the provider does not say what became of its calls; asking again in the next pass"
        );
    }
    answer
}

async fn ask_now(relay: &Relay, request_id: Uuid, candidate: &Candidate) -> Answer {
    let Some((entry, upstream)) = &candidate.reach else { return Answer::Never };
    let can = entry.body.settings.get(look_up::SETTING).and_then(serde_json::Value::as_bool);
    if can != Some(true) {
        return Answer::Never;
    }
    let id = request_id.simple().to_string();
    let Some(uri) = target(&upstream.base, &look_up::path(&id)) else { return Answer::Never };
    let mut request = Request::new(Segments::new(Vec::new()));
    *request.uri_mut() = uri.clone();
    let at_s = relay.clock.now().seconds();
    let sent = Sent { uri: &uri, body: &[], at_s, region: None };
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("anima"));
    if let (Some(adapter), Some((_, secret))) = (upstream.adapter, upstream.credentials.first())
        && adapter.authorize(headers, secret, &sent).is_err()
    {
        return Answer::Never;
    }
    let policy = Policy {
        private: entry.body.allow_private_network,
        connect_ms: entry.body.timeouts.connect_ms,
    };
    let deadline = Instant::now() + WITHIN;
    let response = tokio::time::timeout_at(deadline, relay.outbound.send(policy, request)).await;
    let Ok(Ok(response)) = response else { return Answer::Unclear };
    let status = response.status().as_u16();
    match outbound::collect(response.into_body(), BYTES_MAX, WITHIN, deadline).await {
        Collected::Whole(body) => look_up::read(status, &body),
        Collected::TooLarge | Collected::Broken(..) | Collected::Idle | Collected::Late => {
            Answer::Unclear
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_channel_is_warned_of_once_per_pass_whoever_asked_meanwhile() {
        let (silent, north, south) = (Silent::default(), Arc::from("north"), Arc::from("south"));
        assert!(!silent.knows("north"));
        assert!(silent.note(&north) && !silent.note(&north) && !silent.note(&north));
        assert!(silent.knows("north") && !silent.knows("south"));
        assert!(silent.note(&south));
        assert!(Silent::default().note(&north), "the next pass says it again");
    }
}
