//! Which upstream calls of a hold were made, or may have been, from its checkpoint, its alias and
//! what the providers say.
//!
//! Not here: what follows from it for anybody's money. Invariant: every attempt has a number of its
//! own, and an attempt whose end was written down is not opened again.

use std::collections::BTreeSet;
use std::sync::Arc;

use anima_core::clock::Timestamp;
use anima_core::ledger::PriceRef;
use anima_core::ledger::recovery::{LookUp, OpenCall, Progress};
use anima_core::money::Currency;
use anima_core::pricing::PriceList;
use anima_core::snapshot::ChannelEntry;
use anima_store::ledger::Claimed;
use anima_wire::adapter::look_up::{Answer, Found};

use super::super::call::price_ref;
use crate::live::{Pinned, Upstream};

/// A channel that may have been called, with the models and prices that it would have been called
/// for, the likeliest first.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) channel: Arc<str>,
    /// `None` when the channel exists no longer.
    pub(super) reach: Option<(Arc<ChannelEntry>, Arc<Upstream>)>,
    models: Vec<(Arc<str>, PriceRef)>,
}

/// A candidate and what it said.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) candidate: Candidate,
    pub(super) answer: Answer,
}

/// An upstream call, with what is known of it.
#[derive(Debug)]
pub(super) struct Known {
    n: i16,
    channel: Arc<str>,
    credential: Arc<str>,
    model: Arc<str>,
    /// Its cost price.
    pub(super) cost: PriceRef,
    started_at: Timestamp,
    upstream_ref: Option<String>,
    progress: Option<Progress>,
    look_up: LookUp,
}

impl Known {
    /// As the ladder takes it.
    pub(super) fn open<'a>(&self, cost: &'a PriceList) -> OpenCall<'a> {
        OpenCall {
            n: self.n,
            channel: Arc::clone(&self.channel),
            credential: Arc::clone(&self.credential),
            model: Arc::clone(&self.model),
            cost,
            started_at: self.started_at,
            upstream_ref: self.upstream_ref.clone(),
            progress: self.progress,
            look_up: self.look_up.clone(),
        }
    }
}

/// A list that prices nothing, in the place of one that cannot be read.
pub(super) fn empty_list(price: &PriceRef, currency: Currency) -> PriceList {
    let code = price.code.to_string();
    PriceList { code, version_no: price.version_no, currency, rates: Vec::new() }
}

/// The channels that may have been called: the checkpoint's, the one that the hold names, and all
/// of the alias as it is now.
pub(super) fn candidates(claimed: &Claimed, pinned: &Pinned) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    let mut add = |channel: &Arc<str>, model: Option<(&Arc<str>, PriceRef)>| {
        let at = candidates.iter().position(|known: &Candidate| known.channel == *channel);
        let at = at.unwrap_or_else(|| {
            let reach = pinned.snapshot.channel(channel).and_then(|entry| {
                let upstream = pinned.upstream(entry.index)?;
                Some((Arc::clone(entry), Arc::clone(upstream)))
            });
            let channel = Arc::clone(channel);
            candidates.push(Candidate { channel, reach, models: Vec::new() });
            candidates.len() - 1
        });
        if let (Some(candidate), Some((model, price))) = (candidates.get_mut(at), model) {
            candidate.models.push((Arc::clone(model), price));
        }
    };
    if let Some(running) = &claimed.running {
        add(&running.channel, Some((&running.model, running.cost_price.clone())));
    }
    if let Some(exposure) = &claimed.exposure {
        add(&exposure.channel, None);
    }
    if let Some(alias) = pinned.snapshot.alias(&claimed.alias) {
        for route in &alias.routes {
            let model = route.cost.as_ref().map(|cost| (&route.model, price_ref(cost)));
            add(&route.channel.code, model);
        }
    }
    if let Some(exposure) = &claimed.exposure {
        // Without a route of its own the price of the hold's exposure is the best that is known.
        let bare = candidates.iter_mut().filter(|candidate| candidate.models.is_empty());
        bare.for_each(|candidate| candidate.models.push((Arc::default(), exposure.price.clone())));
    }
    candidates.retain(|candidate| !candidate.models.is_empty());
    candidates
}

