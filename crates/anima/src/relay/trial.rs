//! One upstream call: send, wait for the head, and judge it.
//!
//! Not here: which candidate is next (`attempt`), or what follows the first content byte
//! (`stream`). Invariant: every way out names what the attempt may have cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use tokio::time::Instant;
use zeroize::Zeroizing;

use anima_core::clock::Timestamp;
use anima_core::config::{OnDisconnect, Timeouts};
use anima_core::failure::Failure;
use anima_core::pricing::PriceList;
use anima_core::snapshot::RouteEntry;
use anima_core::usage::Usage;
use anima_wire::adapter::{
    Adapter, Answer, BETA, Classified, Encoded, Sent, StreamDecoder, neutral_message,
};
use anima_wire::canonical::Dropped;
use anima_wire::request::Endpoint;

use super::call::Call;
use crate::circuits::{Change, End, Ticket};
use crate::live::Upstream;
use crate::outbound::{self, Body, Collected, Outbound, Policy, Segments};

/// Bytes of an error answer that are read to classify it.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Characters of a provider's id that are kept; real ones have 20 to 60.
const REFERENCE_CHARS_MAX: usize = 128;

/// An upstream call under way, with what its record needs.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) n: i16,
    pub(super) channel: Arc<str>,
    pub(super) credential: Arc<str>,
    pub(super) model: Arc<str>,
    /// The cost price, pinned when the attempt started.
    pub(super) cost: Arc<PriceList>,
    pub(super) started_at: Timestamp,
    pub(super) started: Instant,
    pub(super) first_byte: Option<Instant>,
    pub(super) timeouts: Timeouts,
    pub(super) on_disconnect: OnDisconnect,
    /// The provider's own id of the call.
    pub(super) upstream_ref: Option<String>,
    /// Bytes of an answer that could not be used, for an estimate of what they cost.
    pub(super) wasted_bytes: usize,
    /// What the provider reported of an answer that could not be used.
    pub(super) wasted: Option<Wasted>,
    /// What the provider's dialect could not carry.
    pub(super) dropped: Dropped,
    /// Of a sound, what it is.
    pub(super) content_type: Option<HeaderValue>,
    /// The status that the provider answered with.
    pub(super) status: Option<u16>,
    /// A fault rule of the operator's took it.
    pub(super) is_injected: bool,
    /// Set when the request begins to leave.
    sent: Arc<AtomicBool>,
    /// What it reports to the circuits; gone once it has.
    ticket: Option<Ticket>,
}

/// A report of an answer that could not be used.
#[derive(Debug)]
pub(super) struct Wasted {
    pub(super) usage: Usage,
    pub(super) tier: Option<String>,
    /// Told while the answer went on: the provider may charge for more.
    pub(super) is_running: bool,
}

/// What came of an upstream call.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A whole answer.
    Whole(Box<Answer>, Bytes),
    /// The head of a stream.
    Stream(Body),
    /// Nothing to show.
    Failed(Classified),
}

impl Trial {
    pub(super) fn new(
        n: i16,
        route: &RouteEntry,
        credential: &(Arc<str>, Zeroizing<String>),
        cost: Arc<PriceList>,
        (started_at, ticket): (Timestamp, Ticket),
    ) -> Self {
        Self {
            n,
            channel: Arc::clone(&route.channel.code),
            credential: Arc::clone(&credential.0),
            model: Arc::clone(&route.model),
            cost,
            started_at,
            started: Instant::now(),
            first_byte: None,
            timeouts: route.channel.body.timeouts,
            on_disconnect: route.channel.body.on_disconnect,
            upstream_ref: None,
            wasted_bytes: 0,
            wasted: None,
            dropped: Dropped::default(),
            content_type: None,
            status: None,
            is_injected: false,
            sent: Arc::new(AtomicBool::new(false)),
            ticket: Some(ticket),
        }
    }

    /// Tells the circuits how the attempt ended, once. Without a stream the time of the first byte
    /// is that of the whole answer and says nothing about slowness.
    pub(super) fn report(&mut self, streams: bool, end: Option<&Classified>) -> Change {
        let Some(ticket) = self.ticket.take() else { return Change::default() };
        let failure = end.map(|classified| classified.failure);
        let first_byte = match self.first_byte {
            Some(at) => at.duration_since(self.started),
            None => self.started.elapsed(),
        };
        let asked_ms = end.and_then(|classified| classified.retry_after_ms);
        ticket.end(End { failure, streams, first_byte, asked_ms })
    }

