-- The ledger: accounts, balances, journals, legs, holds and attempts.
--
-- Amounts are integers in units of 10^-scale of their currency, times microseconds since 1970 UTC,
-- ids 16 bytes. Numbered columns (kind, component) are the numbers of anima-core's `ledger.rs`.
-- There is one writer, so house balances are rows that it updates once per batch.

-- One row per currency in use. The scale is written down so that amounts can be read without the
-- program; it never changes.
CREATE TABLE currency (
    code  TEXT NOT NULL PRIMARY KEY CHECK (length(code) = 3),
    scale INTEGER NOT NULL CHECK (scale BETWEEN 0 AND 12)
) STRICT, WITHOUT ROWID;

CREATE TABLE account (
    id       INTEGER NOT NULL PRIMARY KEY,
    code     TEXT NOT NULL,
    class    INTEGER NOT NULL,
    normal   TEXT NOT NULL CHECK (normal IN ('D', 'C')),
    currency TEXT NOT NULL REFERENCES currency (code),
    UNIQUE (code, currency)
) STRICT;

-- Accounts that holds are judged against: wallets. The check is the last line of defence; the
-- writer judges before. A sum that leaves 64 bits becomes a REAL, which STRICT refuses.
CREATE TABLE gated_balance (
    account_id INTEGER NOT NULL PRIMARY KEY REFERENCES account (id),
    debits     INTEGER NOT NULL DEFAULT 0 CHECK (debits >= 0),
    credits    INTEGER NOT NULL DEFAULT 0 CHECK (credits >= 0),
    held       INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0),
    floor      INTEGER NOT NULL DEFAULT 0 CHECK (floor <= 0),
    posted     INTEGER GENERATED ALWAYS AS (credits - debits) VIRTUAL,
    CHECK (credits - debits - held >= floor)
) STRICT;

-- All other accounts, per day, so that no row can come near the end of 64 bits. PostgreSQL, which
-- has several writers, keeps the same as `balance_delta` and `folded_balance`.
CREATE TABLE house_balance (
    account_id INTEGER NOT NULL REFERENCES account (id),
    day        INTEGER NOT NULL,
    debits     INTEGER NOT NULL CHECK (debits >= 0),
    credits    INTEGER NOT NULL CHECK (credits >= 0),
    PRIMARY KEY (account_id, day)
) STRICT, WITHOUT ROWID;

CREATE VIEW account_balance AS
    SELECT account_id, debits, credits FROM gated_balance
    UNION ALL
    SELECT account_id, debits, credits FROM house_balance;

CREATE TABLE price_ref (
    id         INTEGER NOT NULL PRIMARY KEY,
    code       TEXT NOT NULL,
    version_no INTEGER NOT NULL,
    UNIQUE (code, version_no)
) STRICT;

-- UNIQUE (subject, kind, seq) is the posting gate: what explains one subject in one way is posted
-- once. A table of its own would hold the same three columns and the same digest a second time;
-- here the gate is passed in the very insert that it guards, and cannot be passed without one.
CREATE TABLE journal (
    id        BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    kind      INTEGER NOT NULL,
    subject   BLOB NOT NULL CHECK (length(subject) = 16),
    seq       INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    posted_at INTEGER NOT NULL,
    estimate  INTEGER NOT NULL CHECK (estimate IN (0, 1)),
    digest    BLOB NOT NULL CHECK (length(digest) = 32),
    reference TEXT NOT NULL,
    UNIQUE (subject, kind, seq)
) STRICT, WITHOUT ROWID;

-- One row is one debit and one credit of one amount: an unbalanced entry cannot be written down.
CREATE TABLE leg (
    journal   BLOB NOT NULL REFERENCES journal (id),
    n         INTEGER NOT NULL,
    debit_id  INTEGER NOT NULL REFERENCES account (id),
    credit_id INTEGER NOT NULL REFERENCES account (id),
    amount    INTEGER NOT NULL CHECK (amount > 0),
    currency  TEXT NOT NULL,
    component INTEGER NOT NULL,
    attempt   INTEGER,
    price_id  INTEGER REFERENCES price_ref (id),
    estimate  INTEGER NOT NULL CHECK (estimate IN (0, 1)),
    PRIMARY KEY (journal, n),
    CHECK (debit_id <> credit_id)
) STRICT, WITHOUT ROWID;

