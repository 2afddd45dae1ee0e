//! The invariants that are queries which list their breaches. One text for both databases.
//!
//! `$1` is the lowest id that is looked at, of holds and of journals, or the time in microseconds.
//! Not here: what a breach means for the gateway.
//! Invariant: a query gives one text per breach, and at most ten.

/// When a check runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Always: it looks at what is recent, or at what is small.
    Always,
    /// Only over everything.
    Everything,
}

/// The parameters of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    First,
    Now,
}

/// One check. Several may be of one invariant.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) invariant: &'static str,
    pub(super) when: When,
    /// How many rows are looked at: one number.
    pub(super) counted: &'static str,
    /// Whether that takes the first id.
    pub(super) counts_from_first: bool,
    /// The breaches, one text each.
    pub(super) breaches: &'static str,
    pub(super) takes: Takes,
}

/// All of them.
pub(super) const CHECKS: &[Check] = &[
    Check {
        invariant: "I1",
        when: When::Always,
        counted: "SELECT count(*) FROM leg WHERE journal >= $1",
        counts_from_first: true,
        breaches: LEGS,
        takes: Takes::First,
    },
    Check {
        invariant: "I3",
        when: When::Everything,
        counted: "SELECT count(*) FROM account",
        counts_from_first: false,
        breaches: BALANCES,
        takes: Takes::Nothing,
    },
    Check {
        invariant: "I3",
        when: When::Always,
        counted: "SELECT count(*) FROM gated_balance",
        counts_from_first: false,
        breaches: HELD,
        takes: Takes::Nothing,
    },
    Check {
        invariant: "I4",
        when: When::Always,
        counted: "SELECT count(*) FROM gated_balance",
        counts_from_first: false,
        breaches: FLOORS,
        takes: Takes::Nothing,
    },
    Check {
        invariant: "I5",
        when: When::Always,
        counted: "SELECT count(*) FROM hold WHERE id >= $1 AND state IN ('SETTLED', 'RELEASED')",
        counts_from_first: true,
        breaches: SETTLEMENTS,
        takes: Takes::First,
    },
    Check {
        invariant: "I6",
        when: When::Always,
        counted: "SELECT count(*) FROM hold WHERE state IN ('HELD', 'UNKNOWN')",
        counts_from_first: false,
        breaches: OPEN,
        takes: Takes::Now,
    },
    Check {
        invariant: "I7",
        when: When::Always,
        counted: "SELECT count(*) FROM attempt WHERE hold >= $1",
        counts_from_first: true,
        breaches: ATTEMPTS,
        takes: Takes::First,
    },
    Check {
        invariant: "I8",
        when: When::Always,
        counted: "SELECT count(*) FROM journal WHERE kind = 4",
        counts_from_first: false,
        breaches: REFUNDS,
        takes: Takes::Nothing,
    },
    Check {
        invariant: "I10",
        when: When::Everything,
        counted: "SELECT count(*) FROM account WHERE class = 2031",
        counts_from_first: false,
        breaches: AGEING,
        takes: Takes::Now,
    },
    Check {
        invariant: "I14",
        when: When::Everything,
        counted: "SELECT count(*) FROM account WHERE class <> 2010",
        counts_from_first: false,
        breaches: DAYS,
        takes: Takes::Nothing,
    },
];

const LEGS: &str = "
    SELECT 'leg ' || lower(hex(l.journal)) || '/' || l.n || ' of ' || l.currency
           || ' joins ' || COALESCE(d.code || ' in ' || d.currency, 'nothing')
           || ' and ' || COALESCE(c.code || ' in ' || c.currency, 'nothing')
    FROM leg l
    LEFT JOIN journal j ON j.id = l.journal
    LEFT JOIN account d ON d.id = l.debit_id
    LEFT JOIN account c ON c.id = l.credit_id
    WHERE l.journal >= $1
      AND (j.id IS NULL OR d.id IS NULL OR c.id IS NULL OR l.amount <= 0
           OR d.currency <> l.currency OR c.currency <> l.currency)
    LIMIT 10";

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
    )
    SELECT a.code || ' in ' || a.currency || ': the balance says ' || COALESCE(b.debits, 0)
           || ' debits, ' || COALESCE(b.credits, 0) || ' credits; the legs say '
           || COALESCE(p.debits, 0) || ', ' || COALESCE(p.credits, 0)
    FROM account a
    LEFT JOIN balance b ON b.account_id = a.id
    LEFT JOIN posted p ON p.account_id = a.id
    WHERE COALESCE(b.debits, 0) <> COALESCE(p.debits, 0)
       OR COALESCE(b.credits, 0) <> COALESCE(p.credits, 0)
    LIMIT 10";

