-- The conversion rate that a request pinned, by name in `price_ref`: who has to close the hold in
-- its process's place converts at it. NULL when the sale price is in the wallet's currency.
ALTER TABLE hold ADD COLUMN fx_id INTEGER;
