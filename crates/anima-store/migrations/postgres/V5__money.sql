-- Money that people move: refunds, promotional credit, conversion rates.
--
-- A grant's credit is gated with the wallet it belongs to: `gated_balance.promo` is what is left of
-- all its grants, so that one row under one lock says what a hold may take, and a wallet without
-- grants is judged as before. The account `promo:<app>` (`promo_id`) carries the same sum in the
-- books; the verifier compares the two.

ALTER TABLE gated_balance
    ADD COLUMN promo    bigint NOT NULL DEFAULT 0 CHECK (promo >= 0),
    ADD COLUMN promo_id bigint REFERENCES account (id);
-- The check without promotional credit is the table's only one over several columns.
DO $$
DECLARE old_check text;
BEGIN
    SELECT conname INTO STRICT old_check FROM pg_constraint
    WHERE conrelid = 'gated_balance'::regclass AND contype = 'c' AND cardinality(conkey) > 1;
    EXECUTE format('ALTER TABLE gated_balance DROP CONSTRAINT %I', old_check);
END $$;
ALTER TABLE gated_balance
    ADD CONSTRAINT gated_balance_floor CHECK (credits - debits + promo - held >= floor);

-- One row per refund of a request: `key` names it, so that it happens once; `seq` is its journal's.
CREATE TABLE refund (
    hold     uuid NOT NULL REFERENCES hold (id),
    seq      smallint NOT NULL,
    key      uuid NOT NULL,
    journal  uuid NOT NULL REFERENCES journal (id),
    asked    bigint CHECK (asked > 0),
    to_money bigint NOT NULL CHECK (to_money >= 0),
    to_promo bigint NOT NULL CHECK (to_promo >= 0),
    PRIMARY KEY (hold, seq),
    UNIQUE (hold, key)
);

-- Promotional credit given to an app, used before its money, in order of expiry. The id is the
-- subject of its journals. What is left is amount - used - expired.
CREATE TABLE promo_grant (
    id         uuid PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES gated_balance (account_id),
    app        text NOT NULL,
    currency   text NOT NULL,
    amount     bigint NOT NULL CHECK (amount > 0),
    used       bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    expired    bigint NOT NULL DEFAULT 0 CHECK (expired >= 0),
    expiries   smallint NOT NULL DEFAULT 0 CHECK (expiries >= 0),
    sold       boolean NOT NULL,
    granted_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    reference  text NOT NULL,
    CHECK (used + expired <= amount)
);
CREATE INDEX promo_grant_live ON promo_grant (account_id, expires_at, id)
    WHERE used + expired < amount;
CREATE INDEX promo_grant_due ON promo_grant (expires_at, id) WHERE used + expired < amount;
CREATE INDEX promo_grant_app ON promo_grant (app, currency);

-- What a settled request took of which grant, and how much of it a refund gave back. A hold may be
-- written after what it used, in the same transaction, so it is not referred to.
CREATE TABLE promo_use (
    hold     uuid NOT NULL,
    grant_id uuid NOT NULL REFERENCES promo_grant (id),
    amount   bigint NOT NULL CHECK (amount > 0),
    returned bigint NOT NULL DEFAULT 0 CHECK (returned >= 0 AND returned <= amount),
    PRIMARY KEY (hold, grant_id)
);

CREATE TRIGGER refund_append_only BEFORE UPDATE OR DELETE ON refund
    FOR EACH ROW EXECUTE FUNCTION refuse_rewrite();
CREATE TRIGGER promo_grant_keep BEFORE UPDATE OF id, account_id, app, currency, amount, sold,
    granted_at, expires_at, reference OR DELETE ON promo_grant
    FOR EACH ROW EXECUTE FUNCTION refuse_rewrite();
CREATE TRIGGER promo_use_keep BEFORE DELETE ON promo_use
    FOR EACH ROW EXECUTE FUNCTION refuse_rewrite();

-- Entries that people make, by time: statements list them one by one.
CREATE INDEX journal_movement ON journal (posted_at) WHERE kind NOT IN (1, 2);

-- House accounts by day; a day may have several rows.
CREATE VIEW account_day AS
    SELECT account_id, day, debits, credits FROM folded_balance
    UNION ALL
    SELECT account_id, day, debits, credits FROM balance_delta;

-- What one currency is in another. Two rates of one pair may not be in force together.
CREATE TABLE fx_rate (
    code           text COLLATE "C" NOT NULL,
    scope          text COLLATE "C" NOT NULL,
    version_no     bigint NOT NULL CHECK (version_no >= 1),
    effective_from timestamptz NOT NULL,
    effective_to   timestamptz CHECK (effective_to > effective_from),
    cancelled_at   timestamptz,
    body           jsonb NOT NULL,
    created_at     timestamptz NOT NULL,
    created_by     text NOT NULL,
    PRIMARY KEY (code, version_no),
    CONSTRAINT fx_rate_window EXCLUDE USING gist (
        code WITH =, tstzrange(effective_from, effective_to) WITH &&) WHERE (cancelled_at IS NULL),
    CONSTRAINT fx_rate_scope_window EXCLUDE USING gist (
        scope WITH =, tstzrange(effective_from, effective_to) WITH &&) WHERE (cancelled_at IS NULL)
);
CREATE TRIGGER fx_rate_keep BEFORE UPDATE OF code, scope, version_no, effective_from, body, created_at, created_by
    OR DELETE ON fx_rate FOR EACH ROW EXECUTE FUNCTION refuse_rewrite();
