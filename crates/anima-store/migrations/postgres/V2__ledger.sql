-- The ledger: accounts, balances, journals, legs, holds and attempts.
--
-- Amounts are integers in units of 10^-scale of their currency. Times are bigint microseconds since
-- 1970 UTC, as in SQLite and in the program: they come back as they went in, whatever the session's
-- time zone, and every query of the verifier is one text for both databases. Numbered columns
-- (kind, component) are the numbers of anima-core's `ledger.rs`.

-- One row per currency in use. The scale is written down so that amounts can be read without the
-- program; it never changes.
CREATE TABLE currency (
    code  text PRIMARY KEY CHECK (length(code) = 3),
    scale smallint NOT NULL CHECK (scale BETWEEN 0 AND 12)
);

CREATE TABLE account (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code     text NOT NULL,
    class    smallint NOT NULL,
    normal   text NOT NULL CHECK (normal IN ('D', 'C')),
    currency text NOT NULL REFERENCES currency (code),
    UNIQUE (code, currency)
);

-- Accounts that holds are judged against: wallets. The check is the last line of defence; the
-- writer judges before. Half-empty pages keep the updates of a hot wallet on its page.
CREATE TABLE gated_balance (
    account_id bigint PRIMARY KEY REFERENCES account (id),
    debits     bigint NOT NULL DEFAULT 0 CHECK (debits >= 0),
    credits    bigint NOT NULL DEFAULT 0 CHECK (credits >= 0),
    held       bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
    floor      bigint NOT NULL DEFAULT 0 CHECK (floor <= 0),
    posted     bigint GENERATED ALWAYS AS (credits - debits) STORED,
    CHECK (credits - debits - held >= floor)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01);

-- All other accounts: one pre-summed row per account and batch, and no row is ever updated, so that
-- no two batches wait for each other. `fold_balances` moves them into `folded_balance`.
CREATE TABLE balance_delta (
    account_id bigint NOT NULL,
    day        integer NOT NULL,
    debits     bigint NOT NULL CHECK (debits >= 0),
    credits    bigint NOT NULL CHECK (credits >= 0)
) WITH (autovacuum_vacuum_scale_factor = 0.01);

CREATE TABLE folded_balance (
    account_id bigint NOT NULL REFERENCES account (id),
    day        integer NOT NULL,
    debits     numeric(38, 0) NOT NULL,
    credits    numeric(38, 0) NOT NULL,
    PRIMARY KEY (account_id, day)
) WITH (fillfactor = 50);

-- Deletes exactly what its snapshot sees and adds exactly that, in one statement: rows of batches
-- that commit meanwhile stay for the next call, whatever their order. One node folds at a time.
CREATE FUNCTION fold_balances() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE folded bigint := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('fold_balances')) THEN
        RETURN 0;
    END IF;
    WITH gone AS (
        DELETE FROM balance_delta RETURNING account_id, day, debits, credits
    ), summed AS (
        SELECT account_id, day, sum(debits) AS debits, sum(credits) AS credits, count(*) AS n
        FROM gone GROUP BY account_id, day
    ), kept AS (
        INSERT INTO folded_balance AS f (account_id, day, debits, credits)
        SELECT account_id, day, debits, credits FROM summed
        ON CONFLICT (account_id, day) DO UPDATE
        SET debits = f.debits + excluded.debits, credits = f.credits + excluded.credits
        RETURNING 1
    )
    SELECT COALESCE(sum(n), 0) INTO folded FROM summed;
    RETURN folded;
END $$;

CREATE VIEW account_balance AS
    SELECT account_id, debits::numeric AS debits, credits::numeric AS credits FROM gated_balance
    UNION ALL
    SELECT account_id, debits, credits FROM folded_balance
    UNION ALL
    SELECT account_id, debits, credits FROM balance_delta;

CREATE TABLE price_ref (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code       text NOT NULL,
    version_no bigint NOT NULL,
    UNIQUE (code, version_no)
);

