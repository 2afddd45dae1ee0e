//! How a stream ends: what came is counted and booked, whether it is whole, failed or was left.
//!
//! Not here: when it ends. Invariant: whoever calls gives the whole flow away, so that nothing can
//! be booked twice.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use anima_core::config::OnDisconnect;
use anima_core::failure::{Circuit, Failure, Source};
use anima_core::usage::{Meter, Usage};
use anima_wire::adapter::{StreamDecoder, Told, neutral_message};

use super::super::booking::{self, Delivered, Part};
use super::super::settle;
use super::super::trial::classified;
use super::Flow;
use crate::http::reply::id_text;
use crate::outbound::Body as Upstream;

/// How long a finished upstream may take to close its body, so that its connection can be reused.
/// Never waited for: the settlement runs at the same time, and the stream ends with it.
const TAIL: Duration = Duration::from_secs(1);

/// Books a stream that reached its end, and gives the event to close it with.
pub(super) async fn end(flow: Box<Flow>, failure: Option<Failure>) -> Option<Bytes> {
    let id = id_text(flow.call.arrival.id);
    let decoder = &flow.decoder;
    let event = |failure: Failure| decoder.failure_event(failure, neutral_message(failure), &id);
    // Made before the decoder is given away to be counted.
    let last = failure.map_or_else(|| Some(decoder.terminator()), event);
    let unbooked = event(Failure::Unbooked);
    let outcome = failure.map_or("ok", Failure::reason);
    let Flow { relay, call, open, failed, mut trial, mut decision, upstream, decoder, .. } = *flow;
    trial.refer(decoder.upstream_ref());
    let changed = trial.report(true, failure.map(classified).as_ref());
    decision.trace.ended(outcome, trial.started.elapsed(), changed);
    let mut delivered = delivered(decoder, failure.map_or(Part::Whole, part)).await;
    // Half a sound is of no use, and how much of it came cannot be told from its bytes.
    delivered.empty |= last.is_none() && delivered.part == Part::Broken;
    // Pinned here: handed over by value it would be kept twice.
    let settling = pin!(settle::served(&relay, &call, open, (failed, trial, delivered, outcome)));
    let settled = beside(settling, upstream).await;
    decision.outcome = outcome;
    decision.total = call.arrival.instant.elapsed();
    let last = match settled {
        Ok(receipt) => {
            decision.receipt = Some(receipt);
            last
        }
        Err(_logged) => {
            decision.outcome = Failure::Unbooked.reason();
            unbooked
        }
    };
    if let Some(deferral) = &call.deferral {
        deferral.ended(decision.outcome);
    }
    relay.conclude(decision);
    last
}

/// Runs a settlement while the rest of the upstream's body is read, so that the connection can be
/// used again.
async fn beside<T>(mut settling: Pin<&mut impl Future<Output = T>>, upstream: Upstream) -> T {
    let tail = tokio::time::timeout(TAIL, read_out(upstream));
    tokio::select! {
        biased;
        settled = &mut settling => settled,
        _ = tail => settling.await,
    }
}

async fn read_out(mut upstream: Upstream) {
    while let Some(Ok(_rest)) = upstream.frame().await {}
}

/// Takes over a stream whose client has left.
pub(super) async fn abandoned(mut flow: Box<Flow>) {
    flow.relay.metrics.drains.inc();
    if flow.trial.on_disconnect == OnDisconnect::Drain && !flow.decoder.is_done() {
        let cut = flow.entered.wake();
        tokio::select! {
            () = drain(&mut flow) => {}
            () = cut.cancelled() => {}
        }
    }
    let outcome = Failure::ClientGone.reason();
    let Flow { relay, call, open, failed, mut trial, mut decision, decoder, .. } = *flow;
    trial.refer(decoder.upstream_ref());
    let left = (!decoder.is_done()).then(|| classified(Failure::ClientGone));
    let changed = trial.report(true, left.as_ref());
    decision.trace.ended(outcome, trial.started.elapsed(), changed);
    let part = if decoder.is_done() { Part::Whole } else { Part::Stopped };
    let delivered = delivered(decoder, part).await;
    let settled = settle::served(&relay, &call, open, (failed, trial, delivered, outcome)).await;
    decision.outcome = outcome;
    decision.receipt = settled.ok();
    decision.total = call.arrival.instant.elapsed();
    relay.conclude(decision);
}

/// Reads on until the answer's end or a bound, for the usage that comes last: the time for it is
/// over, or the hold is used up.
async fn drain(flow: &mut Flow) {
    let until = flow.deadline.min(Instant::now() + flow.relay.limits.drain);
    let mut unseen = Vec::new();
    // Nobody may have read it for a while.
    flow.came(Instant::now());
    while !flow.decoder.is_done() {
        let by = until.min(flow.patience());
        let frame = match tokio::time::timeout_at(by, flow.upstream.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => {
                // Not every dialect has a terminator: its end may be what completes it.
                let _cut = flow.decoder.end(&mut unseen);
                return;
            }
            Ok(Some(Err(_))) | Err(_) => return,
        };
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        if flow.decoder.push(chunk, &mut unseen).is_err() {
            return;
        }
        flow.came(Instant::now());
        unseen.clear();
        if flow.open.progress.is_exhausted(flow.decoder.output_bytes()) {
            return;
        }
    }
}

/// What went through, as booking wants it. Counting takes a while and is needed only without a last
/// report, so it is done on a thread that may block.
async fn delivered(mut decoder: StreamDecoder, part: Part) -> Delivered {
    let suspect = decoder.usage_suspect();
    let believed = decoder.usage().filter(|_| !suspect);
    let empty = !decoder.has_content() && believed.is_none_or(|u| u.output_tokens() == 0);
    let tier = decoder.service_tier().map(str::to_owned);
    let is_running = part != Part::Whole && believed.is_some() && decoder.usage_is_running();
    let told = if is_running { Told::Nothing } else { decoder.told() };
    let input = decoder.input_usage();
    let counted_output = if (believed.is_none() || is_running) && !empty {
        booking::counted(move || {
            if is_running { decoder.count_since_report() } else { decoder.count_output_tokens() }
        })
        .await
    } else {
        0
    };
    let reported =
        believed.map(|usage| if is_running { with_more(usage, counted_output) } else { usage });
    Delivered { reported, suspect, told, input, tier, counted_output, empty, part }
}

/// A running report of a stream that did not end: what was generated since is our own count.
fn with_more(mut usage: Usage, since: u64) -> Usage {
    usage.set(Meter::OutputTokens, usage.of(Meter::OutputTokens).saturating_add(since));
    usage
}

/// Who ended a stream that failed: the provider, also by taking too long or by refusing to go on
/// with what the client wants, or this gateway.
const fn part(failure: Failure) -> Part {
    let row = failure.row();
    let is_providers = matches!(row.source, Source::Upstream)
        || matches!(row.circuit, Circuit::Succeeds)
        || matches!(failure, Failure::DeadlineExceeded);
    if is_providers { Part::Broken } else { Part::Stopped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_breaks_off_for_the_clients_sake_it_breaks_off() {
        use Failure as F;
        for failure in [F::ContentRefused, F::ContextTooLong, F::RequestRefused, F::StreamCut] {
            assert_eq!(part(failure), Part::Broken, "{failure:?}");
        }
        assert_eq!(part(F::DeadlineExceeded), Part::Broken);
        for failure in [F::CutOff, F::ShuttingDown, F::ClientGone, F::InsufficientFunds] {
            assert_eq!(part(failure), Part::Stopped, "{failure:?}");
        }
    }
}
