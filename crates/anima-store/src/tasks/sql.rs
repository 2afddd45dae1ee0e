//! The statements about tasks.
//!
//! Both engines understand each as it stands, but where two are given: `$n` first appear in order,
//! which is how SQLite numbers them. Invariant: whatever moves a task names the state that it moves
//! from, and whatever a worker says names its run.

/// What a [`super::Task`] is read from.
macro_rules! columns {
    () => {
        "id, kid, app, kind, endpoint, alias, currency, state, run, call, created_at, expires_at, \
         ended_at, keep_until, error_code, error_message, webhook_state, webhook_tries, \
         webhook_error"
    };
}

/// What the index `task_open` is about, in its words.
macro_rules! is_open {
    () => {
        "state IN ('accepted', 'submitting', 'queued', 'running', 'unknown')"
    };
}

/// Ends the tasks of a condition: `$1` to `$7` are how.
macro_rules! end {
    ($run:literal, $condition:literal) => {
        concat!(
            "UPDATE task SET state = $1, result = $2, error_code = $3, error_message = $4,
                ended_at = $5, keep_until = $6, refund = $7, request = NULL, node = NULL,
                lease_until = 0, webhook_due_at = $5,
                webhook_state = CASE WHEN webhook IS NULL THEN NULL ELSE 'PENDING' END, ",
            $run,
            " WHERE ",
            $condition
        )
    };
}

/// Stores a task where its key has room, unless its idempotency key has made one.
/// PostgreSQL must be told the types of what is selected; SQLite has no `uuid` to cast to.
pub(super) const CREATE: (&str, &str) = (
    "
    INSERT INTO task (id, kid, app, kind, endpoint, alias, currency, request, key_hash,
        content_hash, webhook, webhook_state, due_at, created_at, expires_at)
    SELECT $1, $2, $3, 'call', $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13
    WHERE (SELECT count(*) FROM task WHERE kid = $2 AND state = 'accepted') < $14
    ON CONFLICT (kid, key_hash) DO NOTHING",
    "
    INSERT INTO task (id, kid, app, kind, endpoint, alias, currency, request, key_hash,
        content_hash, webhook, webhook_state, due_at, created_at, expires_at)
    SELECT $1::uuid, $2::text, $3::text, 'call', $4::text, $5::text, $6::text, $7::bytea,
        $8::bytea, $9::bytea, $10::bytea, $11::text, $12::bigint, $12, $13::bigint
    WHERE (SELECT count(*) FROM task WHERE kid = $2 AND state = 'accepted') < $14::bigint
    ON CONFLICT (kid, key_hash) DO NOTHING",
);

pub(super) const KNOWN: &str = "SELECT id, content_hash FROM task WHERE kid = $1 AND key_hash = $2";

pub(super) const TASK: &str = concat!("SELECT ", columns!(), " FROM task WHERE id = $1");

pub(super) const RESULT: &str = "SELECT result FROM task WHERE id = $1";

/// Lists tasks by what an index leads to, `$1`; the rest is looked at row by row.
macro_rules! list {
    ($by:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM task WHERE ",
            $by,
            " AND (CAST($2 AS text) IS NULL OR app = $2)
                AND (CAST($3 AS text) IS NULL OR state = $3)
                AND (CAST($4 AS uuid) IS NULL OR id < $4)
            ORDER BY id DESC LIMIT $5"
        )
    };
}

pub(super) const LIST_OF_KEY: &str = list!("kid = $1");
pub(super) const LIST_OF_APP: &str = list!("app = $1");
pub(super) const LIST_OF_STATE: &str = list!("state = $1");
/// Of all: `$1` is nothing.
pub(super) const LIST: &str = list!("CAST($1 AS text) IS NULL");

