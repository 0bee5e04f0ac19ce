//! `tollmesh doctor` before a real Envoy and a real aggregator: silent where all is well, and where
//! something is broken it names that, and a remedy.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::{Mesh, MeshBuilder, ports, usage};

/// What it says, as `status check: what`, and how it ends.
fn told(mesh: &Mesh, envoy: SocketAddr) -> (i32, Vec<String>) {
    let url = format!("http://{envoy}");
    let aggregator = mesh.aggregator();
    let output = aggregator.command(&["doctor", "--envoy", &url, "--format", "json"]);
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    let findings = answer["items"].as_array().expect("findings").clone();
    let lines = findings.iter().map(|finding| {
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        let is_well = text("status") == "ok";
        assert_eq!(is_well, text("remedy").is_empty(), "{finding}");
        format!("{} {}: {}", text("status"), text("check"), text("what"))
    });
    (output.status.code().unwrap_or(-1), lines.collect())
}

fn complaints(mesh: &Mesh) -> Vec<String> {
    let (code, mut lines) = told(mesh, mesh.envoy().admin());
    lines.retain(|line| !line.starts_with("ok "));
    assert_eq!(code, i32::from(!lines.is_empty()), "{lines:?}");
    lines
}

/// Waits until this is among what it complains of.
#[track_caller]
fn complains(mesh: &Mesh, of: &str) {
    eventually("a complaint", || {
        let lines = complaints(mesh);
        match lines.iter().any(|line| line.contains(of)) {
            true => Ok(()),
            false => Err(format!("{lines:#?}")),
        }
    });
}

fn call(mesh: &Mesh) {
    let used = usage("claude-sonnet-4-5").input(10).output(5);
    mesh.client("red").call(&Dialect::Anthropic.plain(&used));
}

/// The filters of the first listener.
fn filters(config: &mut Value) -> &mut Vec<Value> {
    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let filters = config.pointer_mut(&format!("{manager}/http_filters"));
    filters.and_then(Value::as_array_mut).expect("filters")
}

fn cluster<'c>(config: &'c mut Value, name: &str) -> &'c mut Value {
    let clusters = config.pointer_mut("/static_resources/clusters");
    let clusters = clusters.and_then(Value::as_array_mut).expect("clusters");
    let found = clusters.iter_mut().find(|cluster| cluster["name"] == name);
    found.expect("such a cluster")
}

fn started(built: MeshBuilder) -> Option<Mesh> {
    let mesh = built.start()?;
    call(&mesh);
    Some(mesh)
}

#[test]
fn where_all_is_well_nothing_is_to_do() {
    let Some(mesh) = started(Mesh::built()) else {
        return;
    };
    let wanted = [
        "ok filter: it is loaded and runs",
        "ok calls: 1 metered, 1 acknowledged",
        "ok aggregator: ready, 1 calls in its ledger",
    ];
    // An event leaves within a moment, and Envoy is told of it within another.
    eventually("no complaint", || {
        let (code, lines) = told(&mesh, mesh.envoy().admin());
        let are_there = wanted
            .iter()
            .all(|want| lines.iter().any(|line| line == want));
        match are_there && code == 0 {
            true => Ok(()),
            false => Err(format!("{lines:#?}")),
        }
    });

    let (code, lines) = told(&mesh, ports::free());
    assert_eq!(code, 1);
    assert!(
        lines[0].starts_with("FAIL envoy: http://127.0.0.1:"),
        "{lines:#?}"
    );
}

#[test]
fn an_envoy_without_the_filter_is_told_of() {
    let built = Mesh::built().envoy(|config| {
        filters(config).retain(|filter| filter["name"] != "tollmesh");
    });
    let Some(mesh) = started(built) else { return };
    complains(
        &mesh,
        "FAIL filter: this Envoy has no filter of ours, so nothing is metered",
    );
    complains(
        &mesh,
        "warn events: no filter has sent anything since the aggregator began",
    );
}

