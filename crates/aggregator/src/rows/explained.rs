//! Why calls were refused or changed.

use serde_json::{Map, Value, json};
use tollmesh_wire::Timestamp;

use super::Rows;
use crate::ledger::budgets::Denial;

/// What is told of each.
pub const EXPLAINED_COLUMNS: &[&str] = &[
    "time",
    "event_id",
    "request_id",
    "budget",
    "key",
    "do",
    "reason",
    "observed",
    "tier",
    "spent",
    "reserved",
    "asked",
    "limit",
    "unit",
    "window",
    "window_start",
    "window_end",
    "summary",
    "remedy",
];

/// A row for each time that a budget or guard did something.
pub fn explained(denials: &[Denial]) -> Rows {
    Rows {
        columns: EXPLAINED_COLUMNS.iter().map(ToString::to_string).collect(),
        items: denials.iter().map(item).collect(),
        next_cursor: None,
    }
}

fn item(denial: &Denial) -> Map<String, Value> {
    let facts: Map<String, Value> = serde_json::from_str(&denial.body).unwrap_or_default();
    let instant = |name: &str| {
        let ms = facts.get(name).and_then(Value::as_i64);
        ms.map(|ms| Timestamp::from_unix_ms(ms).to_string())
    };
    let mut item = Map::new();
    item.insert(
        "time".into(),
        json!(Timestamp::from_unix_ms(denial.time_ms)),
    );
    item.insert("event_id".into(), json!(denial.event_id));
    item.insert("request_id".into(), json!(denial.request_id));
    item.insert("budget".into(), json!(denial.budget));
    item.insert("window_start".into(), json!(instant("start_ms")));
    item.insert("window_end".into(), json!(instant("end_ms")));
    item.insert("summary".into(), json!(summary(denial, &facts)));
    item.insert(
        "remedy".into(),
        json!(remedy(denial, &facts, instant("end_ms"))),
    );
    for (name, value) in &facts {
        if !["start_ms", "end_ms"].contains(&name.as_str()) {
            item.insert(name.clone(), value.clone());
        }
    }
    item
}

fn text<'f>(facts: &'f Map<String, Value>, name: &str) -> &'f str {
    facts.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// What happened, in one sentence.
fn summary(denial: &Denial, facts: &Map<String, Value>) -> String {
    let key = facts.get("key").and_then(Value::as_object);
    let pairs = key.into_iter().flatten();
    let pairs = pairs.map(|(name, value)| format!("{name} = {}", value.as_str().unwrap_or("")));
    let key = match pairs.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => none,
        pairs => format!(" ({pairs})"),
    };
    let is_observed = facts.get("observed").and_then(Value::as_bool) == Some(true);
    let (reason, action) = (text(facts, "reason"), text(facts, "do"));
    let did = match (is_observed, reason) {
        (false, "") => format!("changed: {action}"),
        (false, reason) => format!("refused: {reason}"),
        (true, "") => format!("let pass; it would have been changed: {action}"),
        (true, reason) => format!("let pass; it would have been refused: {reason}"),
    };
    let name = &denial.budget;
    let found = text(facts, "found");
    if !found.is_empty() {
        let bound = text(facts, "limit");
        return format!("{did}, by guard {name}{key}: {found}, over {bound}");
    }
    let (spent, limit, unit) = (
        text(facts, "spent"),
        text(facts, "limit"),
        text(facts, "unit"),
    );
    if limit.is_empty() {
        return format!("{did}, by {name}{key}");
    }
    let window = text(facts, "window");
    let mut summary =
        format!("{did}, by budget {name}{key}: {spent} of {limit} {unit} per {window}");
    for (name, what) in [
        ("reserved", "held by calls in flight"),
        ("asked", "asked for this call"),
    ] {
        let amount = text(facts, name);
        if !amount.is_empty() && amount != "0" {
            summary.push_str(&format!(", {amount} {what}"));
        }
    }
    let tier = text(facts, "tier");
    if !tier.is_empty() {
        summary.push_str(&format!(", tier {tier}"));
    }
    summary
}

/// What can be done about it.
fn remedy(denial: &Denial, facts: &Map<String, Value>, end: Option<String>) -> String {
    let name = &denial.budget;
    let until = end.map_or(String::new(), |end| format!("wait until {end}, or "));
    match text(facts, "reason") {
        "budget_exceeded" => format!(
            "{until}raise the limit for a while (tollmesh budgets override {name} --limit … --until … \
             --reason …), or ask for fewer output tokens"
        ),
        "budget_rebuilding" => "the store of budgets has lost its data and is being rebuilt; \
             GET /api/v1/budgets says from when on it grants again (granting_from)"
            .to_owned(),
        "budget_unverifiable" => "the store of budgets did not answer; /readyz says why, and \
             on_unavailable says what happens meanwhile"
            .to_owned(),
        "throttled" => {
            "call less often; the budget's tier lets only so many calls a second pass".to_owned()
        }
        "shed" => format!("{until}tag what must pass with priority = critical"),
        "guard_input" => "send less, or raise the guard's max_input_tokens".to_owned(),
        "guard_cost" => "ask for fewer output tokens or a cheaper model, begin another trace or \
             session, or raise the guard's bound"
            .to_owned(),
        "guard_rate" => "call less often, or raise the guard's max_requests_per_minute".to_owned(),
        "guard_loop" => "find out why the app sends the same request again and again".to_owned(),
        "" => format!("{until}raise the limit, or the tier's share"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained_as(body: Value) -> (String, String) {
        let denial = Denial {
            time_ms: 1_800_000_000_000,
            event_id: "e".into(),
            request_id: Some("r".into()),
            budget: "eng".into(),
            body: body.to_string(),
        };
        let rows = explained(&[denial]);
        let cell = |name: &str| rows.items[0][name].as_str().unwrap().to_owned();
        (cell("summary"), cell("remedy"))
    }

    #[test]
    fn each_reason_has_its_words() {
        let (summary, remedy) = explained_as(json!({
            "do": "deny", "reason": "budget_exceeded", "observed": false, "tier": "100%",
            "key": { "user": "ann" }, "unit": "USD", "limit": "200", "window": "day",
            "start_ms": 1_799_971_200_000_i64, "end_ms": 1_800_057_600_000_i64,
            "spent": "199.8", "reserved": "0.1", "asked": "0.5",
        }));
        assert_eq!(
            summary,
            "refused: budget_exceeded, by budget eng (user = ann): 199.8 of 200 USD per day, 0.1 \
             held by calls in flight, 0.5 asked for this call, tier 100%"
        );
        assert!(
            remedy.starts_with("wait until 2027-01-16T00:00:00.000Z, or raise"),
            "{remedy}"
        );
        let (summary, _) = explained_as(json!({
            "do": "downgrade", "reason": null, "observed": true, "key": {}, "unit": "USD",
            "limit": "2", "window": "day", "spent": "1.9", "reserved": "0", "asked": null,
        }));
        assert_eq!(
            summary,
            "let pass; it would have been changed: downgrade, by budget eng: 1.9 of 2 USD per day"
        );
        let (summary, _) = explained_as(json!({
            "do": "deny", "reason": "guard_rate", "observed": false,
            "found": "61 requests within a minute", "limit": "60 requests a minute per trace_id",
        }));
        assert_eq!(
            summary,
            "refused: guard_rate, by guard eng: 61 requests within a minute, over 60 requests a \
             minute per trace_id"
        );
    }
}