const HELD: &str = "
    WITH open AS (
        SELECT account_id, sum(amount) AS held
        FROM hold WHERE state IN ('HELD', 'UNKNOWN') GROUP BY account_id
    ), credit AS (
        SELECT account_id, sum(credits) - sum(debits) AS left_over
        FROM account_balance GROUP BY account_id
    ), granted AS (
        SELECT account_id, sum(amount - used - expired) AS left_over
        FROM promo_grant GROUP BY account_id
    )
    SELECT a.code || ' in ' || a.currency || ': the wallet says ' || g.held || ' held and '
           || g.promo || ' promotional; its open holds say ' || COALESCE(o.held, 0)
           || ', the books ' || COALESCE(c.left_over, 0)
           || ', the grants ' || COALESCE(r.left_over, 0)
    FROM gated_balance g
    JOIN account a ON a.id = g.account_id
    LEFT JOIN open o ON o.account_id = g.account_id
    LEFT JOIN credit c ON c.account_id = g.promo_id
    LEFT JOIN granted r ON r.account_id = g.account_id
    WHERE g.held <> COALESCE(o.held, 0)
       OR g.promo <> COALESCE(c.left_over, 0)
       OR g.promo <> COALESCE(r.left_over, 0)
    LIMIT 10";

const FLOORS: &str = "
    SELECT a.code || ' in ' || a.currency || ': ' || g.posted || ' posted, ' || g.promo
           || ' promotional, ' || g.held || ' held, the floor is ' || g.floor
    FROM gated_balance g JOIN account a ON a.id = g.account_id
    WHERE g.posted + g.promo - g.held < g.floor OR g.held < 0 OR g.promo < 0
    LIMIT 10";

const SETTLEMENTS: &str = "
    SELECT 'hold ' || lower(hex(h.id)) || ' is settled for ' || h.settled || ' and has '
           || count(DISTINCT j.id) || ' settlements of ' || COALESCE(sum(l.amount), 0) AS breach
    FROM hold h
    LEFT JOIN journal j ON j.subject = h.id AND j.kind = 1
    LEFT JOIN leg l ON l.journal = j.id AND l.component = 1
    WHERE h.id >= $1 AND h.state = 'SETTLED'
    GROUP BY h.id, h.settled
    HAVING count(DISTINCT j.id) <> 1 OR COALESCE(sum(l.amount), 0) <> h.settled
    UNION ALL
    SELECT 'journal ' || lower(hex(j.id)) || ' of kind ' || j.kind || ' is about a hold that is '
           || COALESCE(h.state, 'not there')
    FROM journal j LEFT JOIN hold h ON h.id = j.subject
    WHERE j.id >= $1 AND j.kind IN (1, 2)
      AND (h.state IS NULL OR h.state <> CASE j.kind WHEN 1 THEN 'SETTLED' ELSE 'RELEASED' END)
    UNION ALL
    SELECT 'journal ' || lower(hex(j.id)) || ' charges ' || l.amount || ' for a release'
    FROM journal j JOIN leg l ON l.journal = j.id AND l.component = 1
    WHERE j.id >= $1 AND j.kind = 2
    UNION ALL
    SELECT 'hold ' || lower(hex(h.id)) || ' lacks ' || h.uncollected || ' of its sale, and '
           || COALESCE(sum(l.amount), 0) || ' are booked as our loss'
    FROM hold h
    LEFT JOIN journal j ON j.subject = h.id AND j.kind = 1
    LEFT JOIN leg l ON l.journal = j.id AND l.component = 11
    WHERE h.id >= $1 AND h.uncollected > 0
    GROUP BY h.id, h.uncollected, h.currency
    HAVING COALESCE(sum(l.amount), 0) <> h.uncollected
       AND COALESCE(max(l.currency), h.currency) = h.currency
    UNION ALL
    SELECT 'journal ' || lower(hex(j.id)) || ' books ' || l.amount
           || ' as our loss, and its hold lacks nothing'
    FROM journal j
    JOIN leg l ON l.journal = j.id AND l.component = 11
    JOIN hold h ON h.id = j.subject AND h.uncollected = 0
    WHERE j.id >= $1 AND j.kind IN (1, 2)
    LIMIT 10";

const OPEN: &str = "
    SELECT 'hold ' || lower(hex(h.id)) || ' of ' || h.app || ' is ' || h.state
           || ', expired at ' || h.expires_at || COALESCE(', its owner at ' || n.expires_at, '')
    FROM hold h LEFT JOIN node_lease n ON n.id = h.node
    WHERE h.state IN ('HELD', 'UNKNOWN')
      AND (h.expires_at < CAST($1 AS bigint) - 60000000
           OR n.expires_at < CAST($1 AS bigint) - 60000000)
    LIMIT 10";

