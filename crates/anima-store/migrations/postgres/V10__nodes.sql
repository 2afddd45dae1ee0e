-- What each node says of itself, where there is no Redis to say it in. Written every few seconds, read by
-- all; the row of a node that is gone stays until another removes it.
CREATE TABLE node_report (
    node    text COLLATE "C" PRIMARY KEY,
    seen_at timestamptz NOT NULL,
    report  text NOT NULL
);
