//! The trial balance of an earlier instant: that of now, less what was posted since.
//!
//! Invariant: both are read from one state of the database.

use anima_core::clock::Timestamp;

use super::first_journal;
use crate::ledger::TrialLine;
use crate::ledger::reports::{self, LINES, Line};
use crate::ledger::session::{Failed, Mode, Session, Work};

/// What was posted since, by account: debits and credits taken off, so both below 0.
const SINCE: &str = "
    SELECT a.code, a.class, a.currency, CAST(-sum(s.debit) AS TEXT), CAST(-sum(s.credit) AS TEXT)
    FROM (
        SELECT debit_id AS account_id, amount AS debit, 0 AS credit FROM leg WHERE journal >= $1
        UNION ALL
        SELECT credit_id, 0, amount FROM leg WHERE journal >= $1
    ) s
    JOIN account a ON a.id = s.account_id
    GROUP BY a.code, a.class, a.currency";

/// The trial balance just before an instant.
#[derive(Debug, Clone)]
pub(super) struct TrialAt {
    pub(super) at: Timestamp,
}

impl Work for TrialAt {
    type Output = Vec<TrialLine>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let mut records = session.query(LINES, &[]).await?;
        records.extend(session.query(SINCE, &[first_journal(self.at).into()]).await?);
        let line = |record: &crate::ledger::session::Record| {
            Ok(Line {
                account: record.text(0)?.to_owned(),
                class: i16::try_from(record.int(1)?).unwrap_or(0),
                currency: record.text(2)?.to_owned(),
                debits: record.text(3)?.to_owned(),
                credits: record.text(4)?.to_owned(),
            })
        };
        let lines = records.iter().map(line).collect::<Result<Vec<_>, crate::ledger::Error>>()?;
        Ok(reports::trial_balance(lines)?)
    }
}
