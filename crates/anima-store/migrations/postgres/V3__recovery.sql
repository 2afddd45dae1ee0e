-- Who lives, and what a running call leaves behind for others.

-- A process start. Its id is also the fencing epoch: holds carry it, and what is taken over from it
-- gets another one first. `DEAD` is for good: a process that was only slow takes a new id.
CREATE TABLE node_lease (
    id         uuid PRIMARY KEY,
    host       text NOT NULL,
    started_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    state      text NOT NULL DEFAULT 'UP' CHECK (state IN ('UP', 'DEAD', 'RECOVERED'))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01);

-- No index: open holds are few, and `hold_open` lists them.
-- Known when it is placed: the factor on the sale price, in parts per million, and where it goes
-- first with the most that it can cost us.
ALTER TABLE hold ADD COLUMN multiplier bigint NOT NULL DEFAULT 1000000 CHECK (multiplier >= 0);
ALTER TABLE hold ADD COLUMN channel text;
ALTER TABLE hold ADD COLUMN cost_cap bigint CHECK (cost_cap >= 0);
ALTER TABLE hold ADD COLUMN cost_currency text;
ALTER TABLE hold ADD COLUMN cost_price_id bigint;
-- Written by checkpoints: 0 intent, 1 dispatched, 2 streaming, 3 accepted as a task; what the
-- customer would owe; the last upstream call's own id; and the upstream calls as JSON, which goes
-- when the hold is closed. `expires_at` of an UNKNOWN hold is when it must be resolved.
ALTER TABLE hold ADD COLUMN phase smallint NOT NULL DEFAULT 0 CHECK (phase BETWEEN 0 AND 3);
ALTER TABLE hold ADD COLUMN progress bigint NOT NULL DEFAULT 0 CHECK (progress >= 0);
ALTER TABLE hold ADD COLUMN upstream_ref text;
ALTER TABLE hold ADD COLUMN trail text;
