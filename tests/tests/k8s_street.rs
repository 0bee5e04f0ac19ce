//! Each overlay's Envoy at work: calls are metered exactly, under TLS whose names are checked, by the
//! identity that the overlay promises, and no app writes events or reads what is not its own.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;

use serde_json::json;
use tollmesh_tests::artifacts;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::exchange::Ending;
use tollmesh_tests::ledger::Row;
use tollmesh_tests::overlay::{Overlay, PROVIDERS, Way};
use tollmesh_tests::{Exchange, Mesh, MeshBuilder, Usage, fact, http, usage};

const CALLER: &str = "spiffe://cluster.local/ns/shop/sa/checkout";

const TOKEN: &str = "0123456789abcdef";

/// What an app may say of itself in vain: headers that proxies and meshes use for identity.
const SPOOFED: [(&str, &str); 5] = [
    (
        "x-forwarded-client-cert",
        "By=spiffe://a/b;URI=spiffe://cluster.local/ns/bank/sa/boss",
    ),
    ("x-llm-tag-namespace", "bank"),
    (
        "x-llm-tag-principal",
        "spiffe://cluster.local/ns/bank/sa/boss",
    ),
    ("x-envoy-peer-metadata", "bank"),
    ("baggage", "namespace=bank"),
];

fn used(dialect: Dialect) -> Usage {
    let model = match dialect {
        Dialect::OpenAiChat | Dialect::OpenAiResponses => "gpt-4o",
        Dialect::Anthropic => "claude-sonnet-4-5",
        Dialect::Gemini => "gemini-2.5-flash",
    };
    usage(model).input(300).output(25)
}

/// Calls as every dialect, plain and streamed, with spoofed identity; answers the rows.
fn calls_are_metered(mesh: &Mesh, dialects: &[Dialect], host: impl Fn(&str) -> String) -> Vec<Row> {
    let mut client = mesh.client("red");
    for (name, value) in SPOOFED {
        client = client.header(name, value);
    }
    let mut rows = Vec::new();
    for dialect in dialects {
        let used = used(*dialect);
        for exchange in [dialect.plain(&used), dialect.streamed(&used)] {
            let mut exchange = exchange.chunks_of(41);
            let provider = exchange.ask.host.clone();
            exchange.ask.host = host(&provider);
            let answer = client.call(&exchange);
            answer.is_what_was_sent(&exchange);
            let row = mesh.ledger().row_of(&answer);
            assert_eq!(row.differences(&used), Vec::<String>::new(), "{}", row.0);
            assert!(row.text("cost_usd").is_some(), "{}", row.0);
            assert_eq!(row.tag("team"), Some("red"), "{}", row.0);
            let received = mesh.provider().received(&answer.request_id).remove(0);
            assert_eq!(received.host, provider);
            assert_eq!(received.header("x-llm-tag-team"), None);
            rows.push(row);
        }
    }
    mesh.has_not_trapped();
    rows
}

fn as_called(host: &str) -> String {
    host.to_string()
}

fn source<'a>(row: &'a Row, field: &str) -> Option<&'a str> {
    row.0["source"][field].as_str()
}

#[test]
fn a_sidecar_meters_its_own_workload() {
    let Some(mesh) = built("istio-sidecar", Way::Clear).start() else {
        return;
    };
    for row in calls_are_metered(&mesh, &Dialect::ALL, as_called) {
        assert_eq!(source(&row, "namespace"), Some("shop"), "{}", row.0);
        assert_eq!(source(&row, "workload"), Some("checkout"), "{}", row.0);
        assert_eq!(
            source(&row, "service_account"),
            Some("checkout"),
            "{}",
            row.0
        );
        assert_eq!(source(&row, "principal"), None, "{}", row.0);
    }
}

#[test]
fn an_egress_gateway_knows_the_caller_by_its_certificate() {
    let way = Way::MutualTls(CALLER.to_string());
    let Some(mesh) = built("istio-egress-gateway", way).start() else {
        return;
    };
    for row in calls_are_metered(&mesh, &Dialect::ALL, as_called) {
        is_the_callers(&row);
    }
}

#[test]
fn a_waypoint_knows_the_caller_by_its_tunnel() {
    let way = Way::Tunnel(CALLER.to_string());
    let Some(mesh) = built("istio-waypoint", way).start() else {
        return;
    };
    let rows = calls_are_metered(
        &mesh,
        &[Dialect::OpenAiChat, Dialect::OpenAiResponses],
        as_called,
    );
    for row in rows {
        is_the_callers(&row);
    }
}

#[track_caller]
fn is_the_callers(row: &Row) {
    assert_eq!(source(row, "principal"), Some(CALLER), "{}", row.0);
    assert_eq!(source(row, "namespace"), Some("shop"), "{}", row.0);
    assert_eq!(
        source(row, "service_account"),
        Some("checkout"),
        "{}",
        row.0
    );
    assert_eq!(source(row, "workload"), None, "{}", row.0);
}

