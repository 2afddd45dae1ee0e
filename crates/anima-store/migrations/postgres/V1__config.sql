-- Configuration: one row per version of a row, its live switch, the number of the last change, audit.
-- Windows are half-open; no end is open. Written by `config`. Codes collate by byte, as in SQLite, so
-- that both list rows in one order.

-- Equality beside ranges in an exclusion constraint.
CREATE EXTENSION IF NOT EXISTS btree_gist;

-- The number of the last change. Each change raises it in its own transaction, so there is no gap.
CREATE TABLE config_rev (
    one boolean PRIMARY KEY CHECK (one),
    rev bigint NOT NULL
);
INSERT INTO config_rev (one, rev) VALUES (true, 0);

-- What is the same for all versions of a row. `version_no` is the latest, the optimistic lock;
-- `changed_at` is the earliest instant at which a further change may start.
CREATE TABLE config_head (
    resource   text COLLATE "C" NOT NULL,
    code       text COLLATE "C" NOT NULL,
    app        text COLLATE "C",
    version_no bigint NOT NULL,
    enabled    boolean NOT NULL,
    created_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    deleted_at timestamptz,
    PRIMARY KEY (resource, code)
);
CREATE INDEX config_head_app ON config_head (app, code) WHERE app IS NOT NULL;

-- Who changed what, and why. Without secrets. `rev` is null for what was done beside the configuration.
CREATE TABLE audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL,
    actor      text NOT NULL,
    action     text NOT NULL,
    resource   text NOT NULL,
    code       text NOT NULL,
    reason     text NOT NULL,
    before_row jsonb,
    after_row  jsonb,
    rev        bigint
);

-- Hashes of the secrets of keys. Several live at once while a key is rotated.
CREATE TABLE user_api_key_secret (
    kid        text COLLATE "C" NOT NULL,
    n          bigint NOT NULL,
    hash       bytea NOT NULL CHECK (length(hash) = 32),
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (kid, n)
);

CREATE TABLE admin_token (
    name        text COLLATE "C" PRIMARY KEY,
    role        text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    hash        bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    created_at  timestamptz NOT NULL,
    disabled_at timestamptz
);

CREATE FUNCTION refuse_rewrite() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'history of % is not rewritten', TG_TABLE_NAME USING ERRCODE = 'restrict_violation'; END $$;

-- An upstream account at one provider.
CREATE TABLE channel (
    code           text COLLATE "C" NOT NULL,
    version_no     bigint NOT NULL CHECK (version_no >= 1),
    effective_from timestamptz NOT NULL,
    effective_to   timestamptz CHECK (effective_to > effective_from),
    cancelled_at   timestamptz,
    body           jsonb NOT NULL,
    created_at     timestamptz NOT NULL,
    created_by     text NOT NULL,
    PRIMARY KEY (code, version_no),
    CONSTRAINT channel_window EXCLUDE USING gist (
        code WITH =, tstzrange(effective_from, effective_to) WITH &&) WHERE (cancelled_at IS NULL)
);
CREATE TRIGGER channel_keep BEFORE UPDATE OF code, version_no, effective_from, body, created_at, created_by
    OR DELETE ON channel FOR EACH ROW EXECUTE FUNCTION refuse_rewrite();

-- A model name that clients use.
CREATE TABLE alias (
    code           text COLLATE "C" NOT NULL,
    version_no     bigint NOT NULL CHECK (version_no >= 1),
    effective_from timestamptz NOT NULL,
    effective_to   timestamptz CHECK (effective_to > effective_from),
    cancelled_at   timestamptz,
    body           jsonb NOT NULL,
    created_at     timestamptz NOT NULL,
    created_by     text NOT NULL,
    PRIMARY KEY (code, version_no),
    CONSTRAINT alias_window EXCLUDE USING gist (
        code WITH =, tstzrange(effective_from, effective_to) WITH &&) WHERE (cancelled_at IS NULL)
);
CREATE TRIGGER alias_keep BEFORE UPDATE OF code, version_no, effective_from, body, created_at, created_by
    OR DELETE ON alias FOR EACH ROW EXECUTE FUNCTION refuse_rewrite();

