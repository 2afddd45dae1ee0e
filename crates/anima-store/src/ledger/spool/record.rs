//! A settlement as the spool writes it: JSON of its whole content, with its digest.
//!
//! A mirror of the types of `anima-core`, so that a change there cannot silently change what older
//! files mean. Instants are microseconds. Invariant: what is read has the digest that was written,
//! or it is not believed, so that the store knows it again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::failure::Failure;
use anima_core::ledger::fx::Conversion;
use anima_core::ledger::{Attempt, AttemptCost, Close, PriceRef, Settlement, recovery};
use anima_core::money::Currency;
use anima_core::usage::{Usage, UsageSource};

use crate::idempotency::UsedKey;
use crate::ledger::digest;

#[derive(Serialize, Deserialize)]
struct Record {
    digest: digest::Digest,
    hold: Uuid,
    app: Arc<str>,
    currency: Currency,
    /// `None` for a release.
    sale: Option<Sale>,
    sale_price: Price,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conversion: Option<Converted>,
    attempts: Vec<Call>,
    at: i64,
    /// Its caller was told that it counts.
    #[serde(default)]
    counts: bool,
    /// Nobody can ask for the call again without being charged again.
    #[serde(default)]
    once: bool,
    /// Where that is so since it came under a key. Older versions name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Key>,
}

#[derive(Serialize, Deserialize)]
struct Key {
    kid: Arc<str>,
    hash: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct Sale {
    amount: i64,
    estimate: bool,
}

#[derive(Serialize, Deserialize)]
struct Converted {
    rate: Price,
    currency: Currency,
    sale: i64,
    plain: i64,
}

#[derive(Serialize, Deserialize)]
struct Price {
    code: Arc<str>,
    version_no: i64,
}

#[derive(Serialize, Deserialize)]
pub(in crate::ledger) struct Call {
    n: i16,
    channel: Arc<str>,
    credential: Arc<str>,
    model: Arc<str>,
    outcome: String,
    served: bool,
    usage: Usage,
    usage_source: UsageSource,
    cost: Option<Cost>,
    upstream_ref: Option<String>,
    started_at: i64,
    first_byte_at: Option<i64>,
    ended_at: i64,
}

#[derive(Serialize, Deserialize)]
struct Cost {
    amount: i64,
    currency: Currency,
    price: Price,
    estimate: bool,
}

/// What the caller of a settlement knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// It counts as made: its customer has the answer.
    pub(super) counts: bool,
    /// Nobody can ask for the call again without being charged again.
    pub(super) once: bool,
    /// The key under which somebody can.
    pub(super) key: Option<UsedKey>,
}

/// The bytes for a settlement, and for what its caller knows.
pub(super) fn write(settlement: &Settlement, told: &Told) -> Vec<u8> {
    let sale = match settlement.close {
        Close::Settle { sale, estimate } => Some(Sale { amount: sale, estimate }),
        Close::Release => None,
    };
    let record = Record {
        digest: digest::of_settlement(settlement),
        hold: settlement.hold,
        app: Arc::clone(&settlement.app),
        currency: settlement.currency,
        sale,
        sale_price: price(&settlement.sale_price),
        conversion: settlement.conversion.as_ref().map(|c| Converted {
            rate: price(&c.rate),
            currency: c.currency,
            sale: c.sale,
            plain: c.plain,
        }),
        attempts: settlement.attempts.iter().map(call).collect(),
        at: settlement.at.micros(),
        counts: told.counts,
        once: told.once,
        key: told.key.as_ref().map(|key| Key { kid: Arc::clone(&key.kid), hash: key.hash }),
    };
    // Every key is a string and every value has a form in JSON, so this cannot fail; were it to,
    // nothing would be kept, which reading reports.
    serde_json::to_vec(&record).unwrap_or_default()
}

/// Reads a settlement back, and what its caller knows.
///
/// # Errors
/// Why it is not one, in words.
pub(super) fn read(bytes: &[u8]) -> Result<(Settlement, Told), String> {
    let record: Record = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let close = record.sale.map_or(Close::Release, |sale| Close::Settle {
        sale: sale.amount,
        estimate: sale.estimate,
    });
    let settlement = Settlement {
        hold: record.hold,
        app: record.app,
        currency: record.currency,
        close,
        sale_price: price_ref(record.sale_price),
        conversion: record.conversion.map(|c| Conversion {
            rate: price_ref(c.rate),
            currency: c.currency,
            sale: c.sale,
            plain: c.plain,
        }),
        attempts: record.attempts.into_iter().map(attempt).collect(),
        at: Timestamp::from_micros(record.at),
    };
    if digest::of_settlement(&settlement) == record.digest {
        let key = record.key.map(|key| UsedKey { kid: key.kid, hash: key.hash });
        Ok((settlement, Told { counts: record.counts, once: record.once, key }))
    } else {
        Err(format!("{}: the digest is another", settlement.hold))
    }
}

