-- Peaks of hours, sums of days by tags and pod, and numbers of counters: see `schema.sql`. No call's
-- cost, time or tokens are more than its hour's sums, which are bounds until the hour's rows are gone.
-- Hours are folded anew, in the background, so that days by tags and pod are of all hours that there are.
CREATE TABLE peaks (
    hour         INTEGER PRIMARY KEY,
    cost_pico    INTEGER NOT NULL,
    cost_row     INTEGER NOT NULL,
    duration_ms  INTEGER NOT NULL,
    duration_row INTEGER NOT NULL,
    tokens       INTEGER NOT NULL,
    tokens_row   INTEGER NOT NULL
) STRICT;
INSERT INTO peaks
    SELECT hour,
           max(CASE typeof(cost_pico) WHEN 'integer' THEN cost_pico
               ELSE 9223372036854775807 END), 9223372036854775807,
           max(CASE typeof(duration_ms) WHEN 'integer' THEN duration_ms
               ELSE 9223372036854775807 END), 9223372036854775807,
           max(CASE typeof(tokens) WHEN 'integer' THEN tokens
               ELSE 9223372036854775807 END), 9223372036854775807
    FROM (SELECT hour, cost_pico, duration_ms,
                 input + cache_read + cache_write + cache_write_1h + audio_input + cache_read_audio
                     + image_input + output + reasoning + audio_output + image_output AS tokens
          FROM hourly) sums
    WHERE EXISTS (SELECT 1 FROM events e
                  WHERE e.time_ms >= sums.hour * 3600000 AND e.time_ms < (sums.hour + 1) * 3600000)
    GROUP BY hour;
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
DELETE FROM daily;
DELETE FROM monthly;
DELETE FROM daily_sources;
DELETE FROM meta WHERE key IN ('folded_hour', 'folded_tag_set');
ALTER TABLE metric_totals RENAME TO former_totals;
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
INSERT INTO metric_series (metric, series)
    SELECT metric, series FROM former_totals ORDER BY metric, series;
INSERT INTO metric_totals
    SELECT s.id, f.value FROM metric_series s JOIN former_totals f USING (metric, series);
DROP TABLE former_totals;
