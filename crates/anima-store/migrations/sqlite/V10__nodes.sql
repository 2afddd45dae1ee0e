-- What each node says of itself, where there is no Redis to say it in. Written every few seconds, read by
-- all; the row of a node that is gone stays until another removes it.
CREATE TABLE node_report (
    node    TEXT PRIMARY KEY,
    seen_at INTEGER NOT NULL,
    report  TEXT NOT NULL
) STRICT;
