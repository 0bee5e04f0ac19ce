//! What comes from outside says nothing about spend: each recipe for an ingress, in a real Envoy before
//! an app that passes every header on.
//!
//! That app is the mesh's own Envoy: what an outsider says reaches its filter as the app's own words.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tollmesh_tests::artifacts::{self, Artifacts};
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::envoy::{Envoy, Launch};
use tollmesh_tests::ledger::Row;
use tollmesh_tests::{Answer, Mesh, Shared, envoy_config, usage};

static MESH: Shared = Shared::new();

/// What the default configuration of the filter takes for tags, and what looks so to an app that
/// cannot tell `_` from `-`.
const BY_DEFAULT: [(&str, &str); 4] = [
    ("x-llm-tag-team", "bank"),
    ("X-LLM-Tag-Feature", "vault"),
    ("x_llm_tag_user", "boss"),
    ("x-tollmesh-anything", "1"),
];

/// What it takes for tags where its configuration says so.
const WHERE_TOLD: [(&str, &str); 5] = [
    ("x-cost-centre", "4711"),
    ("baggage", "app.tenant=bank"),
    ("helicone-property-app", "mobile"),
    ("x-portkey-metadata", r#"{"workflow":"w"}"#),
    ("x-litellm-tags", "experiment:b"),
];

/// The tags that these make.
const TAGS_WHERE_TOLD: [&str; 5] = ["app", "cost_center", "customer", "experiment", "workflow"];

/// A filter that hears all of the above.
fn heard_everywhere() -> tollmesh_tests::MeshBuilder {
    Mesh::built().plugin(json!({ "tags": {
        "headers": { "cost_center": "x-cost-centre" },
        "baggage": { "customer": "app.tenant" },
        "aliases": ["helicone", "portkey", "litellm"]
    } }))
}

#[test]
fn without_a_recipe_an_outsider_tags_the_apps_calls() {
    let Some((mesh, artifacts)) = started() else {
        return;
    };
    let edge = Edge::start(&artifacts, &mesh, &|hcm| {
        hcm["http_filters"]
            .as_array_mut()
            .expect("filters")
            .remove(0);
    });
    let (answer, row) = edge.call(&mesh);
    let mut said = [&TAGS_WHERE_TOLD[..], &["feature", "team"]].concat();
    said.sort_unstable();
    assert_eq!(tags(&row), said);
    assert!(answer.header("x-tollmesh-event").is_some());
}

#[test]
fn envoys_own_ingress_drops_them() {
    let Some((mesh, artifacts)) = started() else {
        return;
    };
    for is_all in [false, true] {
        let filter = filters(&ingress(is_all))[0].clone();
        drops_them(&artifacts, &mesh, is_all, &|hcm| {
            hcm["http_filters"][0] = filter.clone();
        });
    }
}

#[test]
fn istios_ingress_drops_them() {
    let Some((mesh, artifacts)) = started() else {
        return;
    };
    for is_all in [false, true] {
        let object = recipe("k8s/ingress/istio/envoy-filter.yaml", is_all);
        let patch = &object["spec"]["configPatches"][0]["patch"];
        assert_eq!(patch["operation"], "INSERT_FIRST");
        drops_them(&artifacts, &mesh, is_all, &|hcm| {
            hcm["http_filters"][0] = patch["value"].clone();
        });
    }
}

#[test]
fn envoy_gateways_ingress_drops_them() {
    let Some((mesh, artifacts)) = started() else {
        return;
    };
    for is_all in [false, true] {
        let file = "k8s/ingress/envoy-gateway/client-traffic-policy.yaml";
        let headers = recipe(file, is_all)["spec"]["headers"].clone();
        drops_them(&artifacts, &mesh, is_all, &|hcm| {
            let removed = removed(&headers["earlyRequestHeaders"]["removeOnMatch"]);
            hcm["early_header_mutation_extensions"] = json!([{
                "name": "early",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.http.early_header_mutation.\
                              header_mutation.v3.HeaderMutation",
                    "mutations": removed
                }
            }]);
            let removed = self::removed(&headers["lateResponseHeaders"]["removeOnMatch"]);
            let mutations = &mut hcm["http_filters"][0]["typed_config"]["mutations"];
            *mutations = json!({ "response_mutations": removed });
        });
    }
}

#[test]
fn a_provider_behind_a_filter_of_its_own_is_paid_where_its_word_is_dropped() {
    let call = |mesh: &Mesh| {
        let exchange = Dialect::OpenAiChat.plain(&usage("gpt-4o").input(10).output(2));
        let exchange = exchange.reply_header("x-tollmesh-event", "theirs-1");
        let answer = mesh.client("red").call(&exchange);
        let told = answer.header("x-tollmesh-event").map(str::to_string);
        let row = mesh.ledger().row_of(&answer);
        (row.text("outcome").map(str::to_string), told)
    };
    let dropped = Mesh::built().envoy(|config| {
        let filters = connection_manager(config)["http_filters"].as_array_mut();
        let between = filters.expect("filters");
        between.insert(
            between.len() - 1,
            json!({
                "name": "from-providers",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.\
                              header_mutation.v3.HeaderMutation",
                    "mutations": { "response_mutations": [{ "remove": "x-tollmesh-event" }] }
                }
            }),
        );
    });
    let Some(mesh) = dropped.start() else { return };
    let (outcome, told) = call(&mesh);
    assert_eq!(outcome.as_deref(), Some("success"));
    assert_ne!(told.as_deref(), Some("theirs-1"));
    let Some(mesh) = MESH.mesh(heard_everywhere) else {
        return;
    };
    assert_eq!(call(&mesh).0.as_deref(), Some("relayed"));
}

