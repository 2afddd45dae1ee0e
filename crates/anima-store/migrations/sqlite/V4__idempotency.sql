-- Answers kept for callers that send a request again under the same `Idempotency-Key`.
--
-- Only hashes of the key and of the request, and the sealed answer: nothing here can be read without
-- the master key. `call` is the request's id and so its hold's; what became of a call that never said
-- how it ended is read from its hold. Rows go when `expires_at` has passed.

CREATE TABLE idempotency (
    kid          TEXT NOT NULL,
    key_hash     BLOB NOT NULL CHECK (length(key_hash) = 32),
    content_hash BLOB NOT NULL CHECK (length(content_hash) = 32),
    call         BLOB NOT NULL CHECK (length(call) = 16),
    node         BLOB NOT NULL CHECK (length(node) = 16),
    state        TEXT NOT NULL CHECK (state IN ('RUNNING', 'KEPT', 'TOO_LARGE')),
    answer       BLOB,
    claimed_at   INTEGER NOT NULL,
    stale_at     INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    PRIMARY KEY (kid, key_hash),
    CHECK ((state = 'KEPT') = (answer IS NOT NULL))
) STRICT;

CREATE INDEX idempotency_expiry ON idempotency (expires_at);
