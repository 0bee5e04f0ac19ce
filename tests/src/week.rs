//! Events of a week that never was: four teams, some features and models, days and nights.
//!
//! The same at every run but for the clock they end at, so that pictures and figures can be compared.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::http;

const HOUR_MS: i64 = 3_600_000;

/// The hours that are told of: two weeks, so that a week has one before it.
const HOURS: i64 = 14 * 24;

/// Events in one batch.
const BATCH: usize = 500;

/// Team, feature, cost center, provider, API, host and model; how many calls an hour by day; tokens in
/// and out.
type Habit = (
    &'static str,
    &'static str,
    &'static str,
    [&'static str; 4],
    u64,
    u64,
    u64,
);

const OPENAI: [&str; 3] = ["openai", "openai.chat", "api.openai.com"];
const ANTHROPIC: [&str; 3] = ["anthropic", "anthropic.messages", "api.anthropic.com"];
const GEMINI: [&str; 3] = [
    "google",
    "gemini.generate",
    "generativelanguage.googleapis.com",
];

const HABITS: &[Habit] = &[
    (
        "support",
        "triage",
        "cc-100",
        of(ANTHROPIC, "claude-sonnet-4-5"),
        6,
        9_000,
        500,
    ),
    (
        "support",
        "answers",
        "cc-100",
        of(OPENAI, "gpt-4o"),
        4,
        5_200,
        420,
    ),
    (
        "search",
        "rerank",
        "cc-200",
        of(GEMINI, "gemini-2.5-flash"),
        9,
        3_000,
        120,
    ),
    (
        "search",
        "summaries",
        "cc-200",
        of(OPENAI, "gpt-5-mini"),
        5,
        12_000,
        900,
    ),
    (
        "checkout",
        "fraud-notes",
        "cc-300",
        of(OPENAI, "gpt-4o-mini"),
        4,
        2_400,
        260,
    ),
    (
        "platform",
        "code-review",
        "cc-400",
        of(ANTHROPIC, "claude-sonnet-4-5"),
        2,
        24_000,
        2_100,
    ),
];

const fn of(api: [&'static str; 3], model: &'static str) -> [&'static str; 4] {
    [api[0], api[1], api[2], model]
}

/// The events up to that instant, the earliest first.
pub fn events(now_ms: i64) -> Vec<Value> {
    let last_hour = now_ms / HOUR_MS;
    let hours = last_hour - HOURS..=last_hour;
    let events = hours.flat_map(|hour| (0..HABITS.len()).flat_map(move |n| of_hour(hour, n)));
    events
        .filter(|event| event["time_ms"].as_i64() < Some(now_ms))
        .map(timed)
        .collect()
}

fn of_hour(hour: i64, habit: usize) -> impl Iterator<Item = Value> {
    let calls = HABITS[habit].4;
    let by_day = (7..20).contains(&hour.rem_euclid(24));
    let seed = hash(hour.unsigned_abs() * 31 + habit as u64);
    let n = if by_day {
        calls / 2 + seed % (calls + 1)
    } else {
        seed % 2
    };
    (0..n).map(move |i| event(hour, habit, i))
}

fn event(hour: i64, habit: usize, i: u64) -> Value {
    let (team, feature, cost_center, [provider, api, host, model], _, tokens_in, tokens_out) =
        HABITS[habit];
    let id = format!("{hour:x}-{habit}-{i}");
    let seed = hash(hour.unsigned_abs() * 7_919 + habit as u64 * 104_729 + i);
    // Now and then a context that grew far beyond the others.
    let times = if seed.is_multiple_of(97) { 9 } else { 1 };
    let input = times * (tokens_in / 2 + seed % tokens_in);
    let cached = if feature == "rerank" {
        0
    } else {
        input * (seed % 70) / 100
    };
    let user = format!("user-{}", seed % 40);
    let session = format!(
        "session-{:x}",
        hash(hour.unsigned_abs() / 3 * 40 + seed % 40) % 65_536
    );
    let mut tags = json!({
        "team": team, "feature": feature, "cost_center": cost_center, "user": user,
        "environment": if seed.is_multiple_of(6) { "staging" } else { "production" },
        "session_id": session,
    });
    if seed.is_multiple_of(23)
        && let Some(tags) = tags.as_object_mut()
    {
        tags.remove("team");
    }
    json!({
        "event_id": id,
        "request_id": format!("request-{id}"),
        "trace_id": format!("{:032x}", hash(seed / 3)),
        "time_ms": hour * HOUR_MS + (seed % 3_600_000) as i64,
        "duration_ms": 700 + seed % 9_000,
        "ttft_ms": 180 + seed % 700,
        "provider": provider, "api": api, "host": host,
        "model_requested": model,
        "model": if seed.is_multiple_of(61) { "unheard-of-1" } else { model },
        "stream": true,
        "usage": { "input": input - cached, "cache_read": cached,
                   "output": tokens_out / 2 + seed % tokens_out },
        "usage_source": if seed.is_multiple_of(41) { "estimated" } else { "reported" },
        "billable": true,
        "status": 200,
        "outcome": "success",
        "attempts": 1 + u64::from(seed.is_multiple_of(29)),
        "tool_calls": seed % 4,
        "tags": tags,
        "source": { "namespace": team, "workload": feature, "service_account": format!("{team}-{feature}") },
        "finish_reason": "stop"
    })
}

/// The instant as events have it.
fn timed(mut event: Value) -> Value {
    let ms = event["time_ms"].as_i64().unwrap_or_default();
    if let Some(fields) = event.as_object_mut() {
        fields.remove("time_ms");
        fields.insert("time".into(), json!(instant(ms)));
    }
    event
}

/// RFC 3339 in UTC, by the civil calendar (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`).
pub fn instant(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (
        of_day / 3_600_000,
        of_day / 60_000 % 60,
        of_day / 1_000 % 60,
    );
    format!(
        "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z",
        of_day % 1_000
    )
}

/// Sends events as a filter does, and has each taken.
pub async fn send(ingest: SocketAddr, events: &[Value]) -> anyhow::Result<()> {
    for batch in events.chunks(BATCH) {
        let message = json!({ "v": 1, "node": { "id": "made-up" }, "events": batch });
        let reply = http::post(ingest, "/v1/events", message.to_string().into()).await?;
        let answer = reply.json().context("the aggregator's answer")?;
        ensure!(
            answer["accepted"] == batch.len(),
            "not all were taken: {answer}"
        );
    }
    Ok(())
}

fn hash(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (n ^ (n >> 31)) >> 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_123, "2000-02-29T00:00:00.123Z"),
            (1_795_320_000_000, "2026-11-22T04:00:00.000Z"),
            (1_798_761_599_999, "2026-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(instant(ms), text);
        }
    }
}
