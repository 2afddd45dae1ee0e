//! What is planted in the books past every guard, and the invariants that must notice.
//!
//! One list for both databases. The books have a settled and refunded call, a released one whose
//! attempt may cost, an open hold and promotional credit, all at prices that are there.
//! Invariant: undamaged, every invariant holds; each damage is found, and by what it breaks.

use std::future::Future;
use std::sync::Arc;

use uuid::Uuid;

use anima_core::ledger::Settlement;
use anima_core::money::Currency;
use anima_core::usage::{Meter, Usage};

use super::fixtures::*;
use crate::ledger::money::{Books, Grant, Movements as _, Refund};
use crate::ledger::{Auditor as _, Correction, LedgerStore, Scope};

/// A database that can be damaged.
pub(super) trait Place {
    /// Its books.
    fn books(&self) -> Books;
    /// A ledger on it.
    fn ledger(&self) -> Arc<dyn LedgerStore>;
    /// Runs statements past triggers and checks.
    async fn force(&self, statements: &str);
    /// A statement that makes a price of a version, effective always.
    fn price(&self, code: &str, body: &str) -> String;
    /// Which of two texts is its own.
    fn own(&self, sqlite: &'static str, postgres: &'static str) -> &'static str;
}

struct Damage {
    what: &'static str,
    sqlite: &'static str,
    /// Empty where the text is the same.
    postgres: &'static str,
    found_by: &'static [&'static str],
}

const fn damage(
    what: &'static str,
    both: &'static str,
    found_by: &'static [&'static str],
) -> Damage {
    Damage { what, sqlite: both, postgres: "", found_by }
}

