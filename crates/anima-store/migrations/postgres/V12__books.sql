-- Calls that came to more than hold and wallet covered: few, found by the time of their end.
CREATE INDEX hold_short ON hold (closed_at) WHERE uncollected > 0;

-- Keys that were paused for such calls: when, how many they were, and why, for people. The switch itself is
-- the key's own; calls that ended before a pause do not count towards the next one.
CREATE TABLE key_pause (
    kid       text COLLATE "C" PRIMARY KEY,
    app       text NOT NULL,
    paused_at bigint NOT NULL,
    calls     bigint NOT NULL CHECK (calls > 0),
    reason    text NOT NULL
);

-- Costs by our own estimate, in the order in which they were posted.
CREATE INDEX leg_estimate ON leg (journal) WHERE estimate AND attempt IS NOT NULL;
