//! The shipped `envoy/envoy.yaml` with ports, upstreams and the wasm's path filled in.
//!
//! The file is read as data and rewritten by shape, never by text: what is tested is the very
//! configuration that users copy, less the places that must differ on a test machine.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// The options under which a cluster's HTTP version stands.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const HTTP_OPTIONS_TYPE: &str =
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const STRING_TYPE: &str = "type.googleapis.com/google.protobuf.StringValue";

/// Where the aggregator listens for the filter.
#[derive(Clone, Debug)]
pub enum Ingest {
    /// A loopback port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(std::path::PathBuf),
}

/// What is filled in.
#[derive(Clone, Debug)]
pub struct Places<'a> {
    /// The filter.
    pub wasm: &'a Path,
    /// Where the aggregator (or the chaos proxy before it) listens.
    pub ingest: &'a Ingest,
    /// The provider that stands in for all; `None` leaves the clusters as they ship.
    pub provider: Option<SocketAddr>,
    /// The CA that the provider's certificate is of; `None` takes TLS out of the clusters.
    pub provider_ca: Option<&'a Path>,
    /// Whether Envoy speaks HTTP/2 to the provider.
    pub is_upstream_http2: bool,
    /// Whether hosts beside the shipped ones are routed to the provider too.
    pub routes_every_host: bool,
    /// Merged into the plugin's configuration; `Value::Null` changes nothing.
    pub plugin: &'a Value,
}

/// Reads the YAML as plain data.
pub fn read(yaml: &str) -> anyhow::Result<Value> {
    serde_saphyr::from_str(yaml).context("envoy.yaml is not YAML")
}

/// Fills `places` in.
pub fn fill_in(config: &mut Value, places: &Places<'_>) -> anyhow::Result<()> {
    let any_port = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 0 } });
    config["admin"]["address"] = any_port.clone();
    for listener in array(config, "/static_resources/listeners")? {
        // One that only Envoy itself reaches has none.
        if listener["internal_listener"].is_null() {
            listener["address"] = any_port.clone();
        }
    }
    let plugin = patch_plugin(config, places)?;
    let aggregator = plugin["aggregator"]["cluster"]
        .as_str()
        .unwrap_or("tollmesh")
        .to_string();
    for cluster in array(config, "/static_resources/clusters")? {
        if cluster["name"] == aggregator.as_str() {
            point_at(cluster, &ingest_address(places.ingest));
            without_tls(cluster);
        } else if let Some(provider) = places.provider
            && is_a_providers(cluster)
        {
            point_at(cluster, &socket_address(provider));
            if let Some(ca) = places.provider_ca {
                trust(cluster, ca)?;
                continue;
            }
            without_tls(cluster);
            cluster["typed_extension_protocol_options"] = http_options(places.is_upstream_http2);
        }
    }
    if places.routes_every_host {
        let cluster = first_provider(config, &aggregator)?;
        visit(config, &mut |object| route_every_host(object, &cluster));
    }
    Ok(())
}

/// Whether a cluster is a provider's: its address is looked up.
fn is_a_providers(cluster: &Value) -> bool {
    ["LOGICAL_DNS", "STRICT_DNS"].contains(&cluster["type"].as_str().unwrap_or_default())
}

/// Gives the listener a port of its own; a successor asks its parent for the listener by it.
pub fn listen_at(config: &mut Value, address: SocketAddr) -> anyhow::Result<()> {
    for listener in array(config, "/static_resources/listeners")? {
        listener["address"] = socket_address(address);
    }
    Ok(())
}

/// Moves the listeners into a file of their own, which Envoy reads again when another takes its place
/// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/listeners/lds>).
pub fn listeners_to(config: &mut Value, file: &Path) -> anyhow::Result<()> {
    let mut listeners = std::mem::take(array(config, "/static_resources/listeners")?);
    for listener in &mut listeners {
        listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
    }
    replace(file, &json!({ "resources": listeners }))?;
    config["dynamic_resources"] =
        json!({ "lds_config": { "path_config_source": { "path": file } } });
    merge(
        &mut config["node"],
        &json!({ "id": "tollmesh-test", "cluster": "tollmesh-test" }),
    );
    Ok(())
}

/// Gives the plugin in a file of listeners the configuration that `change` makes of its own.
pub fn replug(file: &Path, change: impl Fn(Value) -> Value) -> anyhow::Result<()> {
    let listeners = std::fs::read(file).with_context(|| file.display().to_string())?;
    let mut listeners: Value = serde_json::from_slice(&listeners)?;
    visit(&mut listeners, &mut |object| {
        if object.pointer("/vm_config/code").is_none() {
            return;
        }
        let text = object["configuration"]["value"].as_str();
        let plugin = text.and_then(|text| serde_json::from_str(text).ok());
        let plugin = change(plugin.unwrap_or_default());
        object["configuration"]["value"] = json!(plugin.to_string());
    });
    replace(file, &listeners)
}

