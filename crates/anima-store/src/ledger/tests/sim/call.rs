//! The story of a call, as the relay tells it: held, tried, streamed, settled, answered.
//!
//! A client that leaves does not end it. Where the relay has a choice the dice have it here.
//! Invariant: the client sees the end of its answer only after the settlement is on disk.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{
    Account, Attempt, AttemptCost, Checkpoint, Close, Exposure, Extension, Hold, Phase, PriceRef,
    Running, Settlement,
};
use anima_core::money::{Currency, Multiplier};
use anima_core::pricing::PriceList;
use anima_core::usage::{Usage, UsageSource};

use super::process::Process;
use super::upstream::{CHANNELS, Channel, Manner, Truth, cost_list, draw, sale_list, used};
use crate::ledger::tests::fixtures::topup;
use crate::ledger::{Correction, Error, SaleCorrection};

/// What a client asks for.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) at: Timestamp,
    pub(super) app: Arc<str>,
    /// Money for the wallet instead of a call.
    pub(super) paid: Option<(u128, i64)>,
}

/// Until a caller gives an upstream up, milliseconds.
const PATIENCE_MS: i64 = 8_000;

/// Pieces between two checkpoints.
const CHECKPOINT: u64 = 3;

/// Output tokens that a hold covers.
const HELD_TOKENS: u64 = 30;

pub(super) async fn run(process: Arc<Process>, request: Request) {
    let _entered = process.world.enter();
    if let Some((id, amount)) = request.paid {
        return pay_in(&process, &request.app, (id, amount)).await;
    }
    let call = Call::new(&process, &request);
    let id = call.id;
    process.running.lock().insert(id);
    call.run().await;
    process.running.lock().remove(&id);
}

/// An operator pays in until it is told that it worked: the same key each time.
async fn pay_in(process: &Process, app: &Arc<str>, (id, amount): (u128, i64)) {
    for _ in 0..20 {
        process.step("topup.before").await;
        let entry = topup(id, app, amount);
        let result = process.ledger.post(entry).await;
        match result {
            Ok(_) => {
                process.step("topup.durable").await;
                process.world.state.lock().paid_in.insert(id, (amount, true));
                return;
            }
            Err(Error::Unavailable(_)) => process.step("topup.unknown").await,
            Err(error) => process.world.fail(format!("a top-up was refused: {error}")),
        }
    }
}

struct Call<'p> {
    process: &'p Process,
    id: Uuid,
    app: Arc<str>,
    input: u64,
    /// Where the candidates begin.
    first: u64,
    hold: Hold,
    attempts: Vec<Attempt>,
}

/// How a trial ended.
#[expect(clippy::large_enum_variant, reason = "a test has a few at a time")]
enum Ended {
    /// Nothing went to the client; another channel may.
    Failed,
    /// Something went to the client, or all of it.
    Served { delivered: u64, usage: Usage, source: UsageSource, whole: bool },
}

impl<'p> Call<'p> {
    fn new(process: &'p Process, request: &Request) -> Self {
        let world = &process.world;
        let (id, now) = (world.mint(), world.now());
        let input = 5 + world.below(40);
        let worst = used(input, HELD_TOKENS);
        let first = world.below(CHANNELS.len() as u64);
        let hold = Hold {
            id,
            app: Arc::clone(&request.app),
            kid: "kid1".into(),
            alias: "chat".into(),
            currency: Currency::USD,
            amount: charge(&sale_list(), &worst),
            floor: 0,
            sale_price: price_ref(&sale_list()),
            fx: None,
            multiplier: Multiplier::ONE,
            exposure: Some(exposure(&candidate(first, 1), &worst)),
            created_at: now,
            expires_at: now.plus_millis(30_000),
        };
        let app = Arc::clone(&request.app);
        Self { process, id, app, input, first, hold, attempts: Vec::new() }
    }

