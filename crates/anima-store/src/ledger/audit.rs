//! Proves the books: every invariant that applies, from the database alone.
//!
//! One work on one snapshot, the same for both databases; it reads rows only, never what a writer
//! remembers, and repairs nothing. [`Scope::Recent`] looks at what was made since an instant, and
//! at what is small: it takes milliseconds, so that it can run all the time.
//! Invariant: no breach in [`Scope::Everything`] means that all of them hold on that snapshot.
//! Source: `reliability` 1.12.

use std::fmt;

use async_trait::async_trait;
use uuid::Uuid;

use anima_core::clock::Timestamp;

use super::money::Books;
use super::reports::{self, LINES, Line};
use super::session::{Failed, Mode, Session, Value, Work};
use super::{Error, Finding, TrialLine};

mod checks; // the invariants that are queries
mod corrections; // what of them is about corrections
mod invoices; // what providers bill
mod prices; // the one that computes
mod turn; // who looks at everything

pub use turn::{Turn, WholeLook};

/// Breaches that are listed at most, per invariant. Each query says the same with `LIMIT`.
pub const BREACHES_LISTED: usize = 10;

/// How much earlier than what is looked at a request may have begun, milliseconds: its hold is
/// older than its settlement.
const CALL_MS: i64 = 3_600_000;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All books. Reads every row of the ledger once or twice.
    Everything,
    /// What was posted since, open holds, and all balances.
    Recent(Timestamp),
}

/// Checks the books.
#[async_trait]
pub trait Auditor: Send + Sync + fmt::Debug {
    /// Checks every invariant at instant `now`, in order of their numbers, each once.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Refused`] when a row cannot even be read.
    async fn audit(&self, now: Timestamp, scope: Scope) -> Result<Vec<Finding>, Error>;

    /// What the last look at all books found, whichever node looked. `None` when none has ended.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn last_look(&self) -> Result<Option<WholeLook>, Error>;

    /// Takes the turn to look at all books, or keeps it. `false` when another node has it, or a
    /// look has ended that who asks does not know of.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn take_turn(&self, turn: Turn) -> Result<bool, Error>;

    /// Ends a node's turn with what it found. `false`, and nothing is stored, when it has no turn.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn end_turn(&self, node: Uuid, look: WholeLook) -> Result<bool, Error>;
}

#[async_trait]
impl Auditor for Books {
    async fn audit(&self, now: Timestamp, scope: Scope) -> Result<Vec<Finding>, Error> {
        self.run(Audit { now, scope }).await
    }

    async fn last_look(&self) -> Result<Option<WholeLook>, Error> {
        self.run(turn::Last).await
    }

    async fn take_turn(&self, turn: Turn) -> Result<bool, Error> {
        self.run(turn::Take(turn)).await
    }

    async fn end_turn(&self, node: Uuid, look: WholeLook) -> Result<bool, Error> {
        self.run(turn::End { node, look }).await
    }
}

/// All invariants, by number. What does not apply in this version says why.
const STATEMENTS: &[(&str, &str, Option<&str>)] = &[
    ("I1", "each leg belongs to a journal and joins two accounts of its own currency", None),
    ("I2", "per currency, the debits of all balances equal their credits", None),
    (
        "I3",
        "each balance equals its legs, what a wallet holds equals its open holds, and its \
         promotional credit equals its grants",
        None,
    ),
    ("I4", "no wallet is below its floor", None),
    (
        "I5",
        "each settled hold has one settlement whose sale is what was charged and whose loss is \
         what could not be, and no other hold has any",
        None,
    ),
    ("I6", "no hold is open a minute after its expiry, its owner's lease or its deadline", None),
    (
        "I7",
        "each attempt belongs to a hold, and its cost is booked once, as it is known by now",
        None,
    ),
    (
        "I8",
        "what was refunded for a request is what was posted, and no more than was charged",
        None,
    ),
    (
        "I9",
        "each amount, corrected ones too, is what the stored usage comes to at the pinned price",
        None,
    ),
    ("I10", "no estimated payable is older than 7 days", None),
    (
        "I11",
        "shared spending counters equal the books",
        Some("they are not in the database; every node repairs its own (budget_repair_ms)"),
    ),
    (
        "I12",
        "each invoiced day of a channel is within 0.5 %, or half the currency's smallest coin, of \
         what its calls cost",
        None,
    ),
    ("I13", "wallet slices and wallets are the customers' balance", Some("this version has none")),
    ("I14", "the days of each house account equal what was posted on them", None),
];

/// The work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Audit {
    pub(super) now: Timestamp,
    pub(super) scope: Scope,
}

