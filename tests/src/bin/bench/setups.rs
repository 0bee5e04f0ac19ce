//! The four Envoys that are compared: one configuration, one filter changed.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tollmesh_tests::envoy_config::{self, Ingest, Places};
use tollmesh_tests::mesh::shipped_envoy_config;

/// What stands in the filter's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Nothing.
    Alone,
    /// A wasm filter that does nothing: the floor for any.
    Empty,
    /// Ours.
    Ours,
    /// Envoy's own extraction of usage, native C++.
    Native,
}

impl Setup {
    /// Every set-up, in the order of the table; within a round they alternate in this order.
    pub const ALL: [Setup; 4] = [Setup::Alone, Setup::Empty, Setup::Ours, Setup::Native];

    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Setup::Alone => "Envoy alone",
            Setup::Empty => "empty wasm filter",
            Setup::Ours => "tollmesh",
            Setup::Native => "ai_protocol_manager",
        }
    }

    /// The shipped configuration with the filter's place taken as this set-up has it.
    ///
    /// Access logs are off in all four: what is compared is the filters.
    pub fn config(
        self,
        wasm: &Path,
        noop: &Path,
        ingest: &Ingest,
        upstream: SocketAddr,
    ) -> anyhow::Result<Value> {
        let mut config = shipped_envoy_config()?;
        let places = Places {
            wasm: if self == Setup::Empty { noop } else { wasm },
            ingest,
            provider: Some(upstream),
            provider_ca: None,
            is_upstream_http2: false,
            routes_every_host: false,
            plugin: &Value::Null,
        };
        envoy_config::fill_in(&mut config, &places)?;
        visit(&mut config, &mut |object| {
            if let Some(object) = object.as_object_mut() {
                object.remove("access_log");
            }
            if let Some(Value::Array(filters)) = object.get_mut("http_filters") {
                self.replace_filter(filters);
            }
        });
        Ok(config)
    }

    fn replace_filter(self, filters: &mut Vec<Value>) {
        let is_ours = |filter: &Value| filter.to_string().contains("filters.http.wasm.v3.Wasm");
        match self {
            Setup::Alone => filters.retain(|filter| !is_ours(filter)),
            Setup::Native => {
                for filter in filters.iter_mut().filter(|filter| is_ours(filter)) {
                    *filter = ai_protocol_manager();
                }
            }
            Setup::Empty | Setup::Ours => {}
        }
    }
}

/// <https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/http/http_filters/ai_protocol_manager_filter>
fn ai_protocol_manager() -> Value {
    let package = "type.googleapis.com/envoy.extensions.filters.http.ai_protocol_manager.v3";
    json!({
        "name": "envoy.filters.http.ai_protocol_manager",
        "typed_config": {
            "@type": format!("{package}.AiProtocolManager"),
            "response_handling": { "token_usage": { "include_unconfigured_routes": true } }
        }
    })
}

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
