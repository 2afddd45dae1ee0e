-- What corrections (journals of kind 10) rest on: what is owed for the sale, and for each attempt what
-- was consumed and what it costs, as it was known then. A journal is found by its hold and its number.
-- Append-only. The verifier computes every correction again from it.
CREATE TABLE correction (
    hold     uuid NOT NULL,
    seq      smallint NOT NULL,
    -- False for what was posted before this table was there: nobody knows what it rests on.
    is_known boolean NOT NULL,
    -- In the wallet's currency; NULL when it says nothing of the sale. `priced` is the same in the
    -- price's currency, NULL when nothing is sold.
    owed     bigint CHECK (owed >= 0),
    priced   bigint CHECK (priced >= 0),
    estimate boolean NOT NULL,
    -- The customer might be charged more.
    upward   boolean NOT NULL,
    PRIMARY KEY (hold, seq)
);

INSERT INTO correction (hold, seq, is_known, estimate, upward)
    SELECT subject, seq, false, estimate, true FROM journal WHERE kind = 10;

-- `is_new`: it was not recorded before. An attempt that is part of what is known no more is there
-- without usage and cost.
CREATE TABLE corrected_attempt (
    hold          uuid NOT NULL,
    n             smallint NOT NULL,
    seq           smallint NOT NULL,
    is_new        boolean NOT NULL,
    served        boolean NOT NULL,
    usage_source  text NOT NULL,
    usage         jsonb NOT NULL,
    cost          bigint CHECK (cost >= 0),
    cost_currency text,
    cost_price_id bigint,
    cost_estimate boolean,
    PRIMARY KEY (hold, n, seq),
    CHECK ((cost IS NULL) = (cost_price_id IS NULL))
);

CREATE TRIGGER correction_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON correction
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER corrected_attempt_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON corrected_attempt
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
