//! What is known about a call: set at admission, then only read.
//!
//! Not here: what happened to it (`decision`). Invariant: prices and configuration are pinned, so
//! that a change during the call does not touch it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::PriceRef;
use anima_core::ledger::fx::FxRate;
use anima_core::money::{self, Multiplier};
use anima_core::pricing::PriceList;
use anima_core::snapshot::AliasEntry;
use anima_store::idempotency::UsedKey;
use anima_wire::dialect::Dialect;
use anima_wire::request::{CallRequest, Endpoint};

use super::admission::Ticket;
use super::steer::Steering;
use crate::http::caller::Caller;

/// The `Idempotency-Key` of the one call that is made under it.
#[derive(Debug, Clone)]
pub struct Keyed {
    /// As its record goes by it.
    pub key: UsedKey,
    /// The number of the lease that it is claimed under.
    pub lease: u64,
}

/// When and as what a request came in.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Its id, also the hold's.
    pub id: Uuid,
    /// Wall-clock time, for records.
    pub at: Timestamp,
    /// Monotonic time, for durations.
    pub instant: Instant,
    /// Cancelled when the client leaves.
    pub gone: CancellationToken,
}

/// Whoever has a call made later than it was asked for. It is told before anything is sent, so
/// that it can put that down, and has the last word about it.
#[async_trait]
pub trait Deferral: Send + Sync + fmt::Debug {
    /// The call is held and would be sent next. `false`: it must not be.
    async fn begin(&self, call: Uuid) -> bool;

    /// A stream has ended: `ok`, or the reason why not.
    fn ended(&self, outcome: &'static str);
}

/// What a call is sold at.
#[derive(Debug, Clone)]
pub struct Tariff {
    /// The customer's price.
    pub sale: Arc<PriceList>,
    /// The rate at which it is paid; `None` when it is in the wallet's currency.
    pub fx: Option<Arc<FxRate>>,
    /// The factor of the caller's group.
    pub multiplier: Multiplier,
}

/// A call that was admitted.
#[derive(Debug, Clone)]
pub struct Call {
    /// When and as what it came in.
    pub arrival: Arrival,
    /// Who asks.
    pub caller: Caller,
    /// What for.
    pub request: CallRequest,
    /// The alias, resolved.
    pub alias: Arc<AliasEntry>,
    /// The customer's price, pinned.
    pub sale: Arc<PriceList>,
    /// The rate at which it is paid, pinned; `None` when it is in the wallet's currency.
    pub fx: Option<Arc<FxRate>>,
    /// The factor on it, pinned.
    pub multiplier: Multiplier,
    /// No attempt outlives this.
    pub deadline: Instant,
    /// What it took of its limits, once it is admitted by them.
    pub ticket: Option<Arc<Ticket>>,
    /// The caller gives up when nothing has come by then.
    pub answer_by: Instant,
    /// How long it waited for its turn.
    pub queued: Duration,
    /// What the caller wants beside the answer.
    pub steering: Steering,
    /// Set while it waits for its turn, where somebody wants to know.
    pub waits: Option<Arc<AtomicBool>>,
    /// It came under an `Idempotency-Key`.
    pub keyed: Option<Keyed>,
    /// Who has it made, when its caller does not wait for it.
    pub deferral: Option<Arc<dyn Deferral>>,
}

impl Call {
    /// Counts its time from now on where it was waiting for its turn: nobody waits for a deferred
    /// call, so its deadline is that of the call alone.
    pub(super) fn begins_after(&mut self, waited: Duration) {
        if self.deferral.is_some() {
            self.deadline += waited;
            self.answer_by += waited;
        }
    }

    /// Says whether it waits for its turn.
    pub(super) fn note_waiting(&self, waits: bool) {
        if let Some(flag) = &self.waits {
            flag.store(waits, Ordering::Release);
        }
    }

    /// Whether something that it spends is bounded by a budget.
    pub(super) fn has_budget(&self) -> bool {
        self.ticket.as_ref().is_some_and(|ticket| ticket.has_budget())
    }

    /// The pinned sale price, by name.
    pub fn sale_ref(&self) -> PriceRef {
        price_ref(&self.sale)
    }

    /// What a sale in the price's currency is in the wallet's, in units.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn owed(&self, sale: i64) -> Result<i64, money::Error> {
        self.fx.as_ref().map_or(Ok(sale), |rate| Ok(rate.convert(sale)?.owed))
    }

    /// The short name of the endpoint, for metrics and logs.
    pub fn endpoint(&self) -> &'static str {
        endpoint_name(self.request.endpoint, self.request.dialect)
    }
}

/// A price list, by name.
pub fn price_ref(list: &PriceList) -> PriceRef {
    PriceRef { code: list.code.as_str().into(), version_no: list.version_no }
}

/// The short name of an endpoint, as each client knows it.
pub const fn endpoint_name(endpoint: Endpoint, dialect: Dialect) -> &'static str {
    match (endpoint, dialect) {
        (Endpoint::ChatCompletions, Dialect::OpenAiChat) => "chat_completions",
        (Endpoint::ChatCompletions, Dialect::Anthropic) => "messages",
        (Endpoint::ChatCompletions, Dialect::Gemini) => "generate_content",
        (Endpoint::ChatCompletions, Dialect::Responses) => "responses",
        (Endpoint::Completions, _) => "completions",
        (Endpoint::Embeddings, Dialect::Gemini) => "embed_content",
        (Endpoint::Embeddings, _) => "embeddings",
        (Endpoint::Moderations, _) => "moderations",
        (Endpoint::Images, _) => "images",
        (Endpoint::ImageEdits, _) => "image_edits",
        (Endpoint::Rerank, _) => "rerank",
        (Endpoint::Speech, _) => "speech",
        (Endpoint::Transcriptions, _) => "transcriptions",
        (Endpoint::Translations, _) => "translations",
    }
}
