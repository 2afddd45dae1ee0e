//! May this caller call this alias, and at which price?
//!
//! Invariant: what is admitted has a sale price for everything that the endpoint consumes; without
//! one the call is refused, never free (SPEC 8).

use std::sync::Arc;
use std::time::Duration;

use anima_core::config::Kind;
use anima_core::failure::Failure;
use anima_core::pricing::PriceList;
use anima_core::snapshot::AliasEntry;
use anima_core::usage::{Meter, Usage};
use anima_wire::dialect::Dialect;
use anima_wire::request::{CallRequest, Endpoint};

use super::call::{Arrival, Call, Tariff};
use super::steer::Steering;
use crate::http::caller::Caller;
use crate::http::reply::Refusal;

/// Tokens that one picture comes to at most: the largest and finest of today's have some 6,300.
const PICTURE_TOKENS: u64 = 8_192;

/// Tokens that a character comes to at most when it is spoken: slow speech has 8 characters in a
/// second, which are 20 tokens.
const SPOKEN_TOKENS_PER_CHARACTER: u64 = 3;

/// Tokens of sound that a second comes to at most, and of the words that are heard in it.
const HEARD_TOKENS_PER_SECOND: u64 = 16;

/// Admits a call at the price of now, or says why not.
///
/// # Errors
/// [`Failure::ModelUnknown`], [`Failure::ServiceSuspended`], [`Failure::ModelMismatch`] or
/// [`Failure::ModelUnpriced`].
pub fn admit(
    caller: Caller,
    request: CallRequest,
    how: (Arrival, Steering),
) -> Result<Call, Refusal> {
    admit_at(caller, request, how, None)
}

/// Admits a call at a price that was pinned before, or at that of now, or says why not.
///
/// # Errors
/// As [`admit`].
pub fn admit_at(
    caller: Caller,
    request: CallRequest,
    (arrival, steering): (Arrival, Steering),
    pinned: Option<Tariff>,
) -> Result<Call, Refusal> {
    let alias = resolve(&caller, &request.model, request.dialect)?;
    if !serves(alias.kind, request.endpoint) {
        let message = format!(
            "The model `{}` is not served by this endpoint. Use the endpoint for its kind.",
            request.model
        );
        return Err(Refusal::new(Failure::ModelMismatch, message).param(Some("model")));
    }
    let tariff = match pinned {
        Some(pinned) => pinned,
        None => sale_price(&caller, &alias, request.endpoint)?,
    };
    let own = Duration::from_millis(alias.retry.deadline_ms.into());
    // What the caller's library waits for is the whole answer, unless that is a stream.
    let library = steering.first_byte_within;
    let whole = library.filter(|_| !request.stream);
    let within = [Some(own), steering.within, whole].into_iter().flatten().min().unwrap_or(own);
    let deadline = arrival.instant + within;
    let answer_by = library.map_or(deadline, |library| deadline.min(arrival.instant + library));
    Ok(Call {
        arrival,
        caller,
        request,
        alias,
        sale: tariff.sale,
        fx: tariff.fx,
        multiplier: tariff.multiplier,
        deadline,
        ticket: None,
        answer_by,
        queued: Duration::ZERO,
        steering,
        waits: None,
        keyed: None,
        deferral: None,
    })
}

/// The alias, if the caller may know of it.
///
/// # Errors
/// [`Failure::ModelUnknown`] or [`Failure::ServiceSuspended`].
pub fn resolve(caller: &Caller, model: &str, dialect: Dialect) -> Result<Arc<AliasEntry>, Refusal> {
    let found = caller.pinned.snapshot.alias(model).filter(|_| caller.allows(model));
    let Some(alias) = found else {
        let is_googles = dialect == Dialect::Gemini;
        let list = if is_googles { "/v1beta/models" } else { "/v1/models" };
        let message = format!(
            "The model `{}` does not exist or this key may not use it. See GET {list}.",
            shown(model)
        );
        return Err(Refusal::new(Failure::ModelUnknown, message).param(Some("model")));
    };
    if !alias.enabled {
        return Err(suspended(model));
    }
    Ok(Arc::clone(alias))
}

/// What a caller is told of a model that is switched off.
pub(super) fn suspended(model: &str) -> Refusal {
    let message = format!("The model `{model}` is suspended by the operator.");
    Refusal::new(Failure::ServiceSuspended, message).param(Some("model"))
}

/// A model name as an error may show it: bounded.
fn shown(model: &str) -> String {
    model.chars().take(128).collect()
}

pub(super) const fn serves(kind: Kind, endpoint: Endpoint) -> bool {
    matches!(
        (kind, endpoint),
        (Kind::Chat, Endpoint::ChatCompletions | Endpoint::Completions)
            | (Kind::Embedding, Endpoint::Embeddings)
            | (Kind::Moderation, Endpoint::Moderations)
            | (Kind::Image, Endpoint::Images | Endpoint::ImageEdits)
            | (Kind::Speech, Endpoint::Speech)
            | (Kind::Transcription, Endpoint::Transcriptions | Endpoint::Translations)
            | (Kind::Rerank, Endpoint::Rerank)
    )
}

