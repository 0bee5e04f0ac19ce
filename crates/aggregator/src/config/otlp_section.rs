//! Reading of `[otlp]`.

use std::time::Duration;

use super::limits;
use super::section::{Section, one_of};
use crate::otlp::{CostAttribute, Endpoint, Settings, Signal, header};

/// How often is looked for calls to export.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);

/// The section's meaning; `None` where the file has none, or one with mistakes.
pub fn read(mut section: Section<'_>) -> Option<Settings> {
    let lacks_endpoint = !section.is_empty() && !section.has("endpoint");
    let endpoint = section.parsed("endpoint", Endpoint::parse);
    let headers = section.words("headers").unwrap_or_default();
    for (name, value) in &headers {
        if let Err(what) = header(name, value) {
            section.refuse("headers", what);
        }
    }
    let headers_file = section.parsed("headers_file", limits::absolute_path);
    let ca_file = section.parsed("ca_file", limits::absolute_path);
    let signals = signals(&mut section);
    let cost_attribute = section.parsed("cost_attribute", CostAttribute::parse);
    let interval = section.parsed("interval", limits::interval);
    if lacks_endpoint {
        section.refuse(
            "endpoint",
            "missing; name the receiver, or remove the section",
        );
    }
    if ca_file.is_some() && endpoint.as_ref().is_some_and(|to| !to.is_encrypted) {
        let what = "the endpoint is not encrypted; use https://, or remove the file";
        section.refuse("ca_file", what);
    }
    section.finish();
    Some(Settings {
        endpoint: endpoint?,
        headers,
        headers_file,
        ca_file,
        signals,
        cost_attribute: cost_attribute.unwrap_or_default(),
        interval: interval.unwrap_or(INTERVAL_DEFAULT),
    })
}

fn signals(section: &mut Section<'_>) -> Vec<Signal> {
    let Some(names) = section.texts("signals") else {
        return vec![Signal::Traces, Signal::Metrics];
    };
    let known = one_of(&Signal::ALL.map(Signal::name));
    if names.is_empty() {
        section.refuse("signals", format!("names nothing; expected any of {known}"));
    }
    let mut signals = Vec::new();
    for name in &names {
        match Signal::parse(name) {
            Some(signal) if !signals.contains(&signal) => signals.push(signal),
            Some(_) => section.refuse("signals", format!("{name:?} stands there twice")),
            None => section.refuse(
                "signals",
                format!("unknown signal {name:?}; expected {known}"),
            ),
        }
    }
    signals
}
