//! Where an Envoy's calls go: to the aggregator, and to providers.

use serde_json::Value;
use tollmesh_usage::detect;

use crate::config::Listen;
use crate::doctor::Findings;
use crate::doctor::envoy::Told;

/// A cluster that leads to a provider.
struct ToProvider {
    name: String,
    host: String,
    is_encrypted: bool,
}

/// Judges the ways to the aggregator, where the filter names one, and to providers.
pub fn judge(told: &Told, cluster: Option<&str>, ingest: &Listen, findings: &mut Findings) {
    if let Some(cluster) = cluster {
        judge_aggregator(told, cluster, ingest, findings);
    }
    let providers: Vec<ToProvider> = clusters(&told.dump).filter_map(to_provider).collect();
    for provider in providers.iter().filter(|provider| !provider.is_encrypted) {
        findings.warn(
            "providers",
            format!("cluster {:?} reaches {} without TLS", provider.name, provider.host),
            "originate TLS: a transport_socket as in envoy/envoy.yaml (Istio: a DestinationRule with \
             tls.mode SIMPLE)",
        );
    }
    judge_calls(told, &providers, findings);
}

fn judge_aggregator(told: &Told, cluster: &str, ingest: &Listen, findings: &mut Findings) {
    let statuses = told.clusters["cluster_statuses"]
        .as_array()
        .into_iter()
        .flatten();
    let Some(status) = statuses
        .into_iter()
        .find(|status| status["name"] == cluster)
    else {
        findings.fail(
            "cluster",
            format!("the filter sends events to cluster {cluster:?}, which this Envoy has not"),
            "add it as in envoy/envoy.yaml, or give aggregator.cluster its name (Istio: \
             outbound|PORT||HOST)",
        );
        return;
    };
    let hosts = status["host_statuses"].as_array().into_iter().flatten();
    let addresses: Vec<String> = hosts.map(|host| address(&host["address"])).collect();
    let failed = told.stat(&format!("cluster.{cluster}.upstream_cx_connect_fail"));
    let connected = told.stat(&format!("cluster.{cluster}.upstream_cx_total"));
    let is_there = addresses.iter().any(|address| leads_to(address, ingest));
    let shown = match addresses.is_empty() {
        true => "nowhere".to_owned(),
        false => addresses.join(", "),
    };
    if addresses.is_empty() {
        findings.fail(
            "cluster",
            format!("cluster {cluster:?} leads nowhere"),
            "its name is not resolved, or it has no endpoint",
        );
    } else if !is_there {
        findings.fail(
            "cluster",
            format!(
                "cluster {cluster:?} leads to {shown}, the aggregator takes events at {ingest}"
            ),
            "give the cluster the address of ingest.listen, or this command the file of the \
             aggregator that is meant (--config)",
        );
    } else if failed > 0 && failed >= connected {
        findings.fail(
            "cluster",
            format!("{failed} connections to {shown} failed, none was made"),
            "the aggregator does not run, or the proxy may not open the socket",
        );
    } else {
        findings.ok("cluster", format!("cluster {cluster:?} leads to {shown}"));
    }
}

/// Calls that reach providers past the filter.
fn judge_calls(told: &Told, providers: &[ToProvider], findings: &mut Findings) {
    let is_metered = told.counted("events_queued") + told.counted("unmetered_provider_calls") > 0;
    let mut n_reached = 0;
    for provider in providers {
        let stat = |name: &str| told.stat(&format!("cluster.{}.{name}", provider.name));
        let (requests, connections) = (stat("upstream_rq_total"), stat("upstream_cx_total"));
        n_reached += requests;
        if requests == 0 && connections > 0 {
            findings.fail(
                "providers",
                format!("{connections} connections to {} are opaque: apps speak TLS themselves", provider.host),
                "set the SDK's base URL to http://, so that Envoy can read the call and start TLS, or \
                 end the apps' TLS at an egress gateway",
            );
        } else if requests > 0 && !is_metered {
            findings.fail(
                "providers",
                format!(
                    "{requests} calls went to {}, and the filter metered none",
                    provider.host
                ),
                "the filter is not on the listener that they come through, or comes after one that \
                 answers them; each listener of providers needs it",
            );
        }
    }
    if !providers.is_empty() && (n_reached == 0 || is_metered) {
        let hosts: Vec<&str> = providers
            .iter()
            .map(|provider| provider.host.as_str())
            .collect();
        findings.ok(
            "providers",
            format!("{n_reached} calls to {}", hosts.join(", ")),
        );
    }
}

/// All clusters of a dump.
fn clusters(dump: &Value) -> impl Iterator<Item = &Value> {
    let parts = dump["configs"].as_array().into_iter().flatten();
    let lists = parts.flat_map(|part| {
        ["static_clusters", "dynamic_active_clusters"].map(|list| part[list].as_array())
    });
    lists.flatten().flatten().map(|entry| &entry["cluster"])
}

fn to_provider(cluster: &Value) -> Option<ToProvider> {
    let name = cluster["name"].as_str()?;
    Some(ToProvider {
        name: name.to_owned(),
        host: provider_in(cluster)?.to_owned(),
        is_encrypted: is_encrypted(cluster),
    })
}

