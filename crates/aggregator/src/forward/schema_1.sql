-- Version 1 of the store: one ledger for many sidecars. Names and meanings of columns are those of a
-- sidecar's own ledger, so that the same questions can be asked of both. Wide columns come first: a
-- row's columns are aligned, and this order leaves no gaps.

CREATE TABLE tollmesh.meta (
    key   text PRIMARY KEY,
    value text NOT NULL
);

-- Each sidecar's ledger, and how far it has come: this row of its own and all before it are here, by
-- so many parcels.
-- The row is written in the transaction of the rows, so that a store that was restored from a
-- backup, or emptied, says itself what it lacks.
CREATE TABLE tollmesh.ledgers (
    n             integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id            uuid NOT NULL UNIQUE,
    forwarded_row bigint NOT NULL DEFAULT 0,
    parcels       bigint NOT NULL DEFAULT 0,
    since         timestamptz NOT NULL DEFAULT now(),
    seen          timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Months with a partition, and how often the rows of each were lost.
CREATE TABLE tollmesh.months (
    month date PRIMARY KEY,
    lost  bigint NOT NULL DEFAULT 0
);

-- digest: the first 16 bytes of the SHA-256 of the text that body was made of. Each call may have
-- tags of its own, so that their ids are bigint; sources, models and prices are few.
CREATE TABLE tollmesh.tag_sets (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest uuid NOT NULL UNIQUE,
    body   jsonb NOT NULL
);
CREATE INDEX tag_sets_by_body ON tollmesh.tag_sets USING gin (body jsonb_path_ops);

CREATE TABLE tollmesh.tags (
    tag_set bigint NOT NULL,
    tag     text NOT NULL,
    value   text NOT NULL,
    PRIMARY KEY (tag_set, tag)
);
-- By hash, since a value may be longer than a tree's key.
CREATE INDEX tags_by_value ON tollmesh.tags USING hash (value);

CREATE TABLE tollmesh.sources (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest          uuid NOT NULL UNIQUE,
    body            jsonb NOT NULL,
    namespace       text GENERATED ALWAYS AS (body ->> 'namespace') STORED,
    workload        text GENERATED ALWAYS AS (body ->> 'workload') STORED,
    service_account text GENERATED ALWAYS AS (body ->> 'service_account') STORED,
    principal       text GENERATED ALWAYS AS (body ->> 'principal') STORED,
    pod             text GENERATED ALWAYS AS (body ->> 'pod') STORED,
    node            text GENERATED ALWAYS AS (body ->> 'node') STORED,
    cluster         text GENERATED ALWAYS AS (body ->> 'cluster') STORED
);

CREATE TABLE tollmesh.models (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest          uuid NOT NULL UNIQUE,
    body            jsonb NOT NULL,
    provider        text GENERATED ALWAYS AS (body ->> 0) STORED,
    api             text GENERATED ALWAYS AS (body ->> 1) STORED,
    host            text GENERATED ALWAYS AS (body ->> 2) STORED,
    model           text GENERATED ALWAYS AS (body ->> 3) STORED,
    model_requested text GENERATED ALWAYS AS (body ->> 4) STORED,
    service_tier    text GENERATED ALWAYS AS (body ->> 5) STORED
);

CREATE TABLE tollmesh.prices (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest          uuid NOT NULL UNIQUE,
    body            jsonb NOT NULL,
    price_row       text GENERATED ALWAYS AS (body ->> 0) STORED,
    pricing_version text GENERATED ALWAYS AS (body ->> 1) STORED
);

-- outcome: 0 success, 1 error, 2 aborted, 3 denied, 4 relayed.
-- usage_source: 0 reported, 1 estimated, 2 absent.
-- cost_status: 0 exact, 1 assumed, 2 unpriced.
-- Amounts are whole pico-dollars. An event of the empty id is no call: it stands in each partition
-- from its making on, and its absence tells that the partition has been emptied since.
CREATE TABLE tollmesh.events (
    time               timestamptz NOT NULL,
    duration_ms        bigint NOT NULL,
    ttft_ms            bigint,
    input              bigint,
    cache_read         bigint,
    cache_write        bigint,
    cache_write_1h     bigint,
    audio_input        bigint,
    cache_read_audio   bigint,
    image_input        bigint,
    output             bigint,
    reasoning          bigint,
    audio_output       bigint,
    image_output       bigint,
    cost_pico          bigint,
    list_cost_pico     bigint,
    provider_cost_pico bigint,
    original_cost_pico bigint,
    response_flags     bigint NOT NULL,
    tag_set            bigint NOT NULL,
    model_id           integer NOT NULL,
    source_id          integer NOT NULL,
    price_id           integer NOT NULL,
    original_price_id  integer,
    ledger             integer NOT NULL,
    revision           integer NOT NULL,
    status             integer,
    outcome            smallint NOT NULL,
    usage_source       smallint NOT NULL,
    cost_status        smallint NOT NULL,
    stream             smallint NOT NULL,
    billable           smallint NOT NULL,
    attempts           bigint NOT NULL,
    tool_calls         bigint,
    event_id           text NOT NULL,
    request_id         text,
    trace_id           text,
    span_id            text,
    response_id        text,
    finish_reason      text,
    unpriced_because   text,
    trouble            text,
    reservation_id     text,
    fingerprint        text,
    estimate_basis     text,
    cost_lines         text,
    units              jsonb,
    billed_usage       jsonb,
    extra_usage        jsonb,
    pricing_context    jsonb,
    PRIMARY KEY (time, event_id)
) PARTITION BY RANGE (time);

-- Sums of the rows by hour (hours since 1970), in the rows' own transactions.
CREATE TABLE tollmesh.hourly (
    hour             bigint NOT NULL,
    tag_set          bigint NOT NULL,
    source_id        integer NOT NULL,
    model_id         integer NOT NULL,
    outcome          smallint NOT NULL,
    usage_source     smallint NOT NULL,
    cost_status      smallint NOT NULL,
    requests         bigint NOT NULL,
    ttft_count       bigint NOT NULL,
    cost_pico        numeric NOT NULL,
    duration_ms      numeric NOT NULL,
    ttft_ms          numeric NOT NULL,
    input            numeric NOT NULL,
    cache_read       numeric NOT NULL,
    cache_write      numeric NOT NULL,
    cache_write_1h   numeric NOT NULL,
    audio_input      numeric NOT NULL,
    cache_read_audio numeric NOT NULL,
    image_input      numeric NOT NULL,
    output           numeric NOT NULL,
    reasoning        numeric NOT NULL,
    audio_output     numeric NOT NULL,
    image_output     numeric NOT NULL,
    stated_requests    bigint NOT NULL,
    provider_cost_pico numeric NOT NULL,
    compared_cost_pico numeric NOT NULL,
    PRIMARY KEY (hour, tag_set, source_id, model_id, outcome, usage_source, cost_status)
) WITH (fillfactor = 70);

-- The calls as people and dashboards read them: words for codes, dollars for pico-dollars.
CREATE VIEW tollmesh.calls AS
SELECT e.time, e.event_id, e.request_id, e.trace_id,
       m.provider, m.api, m.host, coalesce(m.model, m.model_requested) AS model,
       g.body AS tags, s.namespace, s.workload, s.service_account, s.pod, s.cluster,
       (ARRAY['success', 'error', 'aborted', 'denied', 'relayed'])[e.outcome + 1] AS outcome,
       (ARRAY['reported', 'estimated', 'absent'])[e.usage_source + 1] AS usage_source,
       e.status, e.duration_ms, e.ttft_ms,
       e.input, e.cache_read, e.cache_write, e.cache_write_1h, e.audio_input, e.cache_read_audio,
       e.image_input, e.output, e.reasoning, e.audio_output, e.image_output,
       e.cost_pico / 1000000000000::numeric AS cost_usd,
       (ARRAY['exact', 'assumed', 'unpriced'])[e.cost_status + 1] AS cost_status,
       p.price_row, p.pricing_version
FROM tollmesh.events e
JOIN tollmesh.models m ON m.id = e.model_id
JOIN tollmesh.tag_sets g ON g.id = e.tag_set
JOIN tollmesh.sources s ON s.id = e.source_id
JOIN tollmesh.prices p ON p.id = e.price_id
WHERE e.event_id <> '';
