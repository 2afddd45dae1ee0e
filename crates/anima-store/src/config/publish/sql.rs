//! The statements about events, acknowledgements and hatches. Both engines understand each of them
//! as it stands, but for the one that only PostgreSQL has.
//!
//! Parameters first appear in order, which is how SQLite numbers them.

/// An event: number, time, notices.
pub(super) const INSERT_EVENT: &str =
    "INSERT INTO config_event (rev, at, notices) VALUES ($1, $2, $3)";

/// Events from before `$1`.
pub(super) const PRUNE_EVENTS: &str = "DELETE FROM config_event WHERE at < $1";

/// Acknowledgements from before `$1`.
pub(super) const PRUNE_ACKS: &str = "DELETE FROM config_ack WHERE at < $1";

/// Nodes not heard of since `$1`.
pub(super) const PRUNE_NODES: &str = "DELETE FROM config_node WHERE seen_at < $1";

/// Tells listeners the number. PostgreSQL's alone: sent when the transaction commits.
pub(super) const NOTIFY: &str = "SELECT pg_notify('anima_config', $1)";

/// At most `$2` events after number `$1`.
pub(super) const EVENTS: &str = "
    SELECT rev, at, notices FROM config_event WHERE rev > $1 ORDER BY rev LIMIT $2";

/// Node `$1` has everything up to `$2` in force, at `$3`.
pub(super) const SEE_NODE: &str = "
    INSERT INTO config_node (node, rev, seen_at) VALUES ($1, $2, $3)
    ON CONFLICT (node) DO UPDATE SET rev = excluded.rev, seen_at = excluded.seen_at";

/// The first time that node `$1` said so of `$2`, at `$3`.
pub(super) const INSERT_ACK: &str = "
    INSERT INTO config_ack (node, rev, at) VALUES ($1, $2, $3) ON CONFLICT (node, rev) DO NOTHING";

/// Every node, and when it first had number `$1` or a later one in force.
pub(super) const ACKNOWLEDGED: &str = "
    SELECT n.node, n.rev, n.seen_at,
        (SELECT min(a.at) FROM config_ack a WHERE a.node = n.node AND a.rev >= $1)
    FROM config_node n ORDER BY n.node";

/// The switch of the data plane.
pub(super) const GATEWAY: &str = "SELECT enabled, reason, actor, changed_at FROM gateway_switch";

/// Writes it: switch, reason, actor, time.
pub(super) const SET_GATEWAY: &str = "
    UPDATE gateway_switch SET enabled = $1, reason = $2, actor = $3, changed_at = $4";

/// Circuits set by hand.
pub(super) const CIRCUITS: &str = "
    SELECT channel, model, state, reason, actor, set_at, expires_at FROM circuit_manual
    ORDER BY channel, model";

/// Sets one: channel, model, state, reason, actor, time, expiry.
pub(super) const SET_CIRCUIT: &str = "
    INSERT INTO circuit_manual (channel, model, state, reason, actor, set_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (channel, model) DO UPDATE SET state = excluded.state, reason = excluded.reason,
        actor = excluded.actor, set_at = excluded.set_at, expires_at = excluded.expires_at";

/// Gives model `$2` of channel `$1` back to its breaker.
pub(super) const RESET_CIRCUIT: &str =
    "DELETE FROM circuit_manual WHERE channel = $1 AND model = $2";

/// The same for a whole channel, with all its models.
pub(super) const RESET_CHANNEL: &str = "DELETE FROM circuit_manual WHERE channel = $1";
