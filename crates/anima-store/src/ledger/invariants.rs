//! The invariants of the books, as queries that list their breaches. One text for both databases.
//!
//! They read rows only, never what the writer remembers, and repair nothing. Recomputing prices
//! (I9) is the program's, which knows the price lists. Invariant: an empty list of breaches means
//! that it holds on the snapshot that was read. Source: `reliability` 1.12.

use super::{Finding, TrialLine};

/// Breaches that are listed at most, per invariant. Each query says the same with `LIMIT`.
const LISTED: usize = 10;

/// One invariant.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) invariant: &'static str,
    pub(super) statement: &'static str,
    /// How many rows are looked at: one number.
    pub(super) counted: &'static str,
    /// The breaches, one text each. May take the time of the check, in microseconds.
    pub(super) breaches: &'static str,
}

impl Check {
    pub(super) fn finding(&self, checked: i64, breaches: Vec<String>) -> Finding {
        Finding {
            invariant: self.invariant,
            statement: self.statement,
            checked: u64::try_from(checked).unwrap_or(0),
            breaches,
        }
    }
}

/// I2: the trial balance, summed per currency.
pub(super) fn both_sides_are_equal(lines: &[TrialLine]) -> Finding {
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
    Finding {
        invariant: "I2",
        statement: "per currency, the debits of all balances equal their credits",
        checked: u64::try_from(lines.len()).unwrap_or(u64::MAX),
        breaches: said.take(LISTED).collect(),
    }
}

/// All that are queries, in order of their numbers. I2 belongs between the first two.
pub(super) const CHECKS: &[Check] = &[
    Check {
        invariant: "I1",
        statement: "each leg belongs to a journal and joins two accounts of its own currency",
        counted: "SELECT count(*) FROM leg",
        breaches: "
            SELECT 'leg ' || lower(hex(l.journal)) || '/' || l.n || ' of ' || l.currency
                   || ' joins ' || COALESCE(d.code || ' in ' || d.currency, 'nothing')
                   || ' and ' || COALESCE(c.code || ' in ' || c.currency, 'nothing')
            FROM leg l
            LEFT JOIN journal j ON j.id = l.journal
            LEFT JOIN account d ON d.id = l.debit_id
            LEFT JOIN account c ON c.id = l.credit_id
            WHERE j.id IS NULL OR d.id IS NULL OR c.id IS NULL
               OR d.currency <> l.currency OR c.currency <> l.currency
            LIMIT 10",
    },
    Check {
        invariant: "I3",
        statement: "each balance equals its legs, and what a wallet holds equals its open holds",
        counted: "SELECT count(*) FROM account",
        breaches: BALANCES,
    },
    Check {
        invariant: "I4",
        statement: "no wallet is below its floor",
        counted: "SELECT count(*) FROM gated_balance",
        breaches: "
            SELECT a.code || ' in ' || a.currency || ': ' || g.posted || ' posted, ' || g.held
                   || ' held, the floor is ' || g.floor
            FROM gated_balance g JOIN account a ON a.id = g.account_id
            WHERE g.posted - g.held < g.floor OR g.held < 0
            LIMIT 10",
    },
    Check {
        invariant: "I5",
        statement: "each settled hold has one settlement whose sale is what was charged, and no \
                    other hold has any",
        counted: "SELECT count(*) FROM hold WHERE state IN ('SETTLED', 'RELEASED')",
        breaches: SETTLEMENTS,
    },
    Check {
        invariant: "I6",
        statement: "no hold is open for more than a minute past its expiry",
        counted: "SELECT count(*) FROM hold WHERE state IN ('HELD', 'UNKNOWN')",
        breaches: "
            SELECT 'hold ' || lower(hex(id)) || ' of ' || app || ' is ' || state
                   || ' and expired at ' || expires_at
            FROM hold
            WHERE state IN ('HELD', 'UNKNOWN') AND state = 'HELD'
              AND expires_at < CAST($1 AS bigint) - 60000000
            LIMIT 10",
    },
    Check {
        invariant: "I7",
        statement: "each attempt belongs to a hold",
        counted: "SELECT count(*) FROM attempt",
        breaches: "
            SELECT 'attempt ' || lower(hex(a.hold)) || '/' || a.n || ' has no hold'
            FROM attempt a LEFT JOIN hold h ON h.id = a.hold
            WHERE h.id IS NULL
            LIMIT 10",
    },
    Check {
        invariant: "I8",
        statement: "no more is refunded for a request than it was charged",
        counted: "SELECT count(*) FROM journal WHERE kind = 4",
        breaches: "
            SELECT 'hold ' || lower(hex(h.id)) || ': charged ' || COALESCE(h.settled, 0)
                   || ', refunded ' || sum(l.amount)
            FROM journal j
            JOIN leg l ON l.journal = j.id AND l.component = 5
            JOIN hold h ON h.id = j.subject
            WHERE j.kind = 4
            GROUP BY h.id, h.settled
            HAVING sum(l.amount) > COALESCE(h.settled, 0)
            LIMIT 10",
    },
];

