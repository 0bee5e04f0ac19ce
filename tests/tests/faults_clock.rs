//! The machine's clock set forward, set back, and past both changes of the clocks in Europe: every
//! call is counted once, in the hour in which its filter saw it, at its own price.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::{Books, Mesh, http};

/// Calls at each time.
const N_CALLS: usize = 6;
/// How far a time may be from the one that was set: what the calls take, generously.
const SPREAD_S: i64 = 120;

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;

/// 2026-03-29T01:00:00Z, when clocks in the European Union go forward, and 2026-10-25T01:00:00Z,
/// when they go back (Directive 2000/84/EC, articles 2 and 3).
const FORWARD_S: i64 = 1_774_746_000;
const BACK_S: i64 = 1_792_890_000;

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs().cast_signed()
}

/// Sets the clock of Envoy and aggregator to that second.
fn set_clock(mesh: &Mesh, to_s: i64) {
    mesh.faults().set_clock_off((to_s - now_s()) * 1_000);
}

/// Rows by hours of the epoch, as the hourly sums have them.
fn hours(mesh: &Mesh) -> Vec<(String, u64)> {
    let path = "/api/v1/spend?by=outcome&interval=1h";
    let reply = mesh.runtime().block_on(http::get(mesh.operator(), path));
    let reply = reply.and_then(|reply| reply.json()).expect("an answer");
    let items = reply["items"].as_array().cloned().unwrap_or_default();
    let hour = |item: &Value| {
        Some((
            item["start"].as_str()?.to_string(),
            item["requests"].as_u64()?,
        ))
    };
    items.iter().filter_map(hour).collect()
}

#[test]
fn a_clock_that_jumps_moves_no_call_and_no_cent() {
    let Some(mesh) = Mesh::built().with_faults().start() else {
        return;
    };
    let books = Books::default();
    let today_s = now_s();
    let times = [
        FORWARD_S - SPREAD_S,
        FORWARD_S + 1,
        BACK_S - HOUR_S - SPREAD_S,
        BACK_S - SPREAD_S,
        BACK_S + 1,
        BACK_S + HOUR_S + 1,
        today_s,
        today_s + 30 * DAY_S,
        today_s - HOUR_S,
    ];
    for (n, time_s) in times.into_iter().enumerate() {
        set_clock(&mesh, time_s);
        books.call(&mesh, N_CALLS);
        books.are_kept_by(&mesh);
        let rows = mesh.ledger().rows().expect("the ledger answers");
        let near = rows.iter().filter(|row| {
            let seen_s = row.text("time").and_then(epoch_seconds).expect("a time");
            (time_s..time_s + SPREAD_S).contains(&seen_s)
        });
        assert!(
            near.count() >= N_CALLS,
            "calls of step {n} are at other times"
        );
    }
    let hours = hours(&mesh);
    let at = |hour: &str| {
        hours
            .iter()
            .find(|(start, _)| start == hour)
            .map(|(_, n)| *n)
    };
    let n_calls = Some(N_CALLS as u64);
    // Neither is an hour missing where people's clocks jump, nor are two taken for one.
    for hour in [
        "2026-03-29T00:00:00.000Z",
        "2026-03-29T01:00:00.000Z",
        "2026-10-24T23:00:00.000Z",
        "2026-10-25T00:00:00.000Z",
        "2026-10-25T01:00:00.000Z",
        "2026-10-25T02:00:00.000Z",
    ] {
        assert_eq!(at(hour), n_calls, "{hour} in {hours:?}");
    }
    let in_all: u64 = hours.iter().map(|(_, n)| n).sum();
    assert_eq!(in_all, books.len() as u64);
}

#[test]
fn a_clock_set_back_while_the_aggregator_is_away_delays_no_event() {
    let Some(mesh) = Mesh::built().with_faults().start() else {
        return;
    };
    let books = Books::default();
    books.call(&mesh, N_CALLS);
    books.are_kept_by(&mesh);
    mesh.aggregator().kill();
    books.call(&mesh, N_CALLS);
    eventually("filters wait to send again", || {
        match mesh.counted("batches_resent") {
            0..3 => Err("they do not yet".to_string()),
            n => Ok(n),
        }
    });
    mesh.faults().set_clock_off(-30 * DAY_S * 1_000);
    mesh.aggregator().restart().expect("it starts again");
    books.are_kept_by(&mesh);
}

#[test]
fn a_call_over_which_the_clock_jumps_is_counted_as_it_was() {
    let Some(mesh) = Mesh::built().with_faults().start() else {
        return;
    };
    let books = Books::default();
    for off_s in [30 * DAY_S, -HOUR_S, 0] {
        let client = mesh.client("red");
        std::thread::scope(|scope| {
            let calls = scope.spawn(|| (0..40).for_each(|_| books.call_from(&client)));
            while !calls.is_finished() {
                mesh.faults().set_clock_off(off_s * 1_000);
                std::thread::yield_now();
                mesh.faults().set_clock_off(0);
            }
        });
        books.are_kept_by(&mesh);
        for row in mesh.ledger().rows().expect("the ledger answers") {
            let took_ms = row.0["duration_ms"].as_u64().expect("a duration");
            assert!(took_ms < 60_000, "{took_ms} ms: {}", row.0);
        }
    }
    mesh.has_not_trapped();
}

/// The seconds of an RFC 3339 time in UTC, by the days of civil calendars.
fn epoch_seconds(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    let is_leap = leaps(year) > leaps(year - 1);
    let february = 28 + i64::from(is_leap);
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let months: i64 = lengths.iter().take(month as usize - 1).sum();
    let days = (year - 1970) * 365 + leaps(year - 1) - leaps(1969) + months + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}
