-- How calls were routed, as their node wrote it down after they were over. Not money: what a call cost and was
-- charged stands in the ledger and is joined when it is read. An id begins with the millisecond of its
-- request, so rows are appended, and removed from the front when their time is over.
CREATE TABLE decision_record (
    id     BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;
