-- What a request takes on disk.
--
-- Each hold is written twice, and its second version never fits the rule that keeps both on one page (its
-- state is in an index), so room that is kept free on a page is room lost: whole pages of first versions
-- are what vacuuming can give away again.
ALTER TABLE hold SET (fillfactor = 100);

-- Holds of a span, by their wallet's account in the place of the app's code, which is longer.
DROP INDEX hold_spend;
CREATE INDEX hold_spend ON hold (account_id, created_at);

-- How far a call has come is not written where nothing is known, which is so for most: NULL is 0. (In SQLite
-- a zero takes no room.)
ALTER TABLE hold ALTER COLUMN phase DROP NOT NULL, ALTER COLUMN phase DROP DEFAULT,
    ALTER COLUMN progress DROP NOT NULL, ALTER COLUMN progress DROP DEFAULT;
