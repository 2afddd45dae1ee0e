-- What tells nodes about changes, and what they answer; and the escape hatches beside the rows.
-- Written by `config::publish`. Every change of a row or of a hatch raises `config_rev` and writes one
-- event in its own transaction: the outbox, which nodes read by number.

CREATE TABLE config_event (
    rev     bigint PRIMARY KEY,
    at      timestamptz NOT NULL,
    notices jsonb NOT NULL
);

-- What a node has put in force, when, and when it was last heard of.
CREATE TABLE config_node (
    node    text COLLATE "C" PRIMARY KEY,
    rev     bigint NOT NULL,
    seen_at timestamptz NOT NULL
);
CREATE TABLE config_ack (
    node text COLLATE "C" NOT NULL,
    rev  bigint NOT NULL,
    at   timestamptz NOT NULL,
    PRIMARY KEY (node, rev)
);
CREATE INDEX config_ack_at ON config_ack (at);

-- Circuits that were set by hand. No model is all of the channel's.
CREATE TABLE circuit_manual (
    channel    text COLLATE "C" NOT NULL,
    model      text COLLATE "C" NOT NULL DEFAULT '',
    state      text NOT NULL CHECK (state IN ('open', 'closed')),
    reason     text NOT NULL CHECK (reason <> ''),
    actor      text NOT NULL,
    set_at     timestamptz NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (channel, model)
);

-- The switch of the whole data plane.
CREATE TABLE gateway_switch (
    one        boolean PRIMARY KEY CHECK (one),
    enabled    boolean NOT NULL,
    reason     text NOT NULL,
    actor      text NOT NULL,
    changed_at timestamptz
);
INSERT INTO gateway_switch (one, enabled, reason, actor, changed_at) VALUES (true, true, '', '', NULL);
