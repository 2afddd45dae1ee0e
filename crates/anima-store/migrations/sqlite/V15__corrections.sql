-- What corrections (journals of kind 10) rest on: what is owed for the sale, and for each attempt what
-- was consumed and what it costs, as it was known then. A journal is found by its hold and its number.
-- Append-only. The verifier computes every correction again from it.
CREATE TABLE correction (
    hold     BLOB NOT NULL CHECK (length(hold) = 16),
    seq      INTEGER NOT NULL,
    -- 0 for what was posted before this table was there: nobody knows what it rests on.
    is_known INTEGER NOT NULL CHECK (is_known IN (0, 1)),
    -- In the wallet's currency; NULL when it says nothing of the sale. `priced` is the same in the
    -- price's currency, NULL when nothing is sold.
    owed     INTEGER CHECK (owed >= 0),
    priced   INTEGER CHECK (priced >= 0),
    estimate INTEGER NOT NULL CHECK (estimate IN (0, 1)),
    -- The customer might be charged more.
    upward   INTEGER NOT NULL CHECK (upward IN (0, 1)),
    PRIMARY KEY (hold, seq)
) STRICT, WITHOUT ROWID;

INSERT INTO correction (hold, seq, is_known, estimate, upward)
    SELECT subject, seq, 0, estimate, 1 FROM journal WHERE kind = 10;

-- `is_new`: it was not recorded before. An attempt that is part of what is known no more is there
-- without usage and cost.
CREATE TABLE corrected_attempt (
    hold          BLOB NOT NULL CHECK (length(hold) = 16),
    n             INTEGER NOT NULL,
    seq           INTEGER NOT NULL,
    is_new        INTEGER NOT NULL CHECK (is_new IN (0, 1)),
    served        INTEGER NOT NULL CHECK (served IN (0, 1)),
    usage_source  TEXT NOT NULL,
    usage         TEXT NOT NULL,
    cost          INTEGER CHECK (cost >= 0),
    cost_currency TEXT,
    cost_price_id INTEGER,
    cost_estimate INTEGER,
    PRIMARY KEY (hold, n, seq),
    CHECK ((cost IS NULL) = (cost_price_id IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TRIGGER correction_no_update BEFORE UPDATE ON correction
BEGIN SELECT RAISE(ABORT, 'correction is append-only'); END;
CREATE TRIGGER correction_no_delete BEFORE DELETE ON correction
BEGIN SELECT RAISE(ABORT, 'correction is append-only'); END;
CREATE TRIGGER corrected_attempt_no_update BEFORE UPDATE ON corrected_attempt
BEGIN SELECT RAISE(ABORT, 'corrected_attempt is append-only'); END;
CREATE TRIGGER corrected_attempt_no_delete BEFORE DELETE ON corrected_attempt
BEGIN SELECT RAISE(ABORT, 'corrected_attempt is append-only'); END;