    /// Whether the provider may have any of the request. What nobody sent costs nothing.
    pub(super) fn is_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    /// Notes the provider's own id of the call: bounded, since the provider chooses it.
    pub(super) fn refer(&mut self, id: Option<&str>) {
        if let Some(id) = id {
            self.upstream_ref = Some(plain(id));
        }
    }

    /// Notes what a stream reported that failed before anything of it was shown.
    pub(super) fn waste(&mut self, decoder: &StreamDecoder) {
        self.refer(decoder.upstream_ref());
        let believed = decoder.usage().filter(|u| !u.is_empty() && !decoder.usage_suspect());
        let tier = decoder.service_tier().map(str::to_owned);
        let is_running = decoder.usage_is_running();
        self.wasted = believed.map(|usage| Wasted { usage, tier, is_running });
    }

    /// The first byte, and of a stream the first content, must be there by here.
    pub(super) fn first_byte_by(&self, call: &Call) -> Instant {
        let first_byte = Duration::from_millis(self.timeouts.first_byte_ms.into());
        self.deadline(call).min(call.answer_by).min(self.started + first_byte)
    }

    /// The attempt is over here at the latest.
    pub(super) fn deadline(&self, call: &Call) -> Instant {
        let total = Duration::from_millis(self.timeouts.total_ms.into());
        call.deadline.min(self.started + total)
    }

    /// What it is to have passed [`Trial::deadline`]: the request's own, or the channel's bound.
    pub(super) fn late(&self, call: &Call) -> Failure {
        if self.deadline(call) < call.deadline {
            Failure::TotalTimeout
        } else {
            Failure::DeadlineExceeded
        }
    }

    /// What it is to have passed [`Trial::first_byte_by`].
    pub(super) fn too_late(&self, call: &Call) -> Failure {
        let by = self.first_byte_by(call);
        if by == self.deadline(call) {
            self.late(call)
        } else if by == call.answer_by {
            Failure::DeadlineExceeded
        } else {
            Failure::FirstByteTimeout
        }
    }

    /// Sends the call and judges the answer's head; reads the body unless it is a stream. A kept
    /// token that is refused is renewed, once: it may have been revoked before its time.
    pub(super) async fn send(
        &mut self,
        call: &Call,
        upstream: &Upstream,
        (adapter, encoded, secret): (&'static dyn Adapter, Encoded, &str),
        out: (&Outbound, Policy, usize),
    ) -> Outcome {
        let again = Outbound::is_account(secret).then(|| encoded.clone());
        let outcome = self.send_once(call, upstream, (adapter, encoded, secret), out).await;
        let Some(encoded) = again.filter(|_| self.status == Some(401)) else { return outcome };
        if !out.0.forget_token(secret, self.started_at).await {
            return outcome;
        }
        self.send_once(call, upstream, (adapter, encoded, secret), out).await
    }

    /// On a channel that cancels, a client that leaves ends it at once.
    async fn send_once(
        &mut self,
        call: &Call,
        upstream: &Upstream,
        (adapter, mut encoded, secret): (&'static dyn Adapter, Encoded, &str),
        out: (&Outbound, Policy, usize),
    ) -> Outcome {
        self.dropped = std::mem::take(&mut encoded.dropped);
        let (outbound, policy, _) = out;
        let by = self.first_byte_by(call);
        // A service account is not sent: a token is, which it gets.
        let token = match outbound.access_token(policy, secret, self.started_at, by).await {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(channel = &*self.channel, detail = error.detail, "no access token");
                return failed(error.failure);
            }
        };
        let secret = token.as_ref().map_or(secret, |token| token.as_str());
        let Some(request) = self.request(call, upstream, adapter, (encoded, secret)) else {
            return failed(Failure::Internal);
        };
        let cancels = self.on_disconnect == OnDisconnect::Cancel;
        let gone = call.arrival.gone.clone();
        tokio::select! {
            biased;
            outcome = self.exchange(call, adapter, request, out) => outcome,
            () = gone.cancelled(), if cancels => failed(Failure::ClientGone),
        }
    }

    async fn exchange(
        &mut self,
        call: &Call,
        adapter: &'static dyn Adapter,
        request: Request<Segments>,
        (outbound, policy, answer_bytes_max): (&Outbound, Policy, usize),
    ) -> Outcome {
        let head_by = self.first_byte_by(call);
        let response = match tokio::time::timeout_at(head_by, outbound.send(policy, request)).await
        {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                tracing::debug!(channel = &*self.channel, detail = error.detail, "attempt failed");
                return failed(error.failure);
            }
            Err(_elapsed) => return failed(self.too_late(call)),
        };
        self.first_byte = Some(Instant::now());
        self.upstream_ref = reference(&response);
        self.status = Some(response.status().as_u16());
        if response.status().as_u16() != 200 {
            return self.judge_refusal(call, adapter, response).await;
        }
        // Servers before Google do not always heed that events are asked for.
        let is_array = || is_json(&response) && adapter.stream(&call.request).takes_arrays();
        if call.request.stream && (is_event_stream(&response) || is_array()) {
            return Outcome::Stream(response.into_body());
        }
        if call.request.endpoint == Endpoint::Speech && !call.request.stream && !is_json(&response)
        {
            self.content_type = Some(sound_type(&response));
            return Outcome::Stream(response.into_body());
        }
        let collected = self.collect(call, response.into_body(), answer_bytes_max).await;
        let judged = collected.and_then(|body| {
            let answer = adapter.answer(&call.request, &body);
            let told = answer.map(|answer| {
                let said = answer.body.clone();
                (answer, said)
            });
            told.inspect_err(|failure| {
                // What cannot be read was still made, and may be charged.
                if *failure == Failure::AnswerMalformed {
                    self.wasted_bytes = body.len();
                }
            })
        });
        match judged {
            Err(failure) => failed(failure),
            Ok((answer, _)) if answer.failure.is_some() => self.spoilt(answer),
            // Some models that hear stream nothing, and say all at once.
            Ok((_, body)) if call.request.stream && !call.request.endpoint.hears() => {
                self.wasted_bytes = body.len();
                failed(Failure::AnswerMalformed)
            }
            Ok((answer, _)) if is_nothing(call, &answer) => failed(Failure::AnswerEmpty),
            Ok((answer, body)) => {
                self.refer(answer.upstream_ref.as_deref());
                Outcome::Whole(Box::new(answer), body)
            }
        }
    }

