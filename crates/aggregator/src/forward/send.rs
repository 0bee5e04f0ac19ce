//! The statements that put a parcel's rows into the store, each row once, and its sums with it.

use tollmesh_usage::Bucket;

use crate::ledger::codes::{DENIED, RELAYED};
use crate::ledger::outbox::{self, is_text};

/// Columns of JSON, which the store keeps in a form of its own.
const JSON: &[&str] = &[
    "units",
    "billed_usage",
    "extra_usage",
    "pricing_context",
    "missing_tags",
];

/// What hourly sums are grouped by, after the hour.
const GROUPS: &str = "tag_set, source_id, model_id, outcome, usage_source, cost_status";

/// An instant of milliseconds since 1970.
const TIME: &str = "timestamptz 'epoch' + g.time_ms * interval '1 millisecond'";

/// Hours since 1970, of a row of `events`.
const HOUR: &str = "floor(extract(epoch FROM time) / 3600)::bigint";

/// The names of a parcel's columns, in the order of the statement's arrays.
pub fn given() -> impl Iterator<Item = &'static str> {
    std::iter::once("revision").chain(outbox::columns())
}

/// Adds rows that are not there, adds them to the hourly sums, and notes how far the ledger has come:
/// `$1` is the ledger's number, `$2` its last row, `$3` the parcel's number, the others are arrays,
/// one for each of [`given`]. Answers how many rows were new, and whether the ledger is known.
pub fn insert_sql() -> String {
    let names: Vec<&str> = given().collect();
    let places: Vec<String> = (4..)
        .zip(&names)
        .map(|(n, name)| format!("${n}::{}[]", if is_text(name) { "text" } else { "bigint" }))
        .collect();
    let columns: Vec<&str> = names
        .iter()
        .map(|name| if *name == "time_ms" { "time" } else { name })
        .collect();
    let values: Vec<String> = names
        .iter()
        .map(|name| match *name {
            "time_ms" => TIME.to_owned(),
            name if JSON.contains(&name) => format!("g.{name}::jsonb"),
            name => format!("g.{name}"),
        })
        .collect();
    format!(
        "WITH given AS (SELECT * FROM unnest({places}) AS g({names})),
         written AS (
             INSERT INTO tollmesh.events (ledger, {columns})
             SELECT $1::integer, {values} FROM given g
             ON CONFLICT (time, event_id) DO NOTHING
             RETURNING *),
         summed AS ({sums}),
         noted AS (
             UPDATE tollmesh.ledgers
             SET forwarded_row = greatest(forwarded_row, $2::bigint), last_parcel = $3::bigint,
                 seen = now()
             WHERE n = $1 RETURNING 1)
         SELECT (SELECT count(*) FROM written), EXISTS (SELECT 1 FROM noted)",
        places = places.join(", "),
        names = names.join(", "),
        columns = columns.join(", "),
        values = values.join(", "),
        sums = add_sums("written", ""),
    )
}

/// Writes outcomes: of a subject the last word holds, whoever brings it. `$1` are kinds, `$2` subjects,
/// `$3` labels, `$4` times in milliseconds; no subject is there twice. In the key's order, as sums
/// are.
pub fn outcomes_sql() -> String {
    format!(
        "INSERT INTO tollmesh.outcomes AS o (subject_kind, subject, label, told)
         SELECT g.subject_kind, g.subject, g.label, {TIME}
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[])
             AS g(subject_kind, subject, label, time_ms)
         ORDER BY 1, 2
         ON CONFLICT (subject_kind, subject) DO UPDATE
         SET label = excluded.label, told = excluded.told WHERE o.told <= excluded.told"
    )
}

/// Takes former states of rows away, out of the sums too: `$1` are times in milliseconds, `$2` event
/// ids, `$3` revisions. A state that is not former stays.
pub fn withdraw_sql() -> String {
    format!(
        "WITH given AS (
             SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[])
                 AS g(time_ms, event_id, revision)),
         former AS (
             DELETE FROM tollmesh.events e USING given g
             WHERE e.time = {TIME} AND e.event_id = g.event_id AND e.revision < g.revision
             RETURNING e.*)
         {}",
        add_sums("former", "-")
    )
}

/// Adds the sums of those rows, or with a minus takes them away. In the key's order, so that two who
/// touch the same sums wait for each other instead of for ever.
fn add_sums(rows: &str, sign: &str) -> String {
    let is_stated = format!(
        "provider_cost_pico IS NOT NULL AND billable <> 0 AND outcome NOT IN ({DENIED}, {RELAYED})"
    );
    let plain = ["cost_pico", "duration_ms", "ttft_ms"]
        .into_iter()
        .chain(Bucket::ALL.map(Bucket::name))
        .map(|name| (name, format!("coalesce(sum({name}), 0)")));
    let filtered = |sum: &str| format!("coalesce({sum} FILTER (WHERE {is_stated}), 0)");
    let sums: Vec<(&str, String)> = [
        ("requests", "count(*)".to_owned()),
        ("ttft_count", "count(ttft_ms)".to_owned()),
        ("stated_requests", filtered("count(*)")),
        ("provider_cost_pico", filtered("sum(provider_cost_pico)")),
        ("compared_cost_pico", filtered("sum(cost_pico)")),
    ]
    .into_iter()
    .chain(plain)
    .collect();
    let each = |write: &dyn Fn(&str, &str) -> String| {
        let written: Vec<String> = sums.iter().map(|(name, sum)| write(name, sum)).collect();
        written.join(", ")
    };
    format!(
        "INSERT INTO tollmesh.hourly AS h (hour, {GROUPS}, {names})
         SELECT {HOUR}, {GROUPS}, {sums}
         FROM {rows} GROUP BY 1, {GROUPS} ORDER BY 1, {GROUPS}
         ON CONFLICT (hour, {GROUPS}) DO UPDATE SET {adds}",
        names = each(&|name, _| name.to_owned()),
        sums = each(&|_, sum| format!("{sign}{sum}")),
        adds = each(&|name, _| format!("{name} = h.{name} + excluded.{name}")),
    )
}
