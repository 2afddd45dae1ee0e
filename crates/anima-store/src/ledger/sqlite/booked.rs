//! Reads what is booked about holds that are to be corrected, on SQLite.
//!
//! Invariant: read in the transaction that posts the correction.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Error, Row, Transaction};
use uuid::Uuid;

use crate::ledger::booked::{self, BookedLeg};
use crate::ledger::directory::Directory;
use crate::ledger::operation::Item;
use crate::ledger::plan::Booked;

pub(super) fn load(
    transaction: &Transaction<'_>,
    directory: &mut Directory,
    items: &[Item],
) -> rusqlite::Result<HashMap<Uuid, Booked>> {
    const LEGS: &str = "
        SELECT j.subject, j.id, j.kind, j.seq, j.digest, d.id, d.code, c.id, c.code, l.amount,
               l.currency, l.component, l.attempt, p.id, p.code, p.version_no, l.estimate
        FROM journal j
        JOIN leg l ON l.journal = j.id
        JOIN account d ON d.id = l.debit_id
        JOIN account c ON c.id = l.credit_id
        LEFT JOIN price_ref p ON p.id = l.price_id
        WHERE j.subject = ?1
        ORDER BY j.posted_at, j.kind, j.seq, l.n";
    const ATTEMPTS: &str = "SELECT n FROM attempt WHERE hold = ?1";
    let (mut legs, mut attempts) = (Vec::new(), Vec::new());
    let holds: BTreeSet<Uuid> =
        items.iter().filter_map(|item| item.operation.corrected()).collect();
    for hold in holds {
        let mut statement = transaction.prepare_cached(LEGS)?;
        for row in statement.query_map([hold.into_bytes()], leg)? {
            legs.push(row?);
        }
        let mut statement = transaction.prepare_cached(ATTEMPTS)?;
        for n in statement.query_map([hold.into_bytes()], |row| row.get(0))? {
            attempts.push((hold, n?));
        }
    }
    let unreadable = |why: String| Error::ToSqlConversionFailure(why.into());
    booked::read(legs, attempts, directory).map_err(unreadable)
}

fn leg(row: &Row<'_>) -> rusqlite::Result<BookedLeg> {
    let price: (Option<i64>, Option<String>, Option<i64>) =
        (row.get(13)?, row.get(14)?, row.get(15)?);
    let price = match price {
        (Some(id), Some(code), Some(version_no)) => Some((id, code, version_no)),
        _ => None,
    };
    Ok(BookedLeg {
        subject: Uuid::from_bytes(row.get(0)?),
        journal: Uuid::from_bytes(row.get(1)?),
        kind: row.get(2)?,
        seq: row.get(3)?,
        digest: row.get(4)?,
        debit: (row.get(5)?, row.get(6)?),
        credit: (row.get(7)?, row.get(8)?),
        amount: row.get(9)?,
        currency: row.get(10)?,
        component: row.get(11)?,
        attempt: row.get(12)?,
        price,
        estimate: row.get(16)?,
    })
}
