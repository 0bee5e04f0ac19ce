ALTER TABLE sources ADD COLUMN owner_id INTEGER REFERENCES sources (id);
INSERT OR IGNORE INTO sources (body, namespace, workload, service_account, principal, cluster)
    SELECT json_remove(body, '$.pod', '$.node'), namespace, workload, service_account, principal,
           cluster
    FROM sources WHERE pod IS NOT NULL OR node IS NOT NULL;
UPDATE sources SET owner_id =
    (SELECT id FROM sources o WHERE o.body = json_remove(sources.body, '$.pod', '$.node'))
    WHERE pod IS NOT NULL OR node IS NOT NULL;

-- Sums of UTC days and months, of hours that are folded: those before the place that `meta` holds
-- as folded_hour and folded_tag_set. hour: the first of the day or month; source_id: an owner's.
CREATE TABLE daily (
    hour             INTEGER NOT NULL,
    tag_set          INTEGER NOT NULL,
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
    PRIMARY KEY (hour, tag_set, source_id, model_id, outcome, usage_source, cost_status)
) STRICT, WITHOUT ROWID;

CREATE TABLE monthly (
    hour             INTEGER NOT NULL,
    tag_set          INTEGER NOT NULL,
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
    PRIMARY KEY (hour, tag_set, source_id, model_id, outcome, usage_source, cost_status)
) STRICT, WITHOUT ROWID;

-- What became of calls, as whoever can judge tells it. subject_kind: 0 event id, 1 request id, 2
-- trace id; the first of them that is told speaks for a call.
CREATE TABLE outcomes (
    subject_kind INTEGER NOT NULL,
    subject      TEXT NOT NULL,
    label        TEXT NOT NULL,
    told_ms      INTEGER NOT NULL,
    PRIMARY KEY (subject_kind, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX outcomes_by_time ON outcomes (told_ms);