const DAMAGES: &[Damage] = &[
    damage("nothing", "SELECT 1", &[]),
    damage(
        "a sale is raised",
        "UPDATE leg SET amount = amount + 1 WHERE component = 1",
        &["I3", "I5", "I14"],
    ),
    damage(
        "a cost is raised",
        "UPDATE leg SET amount = amount + 1 WHERE component = 2",
        &["I3", "I7", "I14"],
    ),
    damage("a cost is gone", "DELETE FROM leg WHERE component = 2", &["I3", "I7", "I14"]),
    damage(
        "a leg is in another currency",
        "UPDATE leg SET currency = 'EUR' WHERE component = 2",
        &["I1"],
    ),
    damage(
        "a leg leads nowhere",
        "UPDATE leg SET credit_id = 999 WHERE component = 2",
        &["I1", "I3", "I14"],
    ),
    damage(
        "a settlement's journal is gone",
        "DELETE FROM journal WHERE kind = 1",
        &["I1", "I5", "I7", "I8", "I14"],
    ),
    Damage {
        what: "a call is sold twice",
        sqlite: "INSERT INTO journal
                 SELECT x'00112233445566778899aabbccddeeff', kind, subject, 1, at, posted_at,
                        estimate, digest, reference
                 FROM journal WHERE kind = 1;
                 INSERT INTO leg
                 SELECT x'00112233445566778899aabbccddeeff', l.n, l.debit_id, l.credit_id,
                        l.amount, l.currency, l.component, l.attempt, l.price_id, l.estimate
                 FROM leg l WHERE l.component = 1",
        postgres: "INSERT INTO journal (id, kind, subject, seq, at, posted_at, estimate, digest,
                                        reference)
                   SELECT '00112233-4455-6677-8899-aabbccddeeff', kind, subject, 1, at, posted_at,
                          estimate, digest, reference
                   FROM journal WHERE kind = 1;
                   INSERT INTO leg (journal, n, debit_id, credit_id, amount, currency, component,
                                    attempt, price_id, estimate)
                   SELECT '00112233-4455-6677-8899-aabbccddeeff', l.n, l.debit_id, l.credit_id,
                          l.amount, l.currency, l.component, l.attempt, l.price_id, l.estimate
                   FROM leg l WHERE l.component = 1",
        found_by: &["I3", "I5", "I14"],
    },
    damage(
        "an account changed its currency",
        "UPDATE account SET currency = 'EUR' WHERE code = 'revenue'",
        &["I1", "I2"],
    ),
    Damage {
        what: "a house balance is of another day",
        sqlite: "UPDATE house_balance SET day = day - 1",
        postgres: "SELECT fold_balances(); UPDATE folded_balance SET day = day - 1",
        found_by: &["I14"],
    },
    damage("an open hold is gone", "DELETE FROM hold WHERE state = 'HELD'", &["I3"]),
    Damage {
        what: "a house balance is raised",
        sqlite: "UPDATE house_balance SET debits = debits + 1 WHERE debits = 7",
        postgres: "SELECT fold_balances();
                   UPDATE folded_balance SET debits = debits + 1 WHERE debits = 7",
        found_by: &["I2", "I3", "I14"],
    },
    damage(
        "a wallet is given money",
        "UPDATE gated_balance SET credits = credits + 1",
        &["I2", "I3"],
    ),
    damage("a wallet holds more", "UPDATE gated_balance SET held = held + 1", &["I3"]),
    damage(
        "promotional credit comes from nowhere",
        "UPDATE gated_balance SET promo = promo + 1",
        &["I3"],
    ),
    damage("a grant is raised", "UPDATE promo_grant SET amount = amount + 1", &["I3"]),
    Damage {
        what: "a wallet is below its floor",
        sqlite: "UPDATE gated_balance SET floor = 5000",
        postgres: "ALTER TABLE gated_balance DROP CONSTRAINT gated_balance_floor,
                   DROP CONSTRAINT gated_balance_floor_check;
                   UPDATE gated_balance SET floor = 5000",
        found_by: &["I4"],
    },
    damage(
        "a charge is not what was posted",
        "UPDATE hold SET settled = 91 WHERE settled = 90",
        &["I5", "I9"],
    ),
    damage(
        "a loss is not booked",
        "UPDATE hold SET uncollected = 5 WHERE settled = 90",
        &["I5", "I9"],
    ),
    damage(
        "a sale became a loss",
        "UPDATE leg SET component = 11 WHERE component = 1",
        &["I5", "I8"],
    ),
    damage("a release became a sale", "UPDATE journal SET kind = 1 WHERE kind = 2", &["I5"]),
    damage(
        "a release was charged",
        "UPDATE leg SET component = 1 WHERE component = 3",
        &["I5", "I7"],
    ),
    damage(
        "an orphan was never resolved",
        "UPDATE hold SET state = 'UNKNOWN', expires_at = 5 WHERE state = 'HELD'",
        &["I6"],
    ),
    damage("a hold is forgotten", "UPDATE hold SET expires_at = 5 WHERE state = 'HELD'", &["I6"]),
    Damage {
        what: "a hold's owner is gone",
        sqlite: "INSERT INTO node_lease (id, host, started_at, expires_at)
                 SELECT node, 'gone', 1, 2 FROM hold WHERE state = 'HELD'",
        postgres: "",
        found_by: &["I6"],
    },
    Damage {
        what: "an attempt has no hold",
        sqlite: "UPDATE attempt SET hold = x'00112233445566778899aabbccddeeff' WHERE served = 1",
        postgres: "UPDATE attempt SET hold = '00112233-4455-6677-8899-aabbccddeeff' WHERE served",
        found_by: &["I7"],
    },
    damage("an attempt is forgotten", "DELETE FROM attempt WHERE served", &["I7"]),
    damage("an attempt costs less", "UPDATE attempt SET cost = 6 WHERE cost = 7", &["I7", "I9"]),
    damage("a refund is recorded for less", "UPDATE refund SET to_money = 19", &["I8"]),
    damage(
        "more was given back than was charged",
        "UPDATE refund SET to_money = 91; UPDATE leg SET amount = 91 WHERE component = 5",
        &["I3", "I8", "I14"],
    ),
    damage("a refund is not recorded", "DELETE FROM refund", &["I8"]),
    Damage {
        what: "usage was changed",
        sqlite: r#"UPDATE attempt SET usage = '{"input_tokens":11,"output_tokens":6}'
                   WHERE served = 1"#,
        postgres: r#"UPDATE attempt SET usage = '{"input_tokens":11,"output_tokens":6}'
                     WHERE served"#,
        found_by: &["I9"],
    },
    damage(
        "a factor was raised",
        "UPDATE hold SET multiplier = 1300000 WHERE settled = 90",
        &["I9"],
    ),
    Damage {
        what: "a price was changed afterwards",
        sqlite: "UPDATE price SET body = replace(body, '0.000000051', '0.000000052')",
        postgres: "UPDATE price
                   SET body = replace(body::text, '0.000000051', '0.000000052')::jsonb",
        found_by: &["I9"],
    },
    damage("a price is gone", "DELETE FROM price WHERE code = 'sale'", &["I9"]),
    damage(
        "a provider bills what was never booked",
        "INSERT INTO invoice_day (channel, currency, day, seq, amount, reference, noted_at)
         SELECT channel, 'USD', started_at / 86400000000, 1, 5000015, 'bill', 1
         FROM attempt WHERE served",
        &["I12"],
    ),
    damage(
        "an estimate was never cleared",
        "UPDATE journal SET posted_at = 86400000000 WHERE kind = 2",
        &["I10", "I14"],
    ),
];

