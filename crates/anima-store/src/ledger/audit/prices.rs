//! I9: what is booked for usage is what the pinned version of its price says, to the last unit.
//!
//! Usage, price versions and factors are read from the database and computed anew by the product's
//! own arithmetic. The service tier that a provider reported is not stored: an amount must be that
//! of one of the tiers that its list knows. An amount that was a stated estimate from the start (a
//! call whose end nobody saw) has no usage and is not computed.
//! Invariant: an amount that was changed, or a usage, or a price, is noticed.

use std::collections::BTreeMap;

use uuid::Uuid;

use anima_core::config::Price;
use anima_core::money::{Currency, Multiplier};
use anima_core::pricing::{self, MeterRate, PriceList};
use anima_core::usage::Usage;

use super::{BREACHES_LISTED, Found};
use crate::ledger::Error;
use crate::ledger::session::{Failed, Record, Session};

mod corrected; // what corrections rest on

/// Attempts that are read at a time.
const PAGE: usize = 5_000;

const LISTS: &str = "SELECT code, version_no, CAST(body AS TEXT) FROM price";

/// Attempts after a hold and a number, with what they and their holds were booked for. The hold was
/// not settled by what a correction brought later.
const ATTEMPTS: &str = "
    SELECT a.hold, a.n,
           CASE WHEN a.served AND NOT EXISTS (
               SELECT 1 FROM corrected_attempt k WHERE k.hold = a.hold AND k.n = a.n AND k.is_new
           ) THEN 1 ELSE 0 END,
           a.usage_source,
           CAST(a.usage AS TEXT), a.cost, CASE WHEN a.cost_estimate THEN 1 ELSE 0 END,
           c.code, c.version_no,
           h.settled, h.uncollected, h.currency, h.multiplier, s.code, s.version_no,
           (SELECT CAST(sum(l.amount) AS TEXT) FROM journal j JOIN leg l ON l.journal = j.id
            WHERE j.subject = h.id AND j.kind = 1 AND l.component IN (11, 22)
              AND l.currency <> h.currency)
    FROM attempt a
    JOIN hold h ON h.id = a.hold
    LEFT JOIN price_ref c ON c.id = a.cost_price_id
    LEFT JOIN price_ref s ON s.id = h.price_id
    WHERE a.hold >= $1 AND (a.hold > $1 OR a.n > $2)
    ORDER BY a.hold, a.n
    LIMIT 5000";

type Lists = BTreeMap<(String, i64), PriceList>;

/// One attempt and its hold.
struct Booked<'l> {
    name: String,
    served: bool,
    estimate: bool,
    usage: Usage,
    cost: Option<i64>,
    cost_list: Option<&'l PriceList>,
    /// What the customer owed, collected or not.
    sale: Option<i64>,
    /// The sale in the price's currency, collected or not, where that is another one than the
    /// wallet's.
    converted: Option<i128>,
    currency: String,
    multiplier: Multiplier,
    sale_list: Option<&'l PriceList>,
}

/// Computes every amount again, of holds from `first` on.
pub(super) async fn recompute(session: &mut Session<'_>, first: Uuid) -> Result<Found, Failed> {
    let lists = lists(session).await?;
    let mut found = Found::default();
    let mut after = (first, -1_i64);
    loop {
        let rows = session.query(ATTEMPTS, &[after.0.into(), after.1.into()]).await?;
        for row in &rows {
            after = (row.id(0)?, row.int(1)?);
            let Some(booked) = read(row, &lists)? else { continue };
            found.checked = found.checked.saturating_add(1);
            if found.breaches.len() < BREACHES_LISTED {
                found.breaches.extend(cost_breach(&booked));
                found.breaches.extend(sale_breach(&booked));
            }
        }
        if rows.len() < PAGE {
            break;
        }
    }
    corrected::recompute(session, first, (&lists, &mut found)).await?;
    Ok(found)
}

async fn lists(session: &mut Session<'_>) -> Result<Lists, Failed> {
    let mut lists = Lists::new();
    for row in session.query(LISTS, &[]).await? {
        let (code, version_no) = (row.text(0)?.to_owned(), row.int(1)?);
        let list = serde_json::from_str::<Price>(row.text(2)?).ok().and_then(|price| {
            let rate = |meter: &anima_core::config::MeterPrice| {
                let rate = meter.rate(price.currency).ok()?;
                Some(MeterRate { meter: meter.meter, rate, when: meter.when.clone() })
            };
            let rates = price.meters.iter().map(rate).collect::<Option<Vec<_>>>()?;
            Some(PriceList { code: code.clone(), version_no, currency: price.currency, rates })
        });
        let damaged = || Error::Refused(format!("price {code}/{version_no} cannot be read"));
        let list = list.ok_or_else(damaged)?;
        lists.insert((code, version_no), list);
    }
    Ok(lists)
}

