//! The checks of corrections: what each rests on is stored, and what it posted follows from it.
//!
//! Like those of `checks`; apart because corrections are few, so that these begin with them and
//! look nothing up for any other call. What was posted before its ground was stored (`is_known`) is
//! only asked to be there. A look at what is recent takes the corrections that were posted lately,
//! however old their calls are.
//! Invariant: a query gives one text per breach, and at most ten.

use super::checks::{Check, Takes, When};

/// All of them.
pub(super) const CHECKS: &[Check] = &[
    Check {
        invariant: "I7",
        when: When::Always,
        counted: "SELECT count(*) FROM corrected_attempt WHERE hold >= $1",
        counts_from_first: true,
        breaches: COSTS,
        takes: Takes::First,
    },
    Check {
        invariant: "I9",
        when: When::Always,
        counted: "SELECT count(*) FROM correction WHERE hold >= $1",
        counts_from_first: true,
        breaches: SALES,
        takes: Takes::First,
    },
];

/// What is booked for an attempt is what its last correction says, or else what was recorded first.
const COSTS: &str = "
    SELECT 'attempt ' || lower(hex(b.hold)) || '/' || b.n || ' costs ' || b.cost
           || ' by what is known of it, and is booked for ' || b.booked AS breach
    FROM (
        SELECT a.hold, a.n,
               COALESCE(CASE WHEN c.hold IS NULL THEN a.cost ELSE c.cost END, 0) AS cost,
               COALESCE(sum(CASE
                   WHEN j.kind <> 10 THEN l.amount
                   ELSE CASE WHEN s.class IN (2030, 2031) THEN l.amount ELSE 0 END
                        - CASE WHEN d.class IN (2030, 2031) THEN l.amount ELSE 0 END
               END), 0) AS booked
        FROM (SELECT hold FROM correction WHERE hold >= $1
              UNION SELECT subject FROM journal WHERE id >= $1 AND kind = 10) k
        JOIN attempt a ON a.hold = k.hold
        LEFT JOIN corrected_attempt c ON c.hold = a.hold AND c.n = a.n
             AND c.seq = (SELECT max(m.seq) FROM corrected_attempt m
                          WHERE m.hold = a.hold AND m.n = a.n)
        LEFT JOIN journal j ON j.subject = a.hold AND j.kind IN (1, 2, 10)
        LEFT JOIN leg l ON l.journal = j.id AND l.attempt = a.n AND l.component IN (2, 3, 10)
        LEFT JOIN account d ON d.id = l.debit_id
        LEFT JOIN account s ON s.id = l.credit_id
        WHERE c.hold IS NOT NULL
           OR NOT EXISTS (SELECT 1 FROM correction o WHERE o.hold = k.hold AND NOT o.is_known)
        GROUP BY a.hold, a.n, a.cost, c.hold, c.cost
    ) b
    WHERE b.cost <> b.booked
    UNION ALL
    SELECT 'correction ' || lower(hex(j.subject)) || '/' || j.seq || ' rests on nothing'
    FROM journal j LEFT JOIN correction c ON c.hold = j.subject AND c.seq = j.seq
    WHERE j.id >= $1 AND j.kind = 10 AND c.hold IS NULL
    UNION ALL
    SELECT 'correction ' || lower(hex(c.hold)) || '/' || c.seq || ' is not posted'
    FROM correction c
    LEFT JOIN journal j ON j.subject = c.hold AND j.kind = 10 AND j.seq = c.seq
    WHERE c.hold >= $1 AND j.id IS NULL
    LIMIT 10";

/// After a correction a customer has paid no more than is owed, but for what was refunded already,
/// and was given back no more than that; and paid no more than before where it must not.
const SALES: &str = "
    WITH moved AS (
        SELECT j.subject AS hold, CASE WHEN j.kind = 10 THEN j.seq ELSE 0 END AS seq,
               sum(CASE WHEN d.class IN (2010, 2020) THEN l.amount ELSE 0 END)
               - sum(CASE WHEN s.class IN (2010, 2020) THEN l.amount ELSE 0 END) AS amount
        FROM (SELECT hold FROM correction WHERE hold >= $1
              UNION SELECT subject FROM journal WHERE id >= $1 AND kind = 10) k
        JOIN journal j ON j.subject = k.hold AND j.kind IN (1, 2, 10)
        JOIN leg l ON l.journal = j.id AND l.component = 1
        JOIN account d ON d.id = l.debit_id
        JOIN account s ON s.id = l.credit_id
        GROUP BY 1, 2
    ), refunded AS (
        SELECT hold, sum(to_money + to_promo) AS amount FROM refund GROUP BY hold
    ), paid AS (
        SELECT c.hold, c.seq, c.owed, c.upward,
               COALESCE(sum(CASE WHEN m.seq < c.seq THEN m.amount ELSE 0 END), 0) AS earlier,
               COALESCE(sum(m.amount), 0) AS later
        FROM correction c LEFT JOIN moved m ON m.hold = c.hold AND m.seq <= c.seq
        WHERE c.is_known AND (c.hold >= $1 OR c.hold IN (
            SELECT subject FROM journal WHERE id >= $1 AND kind = 10
        ))
        GROUP BY c.hold, c.seq, c.owed, c.upward
    )
    SELECT 'correction ' || lower(hex(p.hold)) || '/' || p.seq || ' leaves ' || p.later
           || ' paid of ' || p.earlier || ', where '
           || COALESCE(CAST(p.owed AS TEXT), 'nothing else') || ' is owed' AS breach
    FROM paid p LEFT JOIN refunded r ON r.hold = p.hold
    WHERE (p.owed IS NULL AND p.later <> p.earlier)
       OR (p.later > p.earlier AND NOT p.upward)
       OR p.later > p.owed + COALESCE(r.amount, 0)
       OR (p.later < p.earlier AND p.later < p.owed)
    LIMIT 10";
