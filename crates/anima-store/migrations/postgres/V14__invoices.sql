-- What providers say that they bill, by channel, currency and day (UTC) of the calls, days since 1970.
--
-- Append-only: a corrected figure is one more row of the day, and the last one counts. It is compared
-- with the costs in the books; nothing is posted for it.
CREATE TABLE invoice_day (
    channel   text COLLATE "C" NOT NULL,
    currency  text NOT NULL,
    day       bigint NOT NULL,
    seq       bigint NOT NULL CHECK (seq > 0),
    amount    bigint NOT NULL CHECK (amount >= 0),
    reference text NOT NULL,
    noted_at  bigint NOT NULL,
    PRIMARY KEY (channel, currency, day, seq)
);

CREATE TRIGGER invoice_day_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON invoice_day
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