    async fn run(mut self) {
        self.process.step("call.admitted").await;
        match self.process.ledger.hold(self.hold.clone()).await {
            Ok(()) => {}
            Err(Error::Unavailable(_)) => {
                self.process.step("hold.unknown").await;
                if !self.process.world.bugs().trusts_unknown_holds {
                    return;
                }
            }
            Err(_) => return self.process.step("hold.refused").await,
        }
        self.process.step("hold.durable").await;
        for n in 1..=3_i16 {
            let channel = candidate(self.first, n);
            self.process.step("attempt.planned").await;
            // A process that cannot be sure to be believed alive begins nothing.
            if !self.process.has_lease() {
                break;
            }
            if let Ended::Served { delivered, usage, source, whole } =
                self.attempt(n, channel).await
            {
                return self.served((n, channel), delivered, (usage, source), whole).await;
            }
            self.process.step("attempt.next").await;
        }
        self.process.step("release.before").await;
        let settlement = self.settlement(Close::Release);
        self.close(settlement, None).await;
    }

    async fn attempt(&mut self, n: i16, channel: Channel) -> Ended {
        let world = &self.process.world;
        let trouble = if world.state.lock().calm { 0 } else { world.state.lock().faults.upstream };
        let noted = self.checkpoint((n, channel), Usage::default(), false);
        // Where a call goes first its hold says; where it goes next must be on disk before it goes.
        if n > 1 && !world.bugs().notes_fallbacks_late {
            let noted = match noted {
                Ok(noted) => noted.await,
                Err(error) => Err(error),
            };
            if noted.is_err() {
                return Ended::Failed;
            }
        }
        self.process.step("attempt.noted").await;
        if !self.process.has_lease() {
            return Ended::Failed;
        }
        if world.chance(trouble / 4) {
            self.process.step("attempt.no_connection").await;
            return Ended::Failed;
        }
        let now = world.now();
        let mut truth = draw(|bound| world.below(bound), self.input, trouble, now);
        truth.channel = channel;
        world.state.lock().upstream.take((self.id, n), self.process.id, truth.clone());
        self.process.step("attempt.sent").await;
        match truth.manner {
            Manner::Refuses => {
                self.process.step("attempt.refused").await;
                self.failed(n, channel, None);
                Ended::Failed
            }
            Manner::Breaks => {
                self.process.step("attempt.broke").await;
                self.failed(n, channel, Some(used(self.input, 0)));
                Ended::Failed
            }
            Manner::Hangs => {
                self.until(now.plus_millis(PATIENCE_MS)).await;
                self.process.step("attempt.timed_out").await;
                self.hang_up(n);
                self.failed(n, channel, Some(used(self.input, 0)));
                Ended::Failed
            }
            Manner::Whole => {
                self.process.step("attempt.accepted").await;
                self.until(truth.due(truth.pieces)).await;
                self.process.step("whole.received").await;
                let tokens = truth.pieces * truth.piece_tokens;
                let source = source(&truth);
                Ended::Served { delivered: 0, usage: used(self.input, tokens), source, whole: true }
            }
            Manner::Streams | Manner::Cuts(_) => {
                self.process.step("attempt.accepted").await;
                self.stream((n, channel), &truth).await
            }
        }
    }

    async fn stream(&mut self, (n, channel): (i16, Channel), truth: &Truth) -> Ended {
        let most = if let Manner::Cuts(after) = truth.manner { after } else { truth.pieces };
        let leaves_at = self.process.world.below(40);
        let (mut delivered, mut seen) = (0, 0);
        for piece in 1..=most {
            self.until(truth.due(piece)).await;
            let point = if piece == 1 { "stream.first" } else { "stream.chunk" };
            let left = piece > leaves_at;
            self.process.step(if left { "drain.chunk" } else { point }).await;
            seen = piece * truth.piece_tokens;
            if piece == leaves_at + 1 {
                self.process.step("client.left").await;
                if channel.stops {
                    self.hang_up(n);
                    let usage = used(self.input, seen);
                    return Ended::Served {
                        delivered,
                        usage,
                        source: UsageSource::Counted,
                        whole: false,
                    };
                }
            }
            if !left {
                delivered = seen;
                self.process.step("stream.delivered").await;
            }
            let so_far = used(self.input, seen);
            if !left && !self.extend(&so_far).await {
                self.hang_up(n);
                let source = UsageSource::Counted;
                return Ended::Served { delivered, usage: so_far, source, whole: false };
            }
            if piece % CHECKPOINT == 1 {
                self.process.step("stream.checkpoint").await;
                drop(self.checkpoint((n, channel), used(self.input, seen), delivered > 0));
                self.process.step("stream.checkpointed").await;
            }
        }
        if most < truth.pieces {
            self.process.step("stream.cut").await;
            if delivered == 0 {
                self.failed(n, channel, Some(used(self.input, seen)));
                return Ended::Failed;
            }
            let usage = used(self.input, seen);
            return Ended::Served { delivered, usage, source: UsageSource::Counted, whole: false };
        }
        let point = if truth.reports { "stream.usage" } else { "stream.usage_missing" };
        self.process.step(point).await;
        let usage = used(self.input, seen);
        Ended::Served { delivered, usage, source: source(truth), whole: leaves_at >= most }
    }

