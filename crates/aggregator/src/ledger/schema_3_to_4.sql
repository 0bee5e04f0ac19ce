-- What forwarding takes: see `schema.sql`.
INSERT OR IGNORE INTO meta VALUES ('ledger_id', lower(hex(randomblob(16))));
ALTER TABLE events ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
CREATE INDEX events_revised ON events (id) WHERE revision > 0;
CREATE TABLE changes (
    row INTEGER PRIMARY KEY
) STRICT;
CREATE TRIGGER note_revision AFTER UPDATE ON events WHEN new.revision = old.revision
BEGIN
    UPDATE events SET revision = old.revision + 1 WHERE id = new.id;
    INSERT OR IGNORE INTO changes (row)
        SELECT new.id WHERE new.id <= (SELECT value FROM meta WHERE key = 'forwarded_row');
END;
