-- Work that its caller does not wait for: calls of keys in queue mode ASYNC, and later media.
--
-- `request`, `result` and `webhook` are sealed: nothing that a caller sent can be read without the master
-- key. `run` counts how often a worker took the task and fences what an earlier one still says; `call` is
-- the id of that run's request and hold. Times are microseconds since 1970 UTC.

CREATE TABLE task (
    id             BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    kid            TEXT NOT NULL,
    app            TEXT NOT NULL,
    kind           TEXT NOT NULL CHECK (kind IN ('call', 'image', 'video', 'music')),
    endpoint       TEXT NOT NULL,
    alias          TEXT NOT NULL,
    currency       TEXT NOT NULL,
    state          TEXT NOT NULL DEFAULT 'accepted'
                   CHECK (state IN ('accepted', 'submitting', 'queued', 'running', 'succeeded', 'failed',
                                    'cancelled', 'expired', 'unknown')),
    run            INTEGER NOT NULL DEFAULT 0 CHECK (run >= 0),
    call           BLOB CHECK (length(call) = 16),
    node           BLOB CHECK (length(node) = 16),
    lease_until    INTEGER NOT NULL DEFAULT 0,
    due_at         INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    ended_at       INTEGER,
    keep_until     INTEGER,
    request        BLOB,
    result         BLOB,
    error_code     TEXT,
    error_message  TEXT,
    key_hash       BLOB CHECK (length(key_hash) = 32),
    content_hash   BLOB NOT NULL CHECK (length(content_hash) = 32),
    refund         TEXT CHECK (refund IN ('DUE', 'DONE')),
    webhook        BLOB,
    webhook_state  TEXT CHECK (webhook_state IN ('WAITING', 'PENDING', 'DELIVERED', 'DEAD')),
    webhook_tries  INTEGER NOT NULL DEFAULT 0 CHECK (webhook_tries >= 0),
    webhook_due_at INTEGER NOT NULL DEFAULT 0,
    webhook_error  TEXT,
    CHECK ((state IN ('succeeded', 'failed', 'cancelled', 'expired')) = (ended_at IS NOT NULL)),
    CHECK ((ended_at IS NULL) = (keep_until IS NULL)),
    CHECK (state <> 'accepted' OR request IS NOT NULL),
    CHECK ((webhook_state IS NULL) = (webhook IS NULL)),
    UNIQUE (kid, key_hash)
) STRICT;

CREATE INDEX task_open ON task (kid, due_at)
    WHERE state IN ('accepted', 'submitting', 'queued', 'running', 'unknown');
CREATE INDEX task_ended ON task (keep_until) WHERE ended_at IS NOT NULL;
CREATE INDEX task_of_key ON task (kid, id);
CREATE INDEX task_refund ON task (ended_at) WHERE refund = 'DUE';
CREATE INDEX task_webhook ON task (webhook_due_at) WHERE webhook_state = 'PENDING';

-- A task ends once, and only what has ended may go.
CREATE TRIGGER task_ends_once BEFORE UPDATE OF state ON task
WHEN OLD.ended_at IS NOT NULL AND NEW.state <> OLD.state
BEGIN SELECT RAISE(ABORT, 'task has ended'); END;
CREATE TRIGGER task_goes_when_ended BEFORE DELETE ON task
WHEN OLD.ended_at IS NULL
BEGIN SELECT RAISE(ABORT, 'task has not ended'); END;