/// What the checks of one invariant found.
#[derive(Debug, Default)]
struct Found {
    checked: u64,
    breaches: Vec<String>,
}

impl Audit {
    /// The lowest id that is looked at, of holds and of journals: both begin with a millisecond.
    fn first_id(&self) -> Uuid {
        match self.scope {
            Scope::Everything => Uuid::nil(),
            Scope::Recent(since) => {
                let millis = since.millis().saturating_sub(CALL_MS);
                Uuid::from_u128(u128::try_from(millis).unwrap_or(0) << 80)
            }
        }
    }

    async fn check(
        &self,
        session: &mut Session<'_>,
        check: &checks::Check,
    ) -> Result<Found, Failed> {
        let first: Value = self.first_id().into();
        let from_first = std::slice::from_ref(&first);
        let counting = if check.counts_from_first { from_first } else { &[] };
        let counted = session.first(check.counted, counting).await?;
        let parameters: &[Value] = match check.takes {
            checks::Takes::Nothing => &[],
            checks::Takes::First => &[first],
            checks::Takes::Now => &[self.now.micros().into()],
        };
        let rows = session.query(check.breaches, parameters).await?;
        let breaches = rows.iter().map(|row| row.text(0).map(str::to_owned));
        let counted = counted.map_or(Ok(0), |row| row.int(0))?;
        Ok(Found {
            checked: u64::try_from(counted).unwrap_or(0),
            breaches: breaches.collect::<Result<_, _>>()?,
        })
    }

    async fn find(
        &self,
        session: &mut Session<'_>,
        invariant: &'static str,
    ) -> Result<Found, Failed> {
        let mut found = match invariant {
            "I2" => both_sides_are_equal(&trial_balance(session).await?),
            "I9" => prices::recompute(session, self.first_id()).await?,
            "I12" if self.scope == Scope::Everything => invoices::compare(session).await?,
            _ => Found::default(),
        };
        let recent = matches!(self.scope, Scope::Recent(_));
        let wanted = |check: &&checks::Check| {
            check.invariant == invariant
                && match check.when {
                    checks::When::Always => true,
                    checks::When::Everything => !recent,
                }
        };
        for check in checks::CHECKS.iter().chain(corrections::CHECKS).filter(wanted) {
            let more = self.check(session, check).await?;
            found.checked = found.checked.saturating_add(more.checked);
            found.breaches.extend(more.breaches);
        }
        Ok(found)
    }
}

impl Work for Audit {
    type Output = Vec<Finding>;

    const MODE: Mode = Mode::Read;

    fn is_long(&self) -> bool {
        self.scope == Scope::Everything
    }

    async fn run(&self, session: &mut Session<'_>) -> Result<Vec<Finding>, Failed> {
        let mut findings = Vec::with_capacity(STATEMENTS.len());
        for (invariant, statement, not_applicable) in STATEMENTS {
            let mut found = self.find(session, invariant).await?;
            found.breaches.truncate(BREACHES_LISTED);
            findings.push(Finding {
                invariant,
                statement,
                not_applicable: *not_applicable,
                checked: found.checked,
                breaches: found.breaches,
            });
        }
        Ok(findings)
    }
}

async fn trial_balance(session: &mut Session<'_>) -> Result<Vec<TrialLine>, Failed> {
    let rows = session.query(LINES, &[]).await?;
    let line = |row: &super::session::Record| {
        Ok::<_, Error>(Line {
            account: row.text(0)?.to_owned(),
            class: i16::try_from(row.int(1)?).unwrap_or(0),
            currency: row.text(2)?.to_owned(),
            debits: row.text(3)?.to_owned(),
            credits: row.text(4)?.to_owned(),
        })
    };
    let lines = rows.iter().map(line).collect::<Result<_, _>>()?;
    Ok(reports::trial_balance(lines)?)
}

/// I2: the trial balance, summed per currency.
fn both_sides_are_equal(lines: &[TrialLine]) -> Found {
    let mut sums = std::collections::BTreeMap::new();
    for line in lines {
        let sum: &mut (i128, i128) = sums.entry(line.currency).or_default();
        sum.0 = sum.0.saturating_add(line.debits);
        sum.1 = sum.1.saturating_add(line.credits);
    }
    let unequal = sums.into_iter().filter(|(_, (debits, credits))| debits != credits);
    let said = unequal.map(|(currency, (debits, credits))| {
        format!("{currency}: debits are {debits}, credits are {credits}")
    });
    Found {
        checked: u64::try_from(lines.len()).unwrap_or(u64::MAX),
        breaches: said.take(BREACHES_LISTED).collect(),
    }
}