    async fn served(
        mut self,
        (n, channel): (i16, Channel),
        delivered: u64,
        (usage, source): (Usage, UsageSource),
        whole: bool,
    ) {
        let mut attempt = record(n, channel, self.process.world.now());
        attempt.served = whole || delivered > 0;
        attempt.usage = usage;
        attempt.usage_source = source;
        attempt.cost = Some(cost(&channel, &usage, source == UsageSource::Counted));
        let sold = attempt.served;
        self.attempts.push(attempt);
        if self.process.world.bugs().forgets_failed_attempts {
            self.attempts.drain(..self.attempts.len() - 1);
        }
        let sale = charge(&sale_list(), &usage);
        let estimate = source == UsageSource::Counted;
        let close = if sold { Close::Settle { sale, estimate } } else { Close::Release };
        let settlement = self.settlement(close);
        let owed = (whole && sold).then_some(sale);
        self.process.step("settle.before").await;
        if self.process.world.bugs().answers_before_settling {
            self.answer(owed);
        }
        self.close(settlement, owed).await;
    }

    /// Settles, and only then lets the client see the end.
    async fn close(&self, settlement: Settlement, owed: Option<i64>) {
        let settled = self.process.ledger.settle(settlement.clone()).await;
        match settled {
            Ok(settled) => {
                let released = settlement.close == Close::Release;
                let point = if released { "release.durable" } else { "settle.durable" };
                self.process.step(point).await;
                self.answer(owed.map(|_| settled.charged));
                self.process.step("answer.ended").await;
            }
            Err(Error::Unavailable(_)) => {
                self.process.step("settle.unknown").await;
                if self.process.world.bugs().repeats_under_new_ids {
                    self.repeat(&settlement).await;
                }
            }
            Err(Error::Fenced) => {
                self.process.step("settle.fenced").await;
                self.true_up(&settlement).await;
            }
            // Its hold stays open, until it is overdue and nobody's.
            Err(Error::Refused(_)) => self.process.step("settle.refused").await,
            Err(error) => self.process.world.fail(format!("a settlement was refused: {error}")),
        }
    }

    /// A planted bug: the sale again, as an entry of its own.
    async fn repeat(&self, settlement: &Settlement) {
        let Close::Settle { sale, .. } = settlement.close else { return };
        let fresh = self.process.world.mint().as_u128();
        let mut entry = topup(fresh, &self.app, -sale);
        if let Some(leg) = entry.legs.first_mut() {
            leg.credit = Account::Revenue;
        }
        drop(self.process.ledger.post(entry).await);
    }

    /// The client sees the end of its answer, and believes that it was charged.
    fn answer(&self, charged: Option<i64>) {
        if let Some(charged) = charged {
            self.process.world.answered(self.id, charged);
        }
    }

    fn failed(&mut self, n: i16, channel: Channel, usage: Option<Usage>) {
        let mut attempt = record(n, channel, self.process.world.now());
        attempt.outcome = "upstream_error";
        if let Some(usage) = usage {
            attempt.usage = usage;
            attempt.usage_source = UsageSource::Counted;
            attempt.cost = Some(cost(&channel, &usage, true));
        }
        self.attempts.push(attempt);
    }

    fn hang_up(&self, n: i16) {
        let world = &self.process.world;
        let now = world.now();
        world.state.lock().upstream.caller_left((self.id, n), now);
    }

    /// Sends a note of how far a call has come, and gives what to wait for.
    fn checkpoint(
        &self,
        (n, channel): (i16, Channel),
        usage: Usage,
        delivered: bool,
    ) -> Result<impl Future<Output = Result<(), Error>> + use<>, Error> {
        let running = Running {
            n,
            channel: channel.name.into(),
            credential: "main".into(),
            model: "m".into(),
            cost_price: price_ref(&cost_list(&channel)),
            upstream_ref: None,
            usage,
            delivered,
            started_at: self.process.world.now(),
        };
        let checkpoint = Checkpoint {
            hold: self.id,
            app: Arc::clone(&self.app),
            currency: Currency::USD,
            phase: if delivered { Phase::Streaming } else { Phase::Dispatched },
            progress: charge(&sale_list(), &usage),
            ended: self.attempts.clone(),
            running: Some(running),
            expires_at: self.hold.expires_at,
        };
        self.process.ledger.checkpoint(checkpoint)
    }