    /// An answer that says that the provider failed: what it reports was consumed all the same.
    fn spoilt(&mut self, answer: Answer) -> Outcome {
        self.refer(answer.upstream_ref.as_deref());
        self.wasted_bytes = answer.text_bytes;
        let believed = answer.usage.filter(|_| !answer.usage_suspect);
        let tier = answer.service_tier;
        self.wasted = believed.map(|usage| Wasted { usage, tier, is_running: false });
        failed(answer.failure.unwrap_or(Failure::ErrorInAnswer))
    }

    async fn collect(&mut self, call: &Call, body: Body, limit: usize) -> Result<Bytes, Failure> {
        let deadline = self.deadline(call);
        let idle = Duration::from_millis(self.timeouts.idle_ms.into());
        match outbound::collect(body, limit, idle, deadline).await {
            Collected::Whole(bytes) => Ok(bytes),
            Collected::TooLarge => {
                self.wasted_bytes = limit;
                Err(Failure::AnswerTooLarge)
            }
            Collected::Broken(detail, size) => {
                self.wasted_bytes = size;
                tracing::debug!(channel = &*self.channel, detail, "answer broke off");
                Err(Failure::ConnectionLost)
            }
            Collected::Idle => Err(Failure::FirstByteTimeout),
            Collected::Late => Err(self.late(call)),
        }
    }

    async fn judge_refusal(
        &mut self,
        call: &Call,
        adapter: &'static dyn Adapter,
        response: Response<Body>,
    ) -> Outcome {
        let (head, body) = response.into_parts();
        // A refusal whose body cannot be read is classified by its status alone.
        let body = self.collect(call, body, ERROR_BYTES_MAX).await.unwrap_or_default();
        Outcome::Failed(adapter.classify(head.status.as_u16(), &head.headers, &body))
    }