/// In books with a call that was corrected, too.
const OF_CORRECTIONS: &[Damage] = &[
    damage("nothing", "SELECT 1", &[]),
    damage(
        "a corrected usage was changed",
        r#"UPDATE corrected_attempt SET usage = '{"input_tokens":9,"output_tokens":5}'"#,
        &["I9"],
    ),
    damage("a corrected cost was changed", "UPDATE corrected_attempt SET cost = 5", &["I7", "I9"]),
    damage("a correction's usage is gone", "DELETE FROM corrected_attempt", &["I7"]),
    damage("a correction rests on nothing", "DELETE FROM correction", &["I7"]),
    damage("a correction owes less", "UPDATE correction SET owed = 80", &["I9"]),
    damage("a correction is priced otherwise", "UPDATE correction SET priced = 84", &["I9"]),
    damage(
        "a correction says nothing of the sale that it moved",
        "UPDATE correction SET owed = NULL",
        &["I9"],
    ),
    damage(
        "less was given back than is owed",
        "UPDATE leg SET amount = 4
         WHERE component = 1 AND journal = (SELECT id FROM journal WHERE kind = 10)",
        &["I3", "I9", "I14"],
    ),
    damage(
        "more was given back than is owed",
        "UPDATE leg SET amount = 6
         WHERE component = 1 AND journal = (SELECT id FROM journal WHERE kind = 10)",
        &["I3", "I9", "I14"],
    ),
    damage(
        "a correction of a cost is raised",
        "UPDATE leg SET amount = amount + 1
         WHERE component = 2 AND journal = (SELECT id FROM journal WHERE kind = 10)",
        &["I3", "I7", "I14"],
    ),
    damage(
        "a correction's journal is gone",
        "DELETE FROM journal WHERE kind = 10",
        &["I1", "I7", "I9", "I14"],
    ),
    damage(
        "a correction is posted under another number",
        "UPDATE journal SET seq = 7 WHERE kind = 10",
        &["I7", "I9"],
    ),
];

/// The same, with a call of which the provider reported less later.
async fn corrected(place: &impl Place) {
    used(place).await;
    let ledger = place.ledger();
    let late = hold(4, "acme", 100);
    ledger.hold(late.clone()).await.unwrap();
    ledger.settle(settle(&late, 90)).await.unwrap();
    // 9 input and 4 output tokens cost 6 units, and are sold for 68, times 1.25.
    let mut told = attempt(1, true, 6);
    told.usage = Usage::default().with(Meter::InputTokens, 9).with(Meter::OutputTokens, 4);
    let settlement = Settlement { attempts: vec![told], ..settle(&late, 85) };
    let report = Correction { report: Some(Uuid::from_u128(7)), ..correction(settlement) };
    assert_eq!(ledger.true_up(report).await.unwrap().given_back, 5);
}

