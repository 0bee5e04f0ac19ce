//! One ledger for the cluster: what sidecars forward to a real PostgreSQL is what they hold, whatever
//! happens to either side on the way.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tollmesh_tests::aggregator::Aggregator;
use tollmesh_tests::envoy_config::Ingest;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::fault::Faults;
use tollmesh_tests::postgres::{Postgres, Setup};
use tollmesh_tests::{Books, Mesh, artifacts, http};

/// Sums that must agree; means and identities of intervals are no sums.
const REPORT: &[&str] = &["report", "--by", "team,model,namespace", "--format", "csv"];

/// A server, and sidecars that forward to it.
struct Cluster {
    sidecars: Vec<Sidecar>,
    server: Postgres,
    runtime: Runtime,
}

/// An aggregator in a folder of its own.
struct Sidecar {
    aggregator: Aggregator,
    name: String,
    n_sent: u64,
    dir: TempDir,
}

impl Cluster {
    /// So many sidecars that visit the server every so often; all start at once.
    fn start(n_sidecars: usize, interval: &str) -> Option<Cluster> {
        Cluster::start_with(n_sidecars, interval, "")
    }

    /// The same with more of a configuration, of the operator's side.
    fn start_with(n_sidecars: usize, interval: &str, operator: &str) -> Option<Cluster> {
        let runtime = Runtime::new().expect("a runtime");
        let server = Postgres::start(runtime.handle())?;
        let tollmesh = binary()?;
        let mut cluster = Cluster {
            sidecars: Vec::new(),
            server,
            runtime,
        };
        let section = format!(
            "{operator}[postgres]\nurl = \"{}\"\ninterval = \"{interval}\"\n",
            cluster.server.url()
        );
        for n in 0..n_sidecars {
            cluster.add(&tollmesh, n, &section);
        }
        Some(cluster)
    }

    fn add(&mut self, tollmesh: &Path, n: usize, section: &str) {
        let dir = tempfile::tempdir().expect("a folder");
        let runtime = self.runtime.handle();
        let aggregator = Aggregator::start(tollmesh, dir.path(), false, section, runtime);
        self.sidecars.push(Sidecar {
            aggregator: aggregator.expect("it starts"),
            name: format!("s{n}"),
            n_sent: 0,
            dir,
        });
    }

    /// Each sidecar takes so many more events.
    fn send(&mut self, n_events: u64) {
        for sidecar in &mut self.sidecars {
            let first = sidecar.n_sent;
            sidecar.n_sent += n_events;
            let events = (first..sidecar.n_sent).map(|n| event(&sidecar.name, n));
            let events: Vec<Value> = events.collect();
            sidecar.post(&self.runtime, &events);
        }
    }

    /// The report of the shared ledger.
    fn shared(&self, arguments: &[&str]) -> Result<String, String> {
        let url = self.server.url();
        let store = [arguments, &["--store", &url]].concat();
        self.sidecars[0].ask(&store)
    }

    /// Waits until the shared ledger says what the sidecars' ledgers together say, row for row.
    #[track_caller]
    fn agrees(&self) {
        let mut want: Vec<String> = Vec::new();
        for sidecar in &self.sidecars {
            // A namespace is one sidecar's alone, so the reports' lines together are the sum.
            let report = sidecar.ask(REPORT).expect("a report");
            want.extend(report.lines().skip(1).map(str::to_owned));
        }
        want.sort();
        assert!(!want.is_empty(), "nothing to compare");
        eventually("the shared ledger agrees", || {
            let report = self.shared(REPORT)?;
            let mut got: Vec<String> = report.lines().skip(1).map(str::to_owned).collect();
            got.sort();
            if got == want {
                return Ok(());
            }
            let differing = want.iter().find(|line| !got.contains(line));
            Err(format!(
                "{} lines instead of {}, such as without {differing:?}",
                got.len(),
                want.len()
            ))
        });
        // The sums above are kept by the hour; these are of the rows.
        let n_want: u64 = self.sidecars.iter().map(|sidecar| sidecar.n_sent).sum();
        let n_rows = "SELECT count(*) FROM tollmesh.calls";
        assert_eq!(
            self.server.ask(n_rows).expect("a count"),
            n_want.to_string()
        );
        let drift =
            "SELECT coalesce(sum(cost_pico), 0) - (SELECT sum(cost_pico) FROM tollmesh.hourly)
                     FROM tollmesh.events";
        assert_eq!(self.server.ask(drift).expect("a sum"), "0");
    }
}

impl Sidecar {
    fn post(&self, runtime: &Runtime, events: &[Value]) {
        let Ingest::Tcp(address) = *self.aggregator.ingest() else {
            panic!("it listens on TCP")
        };
        let batch = json!({
            "v": 1, "node": { "id": "n", "cluster": "c", "vm": self.name }, "events": events
        });
        let body = batch.to_string().into();
        let reply = runtime.block_on(http::post(address, "/v1/events", body));
        let reply = reply.expect("an answer").json().expect("JSON");
        assert_eq!(reply["rejected"], json!([]), "{reply}");
    }

