//! An overlay of `k8s/` on the street: the Envoy that it amounts to, and who stands before it.
//!
//! `k8s/overlays/NAME/envoy.yaml` runs as it is written, but for ports, the wasm's path, and files of
//! certificates. Where calls reach it under TLS, a second Envoy without the filter stands before it, as
//! the sidecar, the app or the ztunnel that they come from.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use crate::artifacts;
use crate::envoy_config::{self, Places};
use crate::hop::Hop;
use crate::ports;
use crate::tls::Identity;

/// The providers of the overlays, whose names certificates must have.
pub const PROVIDERS: [&str; 3] = [
    "api.openai.com",
    "api.anthropic.com",
    "generativelanguage.googleapis.com",
];

/// Where Istio's agent would have its certificates in the written configurations.
const CERTIFICATES: &str = "/etc/istio/certs";

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";

/// An overlay, and how calls reach its Envoy.
#[derive(Clone, Debug)]
pub struct Overlay {
    name: &'static str,
    way: Way,
}

/// How calls reach an overlay's Envoy.
#[derive(Clone, Debug)]
pub enum Way {
    /// In clear text, from the app itself.
    Clear,
    /// From a sidecar, which shows a certificate for this SPIFFE id.
    MutualTls(String),
    /// From an app that speaks TLS itself, and trusts a private authority.
    AppTls,
    /// From a ztunnel, in a tunnel, under a certificate for this SPIFFE id.
    Tunnel(String),
}

impl Overlay {
    /// The overlay of that name.
    pub fn new(name: &'static str, way: Way) -> Overlay {
        Overlay { name, way }
    }

    /// What its Envoy is configured with.
    ///
    /// # Errors
    /// Where the file cannot be read, or lacks a place that must be filled in.
    pub fn config(&self, places: &Places<'_>, dir: &Path) -> anyhow::Result<Value> {
        let file = artifacts::root().join(format!("k8s/overlays/{}/envoy.yaml", self.name));
        let text = fs::read_to_string(&file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        let mut config = envoy_config::read(&text)?;
        envoy_config::fill_in(&mut config, places)?;
        move_files(&mut config, CERTIFICATES, &certificates(dir));
        lead_to_admin(&mut config);
        Ok(config)
    }

    /// Writes the certificates, and answers the Envoy that stands before it, which calls `target`.
    ///
    /// # Errors
    /// Where certificates cannot be made.
    pub fn prepare(&self, dir: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(certificates(dir).join("tollmesh-providers"))?;
        match &self.way {
            Way::Clear => Ok(()),
            Way::MutualTls(caller) | Way::Tunnel(caller) => {
                Hop::by(caller, dir)?.install(&certificates(dir))
            }
            Way::AppTls => {
                let identity = Identity::of(&PROVIDERS)?;
                let folder = certificates(dir).join("tollmesh-providers");
                fs::write(folder.join("tls.crt"), &identity.certificate_pem)?;
                fs::write(folder.join("tls.key"), &identity.key_pem)?;
                fs::write(certificates(dir).join("private-ca.pem"), &identity.ca_pem)?;
                Ok(())
            }
        }
    }

    /// The Envoy that stands before it and calls `target`; `None` where apps call it themselves.
    pub fn front(&self, target: SocketAddr, dir: &Path) -> Option<Value> {
        let certificates = certificates(dir);
        let own = json!([{
            "certificate_chain": { "filename": certificates.join("caller.pem") },
            "private_key": { "filename": certificates.join("caller.key") }
        }]);
        let mesh_ca = certificates.join("root-cert.pem");
        let (filter, context) = match &self.way {
            Way::Clear => return None,
            Way::MutualTls(_) => (forwards_http(), context(&mesh_ca, &own)),
            Way::AppTls => {
                let ca = certificates.join("private-ca.pem");
                (forwards_http(), context(&ca, &json!([])))
            }
            Way::Tunnel(_) => (tunnels("api.openai.com:80"), context(&mesh_ca, &own)),
        };
        let is_tunnel = matches!(self.way, Way::Tunnel(_));
        Some(front(&filter, &cluster(target, context, is_tunnel)))
    }
}

/// Gives the admin interface a port of which the cluster `admin` knows, where there is that cluster.
fn lead_to_admin(config: &mut Value) {
    let address = ports::free();
    let address = json!({
        "socket_address": { "address": address.ip().to_string(), "port_value": address.port() }
    });
    let clusters = config["static_resources"]["clusters"].as_array_mut();
    let mut clusters = clusters.into_iter().flatten();
    if let Some(cluster) = clusters.find(|cluster| cluster["name"] == "admin") {
        let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint";
        if let Some(endpoint) = cluster.pointer_mut(endpoint) {
            endpoint["address"] = address.clone();
            config["admin"]["address"] = address;
        }
    }
}

fn certificates(dir: &Path) -> PathBuf {
    dir.join("certificates")
}

fn front(filter: &Value, cluster: &Value) -> Value {
    let any_port = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 0 } });
    json!({
        "admin": { "address": any_port },
        "static_resources": {
            "listeners": [{
                "name": "front", "address": any_port, "filter_chains": [{ "filters": [filter] }]
            }],
            "clusters": [cluster]
        }
    })
}

fn forwards_http() -> Value {
    json!({
        "name": "http",
        "typed_config": {
            "@type": format!("{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "front",
            "stream_idle_timeout": "0s",
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": format!("{FILTERS}.http.router.v3.Router") }
            }],
            "route_config": {
                "virtual_hosts": [{
                    "name": "all", "domains": ["*"],
                    "routes": [{
                        "match": { "prefix": "/" },
                        "route": { "cluster": "next", "timeout": "0s" }
                    }]
                }]
            }
        }
    })
}

/// Each connection in a tunnel of its own, as HBONE has it.
fn tunnels(to: &str) -> Value {
    json!({
        "name": "tunnel",
        "typed_config": {
            "@type": format!("{FILTERS}.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "front",
            "cluster": "next",
            "tunneling_config": { "hostname": to }
        }
    })
}

fn context(ca: &Path, own: &Value) -> Value {
    json!({
        "@type": format!("{TLS}.UpstreamTlsContext"),
        "common_tls_context": {
            "tls_certificates": own,
            "validation_context": { "trusted_ca": { "filename": ca } }
        }
    })
}

fn cluster(target: SocketAddr, context: Value, is_tunnel: bool) -> Value {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let has_own = context["common_tls_context"]["tls_certificates"] != json!([]);
    let http = match is_tunnel {
        true => json!({ "http2_protocol_options": {} }),
        false => json!({ "http_protocol_options": { "enable_trailers": true } }),
    };
    let mut options = json!({
        "@type": format!("type.googleapis.com/{OPTIONS}"), "explicit_http_config": http
    });
    if !has_own {
        // An app names the host that it calls, and checks that the certificate has that name.
        options["upstream_http_protocol_options"] =
            json!({ "auto_sni": true, "auto_san_validation": true });
    }
    let address = json!({
        "socket_address": { "address": target.ip().to_string(), "port_value": target.port() }
    });
    json!({
        "name": "next",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "next",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }]
        },
        "typed_extension_protocol_options": { OPTIONS: options },
        "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": context }
    })
}

/// Has every text that begins with one folder begin with another.
fn move_files(config: &mut Value, from: &str, to: &Path) {
    match config {
        Value::String(text) => {
            if let Some(rest) = text.strip_prefix(from) {
                *text = format!("{}{rest}", to.display());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| move_files(item, from, to)),
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|field| move_files(field, from, to)),
        _ => {}
    }
}