#[test]
fn a_configuration_that_cannot_be_used_is_told_of() {
    let built = Mesh::built().plugin(json!({ "tag": {} }));
    let Some(mesh) = started(built) else { return };
    complains(&mesh, "FAIL filter: its configuration cannot be used: ");
}

#[test]
fn a_cluster_that_envoy_has_not_is_told_of() {
    let built = Mesh::built().envoy(|config| cluster(config, "tollmesh")["name"] = json!("other"));
    let Some(mesh) = started(built) else { return };
    complains(
        &mesh,
        "FAIL cluster: the filter sends events to cluster \"tollmesh\", which",
    );
}

#[test]
fn a_cluster_that_leads_elsewhere_is_told_of() {
    let built = Mesh::built().envoy(|config| {
        let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
        let address = cluster(config, "tollmesh").pointer_mut(endpoint);
        *address.expect("an address") =
            json!({ "socket_address": { "address": "127.0.0.1", "port_value": 9 } });
    });
    let Some(mesh) = started(built) else { return };
    complains(
        &mesh,
        "FAIL cluster: cluster \"tollmesh\" leads to 127.0.0.1:9, the aggregator",
    );
    complains(&mesh, "FAIL calls: 1 of 1 events wait");
}

#[test]
fn a_filter_that_would_stop_traffic_and_a_provider_without_tls_are_told_of() {
    let built = Mesh::built().envoy(|config| {
        for filter in filters(config)
            .iter_mut()
            .filter(|f| f["name"] == "tollmesh")
        {
            let config = &mut filter["typed_config"]["config"];
            config
                .as_object_mut()
                .expect("a configuration")
                .remove("reload_config");
            config["failure_policy"] = json!("FAIL_CLOSED");
        }
        // A name for the health of its endpoint is enough to tell whose it is.
        let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint";
        let endpoint = cluster(config, "anthropic").pointer_mut(endpoint);
        endpoint.expect("an endpoint")["hostname"] = json!("api.anthropic.com");
    });
    let Some(mesh) = started(built) else { return };
    complains(&mesh, "warn filter: if it fails, traffic is refused");
    complains(
        &mesh,
        "warn providers: cluster \"anthropic\" reaches api.anthropic.com without TLS",
    );
}

#[test]
fn an_aggregator_that_is_away_is_told_of() {
    let Some(mesh) = started(Mesh::built()) else {
        return;
    };
    mesh.aggregator().kill();
    call(&mesh);
    call(&mesh);
    complains(&mesh, "FAIL aggregator: nothing answers at 127.0.0.1:");
    complains(&mesh, "of 3 events wait, ");
    mesh.aggregator().restart().expect("it starts again");
}

#[test]
fn calls_that_cannot_be_read_and_models_without_a_price_are_told_of() {
    let Some(mesh) = started(Mesh::built()) else {
        return;
    };
    let used = usage("a-model-of-nobody").input(10).output(5);
    mesh.client("red").call(&Dialect::Anthropic.plain(&used));
    let mut unknown = Dialect::OpenAiChat.plain(&usage("gpt-4o").input(1).output(1));
    unknown.ask.path = "/v1/no/such/endpoint".into();
    mesh.client("red").call(&unknown);
    complains(&mesh, "warn calls: 1 calls to providers could not be read");
    complains(
        &mesh,
        "warn prices: 1 calls have no price: a-model-of-nobody",
    );
}

#[test]
fn a_bad_price_file_is_told_of() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("mine.toml");
    std::fs::write(&file, "schema = 1\n").expect("a file");
    let Some(mesh) = Mesh::start() else { return };
    mesh.aggregator()
        .configure(&format!("overrides = {file:?}"))
        .expect("it starts with a good file");
    std::fs::write(&file, "schema = 2\n").expect("a file");
    complains(&mesh, "FAIL prices: older prices stay in force: ");
}
