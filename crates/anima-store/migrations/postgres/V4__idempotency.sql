-- Answers kept for callers that send a request again under the same `Idempotency-Key`.
--
-- Only hashes of the key and of the request, and the sealed answer: nothing here can be read without
-- the master key. `call` is the request's id and so its hold's; what became of a call that never said
-- how it ended is read from its hold. Rows go when `expires_at` has passed.

CREATE TABLE idempotency (
    kid          text NOT NULL,
    key_hash     bytea NOT NULL CHECK (length(key_hash) = 32),
    content_hash bytea NOT NULL CHECK (length(content_hash) = 32),
    call         uuid NOT NULL,
    node         uuid NOT NULL,
    state        text NOT NULL CHECK (state IN ('RUNNING', 'KEPT', 'TOO_LARGE')),
    answer       bytea,
    claimed_at   bigint NOT NULL,
    stale_at     bigint NOT NULL,
    expires_at   bigint NOT NULL,
    PRIMARY KEY (kid, key_hash),
    CHECK ((state = 'KEPT') = (answer IS NOT NULL))
);

-- What is sealed cannot be compressed; trying would only cost time.
ALTER TABLE idempotency ALTER COLUMN answer SET STORAGE EXTERNAL;

CREATE INDEX idempotency_expiry ON idempotency (expires_at);
