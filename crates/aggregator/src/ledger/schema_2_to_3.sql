ALTER TABLE events ADD COLUMN estimate_basis TEXT;
ALTER TABLE events ADD COLUMN original_cost_pico INTEGER;
ALTER TABLE events ADD COLUMN original_price_id INTEGER REFERENCES prices (id);

CREATE INDEX events_estimated ON events (response_id)
    WHERE usage_source = 1 AND response_id IS NOT NULL;

ALTER TABLE hourly ADD COLUMN stated_requests INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hourly ADD COLUMN provider_cost_pico ANY NOT NULL DEFAULT 0;
ALTER TABLE hourly ADD COLUMN compared_cost_pico ANY NOT NULL DEFAULT 0;

-- Hours whose rows were deleted before keep none of these sums. What the literals stand for is said
-- above the table `events` in schema.sql: outcomes denied and relayed, status unpriced.
UPDATE hourly SET stated_requests    = rows.stated,
                  provider_cost_pico = rows.provider,
                  compared_cost_pico = rows.compared
FROM (SELECT time_ms / 3600000 AS hour, tag_set, source_id, model_id, outcome, usage_source,
             cost_status, count(*) AS stated, sum128(provider_cost_pico) AS provider,
             sum128(CASE WHEN cost_status <> 2 THEN cost_pico END) AS compared
      FROM events
      WHERE provider_cost_pico IS NOT NULL AND billable AND outcome NOT IN (3, 4)
      GROUP BY 1, 2, 3, 4, 5, 6, 7) AS rows
WHERE hourly.hour = rows.hour AND hourly.tag_set = rows.tag_set
  AND hourly.source_id = rows.source_id AND hourly.model_id = rows.model_id
  AND hourly.outcome = rows.outcome AND hourly.usage_source = rows.usage_source
  AND hourly.cost_status = rows.cost_status;