-- A named list of limits.
CREATE TABLE quota (
    code           text COLLATE "C" NOT NULL,
    version_no     bigint NOT NULL CHECK (version_no >= 1),
    effective_from timestamptz NOT NULL,
    effective_to   timestamptz CHECK (effective_to > effective_from),
    cancelled_at   timestamptz,
    body           jsonb NOT NULL,
    created_at     timestamptz NOT NULL,
    created_by     text NOT NULL,
    PRIMARY KEY (code, version_no),
    CONSTRAINT quota_window EXCLUDE USING gist (
        code WITH =, tstzrange(effective_from, effective_to) WITH &&) WHERE (cancelled_at IS NULL)
);
CREATE TRIGGER quota_keep BEFORE UPDATE OF code, version_no, effective_from, body, created_at, created_by
    OR DELETE ON quota FOR EACH ROW EXECUTE FUNCTION refuse_rewrite();

-- A set of keys that share aliases, a multiplier and a queue mode.
CREATE TABLE token_group (
    code           text COLLATE "C" NOT NULL,
    version_no     bigint NOT NULL CHECK (version_no >= 1),
    effective_from timestamptz NOT NULL,
    effective_to   timestamptz CHECK (effective_to > effective_from),
    cancelled_at   timestamptz,
    body           jsonb NOT NULL,
    created_at     timestamptz NOT NULL,
    created_by     text NOT NULL,
    PRIMARY KEY (code, version_no),
    CONSTRAINT token_group_window EXCLUDE USING gist (
        code WITH =, tstzrange(effective_from, effective_to) WITH &&) WHERE (cancelled_at IS NULL)
);
CREATE TRIGGER token_group_keep BEFORE UPDATE OF code, version_no, effective_from, body, created_at, created_by
    OR DELETE ON token_group FOR EACH ROW EXECUTE FUNCTION refuse_rewrite();

-- What a meter costs. Two prices of one scope may not be in force together, whatever their code.
CREATE TABLE price (
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
    CONSTRAINT price_window EXCLUDE USING gist (
        code WITH =, tstzrange(effective_from, effective_to) WITH &&) WHERE (cancelled_at IS NULL),
    CONSTRAINT price_scope_window EXCLUDE USING gist (
        scope WITH =, tstzrange(effective_from, effective_to) WITH &&) WHERE (cancelled_at IS NULL)
);
CREATE TRIGGER price_keep BEFORE UPDATE OF code, scope, version_no, effective_from, body, created_at, created_by
    OR DELETE ON price FOR EACH ROW EXECUTE FUNCTION refuse_rewrite();

-- A customer's application.
CREATE TABLE app (
    code           text COLLATE "C" NOT NULL,
    version_no     bigint NOT NULL CHECK (version_no >= 1),
    effective_from timestamptz NOT NULL,
    effective_to   timestamptz CHECK (effective_to > effective_from),
    cancelled_at   timestamptz,
    body           jsonb NOT NULL,
    created_at     timestamptz NOT NULL,
    created_by     text NOT NULL,
    PRIMARY KEY (code, version_no),
    CONSTRAINT app_window EXCLUDE USING gist (
        code WITH =, tstzrange(effective_from, effective_to) WITH &&) WHERE (cancelled_at IS NULL)
);
CREATE TRIGGER app_keep BEFORE UPDATE OF code, version_no, effective_from, body, created_at, created_by
    OR DELETE ON app FOR EACH ROW EXECUTE FUNCTION refuse_rewrite();

-- A key of an app. Its code is its public id.
CREATE TABLE user_api_key (
    code           text COLLATE "C" NOT NULL,
    app            text COLLATE "C" NOT NULL,
    version_no     bigint NOT NULL CHECK (version_no >= 1),
    effective_from timestamptz NOT NULL,
    effective_to   timestamptz CHECK (effective_to > effective_from),
    cancelled_at   timestamptz,
    body           jsonb NOT NULL,
    created_at     timestamptz NOT NULL,
    created_by     text NOT NULL,
    PRIMARY KEY (code, version_no),
    CONSTRAINT user_api_key_window EXCLUDE USING gist (
        code WITH =, tstzrange(effective_from, effective_to) WITH &&) WHERE (cancelled_at IS NULL)
);
CREATE TRIGGER user_api_key_keep BEFORE UPDATE OF code, app, version_no, effective_from, body, created_at, created_by
    OR DELETE ON user_api_key FOR EACH ROW EXECUTE FUNCTION refuse_rewrite();