    /// Holds more when most of it is used up. `false` when there is no more to hold.
    async fn extend(&mut self, usage: &Usage) -> bool {
        let used_up = charge(&sale_list(), usage);
        if used_up * 10 < self.hold.amount * 8 {
            return true;
        }
        self.process.step("stream.extend").await;
        let amount = self.hold.amount * 2;
        let extension = Extension {
            hold: self.id,
            app: Arc::clone(&self.app),
            currency: Currency::USD,
            amount,
            floor: 0,
        };
        let extended = self.process.ledger.extend(extension).await;
        let ok = extended.is_ok();
        self.process.step(if ok { "stream.extended" } else { "stream.exhausted" }).await;
        if ok {
            self.hold.amount = amount;
        }
        ok
    }

    /// Books what this process knows of a hold that another one has closed, or will.
    async fn true_up(&self, settlement: &Settlement) {
        for _ in 0..30 {
            self.process.step("trueup.before").await;
            let correction = Correction {
                settlement: settlement.clone(),
                sale: SaleCorrection::DownOnly,
                report: None,
                reference: "late".to_owned(),
            };
            match self.process.ledger.true_up(correction).await {
                Ok(_) => return self.process.step("trueup.durable").await,
                Err(Error::Fenced | Error::Unavailable(_)) => {
                    self.process.step("trueup.waits").await;
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
                Err(error) => {
                    return self.process.world.fail(format!("a correction was refused: {error}"));
                }
            }
        }
    }

    async fn until(&self, at: Timestamp) {
        let wait = u64::try_from(at.since(self.process.world.now())).unwrap_or(0);
        tokio::time::sleep(Duration::from_micros(wait)).await;
    }

    fn settlement(&self, close: Close) -> Settlement {
        Settlement {
            hold: self.id,
            app: Arc::clone(&self.app),
            currency: Currency::USD,
            close,
            sale_price: self.hold.sale_price.clone(),
            conversion: None,
            attempts: self.attempts.clone(),
            at: self.process.world.now(),
        }
    }
}

fn source(truth: &Truth) -> UsageSource {
    if truth.reports { UsageSource::Provider } else { UsageSource::Counted }
}

pub(super) fn charge(list: &PriceList, usage: &Usage) -> i64 {
    list.charge(usage, None, Multiplier::ONE).unwrap().units
}

pub(super) fn price_ref(list: &PriceList) -> PriceRef {
    PriceRef { code: list.code.as_str().into(), version_no: list.version_no }
}

/// Where attempt `n` goes.
fn candidate(first: u64, n: i16) -> Channel {
    let at = (first + u64::from(n.unsigned_abs())) % CHANNELS.len() as u64;
    CHANNELS[usize::try_from(at).unwrap()]
}

/// The first candidate, and the most that any may cost.
fn exposure(first: &Channel, worst: &Usage) -> Exposure {
    let lists = CHANNELS.map(|channel| cost_list(&channel));
    let dearest = lists.iter().max_by_key(|list| charge(list, worst)).unwrap();
    Exposure {
        channel: first.name.into(),
        amount: charge(dearest, worst),
        currency: Currency::USD,
        price: price_ref(dearest),
    }
}

fn cost(channel: &Channel, usage: &Usage, estimate: bool) -> AttemptCost {
    let list = cost_list(channel);
    let amount = charge(&list, usage);
    AttemptCost { amount, currency: list.currency, price: price_ref(&list), estimate }
}

fn record(n: i16, channel: Channel, now: Timestamp) -> Attempt {
    Attempt {
        n,
        channel: channel.name.into(),
        credential: "main".into(),
        model: "m".into(),
        outcome: "ok",
        served: false,
        usage: Usage::default(),
        usage_source: UsageSource::None,
        cost: None,
        upstream_ref: None,
        started_at: now,
        first_byte_at: None,
        ended_at: now,
    }
}