/// The first text in it that is the host of a provider: a name as Istio writes them
/// (`outbound|443||api.openai.com`), an address, or an SNI.
fn provider_in(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => {
            let host = text.rsplit('|').next().unwrap_or(text);
            detect::is_known(host).then_some(host)
        }
        Value::Object(object) => object.values().find_map(provider_in),
        Value::Array(array) => array.iter().find_map(provider_in),
        _ => None,
    }
}

fn is_encrypted(cluster: &Value) -> bool {
    let is_tls = |socket: &Value| {
        let of_type = socket["typed_config"]["@type"].as_str().unwrap_or_default();
        of_type.ends_with("UpstreamTlsContext") || of_type.ends_with("QuicUpstreamTransport")
    };
    let matches = cluster["transport_socket_matches"]
        .as_array()
        .into_iter()
        .flatten();
    is_tls(&cluster["transport_socket"])
        || matches
            .into_iter()
            .any(|one| is_tls(&one["transport_socket"]))
}

/// `127.0.0.1:4100`, or `unix:/run/tollmesh/ingest.sock`.
fn address(value: &Value) -> String {
    if let Some(path) = value["pipe"]["path"].as_str() {
        return format!("unix:{path}");
    }
    let socket = &value["socket_address"];
    let host = socket["address"].as_str().unwrap_or_default();
    match host.contains(':') {
        true => format!("[{host}]:{}", socket["port_value"]),
        false => format!("{host}:{}", socket["port_value"]),
    }
}

/// Whether who listens there is reached at that address. A volume may be mounted at another path in
/// each container, so sockets are told apart by their file's name; so are ports of listeners that
/// take what comes to any address.
fn leads_to(address: &str, ingest: &Listen) -> bool {
    match ingest {
        Listen::Unix(path) => {
            let theirs = address.strip_prefix("unix:").map(std::path::Path::new);
            theirs.is_some_and(|theirs| theirs.file_name() == path.file_name())
        }
        Listen::Tcp(listen) => match address.parse::<std::net::SocketAddr>() {
            Ok(theirs) if listen.ip().is_unspecified() => theirs.port() == listen.port(),
            Ok(theirs) => theirs == *listen,
            Err(_) => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(stats: &[(&str, u64)], clusters: Value) -> Told {
        Told {
            dump: json!({ "configs": [{ "dynamic_active_clusters": clusters }] }),
            stats: stats
                .iter()
                .map(|(name, n)| (name.to_string(), *n))
                .collect(),
            ..Told::default()
        }
    }

    fn found(told: &Told) -> Vec<String> {
        let mut findings = Findings::default();
        judge(
            told,
            None,
            &Listen::Tcp(([127, 0, 0, 1], 4100).into()),
            &mut findings,
        );
        let lines = findings.0.iter();
        lines
            .map(|f| format!("{} {}", f.status.name(), f.what))
            .collect()
    }

    #[test]
    fn providers_are_known_by_whatever_names_them() {
        let tls =
            json!({ "typed_config": { "@type": "type.googleapis.com/x.UpstreamTlsContext" } });
        let clusters = json!([
            { "cluster": { "name": "outbound|443||api.openai.com",
                           "transport_socket_matches": [{ "transport_socket": tls }] } },
            { "cluster": { "name": "a", "load_assignment": { "endpoints": [
                { "address": "api.anthropic.com" }] } } },
            { "cluster": { "name": "shop", "load_assignment": { "address": "shop.internal" } } },
        ]);
        let stats = [
            ("cluster.outbound|443||api.openai.com.upstream_rq_total", 4),
            ("cluster.a.upstream_cx_total", 2),
            ("cluster.shop.upstream_rq_total", 9),
        ];
        assert_eq!(
            found(&told(&stats, clusters.clone())),
            [
                "warn cluster \"a\" reaches api.anthropic.com without TLS",
                "FAIL 4 calls went to api.openai.com, and the filter metered none",
                "FAIL 2 connections to api.anthropic.com are opaque: apps speak TLS themselves",
            ]
        );
        let metered = [
            ("cluster.outbound|443||api.openai.com.upstream_rq_total", 4),
            ("wasmcustom.tollmesh_filter_events_queued_total", 4),
        ];
        assert_eq!(
            found(&told(&metered, clusters))[1],
            "ok 4 calls to api.openai.com, api.anthropic.com"
        );
    }

    #[test]
    fn addresses_that_lead_to_a_listener() {
        let unix = Listen::parse("unix:/run/tollmesh/ingest.sock").unwrap();
        let tcp = Listen::parse("127.0.0.1:4100").unwrap();
        let any = Listen::parse("0.0.0.0:4100").unwrap();
        for (address, listen, leads) in [
            ("unix:/mnt/t/ingest.sock", &unix, true),
            ("unix:/mnt/t/other.sock", &unix, false),
            ("127.0.0.1:4100", &unix, false),
            ("127.0.0.1:4100", &tcp, true),
            ("127.0.0.1:4101", &tcp, false),
            ("unix:/mnt/t/ingest.sock", &tcp, false),
            ("10.0.0.7:4100", &any, true),
        ] {
            assert_eq!(leads_to(address, listen), leads, "{address} {listen}");
        }
    }
}
