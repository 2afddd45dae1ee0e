-- Money that people move: refunds, promotional credit, conversion rates.
--
-- A grant's credit is gated with the wallet it belongs to: `gated_balance.promo` is what is left of
-- all its grants, so that one row under one lock says what a hold may take, and a wallet without
-- grants is judged as before. The account `promo:<app>` (`promo_id`) carries the same sum in the
-- books; the verifier compares the two.

-- The check of a wallet now counts its promotional credit, which takes a new table. Holds refer to
-- this one: their references are judged at the commit, when every row is there again.
PRAGMA defer_foreign_keys = ON;
CREATE TEMP TABLE moved_balance AS
    SELECT account_id, debits, credits, held, floor FROM gated_balance;
DROP TABLE gated_balance;
CREATE TABLE gated_balance (
    account_id INTEGER NOT NULL PRIMARY KEY REFERENCES account (id),
    debits     INTEGER NOT NULL DEFAULT 0 CHECK (debits >= 0),
    credits    INTEGER NOT NULL DEFAULT 0 CHECK (credits >= 0),
    held       INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0),
    floor      INTEGER NOT NULL DEFAULT 0 CHECK (floor <= 0),
    promo      INTEGER NOT NULL DEFAULT 0 CHECK (promo >= 0),
    promo_id   INTEGER REFERENCES account (id),
    posted     INTEGER GENERATED ALWAYS AS (credits - debits) VIRTUAL,
    CHECK (credits - debits + promo - held >= floor)
) STRICT;
INSERT INTO gated_balance (account_id, debits, credits, held, floor)
    SELECT account_id, debits, credits, held, floor FROM moved_balance;
DROP TABLE moved_balance;

-- One row per refund of a request: `key` names it, so that it happens once; `seq` is its journal's.
CREATE TABLE refund (
    hold     BLOB NOT NULL REFERENCES hold (id),
    seq      INTEGER NOT NULL,
    key      BLOB NOT NULL CHECK (length(key) = 16),
    journal  BLOB NOT NULL REFERENCES journal (id),
    asked    INTEGER CHECK (asked > 0),
    to_money INTEGER NOT NULL CHECK (to_money >= 0),
    to_promo INTEGER NOT NULL CHECK (to_promo >= 0),
    PRIMARY KEY (hold, seq),
    UNIQUE (hold, key)
) STRICT, WITHOUT ROWID;

-- Promotional credit given to an app, used before its money, in order of expiry. The id is the
-- subject of its journals. What is left is amount - used - expired.
CREATE TABLE promo_grant (
    id         BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    account_id INTEGER NOT NULL REFERENCES gated_balance (account_id),
    app        TEXT NOT NULL,
    currency   TEXT NOT NULL,
    amount     INTEGER NOT NULL CHECK (amount > 0),
    used       INTEGER NOT NULL DEFAULT 0 CHECK (used >= 0),
    expired    INTEGER NOT NULL DEFAULT 0 CHECK (expired >= 0),
    expiries   INTEGER NOT NULL DEFAULT 0 CHECK (expiries >= 0),
    sold       INTEGER NOT NULL CHECK (sold IN (0, 1)),
    granted_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    reference  TEXT NOT NULL,
    CHECK (used + expired <= amount)
) STRICT, WITHOUT ROWID;
CREATE INDEX promo_grant_live ON promo_grant (account_id, expires_at, id)
    WHERE used + expired < amount;
CREATE INDEX promo_grant_due ON promo_grant (expires_at, id) WHERE used + expired < amount;
CREATE INDEX promo_grant_app ON promo_grant (app, currency);

-- What a settled request took of which grant, and how much of it a refund gave back.
CREATE TABLE promo_use (
    hold     BLOB NOT NULL REFERENCES hold (id),
    grant_id BLOB NOT NULL REFERENCES promo_grant (id),
    amount   INTEGER NOT NULL CHECK (amount > 0),
    returned INTEGER NOT NULL DEFAULT 0 CHECK (returned >= 0 AND returned <= amount),
    PRIMARY KEY (hold, grant_id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER refund_no_update BEFORE UPDATE ON refund
BEGIN SELECT RAISE(ABORT, 'refund is append-only'); END;
CREATE TRIGGER refund_no_delete BEFORE DELETE ON refund
BEGIN SELECT RAISE(ABORT, 'refund is append-only'); END;
CREATE TRIGGER promo_grant_keep BEFORE UPDATE OF id, account_id, app, currency, amount, sold,
    granted_at, expires_at, reference ON promo_grant
BEGIN SELECT RAISE(ABORT, 'a grant is not rewritten'); END;
CREATE TRIGGER promo_grant_no_delete BEFORE DELETE ON promo_grant
BEGIN SELECT RAISE(ABORT, 'a grant is never deleted'); END;
CREATE TRIGGER promo_use_no_delete BEFORE DELETE ON promo_use
BEGIN SELECT RAISE(ABORT, 'a use is never deleted'); END;

-- Entries that people make, by time: statements list them one by one.
CREATE INDEX journal_movement ON journal (posted_at) WHERE kind NOT IN (1, 2);

-- House accounts by day. PostgreSQL has the same view over its two tables.
CREATE VIEW account_day AS SELECT account_id, day, debits, credits FROM house_balance;

-- What one currency is in another. Two rates of one pair may not be in force together.
CREATE TABLE fx_rate (
    code           TEXT NOT NULL,
    scope          TEXT NOT NULL,
    version_no     INTEGER NOT NULL CHECK (version_no >= 1),
    effective_from INTEGER NOT NULL,
    effective_to   INTEGER CHECK (effective_to > effective_from),
    cancelled_at   INTEGER,
    body           TEXT NOT NULL CHECK (json_valid(body)),
    created_at     INTEGER NOT NULL,
    created_by     TEXT NOT NULL,
    PRIMARY KEY (code, version_no)
) STRICT, WITHOUT ROWID;
CREATE INDEX fx_rate_scope ON fx_rate (scope, effective_from);
CREATE TRIGGER fx_rate_window_insert BEFORE INSERT ON fx_rate
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM fx_rate AS other
    WHERE (other.code = NEW.code OR other.scope = NEW.scope) AND other.cancelled_at IS NULL
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER fx_rate_window_update BEFORE UPDATE ON fx_rate
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM fx_rate AS other
    WHERE (other.code = NEW.code OR other.scope = NEW.scope) AND other.cancelled_at IS NULL
      AND NOT (other.code = OLD.code AND other.version_no = OLD.version_no)
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER fx_rate_keep BEFORE UPDATE OF code, scope, version_no, effective_from, body, created_at, created_by ON fx_rate
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;
CREATE TRIGGER fx_rate_keep_all BEFORE DELETE ON fx_rate
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;