/// Takes what is due, one of each key before the second of any: what a key has running counts.
/// Who meets another one at a row waits for it and finds the row taken.
///
/// Goes from key to key by the index of open tasks and looks at no more of each than may be
/// taken, so that it costs what there are keys, however much waits.
macro_rules! claim {
    ($of_key:literal, $as_due:literal, $skip:literal) => {
        concat!(
            "WITH RECURSIVE keys(kid) AS (
                SELECT min(kid) FROM task WHERE ",
            is_open!(),
            " UNION ALL
                SELECT (SELECT min(kid) FROM task WHERE kid > keys.kid AND ",
            is_open!(),
            ") FROM keys WHERE kid IS NOT NULL),
            ranked AS (
                SELECT due.id, due.due_at, (
                    SELECT count(*) FROM task
                    WHERE kid = keys.kid AND lease_until > 0 AND lease_until > $1
                        AND state IN ('accepted', 'submitting'))
                    + row_number() OVER (PARTITION BY keys.kid ORDER BY due.due_at, due.id) AS turn
                FROM keys CROSS JOIN ",
            $of_key,
            " FROM task WHERE kid = keys.kid AND ",
            is_open!(),
            " AND state = 'accepted' AND lease_until <= $1 AND due_at <= $1 AND expires_at > $1
                    ORDER BY due_at, id LIMIT $2",
            $as_due,
            " WHERE keys.kid NOT IN (",
            $skip,
            "))
            UPDATE task SET run = run + 1, node = $4, lease_until = $5
            WHERE state = 'accepted' AND lease_until <= $1 AND id IN (
                SELECT id FROM ranked ORDER BY turn, due_at, id LIMIT $2)
            RETURNING id, run, kid, created_at, expires_at, request"
        )
    };
}

pub(super) const CLAIM: (&str, &str) = (
    claim!("task AS due ON due.rowid IN (SELECT rowid", ")", "SELECT value FROM json_each($3)"),
    claim!(
        "LATERAL (SELECT id, due_at",
        ") AS due",
        "SELECT json_array_elements_text($3::text::json)"
    ),
);

pub(super) const BEGIN: &str = "
    UPDATE task SET state = 'submitting', call = $1
    WHERE id = $2 AND run = $3 AND state = 'accepted'";

pub(super) const RENEW: &str = "
    UPDATE task SET lease_until = $1
    WHERE node = $2 AND state IN ('accepted', 'submitting') AND lease_until > 0";

pub(super) const GIVE_BACK: &str = "
    UPDATE task SET state = 'accepted', call = NULL, node = NULL, lease_until = 0, due_at = $1
    WHERE id = $2 AND run = $3 AND state IN ('accepted', 'submitting')";

pub(super) const END: &str =
    end!("run = run", "id = $8 AND run = $9 AND state IN ('accepted', 'submitting', 'unknown')");

pub(super) const CANCEL: &str = end!("run = run + 1", "id = $8 AND state = 'accepted'");

pub(super) const CANCEL_OF: &str = end!("run = run + 1", "kid = $8 AND state = 'accepted'");

pub(super) const EXPIRE: &str =
    end!("run = run + 1", "state = 'accepted' AND expires_at <= $5 AND lease_until <= $5");

pub(super) const DOUBT: &str =
    "UPDATE task SET state = 'unknown' WHERE state = 'submitting' AND lease_until <= $1";

pub(super) const ORPHANS: &str = "
    SELECT t.id, t.run, t.state, t.call, h.state, h.closed_at
    FROM task t LEFT JOIN hold h ON h.id = t.call
    WHERE t.state = 'unknown' ORDER BY t.id LIMIT 500";

pub(super) const OPEN: &str = "
    SELECT kid, state, count(*) FROM task
    WHERE state IN ('accepted', 'submitting', 'queued', 'running', 'unknown')
    GROUP BY kid, state ORDER BY kid, state";

/// Those past `$1`, so that what cannot be given back yet does not hide what comes behind it.
pub(super) const REFUNDS: &str = "
    SELECT id, call, app, currency FROM task
    WHERE refund = 'DUE' AND call IS NOT NULL AND (CAST($1 AS uuid) IS NULL OR id > $1)
    ORDER BY id LIMIT 100";

pub(super) const REFUNDED: &str =
    "UPDATE task SET refund = 'DONE' WHERE id = $1 AND refund = 'DUE'";

pub(super) const FORGET: &str = "
    UPDATE task SET result = NULL, key_hash = NULL
    WHERE id IN (
        SELECT id FROM task
        WHERE ended_at IS NOT NULL AND keep_until <= $1
            AND (result IS NOT NULL OR key_hash IS NOT NULL)
            AND COALESCE(webhook_state, '') <> 'PENDING'
        ORDER BY keep_until LIMIT 500)";

pub(super) const DELETE: &str = "
    DELETE FROM task WHERE id IN (
        SELECT id FROM task
        WHERE ended_at IS NOT NULL AND keep_until <= $1
            AND COALESCE(webhook_state, '') <> 'PENDING' AND COALESCE(refund, '') <> 'DUE'
        ORDER BY keep_until LIMIT 500)";

pub(super) const HOOKS: &str = concat!(
    "UPDATE task SET webhook_due_at = $1, webhook_tries = webhook_tries + 1
    WHERE webhook_state = 'PENDING' AND webhook_due_at <= $2 AND id IN (
        SELECT id FROM task WHERE webhook_state = 'PENDING' AND webhook_due_at <= $2
        ORDER BY webhook_due_at LIMIT $3)
    RETURNING ",
    columns!(),
    ", webhook, result"
);

pub(super) const HOOK_ENDED: &str = "
    UPDATE task SET webhook_state = $1, webhook_due_at = $2, webhook_error = $3
    WHERE id = $4 AND webhook_tries = $5 AND webhook_state = 'PENDING'";

pub(super) const REPLAY: &str = "
    UPDATE task SET webhook_state = 'PENDING', webhook_tries = 0, webhook_due_at = $1
    WHERE id = $2 AND webhook_state IN ('DELIVERED', 'DEAD')";
