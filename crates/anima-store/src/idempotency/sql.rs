//! The statements about idempotency records.
//!
//! Both engines understand each statement as it stands: `$n` appear in order, which is how SQLite
//! numbers them. Invariant: whatever changes a claim names the call that holds it.

use super::Ending;

/// Takes a free key.
pub(super) const CLAIM: &str = "
    INSERT INTO idempotency (kid, key_hash, content_hash, call, node, state,
        claimed_at, stale_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, 'RUNNING', $6, $7, $8)
    ON CONFLICT (kid, key_hash) DO NOTHING";

/// The record of a key, with the hold of its call and the lease of its node: one statement, so that
/// both are of one instant.
pub(super) const RECORD: &str = "
    SELECT i.content_hash, i.call, i.state, i.answer, i.stale_at, i.expires_at,
        h.state, h.closed_at, COALESCE(l.state <> 'UP', FALSE)
    FROM idempotency i
    LEFT JOIN hold h ON h.id = i.call
    LEFT JOIN node_lease l ON l.id = i.node
    WHERE i.kid = $1 AND i.key_hash = $2";

/// Takes over a key from call `$9`, which was read in state `$10`.
pub(super) const TAKE_OVER: &str = "
    UPDATE idempotency SET content_hash = $1, call = $2, node = $3, state = 'RUNNING',
        answer = NULL, claimed_at = $4, stale_at = $5, expires_at = $6
    WHERE kid = $7 AND key_hash = $8 AND call = $9 AND state = $10";

/// Says how a call ended. An answer may also come after its key was retired without one.
pub(super) const END: &str = "
    UPDATE idempotency SET state = $1, answer = $2
    WHERE kid = $3 AND key_hash = $4 AND call = $5 AND (state = 'RUNNING' OR length(answer) = 0)";

/// The answer of a call that has ended and whose answer is not here: no sealed one is empty.
pub(super) const NO_ANSWER: &[u8] = &[];

/// Ends a call without its answer. It meets a take-over at the row: one of the two finds the other
/// done, and changes nothing.
pub(super) const RETIRE: &str = "
    UPDATE idempotency SET state = 'KEPT', answer = $1
    WHERE kid = $2 AND key_hash = $3 AND call = $4 AND state = 'RUNNING'";

/// Whether a call that could not be retired has ended: no call runs again, so this needs no lock.
pub(super) const HAS_ENDED: &str = "
    SELECT 1 FROM idempotency
    WHERE kid = $1 AND key_hash = $2 AND call = $3 AND state <> 'RUNNING'";

/// Frees a key.
pub(super) const ABANDON: &str = "
    DELETE FROM idempotency
    WHERE kid = $1 AND key_hash = $2 AND call = $3 AND state = 'RUNNING'";

/// Forgets what has expired. The outer condition is for a record that was taken over meanwhile.
pub(super) const SWEEP: &str = "
    DELETE FROM idempotency
    WHERE expires_at <= $1 AND (kid, key_hash) IN (
        SELECT kid, key_hash FROM idempotency
        WHERE expires_at <= $1 AND (state <> 'RUNNING' OR stale_at <= $1)
        ORDER BY expires_at LIMIT $2)";

/// The state and the answer to store.
pub(super) fn ended(ending: Ending) -> (&'static str, Option<Vec<u8>>) {
    match ending {
        Ending::Kept(sealed) => ("KEPT", Some(sealed)),
        Ending::TooLarge => ("TOO_LARGE", None),
    }
}