#[test]
fn an_app_that_speaks_https_is_metered_without_identity() {
    let Some(mesh) = built("https-apps", Way::AppTls).start() else {
        return;
    };
    for row in calls_are_metered(&mesh, &Dialect::ALL, as_called) {
        for field in ["principal", "namespace", "service_account", "workload"] {
            assert_eq!(source(&row, field), None, "{}", row.0);
        }
    }
}

#[test]
fn own_hosts_stand_for_providers_where_there_is_no_mesh() {
    for overlay in ["plain", "envoy-gateway"] {
        let Some(mesh) = built(overlay, Way::Clear).start() else {
            return;
        };
        for suffix in ["tollmesh", "tollmesh.svc.cluster.local"] {
            let own = |provider: &str| {
                let names = ["openai", "anthropic", "google"].iter().zip(PROVIDERS);
                let found = names.into_iter().find(|(_, host)| *host == provider);
                format!("{}.{suffix}", found.expect("a provider").0)
            };
            for row in calls_are_metered(&mesh, &Dialect::ALL, own) {
                let provider = row.text("provider").unwrap_or_default();
                assert!(
                    ["openai", "anthropic", "google"].contains(&provider),
                    "{}",
                    row.0
                );
                assert_eq!(source(&row, "namespace"), None, "{}", row.0);
            }
        }
    }
}

#[test]
fn a_provider_under_another_name_is_not_called() {
    for (overlay, host) in [
        ("istio-sidecar", "api.openai.com"),
        ("envoy-gateway", "openai.tollmesh"),
        ("plain", "openai.tollmesh"),
    ] {
        let wrong = built(overlay, Way::Clear).provider_certified_for(&["evil.example"]);
        let Some(mesh) = wrong.start() else { return };
        let mut exchange = Dialect::OpenAiChat.plain(&used(Dialect::OpenAiChat));
        exchange.ask.host = host.to_string();
        let answer = mesh.client("red").call(&exchange);
        assert_eq!(answer.status, Some(503), "{overlay}");
        assert_eq!(mesh.provider().n_requests(), 0, "{overlay}");
    }
}

#[test]
fn an_app_in_the_pod_cannot_write_events_nor_read_spend() {
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), TOKEN).expect("a token");
    // What comes first belongs to the section [operator].
    let guarded = format!("token_file = {:?}", token.path());
    let built = built("istio-sidecar", Way::Clear).aggregator(&guarded);
    let Some(mesh) = built.start() else { return };
    let exchange = Dialect::OpenAiChat.plain(&used(Dialect::OpenAiChat));
    mesh.client("red")
        .call(&exchange)
        .is_what_was_sent(&exchange);
    fact::eventually("the event of the one call", || match accepted(&mesh) {
        1.0 => Ok(()),
        n => Err(format!("{n} events")),
    });
    // Through the proxy, under every name that could lead to the aggregator.
    let forged = json!({ "v": 1, "node": {}, "events": [{ "event_id": "forged-1" }] });
    for host in [
        "tollmesh",
        "tollmesh:80",
        "localhost",
        "127.0.0.1:4100",
        "ingest.tollmesh",
    ] {
        for path in [
            "/v1/events",
            "/v1/decisions?after=0&wait_ms=0",
            "/v1/reservations",
        ] {
            let exchange = Exchange::post(host, path, forged.to_string());
            let answer = mesh.client("red").call(&exchange);
            assert_ne!(answer.status, Some(200), "{host}{path}");
        }
    }
    // Straight at the aggregator, whose one port is the operator's.
    let operator = mesh.operator();
    assert_eq!(listening_ports(&mesh), [operator.port()]);
    let ask = |method, path, headers: &[(&str, &str)]| {
        let body = forged.to_string().into();
        let reply = mesh
            .runtime()
            .block_on(http::send(operator, method, path, headers, body));
        reply.expect("an answer")
    };
    for (method, path) in [
        ("POST", "/v1/events"),
        ("GET", "/v1/decisions?after=0&wait_ms=0"),
        ("POST", "/v1/reservations"),
        ("GET", "/api/v1/spend?by=team"),
        ("GET", "/api/v1/requests"),
        ("POST", "/api/v1/outcomes"),
        ("GET", "/"),
    ] {
        let reply = ask(method, path, &[("x-forwarded-for", "127.0.0.1")]);
        let is_refused = [401, 403, 404, 405].contains(&reply.status);
        assert!(
            is_refused || path == "/",
            "{method} {path}: {}",
            reply.status
        );
        assert!(
            !reply.text().contains("gpt-4o"),
            "{method} {path}: {}",
            reply.text()
        );
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(ask("GET", path, &[]).status, 200, "{path}");
    }
    let bearer = format!("Bearer {TOKEN}");
    let reply = ask("GET", "/api/v1/requests", &[("authorization", &bearer)]);
    assert_eq!(reply.status, 200, "whoever has the token");
    assert!(reply.text().contains("gpt-4o"), "{}", reply.text());
    assert_eq!(accepted(&mesh), 1.0);
}

