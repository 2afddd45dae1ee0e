-- What tells nodes about changes, and what they answer; and the escape hatches beside the rows.
-- Written by `config::publish`. Every change of a row or of a hatch raises `config_rev` and writes one
-- event in its own transaction: the outbox, which nodes read by number.

CREATE TABLE config_event (
    rev     INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    notices TEXT NOT NULL CHECK (json_valid(notices))
) STRICT;

-- What a node has put in force, when, and when it was last heard of.
CREATE TABLE config_node (
    node    TEXT PRIMARY KEY,
    rev     INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE config_ack (
    node TEXT NOT NULL,
    rev  INTEGER NOT NULL,
    at   INTEGER NOT NULL,
    PRIMARY KEY (node, rev)
) STRICT, WITHOUT ROWID;
CREATE INDEX config_ack_at ON config_ack (at);

-- Circuits that were set by hand. No model is all of the channel's.
CREATE TABLE circuit_manual (
    channel    TEXT NOT NULL,
    model      TEXT NOT NULL DEFAULT '',
    state      TEXT NOT NULL CHECK (state IN ('open', 'closed')),
    reason     TEXT NOT NULL CHECK (reason <> ''),
    actor      TEXT NOT NULL,
    set_at     INTEGER NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (channel, model)
) STRICT, WITHOUT ROWID;

-- The switch of the whole data plane.
CREATE TABLE gateway_switch (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    enabled    INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    reason     TEXT NOT NULL,
    actor      TEXT NOT NULL,
    changed_at INTEGER
) STRICT;
INSERT INTO gateway_switch (one, enabled, reason, actor, changed_at) VALUES (1, 1, '', '', NULL);
