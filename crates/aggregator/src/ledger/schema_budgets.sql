-- The budgets whose spend every row adds to in its own transaction.
CREATE TABLE budgets (
    id TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- What calls charged to a budget, for one key in one window. amount: pico-dollars, tokens or
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