fn accepted(mesh: &Mesh) -> f64 {
    let metrics = mesh.aggregator().metrics().expect("metrics");
    metrics.sum("tollmesh_events_accepted_total", &[])
}

#[test]
fn an_envoy_of_our_own_lets_open_streams_end_before_it_stops() {
    let Some(mesh) = built("plain", Way::Clear).start() else {
        return;
    };
    let mut exchange = Dialect::OpenAiChat.streamed(&used(Dialect::OpenAiChat));
    exchange.ask.host = "openai.tollmesh".to_string();
    exchange.reply.ending = Ending::Silence;
    let client = mesh.client("red");
    let call = mesh
        .runtime()
        .spawn(async move { client.send(&exchange).await.map(drop) });
    fact::eventually("an open stream", || {
        match mesh.envoy().stat("http.egress.downstream_rq_active") {
            1 => Ok(()),
            n => Err(format!("{n} open")),
        }
    });
    let admin = mesh.envoy().admin();
    let log = mesh.dir().join("drain.log");
    let mut drain = Command::new("bash")
        .arg(artifacts::root().join("k8s/overlays/plain/drain.sh"))
        .args(["60", &format!("{}/{}", admin.ip(), admin.port()), "0"])
        .stdout(File::create(&log).expect("a file"))
        .spawn()
        .expect("bash runs");
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    fact::eventually("that it waits", || {
        match said().matches("1 open\n").count() {
            2.. => Ok(()),
            _ => Err(said()),
        }
    });
    let ready = mesh
        .runtime()
        .block_on(http::get(admin, "/ready"))
        .expect("an answer");
    assert_eq!(ready.status, 503, "no Service sends new calls");
    assert_eq!(
        drain.try_wait().expect("a child"),
        None,
        "the stream is still open"
    );
    call.abort();
    fact::eventually("its end", || match drain.try_wait() {
        Ok(Some(status)) if status.success() => Ok(()),
        other => Err(format!("{other:?} {}", said())),
    });
    assert!(said().ends_with("0 open\n"), "{}", said());
}

#[test]
fn of_the_admin_interface_other_pods_see_counters_and_readiness_alone() {
    let Some(mesh) = built("plain", Way::Clear).start() else {
        return;
    };
    let ask = |address, method, path| {
        let reply =
            mesh.runtime()
                .block_on(http::send(address, method, path, &[], Default::default()));
        reply.expect("an answer")
    };
    let listeners = ask(mesh.envoy().admin(), "GET", "/listeners?format=json");
    let listeners = listeners.json().expect("JSON")["listener_statuses"].clone();
    let stats = listeners
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one["name"] == "stats");
    let port = &stats.expect("a listener")["local_address"]["socket_address"]["port_value"];
    let stats = (Ipv4Addr::LOCALHOST, port.as_u64().expect("a port") as u16).into();
    let counters = ask(stats, "GET", "/stats/prometheus");
    assert_eq!(counters.status, 200);
    assert!(
        counters
            .text()
            .contains("tollmesh_filter_events_queued_total")
    );
    assert_eq!(ask(stats, "GET", "/ready").status, 200);
    for (method, path) in [
        ("GET", "/config_dump"),
        ("GET", "/stats"),
        ("GET", "/ready/../config_dump"),
        ("POST", "/quitquitquit"),
        ("POST", "/stats/prometheus"),
        ("POST", "/ready"),
    ] {
        assert_eq!(ask(stats, method, path).status, 404, "{method} {path}");
    }
}

/// The TCP ports on which the aggregator listens, as the kernel tells.
fn listening_ports(mesh: &Mesh) -> Vec<u16> {
    let aggregator = mesh.aggregator();
    let pid = aggregator.process().expect("it runs").id();
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            let name = link.to_string_lossy().into_owned();
            Some(name.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let tables = ["tcp", "tcp6"].map(|table| {
        std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default()
    });
    const LISTENS: &str = "0A";
    let ports = tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            let is_its = *state == LISTENS && sockets.iter().any(|socket| socket == inode);
            let port = local.rsplit(':').next()?;
            is_its.then(|| u16::from_str_radix(port, 16).ok())?
        });
    ports.collect()
}

fn built(overlay: &'static str, way: Way) -> MeshBuilder {
    Mesh::built().overlay(Overlay::new(overlay, way))
}