-- `digest` is of the settlement that closed the hold, journal or not.
CREATE TABLE hold (
    id          BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    app         TEXT NOT NULL,
    kid         TEXT NOT NULL,
    alias       TEXT NOT NULL,
    account_id  INTEGER NOT NULL REFERENCES gated_balance (account_id),
    node        BLOB NOT NULL CHECK (length(node) = 16),
    amount      INTEGER NOT NULL CHECK (amount >= 0),
    currency    TEXT NOT NULL,
    state       TEXT NOT NULL DEFAULT 'HELD'
                CHECK (state IN ('HELD', 'SETTLED', 'RELEASED', 'UNKNOWN')),
    price_id    INTEGER NOT NULL REFERENCES price_ref (id),
    settled     INTEGER CHECK (settled >= 0),
    uncollected INTEGER NOT NULL DEFAULT 0 CHECK (uncollected >= 0),
    digest      BLOB CHECK (length(digest) = 32),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    closed_at   INTEGER,
    CHECK ((state = 'SETTLED') = (settled IS NOT NULL)),
    CHECK ((state IN ('SETTLED', 'RELEASED')) = (closed_at IS NOT NULL)),
    CHECK ((state IN ('SETTLED', 'RELEASED')) = (digest IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX hold_open ON hold (expires_at) WHERE state IN ('HELD', 'UNKNOWN');

CREATE TABLE attempt (
    hold          BLOB NOT NULL REFERENCES hold (id),
    n             INTEGER NOT NULL,
    channel       TEXT NOT NULL,
    credential    TEXT NOT NULL,
    model         TEXT NOT NULL,
    outcome       TEXT NOT NULL,
    served        INTEGER NOT NULL CHECK (served IN (0, 1)),
    usage_source  TEXT NOT NULL,
    usage         TEXT NOT NULL,
    cost          INTEGER CHECK (cost >= 0),
    cost_currency TEXT,
    cost_price_id INTEGER REFERENCES price_ref (id),
    cost_estimate INTEGER CHECK (cost_estimate IN (0, 1)),
    upstream_ref  TEXT,
    started_at    INTEGER NOT NULL,
    first_byte_at INTEGER,
    ended_at      INTEGER NOT NULL,
    PRIMARY KEY (hold, n),
    CHECK ((cost IS NULL) = (cost_price_id IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal
BEGIN SELECT RAISE(ABORT, 'journal is append-only'); END;
CREATE TRIGGER journal_no_delete BEFORE DELETE ON journal
BEGIN SELECT RAISE(ABORT, 'journal is append-only'); END;
CREATE TRIGGER leg_no_update BEFORE UPDATE ON leg
BEGIN SELECT RAISE(ABORT, 'leg is append-only'); END;
CREATE TRIGGER leg_no_delete BEFORE DELETE ON leg
BEGIN SELECT RAISE(ABORT, 'leg is append-only'); END;
CREATE TRIGGER attempt_no_update BEFORE UPDATE ON attempt
BEGIN SELECT RAISE(ABORT, 'attempt is append-only'); END;
CREATE TRIGGER attempt_no_delete BEFORE DELETE ON attempt
BEGIN SELECT RAISE(ABORT, 'attempt is append-only'); END;
CREATE TRIGGER hold_no_delete BEFORE DELETE ON hold
BEGIN SELECT RAISE(ABORT, 'hold is never deleted'); END;
CREATE TRIGGER hold_closed_once BEFORE UPDATE OF state ON hold
WHEN OLD.state IN ('SETTLED', 'RELEASED')
BEGIN SELECT RAISE(ABORT, 'hold is closed'); END;
