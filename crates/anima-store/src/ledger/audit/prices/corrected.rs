//! The same for corrections: what each says that an attempt costs and is sold for, from the usage
//! that it rests on.
//!
//! A cost without usage was told as such, by an invoice, and is not computed.
//! Invariant: a usage or an amount of a correction that was changed is noticed.

use uuid::Uuid;

use anima_core::money::Multiplier;
use anima_core::usage::Usage;

use super::{BREACHES_LISTED, Found, Lists, PAGE, amounts, shown};
use crate::ledger::Error;
use crate::ledger::session::{Failed, Record, Session, Value};

/// What is known of attempts by corrections after a hold, a number and a correction's number.
const CORRECTED: &str = "
    SELECT a.hold, a.n, a.seq, CASE WHEN a.served THEN 1 ELSE 0 END, a.usage_source,
           CAST(a.usage AS TEXT), a.cost, CASE WHEN a.cost_estimate THEN 1 ELSE 0 END,
           c.code, c.version_no, k.priced, CASE WHEN k.estimate THEN 1 ELSE 0 END,
           h.multiplier, s.code, s.version_no
    FROM corrected_attempt a
    JOIN hold h ON h.id = a.hold
    LEFT JOIN correction k ON k.hold = a.hold AND k.seq = a.seq
    LEFT JOIN price_ref c ON c.id = a.cost_price_id
    LEFT JOIN price_ref s ON s.id = h.price_id
    WHERE a.hold > $1 OR (a.hold = $1 AND (a.n > $2 OR (a.n = $2 AND a.seq > $3)))
    ORDER BY a.hold, a.n, a.seq
    LIMIT 5000";

/// The same of holds before `$1` whose correction was posted from there on.
const LATELY: &str = "
    SELECT a.hold, a.n, a.seq, CASE WHEN a.served THEN 1 ELSE 0 END, a.usage_source,
           CAST(a.usage AS TEXT), a.cost, CASE WHEN a.cost_estimate THEN 1 ELSE 0 END,
           c.code, c.version_no, k.priced, CASE WHEN k.estimate THEN 1 ELSE 0 END,
           h.multiplier, s.code, s.version_no
    FROM journal j
    JOIN corrected_attempt a ON a.hold = j.subject AND a.seq = j.seq
    JOIN hold h ON h.id = a.hold
    LEFT JOIN correction k ON k.hold = a.hold AND k.seq = a.seq
    LEFT JOIN price_ref c ON c.id = a.cost_price_id
    LEFT JOIN price_ref s ON s.id = h.price_id
    WHERE j.id >= $1 AND j.kind = 10 AND a.hold < $1
      AND (a.hold > $2 OR (a.hold = $2 AND (a.n > $3 OR (a.n = $3 AND a.seq > $4))))
    ORDER BY a.hold, a.n, a.seq
    LIMIT 5000";

/// Computes every amount of a correction again, of holds from `first` on and of what was posted
/// from there on.
pub(super) async fn recompute(
    session: &mut Session<'_>,
    first: Uuid,
    (lists, found): (&Lists, &mut Found),
) -> Result<(), Failed> {
    pages(session, (CORRECTED, first, None), (lists, found)).await?;
    pages(session, (LATELY, Uuid::nil(), Some(first)), (lists, found)).await
}

async fn pages(
    session: &mut Session<'_>,
    (sql, begin, posted_from): (&'static str, Uuid, Option<Uuid>),
    (lists, found): (&Lists, &mut Found),
) -> Result<(), Failed> {
    let mut after = (begin, -1_i64, -1_i64);
    loop {
        let mut parameters: Vec<Value> = posted_from.map(Into::into).into_iter().collect();
        parameters.extend([after.0.into(), after.1.into(), after.2.into()]);
        let rows = session.query(sql, &parameters).await?;
        for row in &rows {
            after = (row.id(0)?, row.int(1)?, row.int(2)?);
            found.checked = found.checked.saturating_add(1);
            if found.breaches.len() < BREACHES_LISTED {
                found.breaches.extend(breaches(row, lists)?);
            }
        }
        if rows.len() < PAGE {
            return Ok(());
        }
    }
}

fn breaches(row: &Record, lists: &Lists) -> Result<Vec<String>, Error> {
    if row.text(4)? == "none" {
        return Ok(Vec::new());
    }
    let name = format!("{}/{} by correction {}", row.id(0)?.simple(), row.int(1)?, row.int(2)?);
    let usage = serde_json::from_str::<Usage>(row.text(5)?);
    let usage = usage.map_err(|e| Error::Refused(format!("the usage of {name}: {e}")))?;
    let is_estimate = row.flag(7)? || row.flag(11)?;
    let multiplier = Multiplier::from_ppm(u64::try_from(row.int(12)?).unwrap_or(u64::MAX));
    let mut breaches = Vec::new();
    if let Some(cost) = row.maybe_int(6)? {
        let priced = (cost, Multiplier::ONE, row.flag(7)?);
        breaches.extend(breach(&name, "costs", (row, 8, lists), (&usage, priced))?);
    }
    if let Some(sold) = row.maybe_int(10)?.filter(|_| matches!(row.flag(3), Ok(true))) {
        let priced = (sold, multiplier, is_estimate);
        breaches.extend(breach(&name, "is sold for", (row, 13, lists), (&usage, priced))?);
    }
    Ok(breaches)
}

/// Whether an amount is not what usage comes to. By our own estimate a customer may pay less than
/// it may cost us, and an amount that does not fit was booked otherwise.
fn breach(
    name: &str,
    what: &str,
    (row, code, lists): (&Record, usize, &Lists),
    (usage, (amount, multiplier, is_estimate)): (&Usage, (i64, Multiplier, bool)),
) -> Result<Option<String>, Error> {
    let version = row.maybe_int(code.saturating_add(1))?;
    let price = row.maybe_text(code)?.zip(version);
    let list = price.and_then(|(code, version)| lists.get(&(code.to_owned(), version)));
    let Some(list) = list else {
        return Ok(Some(format!("attempt {name} {what} {amount} at a price that is not there")));
    };
    let amounts = amounts(list, usage, multiplier);
    let is_sale = what != "costs";
    let fits = amounts.contains(&amount)
        || (is_estimate && amounts.is_empty())
        || (is_estimate && is_sale && amounts.iter().any(|most| amount <= *most));
    Ok((!fits).then(|| {
        let price = shown(list);
        format!("attempt {name} {what} {amount}; its usage comes to {amounts:?} at {price}")
    }))
}
