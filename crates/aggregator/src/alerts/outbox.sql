-- What was told, or is to be, until its window has ended. state: 0 nobody has claimed it yet, 1 it
-- is ours to tell, 2 another sidecar tells it. alert: JSON; NULL once it is clear who tells it.
CREATE TABLE told (
    id       TEXT PRIMARY KEY,
    until_ms INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    state    INTEGER NOT NULL,
    alert    TEXT,
    notify   TEXT
) STRICT, WITHOUT ROWID;

-- What is yet to be brought to whom.
CREATE TABLE deliveries (
    id       INTEGER PRIMARY KEY,
    alert_id TEXT NOT NULL,
    receiver TEXT NOT NULL,
    channel  TEXT NOT NULL,
    alert    TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    due_ms   INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    UNIQUE (alert_id, receiver, channel)
) STRICT;
CREATE INDEX deliveries_by_due ON deliveries (due_ms);
