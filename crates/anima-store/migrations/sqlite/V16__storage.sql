-- Holds of a span, by their wallet's account in the place of the app's code, which is longer: what a request
-- takes on disk.
DROP INDEX hold_spend;
CREATE INDEX hold_spend ON hold (account_id, created_at);
