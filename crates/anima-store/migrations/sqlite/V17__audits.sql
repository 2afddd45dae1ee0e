-- Who looks at all books, and what the last such look found: one row for all nodes.
CREATE TABLE audit_turn (
    one       INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    -- Whose turn it is, by a process start, and until when unless it goes on. NULL: nobody looks.
    node      BLOB CHECK (length(node) = 16),
    until     INTEGER NOT NULL,
    -- The instant of what was seen last, 0 before the first look; breaches by invariant, as JSON.
    looked_at INTEGER NOT NULL,
    found     TEXT NOT NULL
) STRICT;

INSERT INTO audit_turn (one, until, looked_at, found) VALUES (1, 0, 0, '{}');
