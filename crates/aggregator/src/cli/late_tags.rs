//! Tags that an Envoy's routes set, too late for the filter to see them.

use std::collections::BTreeSet;

use serde_json::Value;
use tollmesh_wire::plugin::TagSources;

/// The headers that carry tags and that a configuration dump's routes, virtual hosts or weighted
/// clusters add to requests, one complaint a header and place.
///
/// The router applies `request_headers_to_add` after all filters
/// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#custom-request-response-headers>),
/// and that is what Istio makes of a VirtualService's `headers.request`.
pub fn late_tags(dump: &[u8], tags: &TagSources) -> Result<BTreeSet<String>, serde_json::Error> {
    let dump: Value = serde_json::from_slice(dump)?;
    let mut late = BTreeSet::new();
    walk(&dump, "", &mut |place, header| {
        if tags.reads(&header.to_ascii_lowercase()) {
            late.insert(format!(
                "{place} adds {header:?} after the filters: the call has no such tag, and the \
                 provider sees the header; set it by tags.by_workload or tags.defaults, or by \
                 header_mutation before the filter"
            ));
        }
    });
    Ok(late)
}

/// Calls `found` with every header that is added, and the name of what adds it.
fn walk(value: &Value, place: &str, found: &mut impl FnMut(&str, &str)) {
    match value {
        Value::Object(object) => {
            let own = object.get("name").and_then(Value::as_str);
            let here = match own {
                Some(name) if place.is_empty() => format!("{name:?}"),
                Some(name) => format!("{place} {name:?}"),
                None => place.to_owned(),
            };
            let added = object.get("request_headers_to_add");
            for option in added.and_then(Value::as_array).into_iter().flatten() {
                if let Some(header) = option.pointer("/header/key").and_then(Value::as_str) {
                    found(&here, header);
                }
            }
            for child in object.values() {
                walk(child, &here, found);
            }
        }
        Value::Array(array) => {
            for child in array {
                walk(child, place, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tags_that_routes_add_are_told() {
        let dump = br#"{"configs":[{"dynamic_route_configs":[{"route_config":{"name":"443",
            "virtual_hosts":[{"name":"openai","routes":[{"name":"chat",
              "request_headers_to_add":[{"header":{"key":"X-LLM-Tag-Team","value":"red"}},
                                        {"header":{"key":"x-other","value":"1"}}]}],
              "response_headers_to_add":[{"header":{"key":"x-llm-tag-b","value":"1"}}]}]}}]}]}"#;
        let told = late_tags(dump, &TagSources::default()).expect("is JSON");
        assert_eq!(
            told.into_iter().collect::<Vec<_>>(),
            [
                "\"443\" \"openai\" \"chat\" adds \"X-LLM-Tag-Team\" after the filters: the call has \
              no such tag, and the provider sees the header; set it by tags.by_workload or \
              tags.defaults, or by header_mutation before the filter"
            ]
        );
        let none = TagSources {
            header_prefix: None,
            ..TagSources::default()
        };
        assert!(late_tags(dump, &none).expect("is JSON").is_empty());
        assert!(late_tags(b"<html>", &none).is_err());
    }
}