/// In one step: Envoy looks when another file takes the place of the one before.
fn replace(file: &Path, content: &Value) -> anyhow::Result<()> {
    let beside = file.with_extension("new");
    std::fs::write(&beside, serde_json::to_vec_pretty(content)?)?;
    std::fs::rename(&beside, file).with_context(|| file.display().to_string())
}

/// Sets the wasm's path, merges the plugin's configuration, and gives back what it is then.
fn patch_plugin(config: &mut Value, places: &Places<'_>) -> anyhow::Result<Value> {
    let mut plugin = None;
    let mut bad = None;
    visit(config, &mut |object| {
        if object.pointer("/vm_config/code").is_none() {
            return;
        }
        object["vm_config"]["code"] = json!({ "local": { "filename": places.wasm } });
        match merged_plugin(&object["configuration"], places.plugin) {
            Ok(merged) => {
                object["configuration"] =
                    json!({ "@type": STRING_TYPE, "value": merged.to_string() });
                plugin = Some(merged);
            }
            Err(error) => bad = Some(error),
        }
    });
    if let Some(error) = bad {
        return Err(error);
    }
    plugin.context("envoy.yaml has no wasm filter")
}

/// The plugin's JSON as it stands (text in a `StringValue`, or a `Struct`), with `patch` merged.
fn merged_plugin(configuration: &Value, patch: &Value) -> anyhow::Result<Value> {
    let mut plugin = match &configuration["value"] {
        Value::String(text) => {
            serde_json::from_str(text).context("the plugin's configuration is not JSON")?
        }
        Value::Null => json!({}),
        value => value.clone(),
    };
    merge(&mut plugin, patch);
    Ok(plugin)
}

/// RFC 7386: objects are merged, `null` removes, all else replaces.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        return;
    };
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.as_object_mut().map(|target| target.remove(key));
            }
            Value::Object(_) if target[key].is_object() => merge(&mut target[key], value),
            value => target[key] = value.clone(),
        }
    }
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn ingest_address(ingest: &Ingest) -> Value {
    match ingest {
        Ingest::Tcp(address) => socket_address(*address),
        Ingest::Unix(path) => json!({ "pipe": { "path": path } }),
    }
}

/// Gives a cluster one endpoint, and takes away what belongs to a name.
fn point_at(cluster: &mut Value, address: &Value) {
    let name = cluster["name"].clone();
    cluster["type"] = json!("STATIC");
    cluster["load_assignment"] = json!({
        "cluster_name": name,
        "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }]
    });
    if let Some(cluster) = cluster.as_object_mut() {
        for key in ["dns_lookup_family", "dns_refresh_rate", "respect_dns_ttl"] {
            cluster.remove(key);
        }
        cluster.remove("cluster_type");
    }
}

fn without_tls(cluster: &mut Value) {
    if let Some(cluster) = cluster.as_object_mut() {
        cluster.remove("transport_socket");
    }
}

/// Leaves a cluster's TLS as it ships, and has it trust that CA instead of the machine's.
fn trust(cluster: &mut Value, ca: &Path) -> anyhow::Result<()> {
    const TRUSTED: &str =
        "/transport_socket/typed_config/common_tls_context/validation_context/trusted_ca";
    let name = cluster["name"].to_string();
    let trusted = cluster.pointer_mut(TRUSTED);
    *trusted.with_context(|| format!("cluster {name} validates no certificate"))? =
        json!({ "filename": ca });
    Ok(())
}

/// Merges `patch` into the action of every route, as RFC 7386 has it.
pub fn patch_routes(config: &mut Value, patch: &Value) {
    visit(config, &mut |object| {
        if object["route"]["cluster"].is_string() {
            merge(&mut object["route"], patch);
        }
    });
}

/// Merges `patch` into every virtual host, as RFC 7386 has it.
pub fn patch_hosts(config: &mut Value, patch: &Value) {
    visit(config, &mut |object| {
        let hosts = object.get_mut("virtual_hosts");
        for host in hosts.and_then(Value::as_array_mut).into_iter().flatten() {
            merge(host, patch);
        }
    });
}

/// Puts an HTTP filter before all others; `Value::Null` puts none.
pub fn put_first(config: &mut Value, filter: &Value) {
    visit(config, &mut |object| {
        let filters = object.get_mut("http_filters").and_then(Value::as_array_mut);
        if let Some(filters) = filters.filter(|_| !filter.is_null()) {
            filters.insert(0, filter.clone());
        }
    });
}

/// Takes the access logs out.
pub fn without_access_logs(config: &mut Value) {
    visit(config, &mut |object| {
        if let Some(object) = object.as_object_mut() {
            object.remove("access_log");
        }
    });
}

fn http_options(is_http2: bool) -> Value {
    let explicit = if is_http2 {
        json!({ "http2_protocol_options": {} })
    } else {
        json!({ "http_protocol_options": { "enable_trailers": true } })
    };
    json!({ HTTP_OPTIONS: { "@type": HTTP_OPTIONS_TYPE, "explicit_http_config": explicit } })
}