/// The open calls of a hold.
pub(super) fn open_calls(claimed: &Claimed, evidence: Vec<Evidence>) -> Vec<Known> {
    let mut taken: BTreeSet<i16> = claimed.ended.iter().map(|attempt| attempt.n).collect();
    let mut open = Vec::new();
    let mut unknown = Vec::new();
    for Evidence { candidate, answer } in evidence {
        match answer {
            Answer::Calls(found) => {
                let ended = taken.clone();
                let calls = found.iter().map(|found| (number(found), found));
                let calls = calls.filter(|(n, _)| n.is_none_or(|n| !ended.contains(&n)));
                let before = open.len();
                for (n, found) in calls {
                    let n = n.filter(|n| !taken.contains(n)).unwrap_or_else(|| next(&taken));
                    taken.insert(n);
                    open.push(found_call(claimed, &candidate, n, found));
                }
                if open.len() == before {
                    unknown.push((candidate, LookUp::NeverMade));
                }
            }
            Answer::Never => unknown.push((candidate, LookUp::Impossible)),
            Answer::Unclear => unknown.push((candidate, LookUp::Silent)),
        }
    }
    let running = claimed.running.as_ref().filter(|running| !taken.contains(&running.n));
    if let Some(running) = running {
        let said = unknown.iter().find(|(candidate, _)| candidate.channel == running.channel);
        let look_up = said.map_or(LookUp::Impossible, |(_, look_up)| look_up.clone());
        taken.insert(running.n);
        open.push(Known {
            n: running.n,
            channel: Arc::clone(&running.channel),
            credential: Arc::clone(&running.credential),
            model: Arc::clone(&running.model),
            cost: running.cost_price.clone(),
            started_at: running.started_at,
            upstream_ref: running.upstream_ref.clone(),
            progress: Some(Progress { usage: running.usage, delivered: running.delivered }),
            look_up,
        });
    }
    // The checkpoint's own channel has had its say.
    let own = claimed.running.as_ref().map(|running| &running.channel);
    for (candidate, look_up) in unknown {
        if own != Some(&candidate.channel) {
            let n = next(&taken);
            taken.insert(n);
            open.extend(unseen_call(claimed, &candidate, n, look_up));
        }
    }
    open
}

/// The first number after all that are taken.
fn next(taken: &BTreeSet<i16>) -> i16 {
    taken.last().map_or(1, |last| last.saturating_add(1))
}

/// The attempt's number, from the id that we gave it.
fn number(found: &Found) -> Option<i16> {
    let (_, n) = found.attempt_id.as_deref()?.rsplit_once('-')?;
    n.parse().ok().filter(|n| *n > 0)
}

/// A call that the provider knows of.
fn found_call(claimed: &Claimed, candidate: &Candidate, n: i16, found: &Found) -> Known {
    let running = claimed.running.as_ref().filter(|running| running.n == n);
    let route = candidate.models.iter().find(|(model, _)| **model == *found.model);
    let route = route.or_else(|| candidate.models.first());
    let cost = running.map(|running| running.cost_price.clone());
    let cost = cost.or_else(|| route.map(|(_, price)| price.clone()));
    Known {
        n,
        channel: Arc::clone(&candidate.channel),
        credential: running.map(|running| Arc::clone(&running.credential)).unwrap_or_default(),
        model: found.model.as_str().into(),
        cost: cost.unwrap_or_else(|| claimed.sale_price.clone()),
        started_at: running.map_or(claimed.created_at, |running| running.started_at),
        upstream_ref: found.id.clone(),
        progress: running
            .map(|running| Progress { usage: running.usage, delivered: running.delivered }),
        look_up: found.state.clone(),
    }
}

/// A call of which nobody says anything.
fn unseen_call(claimed: &Claimed, candidate: &Candidate, n: i16, look_up: LookUp) -> Option<Known> {
    let (model, cost) = candidate.models.first()?.clone();
    Some(Known {
        n,
        channel: Arc::clone(&candidate.channel),
        credential: Arc::default(),
        model,
        cost,
        started_at: claimed.created_at,
        upstream_ref: None,
        progress: None,
        look_up,
    })
}

#[cfg(test)]
mod tests {
    use anima_core::ledger::{Attempt, Phase, Running};
    use anima_core::money::Multiplier;
    use anima_core::usage::{Meter, Usage, UsageSource};
    use uuid::Uuid;

    use super::*;

    fn price(code: &str) -> PriceRef {
        PriceRef { code: code.into(), version_no: 1 }
    }

