-- What providers say that they bill, by channel, currency and day (UTC) of the calls, days since 1970.
--
-- Append-only: a corrected figure is one more row of the day, and the last one counts. It is compared
-- with the costs in the books; nothing is posted for it.
CREATE TABLE invoice_day (
    channel   TEXT NOT NULL,
    currency  TEXT NOT NULL,
    day       INTEGER NOT NULL,
    seq       INTEGER NOT NULL CHECK (seq > 0),
    amount    INTEGER NOT NULL CHECK (amount >= 0),
    reference TEXT NOT NULL,
    noted_at  INTEGER NOT NULL,
    PRIMARY KEY (channel, currency, day, seq)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER invoice_day_no_update BEFORE UPDATE ON invoice_day
BEGIN SELECT RAISE(ABORT, 'invoice_day is append-only'); END;
CREATE TRIGGER invoice_day_no_delete BEFORE DELETE ON invoice_day
BEGIN SELECT RAISE(ABORT, 'invoice_day is append-only'); END;