    /// What a command prints.
    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.aggregator.command(arguments);
        let output = output.map_err(|error| format!("{error:#}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// `/readyz`, in full.
    fn readiness(&self, runtime: &Runtime) -> Value {
        let reply = runtime.block_on(http::get(self.aggregator.operator(), "/readyz"));
        reply.expect("an answer").json().expect("JSON")
    }

    fn metric(&self, name: &str) -> f64 {
        self.aggregator.metrics().expect("a scrape").sum(name, &[])
    }

    fn log(&self) -> String {
        let path: PathBuf = self.dir.path().join("tollmesh.log");
        std::fs::read_to_string(path).expect("a log")
    }
}

fn binary() -> Option<PathBuf> {
    match artifacts::tollmesh() {
        Ok(path) => Some(path),
        Err(missing) => {
            artifacts::skip(&missing);
            None
        }
    }
}

/// Today's noon in milliseconds, or a little before now where it is not noon yet: partitions are made
/// for the months around today.
fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("a clock after 1970").as_millis() as u64 - 3_600_000
}

/// An instant as the wire writes it.
fn rfc3339(ms: u64) -> String {
    let days = ms / 86_400_000;
    // Civil from days, by the calendar of 400 years (146,097 days) that begins in March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (ms / 3_600_000 % 24, ms / 60_000 % 60, ms / 1_000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z",
        ms % 1_000
    )
}

/// The n-th event of a sidecar: no two use the same, tags recur, and some text is hostile.
fn event(sidecar: &str, n: u64) -> Value {
    let model = ["gpt-4o", "gpt-4o-mini", "no-such-model"][(n % 3) as usize];
    json!({
        "event_id": format!("{sidecar}-{n}"), "time": rfc3339(now_ms() + n), "request_id": format!("r{n}"),
        "provider": "openai", "api": "openai.chat", "host": "api.openai.com",
        "model": model, "model_requested": model, "response_id": format!("c-{sidecar}-{n}"),
        "stream": n.is_multiple_of(2), "status": 200, "outcome": "success", "billable": true,
        "usage": { "input": 100 + n, "cache_read": n % 7, "output": 10 + n % 90, "web_searches": n % 2 },
        "usage_source": "reported", "attempts": 1, "duration_ms": 800 + n, "ttft_ms": 200,
        "finish_reason": "st\u{0}op", "missing_tags": ["cost_center"],
        "tags": { "team": format!("t{}", n % 5), "odd": "quote\" back\\slash \u{0} \u{1f600}" },
        "source": { "namespace": sidecar, "pod": format!("{sidecar}-pod") }
    })
}

#[test]
fn the_shared_ledger_is_the_sum_of_twenty() {
    let Some(mut cluster) = Cluster::start(20, "300ms") else {
        return;
    };
    cluster.send(150);
    cluster.agrees();
    cluster.send(7);
    cluster.agrees();
    // The dearest calls of all, from wherever they came.
    let top = |arguments: &[&str]| {
        let top = ["top", "--by", "cost", "--limit", "5", "--format", "json"];
        let text = cluster.shared(&[&top, arguments].concat()).expect("calls");
        serde_json::from_str::<Value>(&text).expect("JSON")["items"].clone()
    };
    let own = cluster.sidecars[3].ask(&["top", "--by", "cost", "--limit", "5", "--format", "json"]);
    let own: Value = serde_json::from_str(&own.expect("calls")).expect("JSON");
    let shared = top(&["--where", "namespace:s3"]);
    let without_nul = own["items"].to_string().replace("\\u0000", "\u{fffd}");
    assert_eq!(
        shared,
        serde_json::from_str::<Value>(&without_nul).expect("JSON")
    );
    // FOCUS goes through single calls, page by page.
    let focus = ["report", "--format", "focus", "--where", "namespace:s3"];
    let printed = |sidecar: &Sidecar, more: &[&str]| {
        let output = sidecar.aggregator.command(&[&focus, more].concat());
        let text = String::from_utf8(output.expect("it runs").stdout).expect("text");
        text.replace("\\u0000", "\u{fffd}")
    };
    let url = cluster.server.url();
    let shared = printed(&cluster.sidecars[0], &["--store", &url]);
    assert!(shared.lines().count() > 5, "{shared}");
    assert_eq!(shared, printed(&cluster.sidecars[3], &[]));
    let hourly = [
        "report",
        "--by",
        "provider",
        "--interval",
        "1h",
        "--format",
        "csv",
    ];
    let minutes = [
        "report",
        "--by",
        "provider",
        "--interval",
        "30m",
        "--format",
        "csv",
    ];
    for report in [hourly, minutes] {
        let report = cluster.shared(&report).expect("a report");
        let n_requests: u64 = report
            .lines()
            .skip(1)
            .filter_map(|line| line.split(',').nth(2)?.parse::<u64>().ok())
            .sum();
        assert_eq!(n_requests, 20 * 157, "{report}");
    }
}

