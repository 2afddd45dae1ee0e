//! Reads what is booked about holds that are to be corrected, on PostgreSQL.
//!
//! Invariant: read after the wallets are locked, in the transaction that posts the correction.

use std::collections::HashMap;

use deadpool_postgres::Object;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::failure::Next;
use super::lookup::digest;
use crate::ledger::batch::Failure;
use crate::ledger::booked::{self, BookedLeg};
use crate::ledger::directory::Directory;
use crate::ledger::plan::Booked;

const LEGS: &str = "
    SELECT j.subject, j.id, j.kind, j.seq, j.digest, d.id, d.code, c.id, c.code, l.amount,
           l.currency, l.component, l.attempt, p.id, p.code, p.version_no, l.estimate
    FROM journal j
    JOIN leg l ON l.journal = j.id
    JOIN account d ON d.id = l.debit_id
    JOIN account c ON c.id = l.credit_id
    LEFT JOIN price_ref p ON p.id = l.price_id
    WHERE j.subject = ANY($1)
    ORDER BY j.posted_at, j.kind, j.seq, l.n";

const ATTEMPTS: &str = "SELECT hold, n FROM attempt WHERE hold = ANY($1)";

pub(super) async fn load(
    client: &Object,
    holds: &[Uuid],
    directory: &mut Directory,
) -> Result<HashMap<Uuid, Booked>, Next> {
    if holds.is_empty() {
        return Ok(HashMap::new());
    }
    let legs = client.query(LEGS, &[&holds]).await?;
    let attempts = client.query(ATTEMPTS, &[&holds]).await?;
    let legs = legs.iter().map(leg).collect::<Result<_, Error>>()?;
    let attempts = attempts.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let attempts = attempts.collect::<Result<_, Error>>()?;
    booked::read(legs, attempts, directory).map_err(|why| Next::Fail(Failure::Refused(why)))
}

fn leg(row: &Row) -> Result<BookedLeg, Error> {
    let price: (Option<i64>, Option<String>, Option<i64>) =
        (row.try_get(13)?, row.try_get(14)?, row.try_get(15)?);
    let price = match price {
        (Some(id), Some(code), Some(version_no)) => Some((id, code, version_no)),
        _ => None,
    };
    Ok(BookedLeg {
        subject: row.try_get(0)?,
        journal: row.try_get(1)?,
        kind: row.try_get(2)?,
        seq: row.try_get(3)?,
        digest: digest(row.try_get(4)?),
        debit: (row.try_get(5)?, row.try_get(6)?),
        credit: (row.try_get(7)?, row.try_get(8)?),
        amount: row.try_get(9)?,
        currency: row.try_get(10)?,
        component: row.try_get(11)?,
        attempt: row.try_get(12)?,
        price,
        estimate: row.try_get(16)?,
    })
}
