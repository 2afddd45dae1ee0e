//! I12: what providers bill by day is what the books say that those days cost.
//!
//! Bills are rounded to the currency's smallest coin, so that half a coin is no difference, however
//! little the day cost. Not here: which figure of a day counts (`money::invoices`).
//! Invariant: a difference is a breach only when it is above both bounds.

use anima_core::money::Currency;

use super::{BREACHES_LISTED, Found};
use crate::ledger::Error;
use crate::ledger::money::is_billed_off;
use crate::ledger::session::{Failed, Record, Session};

const COUNTED: &str = "SELECT count(*) FROM invoice_day";

/// The last figure of each invoiced day beside all that is owed for the calls that began on it,
/// where they differ.
const DIFFERENT: &str = "
    WITH booked AS (
        SELECT t.channel, l.currency, t.started_at / 86400000000 AS day,
               sum(CASE WHEN l.credit_id = a.id THEN l.amount ELSE -l.amount END) AS amount
        FROM attempt t
        JOIN journal j ON j.subject = t.hold
        JOIN leg l ON l.journal = j.id AND l.attempt = t.n
        JOIN account a ON a.id IN (l.debit_id, l.credit_id) AND a.class IN (2030, 2031)
        WHERE t.started_at >= (SELECT min(day) FROM invoice_day) * 86400000000
        GROUP BY 1, 2, 3
    )
    SELECT i.channel || ' bills ' || i.amount || ' ' || i.currency || ' for day ' || i.day
           || ' (' || i.reference || '), and the books say ' || COALESCE(b.amount, 0),
           i.currency, i.amount, CAST(COALESCE(b.amount, 0) AS TEXT)
    FROM invoice_day i
    LEFT JOIN booked b ON b.channel = i.channel AND b.currency = i.currency AND b.day = i.day
    WHERE i.seq = (SELECT max(n.seq) FROM invoice_day n
                   WHERE n.channel = i.channel AND n.currency = i.currency AND n.day = i.day)
      AND i.amount <> COALESCE(b.amount, 0)
    ORDER BY i.day, i.channel";

/// Compares every invoiced day.
pub(super) async fn compare(session: &mut Session<'_>) -> Result<Found, Failed> {
    let counted = session.first(COUNTED, &[]).await?;
    let counted = counted.map_or(Ok(0), |row| row.int(0))?;
    let mut found = Found { checked: u64::try_from(counted).unwrap_or(0), ..Found::default() };
    for row in session.query(DIFFERENT, &[]).await? {
        if found.breaches.len() < BREACHES_LISTED && is_off(&row)? {
            found.breaches.push(row.text(0)?.to_owned());
        }
    }
    Ok(found)
}

fn is_off(row: &Record) -> Result<bool, Error> {
    let damaged = |e| Error::Refused(format!("a stored row cannot be read: {e}"));
    let currency = Currency::parse(row.text(1)?).map_err(damaged)?;
    Ok(is_billed_off(row.int(2)?, row.sum(3)?, currency))
}