pub(in crate::ledger) fn call(attempt: &Attempt) -> Call {
    Call {
        n: attempt.n,
        channel: Arc::clone(&attempt.channel),
        credential: Arc::clone(&attempt.credential),
        model: Arc::clone(&attempt.model),
        outcome: attempt.outcome.to_owned(),
        served: attempt.served,
        usage: attempt.usage,
        usage_source: attempt.usage_source,
        cost: attempt.cost.as_ref().map(|cost| Cost {
            amount: cost.amount,
            currency: cost.currency,
            price: price(&cost.price),
            estimate: cost.estimate,
        }),
        upstream_ref: attempt.upstream_ref.clone(),
        started_at: attempt.started_at.micros(),
        first_byte_at: attempt.first_byte_at.map(Timestamp::micros),
        ended_at: attempt.ended_at.micros(),
    }
}

pub(in crate::ledger) fn attempt(call: Call) -> Attempt {
    Attempt {
        n: call.n,
        channel: call.channel,
        credential: call.credential,
        model: call.model,
        outcome: outcome(call.outcome),
        served: call.served,
        usage: call.usage,
        usage_source: call.usage_source,
        cost: call.cost.map(|cost| AttemptCost {
            amount: cost.amount,
            currency: cost.currency,
            price: price_ref(cost.price),
            estimate: cost.estimate,
        }),
        upstream_ref: call.upstream_ref,
        started_at: Timestamp::from_micros(call.started_at),
        first_byte_at: call.first_byte_at.map(Timestamp::from_micros),
        ended_at: Timestamp::from_micros(call.ended_at),
    }
}

/// The word for an outcome, as attempts hold it.
pub(in crate::ledger) fn outcome(word: String) -> &'static str {
    let failures = Failure::ALL.iter().map(|failure| failure.reason());
    let mut words = ["ok", recovery::OUTCOME].into_iter().chain(failures);
    // A word that only another version knows is kept for the life of the process: there are as many
    // as that version had, and the digest must stay.
    words.find(|known| *known == word).unwrap_or_else(|| word.leak())
}

fn price(price: &PriceRef) -> Price {
    Price { code: Arc::clone(&price.code), version_no: price.version_no }
}

fn price_ref(price: Price) -> PriceRef {
    PriceRef { code: price.code, version_no: price.version_no }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::ledger::tests::fixtures;

    const TOLD: Told = Told { counts: true, once: true, key: None };

    fn key() -> UsedKey {
        UsedKey { kid: "kid1".into(), hash: [7; 32] }
    }

    #[test]
    fn a_settlement_reads_back_as_it_was() {
        let hold = fixtures::hold(1, "acme", 100);
        for settlement in [fixtures::settle(&hold, 90), fixtures::release(&hold)] {
            for (counts, once) in [(false, false), (true, false), (true, true)] {
                let told = Told { counts, once, key: (!once).then(key) };
                let read = read(&write(&settlement, &told));
                assert_eq!(read, Ok((settlement.clone(), told)));
            }
        }
    }

    #[test]
    fn another_content_under_the_same_digest_is_not_believed() {
        let hold = fixtures::hold(1, "acme", 100);
        let text = String::from_utf8(write(&fixtures::settle(&hold, 90), &TOLD)).unwrap();
        let forged = text.replace("\"amount\":90", "\"amount\":91");
        assert_ne!(forged, text);
        assert!(read(forged.as_bytes()).unwrap_err().contains("digest"));
        assert!(read(b"").is_err());
    }

    #[test]
    fn what_an_older_version_wrote_counts_for_nobody() {
        let settlement = fixtures::settle(&fixtures::hold(1, "acme", 100), 90);
        let text = String::from_utf8(write(&settlement, &TOLD)).unwrap();
        let older = text.replace(",\"counts\":true", "");
        assert_ne!(older, text);
        assert_eq!(read(older.as_bytes()), Ok((settlement, Told { counts: false, ..TOLD })));
    }

    /// A frame as the version wrote it that knew of no keys.
    const BEFORE_KEYS: &str = include_str!("tests/frame-before-keys.json");

    #[test]
    fn what_was_written_before_keys_were_is_read_and_names_none() {
        let settlement = fixtures::settle(&fixtures::hold(1, "acme", 100), 90);
        let told = Told { counts: true, once: false, key: None };
        assert_eq!(read(BEFORE_KEYS.as_bytes()), Ok((settlement.clone(), told.clone())));
        // And what names none is what that version reads.
        assert_eq!(write(&settlement, &told), BEFORE_KEYS.trim_end().as_bytes());
    }

    #[test]
    fn a_word_of_another_version_is_kept() {
        assert_eq!(outcome("later_word".to_owned()), "later_word");
        assert_eq!(outcome(recovery::OUTCOME.to_owned()), recovery::OUTCOME);
    }
}