-- UNIQUE (subject, kind, seq) is the posting gate: what explains one subject in one way is posted
-- once. A table of its own would hold the same three columns and the same digest a second time;
-- here the gate is passed in the very insert that it guards, and cannot be passed without one.
-- (When journals are partitioned by id the gate has to move to a table of its own.)
CREATE TABLE journal (
    id        uuid PRIMARY KEY,
    kind      smallint NOT NULL,
    subject   uuid NOT NULL,
    seq       smallint NOT NULL,
    at        bigint NOT NULL,
    posted_at bigint NOT NULL,
    estimate  boolean NOT NULL,
    digest    bytea NOT NULL CHECK (length(digest) = 32),
    reference text NOT NULL,
    UNIQUE (subject, kind, seq)
);

-- One row is one debit and one credit of one amount: an unbalanced entry cannot be written down.
-- No foreign keys here: each would lock and look up a row per leg, and the writer takes the ids
-- from the tables themselves. The verifier checks them (I1).
CREATE TABLE leg (
    journal   uuid NOT NULL,
    n         smallint NOT NULL,
    debit_id  bigint NOT NULL,
    credit_id bigint NOT NULL,
    amount    bigint NOT NULL CHECK (amount > 0),
    currency  text NOT NULL,
    component smallint NOT NULL,
    attempt   smallint,
    price_id  bigint,
    estimate  boolean NOT NULL,
    PRIMARY KEY (journal, n),
    CHECK (debit_id <> credit_id)
);

-- `digest` is of the settlement that closed the hold, journal or not.
CREATE TABLE hold (
    id          uuid PRIMARY KEY,
    app         text NOT NULL,
    kid         text NOT NULL,
    alias       text NOT NULL,
    account_id  bigint NOT NULL,
    node        uuid NOT NULL,
    amount      bigint NOT NULL CHECK (amount >= 0),
    currency    text NOT NULL,
    state       text NOT NULL DEFAULT 'HELD'
                CHECK (state IN ('HELD', 'SETTLED', 'RELEASED', 'UNKNOWN')),
    price_id    bigint NOT NULL,
    settled     bigint CHECK (settled >= 0),
    uncollected bigint NOT NULL DEFAULT 0 CHECK (uncollected >= 0),
    digest      bytea CHECK (length(digest) = 32),
    created_at  bigint NOT NULL,
    expires_at  bigint NOT NULL,
    closed_at   bigint,
    CHECK ((state = 'SETTLED') = (settled IS NOT NULL)),
    CHECK ((state IN ('SETTLED', 'RELEASED')) = (closed_at IS NOT NULL)),
    CHECK ((state IN ('SETTLED', 'RELEASED')) = (digest IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);

CREATE INDEX hold_open ON hold (expires_at) WHERE state IN ('HELD', 'UNKNOWN');

CREATE TABLE attempt (
    hold          uuid NOT NULL,
    n             smallint NOT NULL,
    channel       text NOT NULL,
    credential    text NOT NULL,
    model         text NOT NULL,
    outcome       text NOT NULL,
    served        boolean NOT NULL,
    usage_source  text NOT NULL,
    usage         jsonb NOT NULL,
    cost          bigint CHECK (cost >= 0),
    cost_currency text,
    cost_price_id bigint,
    cost_estimate boolean,
    upstream_ref  text,
    started_at    bigint NOT NULL,
    first_byte_at bigint,
    ended_at      bigint NOT NULL,
    PRIMARY KEY (hold, n),
    CHECK ((cost IS NULL) = (cost_price_id IS NULL))
);

-- Ends the transaction when a compare-and-set did not hit what it must hit.
CREATE FUNCTION expect_rows(changed bigint, wanted bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF changed <> wanted THEN
        RAISE EXCEPTION '% rows changed where % must', changed, wanted
            USING ERRCODE = 'serialization_failure';
    END IF;
END $$;

-- An id as SQLite's `hex` writes one, so that the verifier's queries are one text for both.
CREATE FUNCTION hex(id uuid) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT upper(replace(id::text, '-', '')) $$;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER journal_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON journal
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER leg_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON leg
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER attempt_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON attempt
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER hold_never_deleted BEFORE DELETE OR TRUNCATE ON hold
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION refuse_reopening() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'hold is closed' USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER hold_closed_once BEFORE UPDATE ON hold FOR EACH ROW
    WHEN (OLD.state IN ('SETTLED', 'RELEASED') AND NEW.state IS DISTINCT FROM OLD.state)
    EXECUTE FUNCTION refuse_reopening();
