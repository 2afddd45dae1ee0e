//! Whose turn it is to look at all books, and what the last such look found.
//!
//! One row, shared by all nodes: a look at everything reads every row of the ledger, and once is
//! enough for all. A turn is a lease that its node keeps while it looks; of a node that is gone it
//! passes to another. Not here: when a look is due. Invariant: what is stored was found by the node
//! whose turn it was, and replaces what was found before.

use std::collections::BTreeMap;

use uuid::Uuid;

use anima_core::clock::Timestamp;

use super::{Finding, STATEMENTS};
use crate::ledger::Error;
use crate::ledger::session::{Failed, Mode, Session, Work};

/// What a look at all books found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeLook {
    /// The instant of what it saw.
    pub at: Timestamp,
    /// One per invariant. How many rows were looked at is not stored: 0 when it was read back.
    pub findings: Vec<Finding>,
}

/// A turn that is asked for, or kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Who asks, by a process start.
    pub node: Uuid,
    /// The clock of who asks.
    pub now: Timestamp,
    /// Until when it has the turn, unless it asks again.
    pub until: Timestamp,
    /// The last look that it knows of. Where another has ended since, there is nothing to do.
    pub after: Option<Timestamp>,
}

const LAST: &str = "SELECT looked_at, found FROM audit_turn WHERE one = 1";

/// Node, until, now, the last look.
const TAKE: &str = "
    UPDATE audit_turn SET node = $1, until = $2
    WHERE one = 1 AND (node IS NULL OR node = $1 OR until < $3) AND looked_at = $4";

/// When it looked, what it found, node: SQLite numbers them as they come.
const END: &str = "
    UPDATE audit_turn SET node = NULL, until = 0, looked_at = $1, found = $2
    WHERE one = 1 AND node = $3";

/// Reads the last look.
#[derive(Debug, Clone)]
pub(super) struct Last;

impl Work for Last {
    type Output = Option<WholeLook>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Self::Output, Failed> {
        let damaged = || Error::Refused("the turn of the auditors cannot be read".to_owned());
        let row = session.first(LAST, &[]).await?.ok_or_else(damaged)?;
        let at = row.int(0)?;
        let found: BTreeMap<String, Vec<String>> =
            serde_json::from_str(row.text(1)?).map_err(|_odd| damaged())?;
        Ok((at > 0).then(|| WholeLook { at: Timestamp::from_micros(at), findings: read(found) }))
    }
}

/// Takes or keeps a turn.
#[derive(Debug, Clone)]
pub(super) struct Take(pub(super) Turn);

impl Work for Take {
    type Output = bool;

    const MODE: Mode = Mode::Write;

    async fn run(&self, session: &mut Session<'_>) -> Result<bool, Failed> {
        let Turn { node, now, until, after } = self.0;
        let after = after.map_or(0, Timestamp::micros);
        let parameters = [node.into(), until.micros().into(), now.micros().into(), after.into()];
        Ok(session.execute(TAKE, &parameters).await? == 1)
    }
}

/// Ends a turn.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) node: Uuid,
    pub(super) look: WholeLook,
}

impl Work for End {
    type Output = bool;

    const MODE: Mode = Mode::Write;

    async fn run(&self, session: &mut Session<'_>) -> Result<bool, Failed> {
        let found = text(&self.look.findings)?;
        let parameters = [self.look.at.micros().into(), found.as_str().into(), self.node.into()];
        Ok(session.execute(END, &parameters).await? == 1)
    }
}

fn text(findings: &[Finding]) -> Result<String, Error> {
    let breached = findings.iter().filter(|finding| !finding.breaches.is_empty());
    let found: BTreeMap<_, _> = breached.map(|f| (f.invariant, &f.breaches)).collect();
    serde_json::to_string(&found).map_err(|e| Error::Refused(e.to_string()))
}

/// What is not an invariant of this version is left out.
fn read(mut found: BTreeMap<String, Vec<String>>) -> Vec<Finding> {
    let all = STATEMENTS.iter();
    all.map(|(invariant, statement, not_applicable)| Finding {
        invariant,
        statement,
        not_applicable: *not_applicable,
        checked: 0,
        breaches: found.remove(*invariant).unwrap_or_default(),
    })
    .collect()
}
