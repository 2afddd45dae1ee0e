//! What makes two settlements or two entries the same: a hash of their content.
//!
//! The hash covers what is posted and recorded, each text with its length in front. It leaves out
//! when the call was made (`at`) and the wallet's floor, so that a repetition counts as the same.
//! Invariant: the encoding never changes within a version byte, for hashes live in the database.

use aws_lc_rs::digest::{SHA256, digest};
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Attempt, AttemptCost, Close, Entry, Leg, PriceRef, Settlement};
use anima_core::usage::UsageSource;

/// SHA-256 of canonical content.
pub(super) type Digest = [u8; 32];

/// First byte of the encoding of a settlement, and of an entry.
const SETTLEMENT: u8 = 1;
const ENTRY: u8 = 2;

/// Hashes a settlement.
pub(super) fn of_settlement(settlement: &Settlement) -> Digest {
    let mut content = Content::new(SETTLEMENT);
    content.id(settlement.hold);
    content.text(&settlement.app);
    content.text(settlement.currency.code());
    match settlement.close {
        Close::Settle { sale, estimate } => {
            content.byte(1);
            content.number(sale);
            content.flag(estimate);
        }
        Close::Release => content.byte(0),
    }
    content.price(&settlement.sale_price);
    settlement.attempts.iter().for_each(|attempt| content.attempt(attempt));
    // After everything else, so that settlements without one keep the digest that they always had.
    if let Some(conversion) = &settlement.conversion {
        content.price(&conversion.rate);
        content.text(conversion.currency.code());
        content.number(conversion.sale);
        content.number(conversion.plain);
    }
    content.finish()
}

/// The digest of a report: its id, then the first half of its content's hash.
pub(super) fn of_report(id: Uuid, content: &Digest) -> Digest {
    let mut report = Digest::default();
    for (to, from) in report.iter_mut().zip(id.as_bytes().iter().chain(content)) {
        *to = *from;
    }
    report
}

/// Whether two reports go by the same id.
pub(super) fn is_same_report(one: &Digest, other: &Digest) -> bool {
    one.first_chunk::<16>() == other.first_chunk::<16>()
}

/// Hashes an entry.
pub(super) fn of_entry(entry: &Entry) -> Digest {
    let mut content = Content::new(ENTRY);
    content.id(entry.subject);
    content.number(entry.kind.number().into());
    content.number(entry.seq.into());
    content.text(&entry.reference);
    entry.legs.iter().for_each(|leg| content.leg(leg));
    content.finish()
}

/// The id of a journal entry: time-ordered by when it is posted (`UUIDv7`). Its random bits are the
/// content's hash, so that writing needs no source of randomness.
pub(super) fn journal_id(posted_at: Timestamp, content: &Digest) -> Uuid {
    let millis = u64::try_from(posted_at.millis()).unwrap_or(0);
    let mut random = [0_u8; 10];
    for (to, from) in random.iter_mut().zip(content) {
        *to = *from;
    }
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

struct Content(Vec<u8>);

impl Content {
    fn new(version: u8) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.push(version);
        Self(bytes)
    }

    fn finish(self) -> Digest {
        let hash = digest(&SHA256, &self.0);
        let mut out = Digest::default();
        for (to, from) in out.iter_mut().zip(hash.as_ref()) {
            *to = *from;
        }
        out
    }

    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn flag(&mut self, flag: bool) {
        self.0.push(u8::from(flag));
    }

    fn number(&mut self, number: i64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn id(&mut self, id: Uuid) {
        self.0.extend_from_slice(id.as_bytes());
    }

    fn text(&mut self, text: &str) {
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn price(&mut self, price: &PriceRef) {
        self.text(&price.code);
        self.number(price.version_no);
    }

    fn attempt(&mut self, attempt: &Attempt) {
        self.number(attempt.n.into());
        self.text(&attempt.channel);
        self.text(&attempt.credential);
        self.text(&attempt.model);
        self.text(attempt.outcome);
        self.flag(attempt.served);
        self.number(i64::try_from(attempt.usage.iter().count()).unwrap_or(i64::MAX));
        for (meter, quantity) in attempt.usage.iter() {
            self.text(meter.name());
            self.0.extend_from_slice(&quantity.to_be_bytes());
        }
        self.text(source_name(attempt.usage_source));
        self.optional(attempt.cost.as_ref(), Self::cost);
        self.optional(attempt.upstream_ref.as_deref(), Self::text);
        self.number(attempt.started_at.micros());
        self.optional(attempt.first_byte_at.map(Timestamp::micros), Self::number);
        self.number(attempt.ended_at.micros());
    }

    fn cost(&mut self, cost: &AttemptCost) {
        self.number(cost.amount);
        self.text(cost.currency.code());
        self.price(&cost.price);
        self.flag(cost.estimate);
    }

    fn leg(&mut self, leg: &Leg) {
        self.text(&leg.debit.to_string());
        self.text(&leg.credit.to_string());
        self.number(leg.amount);
        self.text(leg.currency.code());
        self.number(leg.component.number().into());
        self.optional(leg.attempt, |content, n| content.number(n.into()));
        self.optional(leg.price.as_ref(), Self::price);
        self.flag(leg.estimate);
    }
}

/// The word under which a source is stored.
pub(super) const fn source_name(source: UsageSource) -> &'static str {
    match source {
        UsageSource::None => "none",
        UsageSource::Provider => "provider",
        UsageSource::Counted => "counted",
    }
}

#[cfg(test)]
mod tests {
    use anima_core::ledger::{Account, Component, EntryKind};
    use anima_core::money::Currency;

    use super::*;
    use crate::ledger::tests::fixtures;

    fn entry(reference: &str) -> Entry {
        Entry {
            subject: Uuid::from_u128(7),
            kind: EntryKind::Topup,
            seq: 0,
            legs: vec![Leg {
                debit: Account::PspClearing,
                credit: Account::Wallet("acme".into()),
                amount: 10,
                currency: Currency::USD,
                component: Component::Topup,
                attempt: None,
                price: None,
                estimate: false,
            }],
            reference: reference.to_owned(),
            at: Timestamp::from_micros(1),
            floor: 0,
        }
    }

    #[test]
    fn time_and_floor_are_not_content_and_the_reference_is() {
        let later = Entry { at: Timestamp::from_micros(9), floor: -5, ..entry("a") };
        assert_eq!(of_entry(&entry("a")), of_entry(&later));
        assert_ne!(of_entry(&entry("a")), of_entry(&entry("b")));
    }

    #[test]
    fn the_encoding_does_not_change() {
        let hex = |digest: Digest| digest.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(
            hex(of_entry(&entry("a"))),
            "1aab48288c352060037fca67315f363b43a9b07b2608bd5b57bbf5ac00a38e87"
        );
        let hold = fixtures::hold(1, "acme", 100);
        assert_eq!(
            hex(of_settlement(&fixtures::settle(&hold, 90))),
            "f90fbb0d291242c1baa0bd58378b774371309c106c4562760f03e7f065d1420e"
        );
        assert_eq!(
            hex(of_settlement(&fixtures::release(&hold))),
            "336d519e7ea205a194fc095ec69661cc88c3b6a694df0878a658814eb18fab81"
        );
    }

    #[test]
    fn journal_ids_sort_by_the_time_of_posting() {
        let first = journal_id(Timestamp::from_micros(1_000_000), &[9; 32]);
        let second = journal_id(Timestamp::from_micros(1_002_000), &[1; 32]);
        assert!(first < second);
        assert_eq!(first, journal_id(Timestamp::from_micros(1_000_000), &[9; 32]));
    }
}
