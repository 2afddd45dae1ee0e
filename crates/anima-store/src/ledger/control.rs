//! The statements about leases and ownership that are one text for both databases.
//!
//! Parameters are numbered alike, and first stand in the order of their numbers: to SQLite `$1` is
//! a name, and it counts names as they come. `now` is the database's clock, read in the same
//! transaction.
//! Invariant: a lease that is not `UP` never becomes `UP` again.

/// Node, host, now, end of the lease.
pub(super) const REGISTER: &str = "
    INSERT INTO node_lease (id, host, started_at, expires_at) VALUES ($1, $2, $3, $4)";

/// Leases that nobody needs to know of any more: instant.
pub(super) const FORGET: &str = "
    DELETE FROM node_lease WHERE state = 'RECOVERED' AND expires_at < $1";

/// How long a node that is gone is remembered, in microseconds: a week.
pub(super) const REMEMBERED: i64 = 7 * 86_400 * 1_000_000;

/// End of the lease, node.
pub(super) const RENEW: &str = "
    UPDATE node_lease SET expires_at = $1 WHERE id = $2 AND state = 'UP'";

/// Now, node.
pub(super) const RELEASE: &str = "
    UPDATE node_lease
    SET expires_at = $1, state = CASE WHEN EXISTS (
            SELECT 1 FROM hold WHERE node = $2 AND state IN ('HELD', 'UNKNOWN')
        ) THEN 'DEAD' ELSE 'RECOVERED' END
    WHERE id = $2 AND state = 'UP'";

/// Node.
pub(super) const IS_UP: &str = "SELECT 1 FROM node_lease WHERE id = $1 AND state = 'UP'";

/// The latest nodes, with how many holds of each are open.
pub(super) const LEASES: &str = "
    SELECT l.id, l.host, l.started_at, l.expires_at, l.state, COALESCE(h.holds, 0)
    FROM node_lease l
    LEFT JOIN (
        SELECT node, count(*) AS holds FROM hold WHERE state IN ('HELD', 'UNKNOWN') GROUP BY node
    ) h ON h.node = l.id
    ORDER BY l.started_at DESC, l.id DESC
    LIMIT 1000";

/// How long a hold's time must be over before its own node takes it over: the clocks of a node and
/// its database may differ. Below the minute after which the verifier complains (I6). In
/// microseconds.
pub(super) const OVERDUE: i64 = 30 * 1_000_000;

/// What is known of a hold: see [`ClaimedRow`](super::claim::ClaimedRow). Wants a `WHERE`.
macro_rules! claimed {
    ($condition:literal) => {
        concat!(
            "
    SELECT h.id, h.app, h.kid, h.alias, h.currency, h.amount, p.code, p.version_no, h.multiplier,
           h.channel, h.cost_cap, h.cost_currency, c.code, c.version_no, h.created_at,
           h.expires_at, COALESCE(h.phase, CAST(0 AS smallint)), COALESCE(h.progress, 0),
           h.trail, f.code, f.version_no
    FROM hold h
    JOIN price_ref p ON p.id = h.price_id
    LEFT JOIN price_ref c ON c.id = h.cost_price_id
    LEFT JOIN price_ref f ON f.id = h.fx_id
    ",
            $condition
        )
    };
}
pub(super) use claimed;

/// Holds that a node took over and has not closed: node, most.
pub(super) const UNRESOLVED: &str = claimed!(
    "WHERE h.node = $1 AND h.state IN ('HELD', 'UNKNOWN') AND h.state = 'UNKNOWN'
    ORDER BY h.expires_at, h.id
    LIMIT $2"
);
