-- Version 9. Integer ids name tag sets, sources, models and price rows, so that a call's row is
-- small. ANY columns hold sums: an integer while it fits 64 bits, else its decimal digits as text.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;
-- What a store that this ledger is forwarded to knows it by.
INSERT INTO meta VALUES ('ledger_id', lower(hex(randomblob(16))));

-- body: the tags as one JSON object with sorted keys.
CREATE TABLE tag_sets (
    id   INTEGER PRIMARY KEY,
    body TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE tags (
    tag_set INTEGER NOT NULL REFERENCES tag_sets (id),
    tag     TEXT NOT NULL,
    value   TEXT NOT NULL,
    PRIMARY KEY (tag_set, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_value ON tags (tag, value);

-- owner_id: the same without pod and node, which long sums do without; NULL where it has neither.
CREATE TABLE sources (
    id              INTEGER PRIMARY KEY,
    body            TEXT NOT NULL UNIQUE,
    namespace       TEXT,
    workload        TEXT,
    service_account TEXT,
    principal       TEXT,
    pod             TEXT,
    node            TEXT,
    cluster         TEXT,
    owner_id        INTEGER REFERENCES sources (id)
) STRICT;

CREATE TABLE models (
    id              INTEGER PRIMARY KEY,
    body            TEXT NOT NULL UNIQUE,
    provider        TEXT NOT NULL,
    api             TEXT NOT NULL,
    host            TEXT NOT NULL,
    model           TEXT,
    model_requested TEXT,
    service_tier    TEXT
) STRICT;

-- What priced a call: a row of a price file, and the digest of all price files at that time.
CREATE TABLE prices (
    id              INTEGER PRIMARY KEY,
    body            TEXT NOT NULL UNIQUE,
    price_row       TEXT,
    pricing_version TEXT NOT NULL
) STRICT;

-- outcome: 0 success, 1 error, 2 aborted, 3 denied, 4 relayed.
-- usage_source: 0 reported, 1 estimated, 2 absent.
-- cost_status: 0 exact, 1 assumed, 2 unpriced.
-- cost_lines: [[what, amount, rate, times, usd, assumed, extra, row], ...]
-- original_...: the first price of a row that was priced anew; a cost of NULL beside a price id is
-- that of a call that was unpriced.
CREATE TABLE events (
    id                 INTEGER PRIMARY KEY,
    event_id           TEXT NOT NULL,
    time_ms            INTEGER NOT NULL,
    duration_ms        INTEGER NOT NULL,
    ttft_ms            INTEGER,
    model_id           INTEGER NOT NULL REFERENCES models (id),
    tag_set            INTEGER NOT NULL REFERENCES tag_sets (id),
    source_id          INTEGER NOT NULL REFERENCES sources (id),
    outcome            INTEGER NOT NULL,
    status             INTEGER,
    stream             INTEGER NOT NULL,
    usage_source       INTEGER NOT NULL,
    billable           INTEGER NOT NULL,
    input              INTEGER,
    cache_read         INTEGER,
    cache_write        INTEGER,
    cache_write_1h     INTEGER,
    audio_input        INTEGER,
    cache_read_audio   INTEGER,
    image_input        INTEGER,
    output             INTEGER,
    reasoning          INTEGER,
    audio_output       INTEGER,
    image_output       INTEGER,
    units              TEXT,
    billed_usage       TEXT,
    extra_usage        TEXT,
    pricing_context    TEXT,
    cost_pico          INTEGER,
    list_cost_pico     INTEGER,
    provider_cost_pico INTEGER,
    cost_status        INTEGER NOT NULL,
    unpriced_because   TEXT,
    price_id           INTEGER NOT NULL REFERENCES prices (id),
    cost_lines         TEXT,
    response_id        TEXT,
    finish_reason      TEXT,
    tool_calls         INTEGER,
    request_id         TEXT,
    trace_id           TEXT,
    span_id            TEXT,
    response_flags     INTEGER NOT NULL,
    attempts           INTEGER NOT NULL,
    reservation_id     TEXT,
    trouble            TEXT,
    fingerprint        TEXT,
    estimate_basis     TEXT,
    original_cost_pico INTEGER,
    original_price_id  INTEGER REFERENCES prices (id),
    revision           INTEGER NOT NULL DEFAULT 0,
    missing_tags       TEXT
) STRICT;
CREATE UNIQUE INDEX events_by_event_id ON events (event_id);
CREATE INDEX events_by_time ON events (time_ms);
-- Calls whose usage may still come: background responses.
CREATE INDEX events_without_usage ON events (response_id)
    WHERE usage_source = 2 AND response_id IS NOT NULL;
-- Calls whose usage may still be corrected: cut streams of responses that can be retrieved.
CREATE INDEX events_estimated ON events (response_id)
    WHERE usage_source = 1 AND response_id IS NOT NULL;
-- Calls that budgets charge otherwise than sums of calls say: without a price a ceiling, and the
-- tokens that a call used beside its own model's.
CREATE INDEX events_unpriced ON events (time_ms) WHERE cost_pico IS NULL;
CREATE INDEX events_with_extra ON events (time_ms) WHERE extra_usage IS NOT NULL;

-- Rows that were altered, how often, and those of them that a store they were forwarded to is yet to
-- have as they are now.
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

-- Late usage that completed a row, so that its resending is recognised.
CREATE TABLE late_usage (
    event_id TEXT PRIMARY KEY,
    row      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- hour: hours since 1970.
-- stated_requests, provider_cost_pico: charged calls of which the provider states the cost, and
-- what it states; compared_cost_pico: our cost of those among them that are priced.
CREATE TABLE hourly (
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
    stated_requests    INTEGER NOT NULL DEFAULT 0,
    provider_cost_pico ANY NOT NULL DEFAULT 0,
    compared_cost_pico ANY NOT NULL DEFAULT 0,
    PRIMARY KEY (hour, tag_set, source_id, model_id, outcome, usage_source, cost_status)
) STRICT, WITHOUT ROWID;

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

-- Sums of UTC days by the source itself, with its pod and node, and without tags.
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

-- Sums of UTC days by tags and by the source itself.
CREATE TABLE daily_pods (
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

-- The highest of an hour's rows, by what a call costs, how long it took and its tokens, each with its
-- row's number: bounds, which never fall. An hour that has rows has a line.
CREATE TABLE peaks (
    hour         INTEGER PRIMARY KEY,
    cost_pico    INTEGER NOT NULL,
    cost_row     INTEGER NOT NULL,
    duration_ms  INTEGER NOT NULL,
    duration_row INTEGER NOT NULL,
    tokens       INTEGER NOT NULL,
    tokens_row   INTEGER NOT NULL
) STRICT;

-- What became of calls, as whoever can judge tells it. subject_kind: 0 event id, 1 request id, 2
-- trace id; the first of them that is told speaks for a call. change: grows with every word that is
-- told, so that it is known which of them a store is yet to have.
CREATE TABLE outcomes (
    subject_kind INTEGER NOT NULL,
    subject      TEXT NOT NULL,
    label        TEXT NOT NULL,
    told_ms      INTEGER NOT NULL,
    change       INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (subject_kind, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX outcomes_by_change ON outcomes (change);
CREATE INDEX outcomes_by_time ON outcomes (told_ms);

-- Counters, and the sums of histograms. Written with the rows, never derived from them.
-- Counters by number, so that what every commit changes is little.
CREATE TABLE metric_series (
    id     INTEGER PRIMARY KEY,
    metric TEXT NOT NULL,
    series TEXT NOT NULL,
    UNIQUE (metric, series)
) STRICT;

CREATE TABLE metric_totals (
    id    INTEGER PRIMARY KEY REFERENCES metric_series (id),
    value ANY NOT NULL
) STRICT;

-- n: observations at most as large as upto, and above the next smaller upto.
CREATE TABLE metric_buckets (
    metric TEXT NOT NULL,
    series TEXT NOT NULL,
    upto   INTEGER NOT NULL,
    n      INTEGER NOT NULL,
    PRIMARY KEY (metric, series, upto)
) STRICT, WITHOUT ROWID;

-- The budgets whose spend every row adds to in its own transaction.
CREATE TABLE budgets (
    id TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- What calls charged to a budget, for one key in one window. end_ms: when it counts no more. amount: pico-dollars, tokens or
-- requests. granted: the most that the store has ever let this ledger spend, in millionths of a
-- dollar, tokens or requests; memory: what is to be remembered of the store with it.
CREATE TABLE budget_spend (
    budget    TEXT NOT NULL,
    key       TEXT NOT NULL,
    window_ms INTEGER NOT NULL,
    end_ms    INTEGER NOT NULL,
    amount    ANY NOT NULL,
    denied    INTEGER NOT NULL,
    granted   INTEGER NOT NULL,
    memory    TEXT NOT NULL,
    PRIMARY KEY (budget, key, window_ms)
) STRICT, WITHOUT ROWID;
CREATE INDEX budget_spend_by_end ON budget_spend (end_ms);

-- What budgets did to calls, the last some thousand times. body: the facts as one JSON object.
CREATE TABLE denials (
    id         INTEGER PRIMARY KEY,
    time_ms    INTEGER NOT NULL,
    event_id   TEXT NOT NULL,
    request_id TEXT,
    budget     TEXT NOT NULL,
    body       TEXT NOT NULL
) STRICT;
CREATE INDEX denials_by_event ON denials (event_id);
CREATE INDEX denials_by_request ON denials (request_id) WHERE request_id IS NOT NULL;

CREATE TABLE quarantine (
    id          INTEGER PRIMARY KEY,
    received_ms INTEGER NOT NULL,
    event_id    TEXT,
    reason      TEXT NOT NULL,
    body        TEXT NOT NULL
) STRICT;