/// Makes the books that are damaged.
async fn used(place: &impl Place) {
    let body = |side: &str, fee: &str, output: &str, input: &str| {
        let meter = |meter: &str, amount: &str| {
            format!(r#"{{"meter":"{meter}","per":1,"amount":"{amount}"}}"#)
        };
        format!(
            r#"{{"side":"{side}","currency":"USD","meters":[{},{},{}]}}"#,
            meter("input_tokens", input),
            meter("output_tokens", output),
            meter("requests", fee),
        )
    };
    // 11 input and 5 output tokens cost 7 units, and are sold for 72, times 1.25.
    let cost = body("cost", "0.000000002", "0.000000001", "0");
    let sale = body("sale", "0.000000051", "0.000000002", "0.000000001");
    place.force(&place.price("cost", &cost)).await;
    place.force(&place.price("sale", &sale)).await;
    let ledger = place.ledger();
    ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    let holds = [hold(1, "acme", 100), hold(2, "acme", 50), hold(3, "acme", 60)];
    for hold in &holds {
        ledger.hold(hold.clone()).await.unwrap();
    }
    ledger.settle(settle(&holds[0], 90)).await.unwrap();
    let mut failed = release(&holds[2]);
    failed.attempts = vec![attempt(1, false, 7)];
    ledger.settle(failed).await.unwrap();
    let refund = Refund {
        request: holds[0].id,
        app: "acme".into(),
        currency: Currency::USD,
        amount: Some(20),
        key: Uuid::from_u128(70),
        reference: "sorry".to_owned(),
        at: NOON,
    };
    place.books().refund(refund).await.unwrap();
    let grant = Grant {
        id: Uuid::from_u128(80),
        app: "acme".into(),
        currency: Currency::USD,
        amount: 30,
        sold: false,
        expires_at: NOON.plus_millis(1_000_000),
        reference: "welcome".to_owned(),
        at: NOON,
    };
    place.books().grant(grant).await.unwrap();
}

/// Plants each damage in books of their own.
pub(super) async fn each_damage_is_found<P: Place, F: Future<Output = Option<P>>>(
    open: impl Fn() -> F,
) {
    let mut unharmed = std::collections::BTreeSet::new();
    for damage in DAMAGES {
        let Some(place) = open().await else { return };
        used(&place).await;
        unharmed.extend(found(&place, damage).await);
    }
    for damage in DAMAGES {
        damage.found_by.iter().for_each(|invariant| _ = unharmed.remove(invariant));
    }
    assert!(unharmed.is_empty(), "nothing is planted for {unharmed:?}");
}

/// Plants each damage of a correction in books of their own.
pub(super) async fn each_damage_of_a_correction_is_found<P, F>(open: impl Fn() -> F)
where
    P: Place,
    F: Future<Output = Option<P>>,
{
    for damage in OF_CORRECTIONS {
        let Some(place) = open().await else { return };
        corrected(&place).await;
        found(&place, damage).await;
        // The calls are older than what is looked at, their corrections were posted in it.
        let recent = place.books().audit(NOON, Scope::Recent(NOON)).await.unwrap();
        let found = recent.iter().filter(|f| !f.breaches.is_empty()).map(|f| f.invariant);
        let found: Vec<_> = found.filter(|invariant| ["I7", "I9"].contains(invariant)).collect();
        let mut expected: Vec<_> = damage.found_by.to_vec();
        expected.retain(|invariant| ["I7", "I9"].contains(invariant));
        if !damage.sqlite.starts_with("DELETE FROM journal") {
            assert_eq!(found, expected, "{}: {recent:#?}", damage.what);
        }
    }
}

/// Plants a damage, and gives the invariants that were looked at.
async fn found(place: &impl Place, damage: &Damage) -> Vec<&'static str> {
    let Damage { what, sqlite, postgres, found_by } = *damage;
    let postgres = if postgres.is_empty() { sqlite } else { postgres };
    place.force(place.own(sqlite, postgres)).await;
    let findings = place.books().audit(NOON, Scope::Everything).await.unwrap();
    let looked = findings.iter().filter(|f| f.not_applicable.is_none()).map(|f| f.invariant);
    let found = findings.iter().filter(|f| !f.breaches.is_empty()).map(|f| f.invariant);
    assert_eq!(&found.collect::<Vec<_>>(), found_by, "{what}: {findings:#?}");
    // What runs all the time finds the same, but for what only all rows can tell.
    let start = anima_core::clock::Timestamp::from_micros(0);
    let recent = place.books().audit(NOON, Scope::Recent(start)).await.unwrap();
    let found: Vec<_> =
        recent.iter().filter(|f| !f.breaches.is_empty()).map(|f| f.invariant).collect();
    assert!(found.iter().all(|invariant| found_by.contains(invariant)), "{what}: {found:?}");
    let slow = ["I3", "I10", "I12", "I14"];
    let missed = found_by.iter().filter(|i| !slow.contains(i) && !found.contains(i)).count();
    assert_eq!(missed, 0, "{what}: only {found:?} at once");
    looked.collect()
}