fn first_provider(config: &Value, aggregator: &str) -> anyhow::Result<String> {
    let clusters = config
        .pointer("/static_resources/clusters")
        .and_then(Value::as_array);
    let names = clusters
        .into_iter()
        .flatten()
        .filter_map(|cluster| cluster["name"].as_str());
    let provider = names.into_iter().find(|name| *name != aggregator);
    Ok(provider
        .context("envoy.yaml has no provider cluster")?
        .to_string())
}

/// Adds the virtual host `*`, or points the one that is there at `cluster`.
fn route_every_host(object: &mut Value, cluster: &str) {
    let Some(Value::Array(hosts)) = object.get_mut("virtual_hosts") else {
        return;
    };
    hosts.retain(|host| host["domains"] != json!(["*"]));
    hosts.push(json!({
        "name": "every_other_host",
        "domains": ["*"],
        "routes": [{
            "match": { "prefix": "/" },
            "route": { "cluster": cluster, "timeout": "0s" }
        }]
    }));
}

fn array<'a>(config: &'a mut Value, pointer: &str) -> anyhow::Result<&'a mut Vec<Value>> {
    match config.pointer_mut(pointer) {
        Some(Value::Array(array)) => Ok(array),
        _ => bail!("envoy.yaml has no {pointer}"),
    }
}

/// Calls `with` for every object in the tree, outer ones first.
fn visit(value: &mut Value, with: &mut impl FnMut(&mut Value)) {
    if value.is_object() {
        with(value);
    }
    match value {
        Value::Object(object) => object.values_mut().for_each(|child| visit(child, with)),
        Value::Array(array) => array.iter_mut().for_each(|child| visit(child, with)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = r#"
admin: { address: { socket_address: { address: 127.0.0.1, port_value: 15000 } } }
static_resources:
  listeners:
    - name: egress
      address: { socket_address: { address: 0.0.0.0, port_value: 15100 } }
      http_filters:
        - config:
            vm_config: { code: { local: { filename: some.wasm } } }
            configuration: { value: '{"aggregator":{"cluster":"meter","timeout_ms":9}}' }
      route_config: { virtual_hosts: [ { name: a, domains: [api.a] } ] }
  clusters:
    - { name: a, type: LOGICAL_DNS, transport_socket: { name: tls } }
    - { name: meter, type: STATIC }
"#;

    fn filled(plugin: Value) -> Value {
        let mut config = read(SHIPPED).expect("is YAML");
        let places = Places {
            wasm: Path::new("/x/filter.wasm"),
            ingest: &Ingest::Unix("/x/ingest.sock".into()),
            provider: Some(SocketAddr::from(([127, 0, 0, 1], 7))),
            provider_ca: None,
            is_upstream_http2: false,
            routes_every_host: true,
            plugin: &plugin,
        };
        fill_in(&mut config, &places).expect("has every place");
        config
    }

    fn at<'a>(config: &'a Value, pointer: &str) -> &'a Value {
        config.pointer(pointer).unwrap_or(&Value::Null)
    }

    #[test]
    fn every_place_is_filled_in() {
        let config = filled(Value::Null);
        let listener = "/static_resources/listeners/0";
        let port = "/address/socket_address/port_value";
        assert_eq!(at(&config, &format!("/admin{port}")), 0);
        assert_eq!(at(&config, &format!("{listener}{port}")), 0);
        let code = format!("{listener}/http_filters/0/config/vm_config/code/local/filename");
        assert_eq!(at(&config, &code), "/x/filter.wasm");
        let hosts = format!("{listener}/route_config/virtual_hosts");
        assert_eq!(at(&config, &format!("{hosts}/1/domains/0")), "*");
        assert_eq!(
            at(&config, &format!("{hosts}/1/routes/0/route/cluster")),
            "a"
        );
        let endpoint = "load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
        let clusters = "/static_resources/clusters";
        let provider = format!("{clusters}/0/{endpoint}/socket_address/port_value");
        assert_eq!(at(&config, &provider), 7);
        assert_eq!(
            at(&config, &format!("{clusters}/0/transport_socket")),
            &Value::Null
        );
        let ingest = format!("{clusters}/1/{endpoint}/pipe/path");
        assert_eq!(at(&config, &ingest), "/x/ingest.sock");
    }

    #[test]
    fn the_plugin_is_merged_key_by_key() {
        let config =
            filled(json!({ "aggregator": { "timeout_ms": null }, "accept_encoding": "keep" }));
        let value = "/static_resources/listeners/0/http_filters/0/config/configuration/value";
        let plugin: Value =
            serde_json::from_str(at(&config, value).as_str().expect("is text")).expect("is JSON");
        let want = json!({ "aggregator": { "cluster": "meter" }, "accept_encoding": "keep" });
        assert_eq!(plugin, want);
    }
}
