-- Work that its caller does not wait for: calls of keys in queue mode ASYNC, and later media.
--
-- `request`, `result` and `webhook` are sealed: nothing that a caller sent can be read without the master
-- key. `run` counts how often a worker took the task and fences what an earlier one still says; `call` is
-- the id of that run's request and hold. Times are microseconds since 1970 UTC.

CREATE TABLE task (
    id             uuid PRIMARY KEY,
    kid            text NOT NULL,
    app            text NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('call', 'image', 'video', 'music')),
    endpoint       text NOT NULL,
    alias          text NOT NULL,
    currency       text NOT NULL,
    state          text NOT NULL DEFAULT 'accepted'
                   CHECK (state IN ('accepted', 'submitting', 'queued', 'running', 'succeeded', 'failed',
                                    'cancelled', 'expired', 'unknown')),
    run            bigint NOT NULL DEFAULT 0 CHECK (run >= 0),
    call           uuid,
    node           uuid,
    lease_until    bigint NOT NULL DEFAULT 0,
    due_at         bigint NOT NULL,
    created_at     bigint NOT NULL,
    expires_at     bigint NOT NULL,
    ended_at       bigint,
    keep_until     bigint,
    request        bytea,
    result         bytea,
    error_code     text,
    error_message  text,
    key_hash       bytea CHECK (length(key_hash) = 32),
    content_hash   bytea NOT NULL CHECK (length(content_hash) = 32),
    refund         text CHECK (refund IN ('DUE', 'DONE')),
    webhook        bytea,
    webhook_state  text CHECK (webhook_state IN ('WAITING', 'PENDING', 'DELIVERED', 'DEAD')),
    webhook_tries  bigint NOT NULL DEFAULT 0 CHECK (webhook_tries >= 0),
    webhook_due_at bigint NOT NULL DEFAULT 0,
    webhook_error  text,
    CHECK ((state IN ('succeeded', 'failed', 'cancelled', 'expired')) = (ended_at IS NOT NULL)),
    CHECK ((ended_at IS NULL) = (keep_until IS NULL)),
    CHECK (state <> 'accepted' OR request IS NOT NULL),
    CHECK ((webhook_state IS NULL) = (webhook IS NULL)),
    UNIQUE (kid, key_hash)
);

-- What is sealed cannot be compressed; trying would only cost time.
ALTER TABLE task ALTER COLUMN request SET STORAGE EXTERNAL;
ALTER TABLE task ALTER COLUMN result SET STORAGE EXTERNAL;

CREATE INDEX task_open ON task (kid, due_at)
    WHERE state IN ('accepted', 'submitting', 'queued', 'running', 'unknown');
CREATE INDEX task_ended ON task (keep_until) WHERE ended_at IS NOT NULL;
CREATE INDEX task_of_key ON task (kid, id);
CREATE INDEX task_refund ON task (ended_at) WHERE refund = 'DUE';
CREATE INDEX task_webhook ON task (webhook_due_at) WHERE webhook_state = 'PENDING';

-- A task ends once, and only what has ended may go.
CREATE FUNCTION task_ends_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.ended_at IS NULL THEN
            RAISE EXCEPTION 'task has not ended' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN OLD;
    END IF;
    IF OLD.ended_at IS NOT NULL AND NEW.state <> OLD.state THEN
        RAISE EXCEPTION 'task has ended' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER task_ends_once BEFORE UPDATE OF state OR DELETE ON task
    FOR EACH ROW EXECUTE FUNCTION task_ends_once();