/// What Envoy Gateway has Envoy do of its own entries.
fn removed(entries: &Value) -> Value {
    let entries = entries.as_array().expect("entries");
    let mutation = |entry: &Value| {
        let value = &entry["value"];
        let matcher = match entry["type"].as_str() {
            Some("Exact") => json!({ "exact": value }),
            Some("RegularExpression") => json!({ "safe_regex": { "regex": value } }),
            other => panic!("{other:?}"),
        };
        json!({ "remove_on_match": { "key_matcher": matcher } })
    };
    entries.iter().map(mutation).collect()
}

#[track_caller]
fn drops_them(artifacts: &Artifacts, mesh: &Mesh, is_all: bool, recipe: &dyn Fn(&mut Value)) {
    let edge = Edge::start(artifacts, mesh, recipe);
    let (answer, row) = edge.call(mesh);
    let left = if is_all { &[][..] } else { &TAGS_WHERE_TOLD };
    assert_eq!(tags(&row), left, "{}", row.0);
    let received = mesh.provider().received(&answer.request_id).remove(0);
    for (name, _) in BY_DEFAULT {
        assert_eq!(received.header(&name.to_lowercase()), None, "{name}");
    }
    // Ours is on its way in, so it was dropped on its way out.
    let told: Vec<_> = answer
        .headers
        .keys()
        .filter(|name| name.as_str().contains("tollmesh"))
        .collect();
    assert!(told.is_empty(), "outsiders see {told:?}");
    assert_eq!(received.header("x-innocent").as_deref(), Some("1"));
}

/// An Envoy at the mesh's edge; its folder goes with it.
struct Edge {
    envoy: Envoy,
    _dir: tempfile::TempDir,
}

impl Edge {
    fn start(artifacts: &Artifacts, mesh: &Mesh, recipe: &dyn Fn(&mut Value)) -> Edge {
        let mut config = ingress(false);
        fill_in(&mut config, mesh.envoy().listener());
        recipe(connection_manager(&mut config));
        let dir = tempfile::tempdir().expect("a folder");
        let launch = Launch::new(&artifacts.envoy, config, 1, dir.path());
        let envoy = Envoy::start(launch, mesh.runtime().handle());
        let envoy = envoy.unwrap_or_else(|error| panic!("{error:#}"));
        Edge { envoy, _dir: dir }
    }

    fn call(&self, mesh: &Mesh) -> (Answer, Row) {
        let mut outsider = mesh
            .anonymous_at(self.envoy.listener())
            .header("x-innocent", "1");
        for (name, value) in BY_DEFAULT.iter().chain(&WHERE_TOLD) {
            outsider = outsider.header(name, value);
        }
        let exchange = Dialect::OpenAiChat.plain(&usage("gpt-4o").input(10).output(2));
        let answer = outsider.call(&exchange);
        answer.is_what_was_sent(&exchange);
        let row = mesh.ledger().row_of(&answer);
        (answer, row)
    }
}

/// The ports, the app, and the test's own ids of requests: an edge gives requests new ones.
fn fill_in(config: &mut Value, app: SocketAddr) {
    let any_port = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 0 } });
    config["admin"]["address"] = any_port.clone();
    config["static_resources"]["listeners"][0]["address"] = any_port;
    let cluster = &mut config["static_resources"]["clusters"][0];
    cluster["type"] = json!("STATIC");
    let endpoint = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    endpoint["address"]["socket_address"] =
        json!({ "address": app.ip().to_string(), "port_value": app.port() });
    connection_manager(config)["preserve_external_request_id"] = json!(true);
}

fn connection_manager(config: &mut Value) -> &mut Value {
    let place = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    config.pointer_mut(place).expect("a connection manager")
}

fn filters(config: &Value) -> Vec<Value> {
    let mut config = config.clone();
    let filters = connection_manager(&mut config)["http_filters"].take();
    filters.as_array().expect("filters").clone()
}

fn ingress(is_all: bool) -> Value {
    recipe("envoy/ingress.yaml", is_all)
}

/// The file as it is written, or with the lines that are there to be taken in.
fn recipe(file: &str, is_all: bool) -> Value {
    let text = fs::read_to_string(artifacts::root().join(file)).expect("a file");
    let text = match is_all {
        true => text.replace("# - {", "- {"),
        false => text,
    };
    envoy_config::read(&text).unwrap_or_else(|error| panic!("{file}: {error:#}"))
}

fn tags(row: &Row) -> Vec<&str> {
    let tags = row.0["tags"].as_object();
    let mut names: Vec<_> = tags
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    names
}

fn started() -> Option<(std::sync::Arc<Mesh>, Artifacts)> {
    let mesh = MESH.mesh(heard_everywhere)?;
    Some((mesh, Artifacts::find_or_skip()?))
}
