-- What was spent in a span, for the counters of cost limits that know nothing. Read by `quota`.
CREATE INDEX hold_spend ON hold (app, created_at);