#[test]
fn a_server_away_costs_disk_and_nothing_else() {
    let Some(mut cluster) = Cluster::start(2, "200ms") else {
        return;
    };
    cluster.send(50);
    cluster.agrees();
    cluster.server.stop().expect("it stops");
    cluster.send(1_200);
    let runtime = &cluster.runtime;
    let sidecar = &cluster.sidecars[0];
    eventually("the failure is told", || {
        let detail = sidecar.readiness(runtime);
        match detail["forwarding"]["failing"]["error"].as_str() {
            Some(_) if detail["ready"] == json!(true) => Ok(()),
            _ => Err(detail.to_string()),
        }
    });
    assert!(sidecar.metric("tollmesh_forward_failures_total") > 0.0);
    assert_eq!(sidecar.metric("tollmesh_forward_pending_rows"), 1_200.0);
    assert!(sidecar.metric("tollmesh_forward_lag_seconds") >= 3_590.0);
    // One side restarts while the other is away.
    cluster.sidecars[1]
        .aggregator
        .restart()
        .expect("it starts again");
    cluster.server.restart().expect("it starts again");
    cluster.agrees();
    let sidecar = &cluster.sidecars[0];
    eventually("the end of the failure is told", || {
        let detail = sidecar.readiness(&cluster.runtime);
        match detail["forwarding"]["failing"].is_null() {
            true => Ok(()),
            false => Err(detail.to_string()),
        }
    });
    assert_eq!(sidecar.metric("tollmesh_forward_lag_seconds"), 0.0);
}

#[test]
fn killed_on_either_side_under_load_loses_and_doubles_nothing() {
    let Some(mut cluster) = Cluster::start(3, "100ms") else {
        return;
    };
    for round in 0..6 {
        cluster.send(400);
        match round % 3 {
            0 => cluster.server.restart().expect("it starts again"),
            1 => cluster.sidecars[0]
                .aggregator
                .restart()
                .expect("it starts again"),
            _ => cluster.sidecars[2]
                .aggregator
                .restart()
                .expect("it starts again"),
        }
    }
    cluster.agrees();
}

#[test]
fn what_the_server_loses_comes_again() {
    let Some(mut cluster) = Cluster::start(3, "100ms") else {
        return;
    };
    cluster.send(300);
    cluster.agrees();
    let partition = "SELECT relid::regclass FROM pg_partition_tree('tollmesh.events')
                     WHERE isleaf ORDER BY pg_relation_size(relid) DESC LIMIT 1";
    let partition = cluster.server.ask(partition).expect("a partition");
    for loss in [
        format!("TRUNCATE {partition}"),
        format!("DELETE FROM {partition}"),
        format!("DROP TABLE {partition}"),
        "DROP SCHEMA tollmesh CASCADE".to_owned(),
    ] {
        cluster
            .server
            .run(&loss)
            .unwrap_or_else(|error| panic!("{loss}: {error:#}"));
        cluster.send(20);
        cluster.agrees();
    }
}

/// The tables that releases of the store's version 1 made.
const VERSION_1: &str = include_str!("../../crates/aggregator/src/forward/schema_1.sql");

/// Makes a store what it was at version 1, with its rows. Releases of then counted parcels in another
/// way, so that the number is not what their sidecars go on with.
fn to_version_1(server: &Postgres) {
    let (_, view) = VERSION_1.split_once("CREATE VIEW").expect("a view");
    let back = format!(
        "BEGIN; SET LOCAL ROLE tollmesh;
         DROP VIEW tollmesh.calls; DROP TABLE tollmesh.outcomes;
         ALTER TABLE tollmesh.events DROP COLUMN missing_tags;
         ALTER TABLE tollmesh.ledgers RENAME COLUMN last_parcel TO parcels;
         UPDATE tollmesh.ledgers SET parcels = parcels + 7 WHERE n = 1;
         CREATE VIEW {view};
         UPDATE tollmesh.meta SET value = '1' WHERE key = 'version'; COMMIT"
    );
    server.run(&back).expect("version 1");
    // What was made by hand is what that version had.
    let first = VERSION_1.replace("tollmesh.", "first.");
    server
        .run(&format!("CREATE SCHEMA first; {first}"))
        .expect("a new store of version 1");
    let columns = |one: &str, other: &str| {
        format!(
            "SELECT string_agg(table_name || '.' || column_name, ' ') FROM (
                 SELECT table_name, column_name, data_type, is_nullable
                 FROM information_schema.columns WHERE table_schema = '{one}'
                     AND table_name IN (SELECT table_name FROM information_schema.tables
                                        WHERE table_schema = 'first')
                 EXCEPT SELECT table_name, column_name, data_type, is_nullable
                 FROM information_schema.columns WHERE table_schema = '{other}') odd"
        )
    };
    for sql in [columns("tollmesh", "first"), columns("first", "tollmesh")] {
        assert_eq!(server.ask(&sql).expect("columns"), "", "{sql}");
    }
    server.run("DROP SCHEMA first CASCADE").expect("it goes");
}

