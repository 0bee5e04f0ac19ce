-- Indices of budgets' spend and of what is charged otherwise than its sums say: see `schema.sql`. Parts
-- of rolling windows that were made from rows ended with themselves, and count 95 more of their length;
-- none is longer than 7.75 hours. Windows of an hour are kept some days for it.
UPDATE budget_spend SET end_ms = window_ms + 96 * (end_ms - window_ms)
    WHERE end_ms - window_ms <= 27900000;
CREATE INDEX budget_spend_by_end ON budget_spend (end_ms);
CREATE INDEX events_unpriced ON events (time_ms) WHERE cost_pico IS NULL;
CREATE INDEX events_with_extra ON events (time_ms) WHERE extra_usage IS NOT NULL;