/// `None` for an attempt that consumed nothing that is known.
fn read<'l>(row: &Record, lists: &'l Lists) -> Result<Option<Booked<'l>>, Error> {
    if row.text(3)? == "none" {
        return Ok(None);
    }
    let list = |code: usize, version: usize| {
        let code = row.maybe_text(code)?;
        Ok::<_, Error>(match (code, row.maybe_int(version)?) {
            (Some(code), Some(version)) => lists.get(&(code.to_owned(), version)),
            _ => None,
        })
    };
    let name = format!("{}/{}", row.id(0)?.simple(), row.int(1)?);
    let usage = serde_json::from_str(row.text(4)?);
    let usage = usage.map_err(|e| Error::Refused(format!("the usage of {name}: {e}")))?;
    let uncollected = row.int(10)?;
    let multiplier = u64::try_from(row.int(12)?).unwrap_or(u64::MAX);
    let converted = row.maybe_text(15)?.map(str::parse::<i128>).transpose();
    Ok(Some(Booked {
        served: row.int(2)? == 1,
        estimate: row.int(6)? == 1,
        usage,
        cost: row.maybe_int(5)?,
        cost_list: list(7, 8)?,
        sale: row.maybe_int(9)?.map(|settled| settled.saturating_add(uncollected)),
        converted: converted.map_err(|e| Error::Refused(format!("the sale of {name}: {e}")))?,
        currency: row.text(11)?.to_owned(),
        multiplier: Multiplier::from_ppm(multiplier),
        sale_list: list(13, 14)?,
        name,
    }))
}

fn cost_breach(booked: &Booked<'_>) -> Option<String> {
    let cost = booked.cost?;
    let name = &booked.name;
    let Some(list) = booked.cost_list else {
        return Some(format!("attempt {name} costs {cost} at a price that is not there"));
    };
    let amounts = amounts(list, &booked.usage, Multiplier::ONE);
    // What does not fit, or has no rate, was booked as an estimate of another kind.
    let stated = booked.estimate && (amounts.is_empty() || list.misses(&booked.usage));
    (!stated && !amounts.contains(&cost)).then(|| {
        format!("attempt {name} costs {cost}; its usage comes to {amounts:?} at {}", shown(list))
    })
}

fn sale_breach(booked: &Booked<'_>) -> Option<String> {
    let sale = booked.sale.filter(|_| booked.served)?;
    let name = &booked.name;
    let Some(list) = booked.sale_list else {
        return Some(format!("attempt {name} is sold for {sale} at a price that is not there"));
    };
    let amounts = amounts(list, &booked.usage, booked.multiplier);
    let own = Currency::parse(&booked.currency) == Ok(list.currency);
    let sold = if own { i128::from(sale) } else { booked.converted.unwrap_or(0) };
    // Of what we counted ourselves a customer may be sold less than it may cost us: a cut stream by
    // the operator's policy, an abandoned one by what was delivered.
    let fits = |amount: &i64| match i128::from(*amount) {
        amount if booked.estimate => sold <= amount,
        amount => sold == amount,
    };
    let stated = amounts.is_empty() || booked.estimate && list.misses(&booked.usage);
    let fits = stated || amounts.iter().any(fits);
    (!fits).then(|| {
        format!(
            "attempt {name} is sold for {sold}; its usage comes to {amounts:?} at {}",
            shown(list)
        )
    })
}

fn shown(list: &PriceList) -> String {
    format!("{} version {}", list.code, list.version_no)
}

/// What usage comes to in each tier that a list knows, and, where its tokens were a guess, by its
/// units. Empty when it does not fit 64 bits.
fn amounts(list: &PriceList, usage: &Usage, multiplier: Multiplier) -> Vec<i64> {
    let tiers = list.rates.iter().filter_map(|rate| rate.when.service_tier.as_deref());
    let mut tiers: Vec<_> = tiers.map(Some).chain([None]).collect();
    tiers.sort_unstable();
    tiers.dedup();
    let amount =
        |tier| [*usage, list.in_units(usage)].map(|usage| amount(list, &usage, (tier, multiplier)));
    let mut amounts: Vec<_> = tiers.into_iter().flat_map(amount).flatten().collect();
    amounts.dedup();
    amounts
}

/// As booking does it: what has no rate is left out.
fn amount(
    list: &PriceList,
    usage: &Usage,
    (tier, multiplier): (Option<&str>, Multiplier),
) -> Option<i64> {
    let mut usage = *usage;
    loop {
        match list.charge(&usage, tier, multiplier) {
            Ok(charge) => return Some(charge.units),
            Err(pricing::Error::Unpriced(meter)) => usage.set(meter, 0),
            Err(pricing::Error::Amount(_)) => return None,
        }
    }
}