    fn claimed(ended: &[i16], running: Option<(i16, &str)>) -> Claimed {
        let at = Timestamp::from_micros(1_000);
        let attempt = |n: &i16| Attempt {
            n: *n,
            channel: "a".into(),
            credential: "c".into(),
            model: "m".into(),
            outcome: "upstream_error",
            served: false,
            usage: Usage::default(),
            usage_source: UsageSource::None,
            cost: None,
            upstream_ref: None,
            started_at: at,
            first_byte_at: None,
            ended_at: at,
        };
        let running = running.map(|(n, channel)| Running {
            n,
            channel: channel.into(),
            credential: "own".into(),
            model: "m".into(),
            cost_price: price("pinned"),
            upstream_ref: None,
            usage: Usage::default().with(Meter::OutputTokens, 7),
            delivered: true,
            started_at: at,
        });
        Claimed {
            hold: Uuid::from_u128(1),
            app: "acme".into(),
            kid: "k".into(),
            alias: "chat".into(),
            currency: Currency::USD,
            amount: 10,
            fx: None,
            sale_price: price("sale"),
            multiplier: Multiplier::ONE,
            exposure: None,
            created_at: at,
            resolve_by: at,
            phase: Phase::Intent,
            progress: 0,
            ended: ended.iter().map(attempt).collect(),
            running,
        }
    }

    fn said(channel: &str, answer: Answer) -> Evidence {
        let models = vec![("m".into(), price("now")), ("other".into(), price("dear"))];
        Evidence { candidate: Candidate { channel: channel.into(), reach: None, models }, answer }
    }

    fn found(attempt_id: &str, model: &str) -> Found {
        Found {
            attempt_id: Some(attempt_id.to_owned()),
            model: model.to_owned(),
            id: Some("theirs".to_owned()),
            state: LookUp::Running,
        }
    }

    /// Number, channel, price and what is said of each open call.
    fn shown(claimed: &Claimed, evidence: Vec<Evidence>) -> Vec<String> {
        let calls = open_calls(claimed, evidence);
        let numbers: BTreeSet<_> = calls.iter().map(|call| call.n).collect();
        assert_eq!(numbers.len(), calls.len(), "{calls:?}");
        let line = |call: &Known| {
            let progress = if call.progress.is_some() { " with progress" } else { "" };
            let (n, channel, cost) = (call.n, &call.channel, &call.cost.code);
            format!("{n} {channel} {cost} {:?}{progress}", call.look_up)
        };
        calls.iter().map(line).collect()
    }

    #[test]
    fn without_a_checkpoint_every_candidate_counts() {
        let evidence = vec![
            said("a", Answer::Never),
            said("b", Answer::Unclear),
            said("c", Answer::Calls(Vec::new())),
        ];
        let expected = ["1 a now Impossible", "2 b now Silent", "3 c now NeverMade"];
        assert_eq!(shown(&claimed(&[], None), evidence), expected);
    }

    #[test]
    fn what_a_provider_knows_has_its_own_number_and_the_price_of_its_model() {
        let calls = vec![found("x-2", "other"), found("x-1", "m"), found("odd", "m")];
        let evidence = vec![said("a", Answer::Never), said("b", Answer::Calls(calls))];
        let expected =
            ["2 b dear Running", "1 b now Running", "3 b now Running", "4 a now Impossible"];
        assert_eq!(shown(&claimed(&[], None), evidence), expected);
    }

    #[test]
    fn an_attempt_that_ended_is_not_opened_again() {
        let evidence = vec![said("a", Answer::Calls(vec![found("x-1", "m"), found("x-2", "m")]))];
        let expected = ["2 a pinned Running with progress"];
        assert_eq!(shown(&claimed(&[1], Some((2, "a"))), evidence), expected);
    }

    #[test]
    fn a_checkpoint_stands_with_whatever_its_channel_says() {
        for (answer, look_up) in [
            (Answer::Never, "Impossible"),
            (Answer::Unclear, "Silent"),
            (Answer::Calls(Vec::new()), "NeverMade"),
        ] {
            let evidence = vec![said("a", answer), said("b", Answer::Never)];
            let expected =
                [format!("1 a pinned {look_up} with progress"), "2 b now Impossible".to_owned()];
            assert_eq!(shown(&claimed(&[], Some((1, "a"))), evidence), expected);
        }
        // Its channel is gone.
        let expected = ["1 a pinned Impossible with progress"];
        assert_eq!(shown(&claimed(&[], Some((1, "a"))), Vec::new()), expected);
    }
}