#[test]
fn a_filled_store_of_version_1_is_brought_up_to_date_by_whoever_comes_first() {
    let Some(mut cluster) = Cluster::start(2, "100ms") else {
        return;
    };
    cluster.send(700);
    cluster.agrees();
    for sidecar in &mut cluster.sidecars {
        sidecar.aggregator.stop().expect("a clean end");
    }
    let sums = "SELECT concat_ws(' ',
                    (SELECT concat_ws(' ', count(*), count(DISTINCT event_id), sum(cost_pico),
                                      sum(input), sum(revision)) FROM tollmesh.events),
                    (SELECT concat_ws(' ', count(*), sum(requests), sum(cost_pico), sum(input))
                     FROM tollmesh.hourly),
                    (SELECT md5(string_agg(e::text, '' ORDER BY time, event_id))
                     FROM (SELECT time, event_id, model, tags, cost_usd, namespace
                           FROM tollmesh.calls) e))";
    let before = cluster.server.ask(sums).expect("sums");
    to_version_1(&cluster.server);
    assert_eq!(cluster.server.ask(sums).expect("sums"), before);

    for sidecar in &mut cluster.sidecars {
        sidecar.aggregator.launch().expect("it starts");
    }
    eventually("the store is of this version", || {
        let version = "SELECT value FROM tollmesh.meta WHERE key = 'version'";
        match cluster
            .server
            .ask(version)
            .map_err(|error| format!("{error:#}"))?
            .as_str()
        {
            "2" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    assert_eq!(cluster.server.ask(sums).expect("sums"), before);
    let has_new = "SELECT count(missing_tags) || ' ' || (SELECT count(*) FROM tollmesh.outcomes)
                   FROM tollmesh.events";
    eventually("both go on", || {
        let found = cluster.sidecars.iter().map(|sidecar| {
            let (status, body) = sidecar.aggregator.readiness()?;
            match status {
                200 => Ok(()),
                _ => Err(body),
            }
        });
        found.collect::<Result<(), String>>()
    });
    cluster.send(50);
    cluster.agrees();
    // What came since has what version 2 keeps.
    let found = cluster.server.ask(has_new).expect("counts");
    let (n_tagged, n_told) = found.split_once(' ').expect("two counts");
    assert!(n_tagged.parse::<u64>().expect("a count") >= 100, "{found}");
    assert_eq!(n_told, "0");
}

#[test]
fn a_server_restored_from_a_backup_is_brought_up_to_date() {
    let Some(mut cluster) = Cluster::start(2, "100ms") else {
        return;
    };
    cluster.send(100);
    cluster.agrees();
    let admin = "CREATE SCHEMA backup;
                 CREATE TABLE backup.events AS TABLE tollmesh.events;
                 CREATE TABLE backup.hourly AS TABLE tollmesh.hourly;
                 CREATE TABLE backup.ledgers AS TABLE tollmesh.ledgers";
    cluster.server.run(admin).expect("a backup");
    cluster.send(100);
    cluster.agrees();
    let restore = "BEGIN; LOCK tollmesh.ledgers, tollmesh.events, tollmesh.hourly;
                   DELETE FROM tollmesh.events; INSERT INTO tollmesh.events TABLE backup.events;
                   DELETE FROM tollmesh.hourly; INSERT INTO tollmesh.hourly TABLE backup.hourly;
                   UPDATE tollmesh.ledgers l SET forwarded_row = b.forwarded_row, last_parcel = b.last_parcel
                   FROM backup.ledgers b WHERE b.n = l.n; COMMIT";
    cluster.server.run(restore).expect("a restored backup");
    cluster.send(1);
    cluster.agrees();
}

/// A standby that takes over without the last transactions lacks what a failed visit had it learn,
/// and gives the same ids to others.
#[test]
fn a_server_that_takes_over_after_a_failed_visit_keeps_tags_apart() {
    let Some(mut cluster) = Cluster::start(1, "100ms") else {
        return;
    };
    cluster.send(5);
    cluster.agrees();
    let fail = "CREATE FUNCTION tollmesh.fail() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$;
                CREATE TRIGGER fails BEFORE INSERT ON tollmesh.events
                FOR EACH STATEMENT EXECUTE FUNCTION tollmesh.fail()";
    cluster.server.run(fail).expect("a trigger");
    let mut call = event("s0", 5);
    call["tags"] = json!({ "team": "owner", "feature": "f" });
    cluster.sidecars[0].post(&cluster.runtime, &[call]);
    cluster.sidecars[0].n_sent = 6;
    let owner = "SELECT count(*) FROM tollmesh.tag_sets WHERE body ->> 'team' = 'owner'";
    eventually("the visit fails after its tags are known", || match cluster
        .server
        .ask(owner)
        .expect("a count")
        .as_str()
    {
        "1" => Ok(()),
        n => Err(n.to_owned()),
    });
    eventually("the visit has failed", || {
        match cluster.sidecars[0].metric("tollmesh_forward_failures_total") {
            n if n > 0.0 => Ok(()),
            n => Err(n.to_string()),
        }
    });
    let takeover = "BEGIN; LOCK tollmesh.tag_sets, tollmesh.tags;
                    UPDATE tollmesh.tags SET value = 'stranger' WHERE value = 'owner';
                    UPDATE tollmesh.tag_sets SET digest = gen_random_uuid(),
                        body = '{\"team\": \"stranger\", \"feature\": \"f\"}'
                    WHERE body ->> 'team' = 'owner';
                    DROP TRIGGER fails ON tollmesh.events; COMMIT";
    cluster.server.run(takeover).expect("another server");
    cluster.agrees();
    assert_eq!(cluster.server.ask(owner).expect("a count"), "1");
}

/// What all forwarded is not one sidecar's to drop because its clock is years ahead.
#[test]
fn a_sidecar_with_a_clock_ahead_drops_no_month() {
    let Some(mut cluster) = Cluster::start(1, "100ms") else {
        return;
    };
    let tollmesh = binary().expect("it is there");
    cluster.send(5);
    cluster.agrees();
    let months = "SELECT count(*) FROM tollmesh.months";
    let before = cluster.server.ask(months).expect("a count");
    let dir = tempfile::tempdir().expect("a folder");
    let faults = Faults::below(dir.path(), dir.path()).expect("a library");
    faults.set_clock_off(10 * 365 * 86_400_000);
    let section = format!(
        "[postgres]\nurl = \"{}\"\ninterval = \"100ms\"\n",
        cluster.server.url()
    );
    let ahead = Aggregator::start_in(
        faults.environment(),
        &tollmesh,
        dir.path(),
        false,
        &section,
        cluster.runtime.handle(),
    );
    let ahead = Sidecar {
        aggregator: ahead.expect("it starts"),
        name: "ahead".to_owned(),
        n_sent: 0,
        dir,
    };
    ahead.post(&cluster.runtime, &[event("s0", 5)]);
    eventually("its call comes in", || {
        let n = cluster.server.ask("SELECT count(*) FROM tollmesh.calls");
        match n.expect("a count").as_str() {
            "6" => Ok(()),
            n => Err(n.to_owned()),
        }
    });
    assert_eq!(cluster.server.ask(months).expect("a count"), before);
}

#[test]
fn an_altered_row_is_forwarded_again_and_the_newest_state_wins() {
    let Some(mut cluster) = Cluster::start(1, "100ms") else {
        return;
    };
    let mut waiting = event("s0", 0);
    waiting["usage"] = json!({});
    waiting["usage_source"] = json!("absent");
    waiting["model"] = json!("gpt-4o");
    cluster.sidecars[0].post(&cluster.runtime, &[waiting.clone()]);
    cluster.sidecars[0].n_sent = 1;
    cluster.agrees();
    let mut late = waiting;
    late["event_id"] = json!("late");
    late["kind"] = json!("late_usage");
    late["usage"] = json!({ "input": 1_000_000, "output": 5 });
    late["usage_source"] = json!("reported");
    cluster.sidecars[0].post(&cluster.runtime, &[late]);
    cluster.agrees();
    let state = "SELECT revision || ' ' || input || ' ' || usage_source FROM tollmesh.events
                 WHERE event_id = 's0-0'";
    assert_eq!(cluster.server.ask(state).expect("a row"), "1 1000000 0");
    // An import on a later day brings its first state again, which is no news.
    cluster
        .server
        .run("UPDATE tollmesh.ledgers SET forwarded_row = 0")
        .expect("done");
    cluster.send(1);
    cluster.agrees();
    assert_eq!(cluster.server.ask(state).expect("a row"), "1 1000000 0");
}

#[test]
fn a_stop_forwards_what_is_left() {
    let Some(mut cluster) = Cluster::start(2, "1h") else {
        return;
    };
    cluster.send(321);
    let none = cluster.shared(REPORT).expect_err("no visit was made yet");
    assert!(none.contains("no ledger in this database"), "{none}");
    cluster.sidecars[0].aggregator.stop().expect("exit code 0");
    cluster.sidecars[1].aggregator.stop().expect("exit code 0");
    cluster.agrees();
    // And what cannot be is counted and told.
    cluster.server.stop().expect("it stops");
    let sidecar = &mut cluster.sidecars[0];
    sidecar.aggregator.restart().expect("it starts again");
    cluster.send_to_first(12);
    let sidecar = &mut cluster.sidecars[0];
    sidecar.aggregator.stop().expect("exit code 0");
    let log = sidecar.log();
    assert!(log.contains("calls were not forwarded"), "{log}");
    assert!(log.contains("pending=12"), "{log}");
}

/// The report of a ledger as its lines in order, without the header.
fn lines(report: &str) -> Vec<String> {
    let mut lines: Vec<String> = report.lines().skip(1).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_pod_that_goes_in_kubernetes_order_leaves_nothing_that_is_not_accounted_for() {
    let runtime = Runtime::new().expect("a runtime");
    let Some(mut server) = Postgres::start(runtime.handle()) else {
        return;
    };
    // No visit is due before the stop.
    let section = format!(
        "[postgres]\nurl = \"{}\"\ninterval = \"1h\"\n",
        server.url()
    );
    let Some(mut mesh) = Mesh::built().aggregator(&section).start() else {
        return;
    };
    let books = Books::default();
    let report = |mesh: &Mesh, store: &[&str]| {
        let output = mesh.aggregator().command(&[REPORT, store].concat());
        let output = output.expect("it runs");
        assert!(output.status.success(), "{output:?}");
        lines(&String::from_utf8_lossy(&output.stdout))
    };
    // Native sidecars end in the reverse of their order: the app, Envoy, the aggregator.
    books.call(&mesh, 40);
    drain(&mesh);
    has_sent(&mesh, 40);
    books.are_kept_by(&mesh);
    mesh.envoy_mut().process_mut().kill();
    mesh.aggregator().stop().expect("it ends with exit code 0");
    let own = report(&mesh, &[]);
    assert_eq!(own.len(), 1, "{own:?}");
    assert_eq!(report(&mesh, &["--store", "postgres"]), own);
    assert_eq!(
        server
            .ask("SELECT count(*) FROM tollmesh.calls")
            .expect("a count"),
        "40"
    );

    // The same while the cluster's ledger is away: what is left is counted, told, and stays.
    drop(mesh);
    let Some(mut mesh) = Mesh::built().aggregator(&section).start() else {
        return;
    };
    let books = Books::default();
    books.call(&mesh, 15);
    server.stop().expect("it stops");
    drain(&mesh);
    has_sent(&mesh, 15);
    mesh.envoy_mut().process_mut().kill();
    mesh.aggregator().stop().expect("it ends with exit code 0");
    let log = std::fs::read_to_string(mesh.dir().join("tollmesh.log")).expect("a log");
    assert!(log.contains("calls were not forwarded"), "{log}");
    assert!(log.contains("pending=15"), "{log}");
    server.restart().expect("it is back");
    mesh.aggregator().restart().expect("it starts again");
    books.are_restored_in(&mesh);
    mesh.aggregator().stop().expect("it ends with exit code 0");
    assert_eq!(
        server
            .ask("SELECT count(*) FROM tollmesh.calls")
            .expect("a count"),
        "55"
    );
    let own = report(&mesh, &["--where", "team:red"]);
    assert_eq!(own.len(), 1, "{own:?}");
}

fn drain(mesh: &Mesh) {
    let path = "/drain_listeners?graceful";
    let drain = http::send(mesh.envoy().admin(), "POST", path, &[], Default::default());
    let reply = mesh.runtime().block_on(drain).expect("an answer");
    assert_eq!(reply.status, 200);
}

#[track_caller]
fn has_sent(mesh: &Mesh, n_events: u64) {
    eventually("the last batch is sent", || {
        match mesh.counted("events_sent") {
            n if n == n_events => Ok(()),
            n => Err(format!("{n} events sent")),
        }
    });
}

#[test]
fn outcomes_told_to_any_sidecar_speak_for_the_calls_of_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let token = dir.path().join("token");
    std::fs::write(&token, "s3cret").expect("a token");
    let before = format!("token_file = {token:?}\n");
    let Some(mut cluster) = Cluster::start_with(2, "200ms", &before) else {
        return;
    };
    let tell = |cluster: &Cluster, sidecar: usize, outcomes: Value| {
        let reply = cluster.runtime.block_on(http::send(
            cluster.sidecars[sidecar].aggregator.operator(),
            "POST",
            "/api/v1/outcomes",
            &[
                ("authorization", "Bearer s3cret"),
                ("content-type", "application/json"),
            ],
            outcomes.to_string().into(),
        ));
        assert_eq!(reply.expect("an answer").status, 200);
    };
    // Before its call, and to the sidecar that never sees it.
    tell(
        &cluster,
        1,
        json!({ "event_id": "s0-1", "outcome": "accepted" }),
    );
    cluster.send(10);
    cluster.agrees();
    // Both sidecars have a request of that id.
    tell(
        &cluster,
        0,
        json!([{ "request_id": "r2", "outcome": "edited" },
                             { "event_id": "s1-3", "outcome": "rejected" }]),
    );
    let by_outcome = [
        "report",
        "--by",
        "outcome_label,namespace",
        "--format",
        "csv",
    ];
    let want = [
        "accepted,s0,1",
        "edited,s0,1",
        "edited,s1,1",
        "rejected,s1,1",
    ];
    let agrees = |cluster: &Cluster| {
        eventually("outcomes are there", || {
            let report = cluster.shared(&by_outcome)?;
            let mut got: Vec<String> = report
                .lines()
                .skip(1)
                .filter(|line| !line.starts_with(','))
                .map(|line| {
                    line.split(',')
                        .filter(|cell| !cell.is_empty())
                        .take(3)
                        .collect::<Vec<_>>()
                        .join(",")
                })
                .collect();
            got.sort();
            if got == want { Ok(()) } else { Err(report) }
        });
    };
    agrees(&cluster);
    // A last word holds, and what the server loses comes again.
    tell(
        &cluster,
        1,
        json!({ "request_id": "r2", "outcome": "accepted" }),
    );
    tell(
        &cluster,
        1,
        json!({ "request_id": "r2", "outcome": "edited" }),
    );
    cluster
        .server
        .run("DROP SCHEMA tollmesh CASCADE")
        .expect("it is emptied");
    cluster.agrees();
    agrees(&cluster);
    let top = [
        "top",
        "--where",
        "outcome_label:rejected",
        "--format",
        "json",
    ];
    let top: Value = serde_json::from_str(&cluster.shared(&top).expect("calls")).expect("JSON");
    assert_eq!(top["items"][0]["event_id"], "s1-3", "{top}");
    assert_eq!(top["items"][0]["outcome_label"], "rejected", "{top}");
    assert_eq!(
        top["items"][0]["missing_tags"],
        json!(["cost_center"]),
        "{top}"
    );
}

#[test]
fn the_day_is_told_of_the_whole_cluster() {
    let Some(mut cluster) = Cluster::start(2, "200ms") else {
        return;
    };
    cluster.send(40);
    cluster.agrees();
    let day = rfc3339(now_ms())[..10].to_owned();
    let daily = [
        "report",
        "daily",
        "--day",
        &day,
        "--by",
        "namespace",
        "--format",
        "json",
    ];
    let shared: Value =
        serde_json::from_str(&cluster.shared(&daily).expect("a day")).expect("JSON");
    let own = |n: usize| -> Value {
        serde_json::from_str(&cluster.sidecars[n].ask(&daily).expect("a day")).expect("JSON")
    };
    let groups = |day: &Value| -> Vec<Value> {
        let groups = day["groups"].as_array().cloned().unwrap_or_default();
        groups
            .iter()
            .map(|group| json!([group["namespace"], group["cost_usd"]]))
            .collect()
    };
    let mut want = [groups(&own(0)), groups(&own(1))].concat();
    assert_eq!(want.len(), 2, "{shared}");
    let mut got = groups(&shared);
    let in_order = |groups: &mut Vec<Value>| groups.sort_by_key(Value::to_string);
    in_order(&mut want);
    in_order(&mut got);
    assert_eq!(got, want);
}

impl Cluster {
    fn send_to_first(&mut self, n_events: u64) {
        let sidecar = &mut self.sidecars[0];
        let first = sidecar.n_sent;
        sidecar.n_sent += n_events;
        let events: Vec<Value> = (first..sidecar.n_sent)
            .map(|n| event(&sidecar.name, n))
            .collect();
        sidecar.post(&self.runtime, &events);
    }
}

#[test]
fn a_password_is_read_from_its_file_and_a_certificate_is_verified() {
    const PASSWORD: &str = "corr3ct-horse";
    let runtime = Runtime::new().expect("a runtime");
    let Some(tollmesh) = binary() else { return };
    let program = match artifacts::postgres() {
        Ok(program) => program,
        Err(missing) => return artifacts::skip(&missing),
    };
    let setup = Setup {
        password: Some(PASSWORD.into()),
        is_encrypted: true,
        ..Setup::default()
    };
    let server = Postgres::set_up(&program, &setup, runtime.handle()).expect("it starts");
    let files = tempfile::tempdir().expect("a folder");
    let password_file = files.path().join("password");
    std::fs::write(&password_file, format!("{PASSWORD}\n")).expect("written");
    let mut cluster = Cluster {
        sidecars: Vec::new(),
        server,
        runtime,
    };
    let url = cluster.server.url();
    let plain = format!("[postgres]\nurl = \"{url}\"\ninterval = \"100ms\"\n");
    let with_password = format!("{plain}password_file = {password_file:?}\n");
    let ca_file = cluster.server.ca_file();
    cluster.add(
        &tollmesh,
        0,
        &format!("{with_password}ca_file = {ca_file:?}\n"),
    );
    cluster.add(&tollmesh, 1, &with_password);
    let with_both = plain.replace("tollmesh@", &format!("tollmesh:{PASSWORD}-wrong@"));
    cluster.add(&tollmesh, 2, &format!("{with_both}ca_file = {ca_file:?}\n"));
    cluster.send(10);
    for (n, word) in [(1, "UnknownIssuer"), (2, "password authentication failed")] {
        let sidecar = &cluster.sidecars[n];
        eventually("the refusal is told", || {
            let detail = sidecar.readiness(&cluster.runtime)["forwarding"].to_string();
            if detail.contains(word) {
                Ok(())
            } else {
                Err(detail)
            }
        });
    }
    eventually("rows come in", || {
        let n = cluster.server.ask("SELECT count(*) FROM tollmesh.calls");
        match n.map_err(|error| format!("{error:#}"))?.as_str() {
            "10" => Ok(()),
            n => Err(n.to_owned()),
        }
    });
    // The store of the configuration, with its files.
    let report = [REPORT, &["--store", "postgres"]].concat();
    let shared = cluster.sidecars[0].ask(&report).expect("a report");
    assert_eq!(shared, cluster.sidecars[0].ask(REPORT).expect("a report"));
    for sidecar in &cluster.sidecars {
        assert!(!sidecar.log().contains(PASSWORD), "{}", sidecar.log());
        let metrics = sidecar.aggregator.metrics().expect("a scrape").0;
        assert!(!metrics.contains(PASSWORD));
        assert!(
            !sidecar
                .readiness(&cluster.runtime)
                .to_string()
                .contains(PASSWORD)
        );
    }
}

#[test]
fn months_are_made_ahead_and_dropped_by_retention() {
    let Some(mut cluster) = Cluster::start(1, "100ms") else {
        return;
    };
    let mut ancient = event("s0", 9_999);
    ancient["time"] = json!("2019-05-05T00:00:00Z");
    cluster.sidecars[0].post(&cluster.runtime, &[ancient]);
    cluster.send(5);
    eventually("rows come in", || {
        let n = cluster.server.ask("SELECT count(*) FROM tollmesh.calls");
        match n.map_err(|error| format!("{error:#}"))?.as_str() {
            "5" => Ok(()),
            n => Err(n.to_owned()),
        }
    });
    eventually("what is not kept is counted", || {
        match cluster.sidecars[0].metric("tollmesh_forward_skipped_rows_total") {
            1.0 => Ok(()),
            n => Err(n.to_string()),
        }
    });
    let ahead = "SELECT count(*) FROM tollmesh.months WHERE month > now()";
    assert_eq!(cluster.server.ask(ahead).expect("a count"), "2");
    // A month of the year before last, as an older release or a longer retention left it.
    cluster
        .server
        .run(
            "CREATE TABLE tollmesh.events_2020_01 PARTITION OF tollmesh.events
                 FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2020-02-01 00:00:00+00');
             ALTER TABLE tollmesh.events_2020_01 OWNER TO tollmesh;
             INSERT INTO tollmesh.months VALUES ('2020-01-01')",
        )
        .expect("an old month");
    cluster.send(5);
    eventually("the old month is dropped", || {
        let left = "SELECT coalesce(to_regclass('tollmesh.events_2020_01')::text, 'none')";
        match cluster
            .server
            .ask(left)
            .map_err(|error| format!("{error:#}"))?
            .as_str()
        {
            "none" => Ok(()),
            left => Err(left.to_owned()),
        }
    });
    let left = "SELECT count(*) FROM tollmesh.months WHERE month < now() - interval '20 months'";
    assert_eq!(cluster.server.ask(left).expect("a count"), "0");

    // The next goes when an hour has passed, whichever sidecar comes: a server's clock may be wrong.
    cluster
        .server
        .run(
            "CREATE TABLE tollmesh.events_2020_02 PARTITION OF tollmesh.events
                 FOR VALUES FROM ('2020-02-01 00:00:00+00') TO ('2020-03-01 00:00:00+00');
             ALTER TABLE tollmesh.events_2020_02 OWNER TO tollmesh;
             INSERT INTO tollmesh.months VALUES ('2020-02-01')",
        )
        .expect("another old month");
    let rows = "SELECT count(*) FROM tollmesh.calls";
    let before: u64 = cluster
        .server
        .ask(rows)
        .expect("a count")
        .parse()
        .expect("a number");
    cluster.send(5);
    eventually("a visit is made", || {
        let n = cluster.server.ask(rows);
        match n.map_err(|error| format!("{error:#}"))?.parse::<u64>() {
            Ok(n) if n == before + 5 => Ok(()),
            n => Err(format!("{n:?}")),
        }
    });
    assert_eq!(cluster.server.ask(left).expect("a count"), "1");
    cluster
        .server
        .run(
            "UPDATE tollmesh.meta SET value = (value::bigint - 3600)::text
             WHERE key = 'month_dropped'",
        )
        .expect("an hour passes");
    cluster.send(5);
    eventually("the second old month is dropped", || {
        let n = cluster.server.ask(left);
        match n.map_err(|error| format!("{error:#}"))?.as_str() {
            "0" => Ok(()),
            n => Err(n.to_owned()),
        }
    });
}

/// What stores of this version have.
const SHAPE: &str = include_str!("../../crates/aggregator/src/forward/shape.txt");

#[test]
fn a_store_of_another_shape_than_its_version_says_is_refused_with_the_reason() {
    let Some(mut cluster) = Cluster::start(1, "100ms") else {
        return;
    };
    cluster.send(5);
    cluster.agrees();
    // Nothing that the store has is left out of what is looked for.
    let columns = "SELECT string_agg(c.relname || '.' || a.attname || ' '
                       || format_type(a.atttypid, a.atttypmod), E'\n' ORDER BY 1)
                   FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                   WHERE c.relnamespace = 'tollmesh'::regnamespace AND a.attnum > 0
                       AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND NOT c.relispartition";
    let found = cluster.server.ask(columns).expect("columns");
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    let is_column = |line: &&str| line.contains('.');
    let mut wanted: Vec<&str> = SHAPE.lines().filter(is_column).collect();
    wanted.sort_unstable();
    assert_eq!(found, wanted);

    // As builds before the first release made it.
    cluster
        .server
        .run("ALTER TABLE tollmesh.hourly ALTER tag_set TYPE integer")
        .expect("an older shape");
    let why =
        "the store says schema version 2 and has no hourly.tag_set bigint: a build from before";
    cluster.send(5);
    eventually("the sidecar says why it does not forward", || {
        let (_, body) = cluster.sidecars[0].aggregator.readiness()?;
        match body.contains(why) {
            true => Ok(()),
            false => Err(body),
        }
    });
    let refused = cluster.shared(REPORT).expect_err("no report");
    assert!(refused.contains(why), "{refused}");
    cluster
        .server
        .run("ALTER TABLE tollmesh.hourly ALTER tag_set TYPE bigint")
        .expect("as it should be");
    cluster.agrees();
}
