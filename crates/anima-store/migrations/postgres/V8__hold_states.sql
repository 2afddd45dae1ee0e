-- Nothing: on SQLite this number makes a check cheaper that costs nothing here.
SELECT 1;
