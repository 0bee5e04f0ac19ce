-- Tags that calls lacked, outcomes that are forwarded, sums by pod: see `schema.sql`. Hours are folded
-- anew, in the background, so that days by source are of all hours that there are.
ALTER TABLE events ADD COLUMN missing_tags TEXT;
ALTER TABLE outcomes ADD COLUMN change INTEGER NOT NULL DEFAULT 0;
UPDATE outcomes SET change = told.n
    FROM (SELECT subject_kind AS kind, subject AS name, row_number() OVER (ORDER BY told_ms) AS n
          FROM outcomes) told
    WHERE subject_kind = told.kind AND subject = told.name;
CREATE INDEX outcomes_by_change ON outcomes (change);
CREATE TABLE daily_sources (
    hour             INTEGER NOT NULL,
    source_id        INTEGER NOT NULL,
    model_id         INTEGER NOT NULL,
    outcome          INTEGER NOT NULL,
    usage_source     INTEGER NOT NULL,
    cost_status      INTEGER NOT NULL,
    requests         INTEGER NOT NULL,
    cost_pico        ANY NOT NULL,
    input            ANY NOT NULL,
    cache_read       ANY NOT NULL,
    cache_write      ANY NOT NULL,
    cache_write_1h   ANY NOT NULL,
    audio_input      ANY NOT NULL,
    cache_read_audio ANY NOT NULL,
    image_input      ANY NOT NULL,
    output           ANY NOT NULL,
    reasoning        ANY NOT NULL,
    audio_output     ANY NOT NULL,
    image_output     ANY NOT NULL,
    duration_ms      ANY NOT NULL,
    ttft_ms          ANY NOT NULL,
    ttft_count       INTEGER NOT NULL,
    stated_requests    INTEGER NOT NULL,
    provider_cost_pico ANY NOT NULL,
    compared_cost_pico ANY NOT NULL,
    PRIMARY KEY (hour, source_id, model_id, outcome, usage_source, cost_status)
) STRICT, WITHOUT ROWID;
DELETE FROM daily;
DELETE FROM monthly;
DELETE FROM meta WHERE key IN ('folded_hour', 'folded_tag_set');