const ATTEMPTS: &str = "
    SELECT 'attempt ' || lower(hex(a.hold)) || '/' || a.n || ' has no hold' AS breach
    FROM attempt a LEFT JOIN hold h ON h.id = a.hold
    WHERE a.hold >= $1 AND h.id IS NULL
    UNION ALL
    SELECT 'attempt ' || lower(hex(a.hold)) || '/' || a.n || ' costs ' || COALESCE(a.cost, 0)
           || ' and is booked for ' || COALESCE(sum(l.amount), 0)
    FROM attempt a
    LEFT JOIN journal j ON j.subject = a.hold AND j.kind IN (1, 2)
    LEFT JOIN leg l ON l.journal = j.id AND l.attempt = a.n AND l.component IN (2, 3, 10)
    WHERE a.hold >= $1
      AND NOT EXISTS (SELECT 1 FROM journal t WHERE t.subject = a.hold AND t.kind = 10)
    GROUP BY a.hold, a.n, a.cost
    HAVING COALESCE(sum(l.amount), 0) <> COALESCE(a.cost, 0)
    UNION ALL
    SELECT 'leg ' || lower(hex(l.journal)) || '/' || l.n || ' books attempt '
           || COALESCE(l.attempt, 0) || ', which is not there'
    FROM journal j
    JOIN leg l ON l.journal = j.id AND l.component IN (2, 3, 10)
    LEFT JOIN attempt a ON a.hold = j.subject AND a.n = l.attempt
    WHERE j.id >= $1 AND j.kind IN (1, 2, 10) AND a.n IS NULL
    LIMIT 10";

const REFUNDS: &str = "
    WITH posted AS (
        SELECT j.subject AS hold, sum(l.amount) AS amount
        FROM journal j JOIN leg l ON l.journal = j.id AND l.component = 5
        WHERE j.kind = 4 GROUP BY j.subject
    ), recorded AS (
        SELECT hold, sum(to_money + to_promo) AS amount FROM refund GROUP BY hold
    ), refunded AS (
        SELECT hold FROM posted UNION SELECT hold FROM recorded
    ), charged AS (
        SELECT f.hold, sum(CASE WHEN d.class IN (2010, 2020) THEN l.amount ELSE 0 END)
                       - sum(CASE WHEN c.class IN (2010, 2020) THEN l.amount ELSE 0 END) AS amount
        FROM refunded f
        JOIN journal j ON j.subject = f.hold
        JOIN leg l ON l.journal = j.id AND l.component = 1
        JOIN account d ON d.id = l.debit_id
        JOIN account c ON c.id = l.credit_id
        GROUP BY f.hold
    )
    SELECT 'hold ' || lower(hex(f.hold)) || ': charged ' || COALESCE(h.amount, 0)
           || ', refunds posted ' || COALESCE(p.amount, 0)
           || ', recorded ' || COALESCE(r.amount, 0)
    FROM refunded f
    LEFT JOIN charged h ON h.hold = f.hold
    LEFT JOIN posted p ON p.hold = f.hold
    LEFT JOIN recorded r ON r.hold = f.hold
    WHERE COALESCE(p.amount, 0) > COALESCE(h.amount, 0)
       OR COALESCE(p.amount, 0) <> COALESCE(r.amount, 0)
    LIMIT 10";

/// What was credited more than 7 days ago and not debited since, first in, first out.
const AGEING: &str = "
    SELECT a.code || ' in ' || a.currency || ': ' || (old.credits - COALESCE(paid.debits, 0))
           || ' are estimated for more than 7 days'
    FROM account a
    JOIN (SELECT l.credit_id, sum(l.amount) AS credits
          FROM leg l JOIN journal j ON j.id = l.journal JOIN account p ON p.id = l.credit_id
          WHERE p.class = 2031 AND j.posted_at < CAST($1 AS bigint) - 604800000000
          GROUP BY l.credit_id) old ON old.credit_id = a.id
    LEFT JOIN (SELECT l.debit_id, sum(l.amount) AS debits
          FROM leg l JOIN account p ON p.id = l.debit_id
          WHERE p.class = 2031 GROUP BY l.debit_id) paid ON paid.debit_id = a.id
    WHERE old.credits > COALESCE(paid.debits, 0)
    LIMIT 10";

const DAYS: &str = "
    SELECT a.code || ' in ' || a.currency || ' on day ' || d.day || ': the balance is off by '
           || sum(d.debits) || ' debits, ' || sum(d.credits) || ' credits'
    FROM (
        SELECT account_id, day, debits, credits FROM account_day
        UNION ALL
        SELECT l.debit_id, j.posted_at / 86400000000, -l.amount, 0
        FROM leg l JOIN journal j ON j.id = l.journal
        UNION ALL
        SELECT l.credit_id, j.posted_at / 86400000000, 0, -l.amount
        FROM leg l JOIN journal j ON j.id = l.journal
    ) d JOIN account a ON a.id = d.account_id
    WHERE a.id NOT IN (SELECT account_id FROM gated_balance)
    GROUP BY a.code, a.currency, d.day
    HAVING sum(d.debits) <> 0 OR sum(d.credits) <> 0
    LIMIT 10";
