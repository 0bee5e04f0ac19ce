-- Version 2: tags that calls lacked, and outcomes. Columns and codes are those of a sidecar's ledger.
-- A parcel's number is its own, so that a store which says another than the sidecar remembers is
-- known for one that was restored, or has taken a parcel of which the answer was lost.

ALTER TABLE tollmesh.events ADD COLUMN missing_tags jsonb;

ALTER TABLE tollmesh.ledgers RENAME COLUMN parcels TO last_parcel;

-- What became of calls. subject_kind: 0 event id, 1 request id, 2 trace id; the first of them that is
-- told speaks for a call, whichever sidecar was told.
CREATE TABLE tollmesh.outcomes (
    told         timestamptz NOT NULL,
    subject_kind smallint NOT NULL,
    subject      text NOT NULL,
    label        text NOT NULL,
    PRIMARY KEY (subject_kind, subject)
);
CREATE INDEX outcomes_by_time ON tollmesh.outcomes (told);

CREATE OR REPLACE VIEW tollmesh.calls AS
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
       p.price_row, p.pricing_version,
       coalesce((SELECT o.label FROM tollmesh.outcomes o
                 WHERE o.subject_kind = 0 AND o.subject = e.event_id),
                (SELECT o.label FROM tollmesh.outcomes o
                 WHERE o.subject_kind = 1 AND o.subject = e.request_id),
                (SELECT o.label FROM tollmesh.outcomes o
                 WHERE o.subject_kind = 2 AND o.subject = e.trace_id)) AS outcome_label
FROM tollmesh.events e
JOIN tollmesh.models m ON m.id = e.model_id
JOIN tollmesh.tag_sets g ON g.id = e.tag_set
JOIN tollmesh.sources s ON s.id = e.source_id
JOIN tollmesh.prices p ON p.id = e.price_id
WHERE e.event_id <> '';
