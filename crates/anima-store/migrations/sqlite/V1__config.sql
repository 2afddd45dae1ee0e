-- Configuration: one row per version of a row, its live switch, the number of the last change, audit.
-- Times are microseconds since 1970 UTC; windows are half-open; no end is open. Written by `config`.

-- The number of the last change. Each change raises it in its own transaction, so there is no gap.
CREATE TABLE config_rev (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    rev INTEGER NOT NULL
) STRICT;
INSERT INTO config_rev (one, rev) VALUES (1, 0);

-- What is the same for all versions of a row. `version_no` is the latest, the optimistic lock;
-- `changed_at` is the earliest instant at which a further change may start.
CREATE TABLE config_head (
    resource   TEXT NOT NULL,
    code       TEXT NOT NULL,
    app        TEXT,
    version_no INTEGER NOT NULL,
    enabled    INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    deleted_at INTEGER,
    PRIMARY KEY (resource, code)
) STRICT, WITHOUT ROWID;
CREATE INDEX config_head_app ON config_head (app, code) WHERE app IS NOT NULL;

-- Who changed what, and why. Without secrets. `rev` is null for what was done beside the configuration.
CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    actor      TEXT NOT NULL,
    action     TEXT NOT NULL,
    resource   TEXT NOT NULL,
    code       TEXT NOT NULL,
    reason     TEXT NOT NULL,
    before_row TEXT,
    after_row  TEXT,
    rev        INTEGER
) STRICT;