    fn request(
        &self,
        call: &Call,
        upstream: &Upstream,
        adapter: &'static dyn Adapter,
        (encoded, secret): (Encoded, &str),
    ) -> Option<Request<Segments>> {
        let mut headers = HeaderMap::with_capacity(8);
        let uri = target(&upstream.base, &encoded.path)?;
        let json = || HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, encoded.content_type.unwrap_or_else(json));
        let accept = match (call.request.stream, call.request.endpoint) {
            (true, _) => "text/event-stream",
            (false, Endpoint::Speech) => "*/*",
            (false, _) => "application/json",
        };
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("anima"));
        if let Some(names) = encoded.beta {
            headers.insert(BETA, names);
        }
        let mut buffer = uuid::Uuid::encode_buffer();
        let id = call.arrival.id.simple().encode_lower(&mut buffer);
        headers.insert("x-anima-request-id", HeaderValue::from_str(id).ok()?);
        headers
            .insert("x-anima-attempt-id", HeaderValue::from_str(&format!("{id}-{}", self.n)).ok()?);
        let at_s = self.started_at.seconds();
        let region = encoded.region.as_deref();
        let sent = Sent { uri: &uri, body: &encoded.body, at_s, region };
        adapter.authorize(&mut headers, secret, &sent).ok()?;
        let body = Segments::new(encoded.body).telling(Arc::clone(&self.sent));
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Some(request)
    }
}

/// Whether a 200 holds neither content nor a report: nothing to show and nothing to book.
fn is_nothing(call: &Call, answer: &Answer) -> bool {
    call.request.endpoint.generates() && answer.text_bytes == 0 && answer.usage.is_none()
}

/// A failure with the neutral text for callers.
pub(super) fn failed(failure: Failure) -> Outcome {
    Outcome::Failed(classified(failure))
}

/// A failure as an adapter would classify it, with the neutral text for callers.
pub(super) fn classified(failure: Failure) -> Classified {
    Classified {
        failure,
        message: neutral_message(failure).to_owned(),
        retry_after_ms: None,
        upstream_code: None,
    }
}

/// The URL of a call. Segments that end the base URL and begin the path stand once: bases are
/// written with and without their version.
pub(super) fn target(base: &Uri, path: &str) -> Option<Uri> {
    let mut parts = base.clone().into_parts();
    let mut prefix = base.path().trim_end_matches('/');
    let ends = path.match_indices(['/', '?']).map(|(at, _)| at).filter(|at| *at > 0);
    let ends: Vec<usize> = ends.collect();
    let mut ends = ends.iter().rev();
    let shared = ends.find_map(|end| prefix.strip_suffix(path.get(..*end)?));
    prefix = shared.unwrap_or(prefix);
    parts.path_and_query = Some(format!("{prefix}{path}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

fn reference(response: &Response<Body>) -> Option<String> {
    let value = response.headers().get("x-request-id")?.to_str().ok()?;
    Some(plain(value))
}

/// A text of the provider's own as records may hold it: short and printable.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REFERENCE_CHARS_MAX).collect()
}

fn is_event_stream(response: &Response<Body>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let streams = ["text/event-stream", "application/vnd.amazon.eventstream"];
    kind.is_some_and(|k| streams.iter().any(|stream| k.trim_start().starts_with(stream)))
}

fn is_json(response: &Response<Body>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().starts_with("application/json"))
}

/// What a sound is called. Whatever else a provider says of it, a browser must not run it.
fn sound_type(response: &Response<Body>) -> HeaderValue {
    let kind = response.headers().get(header::CONTENT_TYPE).cloned();
    let kind = kind.filter(|kind| kind.as_bytes().starts_with(b"audio/"));
    kind.unwrap_or_else(|| HeaderValue::from_static("application/octet-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_once_in_a_url_however_the_base_is_written() {
        let url = |base: &str, path| target(&base.parse().unwrap(), path).unwrap().to_string();
        assert_eq!(url("http://a", "/v1/messages"), "http://a/v1/messages");
        assert_eq!(url("http://a/v1", "/v1/messages"), "http://a/v1/messages");
        assert_eq!(url("http://a/x/v1beta/", "/v1beta/m"), "http://a/x/v1beta/m");
        assert_eq!(url("http://a/v1beta", "/v1/m"), "http://a/v1beta/v1/m");
        assert_eq!(url("http://a/av1", "/v1/m"), "http://a/av1/v1/m");
        assert_eq!(url("http://a/openai/v1", "/openai/v1/x?y=/z"), "http://a/openai/v1/x?y=/z");
        assert_eq!(url("http://a/openai", "/openai/v1/x"), "http://a/openai/v1/x");
        assert_eq!(url("http://a/v1", "/chat/completions"), "http://a/v1/chat/completions");
    }
}