const BALANCES: &str = "
    WITH sides AS (
        SELECT debit_id AS account_id, amount AS debit, 0 AS credit FROM leg
        UNION ALL
        SELECT credit_id, 0, amount FROM leg
    ), posted AS (
        SELECT account_id, sum(debit) AS debits, sum(credit) AS credits
        FROM sides GROUP BY account_id
    ), balance AS (
        SELECT account_id, sum(debits) AS debits, sum(credits) AS credits
        FROM account_balance GROUP BY account_id
    ), open AS (
        SELECT account_id, sum(amount) AS held
        FROM hold WHERE state IN ('HELD', 'UNKNOWN') GROUP BY account_id
    )
    SELECT a.code || ' in ' || a.currency || ': the balance says ' || COALESCE(b.debits, 0)
           || ' debits, ' || COALESCE(b.credits, 0) || ' credits, ' || COALESCE(g.held, 0)
           || ' held; the rows say ' || COALESCE(p.debits, 0) || ', ' || COALESCE(p.credits, 0)
           || ', ' || COALESCE(o.held, 0)
    FROM account a
    LEFT JOIN balance b ON b.account_id = a.id
    LEFT JOIN posted p ON p.account_id = a.id
    LEFT JOIN gated_balance g ON g.account_id = a.id
    LEFT JOIN open o ON o.account_id = a.id
    WHERE COALESCE(b.debits, 0) <> COALESCE(p.debits, 0)
       OR COALESCE(b.credits, 0) <> COALESCE(p.credits, 0)
       OR COALESCE(g.held, 0) <> COALESCE(o.held, 0)
    LIMIT 10";

const SETTLEMENTS: &str = "
    WITH settlement AS (
        SELECT j.id, j.subject, j.kind, COALESCE(sum(l.amount), 0) AS sale
        FROM journal j LEFT JOIN leg l ON l.journal = j.id AND l.component = 1
        WHERE j.kind IN (1, 2)
        GROUP BY j.id, j.subject, j.kind
    )
    SELECT 'hold ' || lower(hex(h.id)) || ' is settled for ' || h.settled || ' and has '
           || count(s.id) || ' settlements of ' || COALESCE(sum(s.sale), 0) AS breach
    FROM hold h LEFT JOIN settlement s ON s.subject = h.id AND s.kind = 1
    WHERE h.state = 'SETTLED'
    GROUP BY h.id, h.settled
    HAVING count(s.id) <> 1 OR COALESCE(sum(s.sale), 0) <> h.settled
    UNION ALL
    SELECT 'journal ' || lower(hex(s.id)) || ' of kind ' || s.kind || ' is about a hold that is '
           || COALESCE(h.state, 'not there')
    FROM settlement s LEFT JOIN hold h ON h.id = s.subject
    WHERE h.state IS NULL
       OR h.state <> CASE s.kind WHEN 1 THEN 'SETTLED' ELSE 'RELEASED' END
    UNION ALL
    SELECT 'journal ' || lower(hex(s.id)) || ' charges ' || s.sale || ' for a release'
    FROM settlement s
    WHERE s.kind = 2 AND s.sale <> 0
    LIMIT 10";