-- Hashes of the secrets of keys. Several live at once while a key is rotated.
CREATE TABLE user_api_key_secret (
    kid        TEXT NOT NULL,
    n          INTEGER NOT NULL,
    hash       BLOB NOT NULL CHECK (length(hash) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (kid, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE admin_token (
    name        TEXT PRIMARY KEY,
    role        TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    hash        BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    created_at  INTEGER NOT NULL,
    disabled_at INTEGER
) STRICT, WITHOUT ROWID;

-- An upstream account at one provider.
CREATE TABLE channel (
    code           TEXT NOT NULL,
    version_no     INTEGER NOT NULL CHECK (version_no >= 1),
    effective_from INTEGER NOT NULL,
    effective_to   INTEGER CHECK (effective_to > effective_from),
    cancelled_at   INTEGER,
    body           TEXT NOT NULL CHECK (json_valid(body)),
    created_at     INTEGER NOT NULL,
    created_by     TEXT NOT NULL,
    PRIMARY KEY (code, version_no)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER channel_window_insert BEFORE INSERT ON channel
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM channel AS other
    WHERE other.code = NEW.code AND other.cancelled_at IS NULL
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER channel_window_update BEFORE UPDATE ON channel
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM channel AS other
    WHERE other.code = NEW.code AND other.cancelled_at IS NULL
      AND NOT (other.code = OLD.code AND other.version_no = OLD.version_no)
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER channel_keep BEFORE UPDATE OF code, version_no, effective_from, body, created_at, created_by ON channel
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;
CREATE TRIGGER channel_keep_all BEFORE DELETE ON channel
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;

-- A model name that clients use.
CREATE TABLE alias (
    code           TEXT NOT NULL,
    version_no     INTEGER NOT NULL CHECK (version_no >= 1),
    effective_from INTEGER NOT NULL,
    effective_to   INTEGER CHECK (effective_to > effective_from),
    cancelled_at   INTEGER,
    body           TEXT NOT NULL CHECK (json_valid(body)),
    created_at     INTEGER NOT NULL,
    created_by     TEXT NOT NULL,
    PRIMARY KEY (code, version_no)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER alias_window_insert BEFORE INSERT ON alias
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM alias AS other
    WHERE other.code = NEW.code AND other.cancelled_at IS NULL
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER alias_window_update BEFORE UPDATE ON alias
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM alias AS other
    WHERE other.code = NEW.code AND other.cancelled_at IS NULL
      AND NOT (other.code = OLD.code AND other.version_no = OLD.version_no)
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER alias_keep BEFORE UPDATE OF code, version_no, effective_from, body, created_at, created_by ON alias
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;
CREATE TRIGGER alias_keep_all BEFORE DELETE ON alias
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;

-- A named list of limits.
CREATE TABLE quota (
    code           TEXT NOT NULL,
    version_no     INTEGER NOT NULL CHECK (version_no >= 1),
    effective_from INTEGER NOT NULL,
    effective_to   INTEGER CHECK (effective_to > effective_from),
    cancelled_at   INTEGER,
    body           TEXT NOT NULL CHECK (json_valid(body)),
    created_at     INTEGER NOT NULL,
    created_by     TEXT NOT NULL,
    PRIMARY KEY (code, version_no)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER quota_window_insert BEFORE INSERT ON quota
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM quota AS other
    WHERE other.code = NEW.code AND other.cancelled_at IS NULL
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER quota_window_update BEFORE UPDATE ON quota
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM quota AS other
    WHERE other.code = NEW.code AND other.cancelled_at IS NULL
      AND NOT (other.code = OLD.code AND other.version_no = OLD.version_no)
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER quota_keep BEFORE UPDATE OF code, version_no, effective_from, body, created_at, created_by ON quota
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;
CREATE TRIGGER quota_keep_all BEFORE DELETE ON quota
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;

-- A set of keys that share aliases, a multiplier and a queue mode.
CREATE TABLE token_group (
    code           TEXT NOT NULL,
    version_no     INTEGER NOT NULL CHECK (version_no >= 1),
    effective_from INTEGER NOT NULL,
    effective_to   INTEGER CHECK (effective_to > effective_from),
    cancelled_at   INTEGER,
    body           TEXT NOT NULL CHECK (json_valid(body)),
    created_at     INTEGER NOT NULL,
    created_by     TEXT NOT NULL,
    PRIMARY KEY (code, version_no)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER token_group_window_insert BEFORE INSERT ON token_group
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM token_group AS other
    WHERE other.code = NEW.code AND other.cancelled_at IS NULL
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER token_group_window_update BEFORE UPDATE ON token_group
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM token_group AS other
    WHERE other.code = NEW.code AND other.cancelled_at IS NULL
      AND NOT (other.code = OLD.code AND other.version_no = OLD.version_no)
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER token_group_keep BEFORE UPDATE OF code, version_no, effective_from, body, created_at, created_by ON token_group
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;
CREATE TRIGGER token_group_keep_all BEFORE DELETE ON token_group
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;

-- What a meter costs. Two prices of one scope may not be in force together, whatever their code.
CREATE TABLE price (
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
CREATE INDEX price_scope ON price (scope, effective_from);
CREATE TRIGGER price_window_insert BEFORE INSERT ON price
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM price AS other
    WHERE (other.code = NEW.code OR other.scope = NEW.scope) AND other.cancelled_at IS NULL
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER price_window_update BEFORE UPDATE ON price
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM price AS other
    WHERE (other.code = NEW.code OR other.scope = NEW.scope) AND other.cancelled_at IS NULL
      AND NOT (other.code = OLD.code AND other.version_no = OLD.version_no)
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER price_keep BEFORE UPDATE OF code, scope, version_no, effective_from, body, created_at, created_by ON price
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;
CREATE TRIGGER price_keep_all BEFORE DELETE ON price
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;

-- A customer's application.
CREATE TABLE app (
    code           TEXT NOT NULL,
    version_no     INTEGER NOT NULL CHECK (version_no >= 1),
    effective_from INTEGER NOT NULL,
    effective_to   INTEGER CHECK (effective_to > effective_from),
    cancelled_at   INTEGER,
    body           TEXT NOT NULL CHECK (json_valid(body)),
    created_at     INTEGER NOT NULL,
    created_by     TEXT NOT NULL,
    PRIMARY KEY (code, version_no)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER app_window_insert BEFORE INSERT ON app
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM app AS other
    WHERE other.code = NEW.code AND other.cancelled_at IS NULL
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER app_window_update BEFORE UPDATE ON app
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM app AS other
    WHERE other.code = NEW.code AND other.cancelled_at IS NULL
      AND NOT (other.code = OLD.code AND other.version_no = OLD.version_no)
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER app_keep BEFORE UPDATE OF code, version_no, effective_from, body, created_at, created_by ON app
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;
CREATE TRIGGER app_keep_all BEFORE DELETE ON app
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;

-- A key of an app. Its code is its public id.
CREATE TABLE user_api_key (
    code           TEXT NOT NULL,
    app            TEXT NOT NULL,
    version_no     INTEGER NOT NULL CHECK (version_no >= 1),
    effective_from INTEGER NOT NULL,
    effective_to   INTEGER CHECK (effective_to > effective_from),
    cancelled_at   INTEGER,
    body           TEXT NOT NULL CHECK (json_valid(body)),
    created_at     INTEGER NOT NULL,
    created_by     TEXT NOT NULL,
    PRIMARY KEY (code, version_no)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER user_api_key_window_insert BEFORE INSERT ON user_api_key
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM user_api_key AS other
    WHERE other.code = NEW.code AND other.cancelled_at IS NULL
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER user_api_key_window_update BEFORE UPDATE ON user_api_key
WHEN NEW.cancelled_at IS NULL AND EXISTS (
    SELECT 1 FROM user_api_key AS other
    WHERE other.code = NEW.code AND other.cancelled_at IS NULL
      AND NOT (other.code = OLD.code AND other.version_no = OLD.version_no)
      AND other.effective_from < coalesce(NEW.effective_to, 9223372036854775807)
      AND NEW.effective_from < coalesce(other.effective_to, 9223372036854775807))
BEGIN SELECT RAISE(ABORT, 'overlapping window'); END;
CREATE TRIGGER user_api_key_keep BEFORE UPDATE OF code, app, version_no, effective_from, body, created_at, created_by ON user_api_key
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;
CREATE TRIGGER user_api_key_keep_all BEFORE DELETE ON user_api_key
BEGIN SELECT RAISE(ABORT, 'history is not rewritten'); END;