/// The meters that a call of an endpoint always uses.
pub const fn meters(endpoint: Endpoint) -> &'static [Meter] {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => {
            &[Meter::InputTokens, Meter::OutputTokens]
        }
        Endpoint::Embeddings | Endpoint::Rerank => &[Meter::InputTokens],
        Endpoint::Images | Endpoint::ImageEdits => &[Meter::InputTokens, Meter::OutputImageTokens],
        Endpoint::Speech => &[Meter::InputTokens, Meter::OutputAudioTokens],
        Endpoint::Transcriptions | Endpoint::Translations => {
            &[Meter::InputAudioTokens, Meter::OutputTokens]
        }
        Endpoint::Moderations => &[Meter::Requests],
    }
}

/// The meter by which a call may be paid instead.
const fn unit(endpoint: Endpoint) -> Option<Meter> {
    match endpoint {
        Endpoint::Images | Endpoint::ImageEdits => Some(Meter::Images),
        Endpoint::Speech => Some(Meter::Characters),
        Endpoint::Transcriptions | Endpoint::Translations => Some(Meter::AudioSeconds),
        Endpoint::Rerank => Some(Meter::Queries),
        Endpoint::ChatCompletions
        | Endpoint::Completions
        | Endpoint::Embeddings
        | Endpoint::Moderations => None,
    }
}

/// Whether a list can price a call of an endpoint.
pub fn covers(list: &PriceList, endpoint: Endpoint) -> bool {
    let by_unit = unit(endpoint).is_some_and(|unit| list.covers(&[unit]).is_ok());
    by_unit || list.covers(meters(endpoint)).is_ok()
}

/// The most that a call can use, apart from what it generates as text.
pub fn most(request: &CallRequest) -> Usage {
    let usage = Usage::default();
    let input = request.estimate_input_tokens();
    match request.endpoint {
        Endpoint::Moderations => usage.with(Meter::Requests, 1),
        Endpoint::Images | Endpoint::ImageEdits => usage
            .with(Meter::InputTokens, input)
            .with(Meter::OutputImageTokens, request.choices.saturating_mul(PICTURE_TOKENS))
            .with(Meter::Images, request.choices),
        Endpoint::Speech => usage
            .with(Meter::InputTokens, input)
            .with(
                Meter::OutputAudioTokens,
                request.characters.saturating_mul(SPOKEN_TOKENS_PER_CHARACTER),
            )
            .with(Meter::Characters, request.characters),
        Endpoint::Transcriptions | Endpoint::Translations => {
            let tokens = request.audio_seconds.saturating_mul(HEARD_TOKENS_PER_SECOND);
            usage
                .with(Meter::InputTokens, input)
                .with(Meter::InputAudioTokens, tokens)
                .with(Meter::OutputTokens, tokens)
                .with(Meter::AudioSeconds, request.audio_seconds)
        }
        Endpoint::Rerank => {
            usage.with(Meter::InputTokens, input).with(Meter::Queries, request.choices)
        }
        Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::Embeddings => {
            usage.with(Meter::InputTokens, input)
        }
    }
}

/// The same when so many pictures were made, if any were.
pub(super) fn made(request: &CallRequest, pictures: u64) -> Usage {
    let mut usage = most(request);
    if usage.of(Meter::Images) > 0 && pictures > 0 {
        usage.set(Meter::Images, pictures);
        usage.set(Meter::OutputImageTokens, pictures.saturating_mul(PICTURE_TOKENS));
    }
    usage
}

fn sale_price(caller: &Caller, alias: &AliasEntry, endpoint: Endpoint) -> Result<Tariff, Refusal> {
    let group = caller.group.as_ref().map(|g| &*g.code);
    let multiplier = caller.multiplier();
    let covers = |p: &&Arc<PriceList>| covers(p, endpoint);
    if let Some(price) = alias.sale_price(group, caller.currency).filter(covers) {
        return Ok(Tariff { sale: Arc::clone(price), fx: None, multiplier });
    }
    // A price in another currency, if there is a rate for it.
    let mut converted = alias.sale_prices(group).filter(covers).filter_map(|price| {
        let rate = caller.pinned.snapshot.fx(price.currency, caller.currency)?;
        Some(Tariff { sale: Arc::clone(price), fx: Some(Arc::clone(rate)), multiplier })
    });
    converted.next().ok_or_else(|| {
        let message = format!(
            "The model `{}` has no price in {}. The operator must add a sale price, or a rate.",
            alias.code, caller.currency
        );
        Refusal::new(Failure::ModelUnpriced, message).param(Some("model"))
    })
}
