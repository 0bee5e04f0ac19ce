//! Whether an Envoy has the filter, whether it works, and what it has counted.

use std::collections::BTreeSet;

use serde_json::Value;
use tollmesh_wire::PluginConfig;

use crate::doctor::Findings;
use crate::doctor::envoy::Told;

/// What ends the type of a wasm filter's configuration.
const WASM_TYPE: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";

const NOT_LOADED: &str = "Istio: look at the selector, the namespace and `match.mode: CLIENT` of the \
    WasmPlugin or TrafficExtension; else compare with envoy/envoy.yaml";

/// Counters that should be zero, what they count, and what to do.
const COUNTED: &[(&str, &str, &str)] = &[
    (
        "unmetered_provider_calls",
        "calls to providers could not be read, and are in no sum",
        "README.md, \"What it does not do\", says which those are; a host of your own needs a line \
         in apis[]",
    ),
    (
        "events_dropped",
        "events were dropped, since the queue was full",
        "import Envoy's access log (`tollmesh import`)",
    ),
    (
        "events_rejected",
        "events were refused by the aggregator",
        "run filter and aggregator of the same release",
    ),
    (
        "faults",
        "host calls were refused by Envoy",
        "report it, with Envoy's version and log",
    ),
    (
        "untagged_requests",
        "calls lacked a tag that tags.required names",
        "have the app send it, or set it by tags.by_workload or tags.defaults",
    ),
];

/// Judges the filter; the cluster that it sends events to, where it is there.
pub fn judge(told: &Told, findings: &mut Findings) -> Option<String> {
    let mut filters = Vec::new();
    find(&told.dump, &mut filters);
    let filters: BTreeSet<Filter> = filters.into_iter().collect();
    let Some(filter) = filters.first() else {
        let what = "this Envoy has no filter of ours, so nothing is metered";
        findings.fail("filter", what, NOT_LOADED);
        return None;
    };
    let config = PluginConfig::parse(filter.configuration.as_bytes());
    let cluster = match &config {
        Ok(config) => {
            judge_vm(told, filter, findings);
            Some(config.aggregator.cluster.clone())
        }
        Err(mistakes) => {
            let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            findings.fail(
                "filter",
                format!("its configuration cannot be used: {}", mistakes.join("; ")),
                "repair it; `tollmesh check --filter-config` tells the same of a file",
            );
            None
        }
    };
    if filter.fails_closed {
        findings.warn(
            "filter",
            "if it fails, traffic is refused",
            "set failure_policy: FAIL_RELOAD (Istio: failStrategy), or FAIL_OPEN on old versions",
        );
    }
    judge_counters(told, findings);
    cluster
}

/// A filter as configured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Filter {
    name: String,
    configuration: String,
    fails_closed: bool,
}

/// Gathers the wasm filters that are ours from anywhere in a dump: listeners, or extensions that
/// listeners take from elsewhere.
fn find(value: &Value, found: &mut Vec<Filter>) {
    match value {
        Value::Object(object) => {
            let of_type = object.get("@type").and_then(Value::as_str);
            if of_type.is_some_and(|name| name.ends_with(WASM_TYPE)) {
                found.extend(read(object.get("config").unwrap_or(&Value::Null)));
            }
            object.values().for_each(|child| find(child, found));
        }
        Value::Array(array) => array.iter().for_each(|child| find(child, found)),
        _ => {}
    }
}

/// Ours by name, or by what only our configuration has.
fn read(config: &Value) -> Option<Filter> {
    let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
    let configuration = match &config["configuration"]["value"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let parsed: Value = serde_json::from_str(&configuration).unwrap_or_default();
    let is_ours = [text("name"), text("root_id")]
        .iter()
        .any(|name| name.contains("tollmesh"))
        || parsed.pointer("/aggregator/cluster").is_some();
    is_ours.then(|| Filter {
        name: text("name"),
        configuration,
        fails_closed: config["fail_open"] != true
            && !["FAIL_OPEN", "FAIL_RELOAD"].contains(&text("failure_policy").as_str()),
    })
}

fn judge_vm(told: &Told, filter: &Filter, findings: &mut Findings) {
    let fetch_failures = told.stat("wasm.remote_load_fetch_failures");
    let has_counters = told
        .stats
        .keys()
        .any(|name| name.starts_with("wasmcustom.tollmesh_filter_"));
    let reloads = told.stat(&format!("wasm.{}.vm_reload", filter.name));
    let broken = told.stat(&format!("wasm.{}.vm_reload_failure", filter.name));
    if !has_counters && fetch_failures > 0 {
        findings.fail(
            "filter",
            format!("the wasm file was not fetched, {fetch_failures} attempts failed"),
            "see that the image or URL can be reached from this pod, and that its sha256 is the one \
             in the manifest",
        );
    } else if !has_counters {
        findings.fail(
            "filter",
            "it is configured, and no VM of it runs",
            "Envoy's log says why the wasm file was not loaded",
        );
    } else if told.counted("bad_configurations") > 0 {
        findings.fail(
            "filter",
            "it runs, and found its configuration to be of no use",
            "run filter and command of the same release; Envoy's log has the mistake",
        );
    } else if reloads + broken > 0 {
        findings.fail(
            "filter",
            format!("its VM trapped and was loaded again {reloads} times, {broken} in vain"),
            "report it, with Envoy's version and log; calls of that moment were cut",
        );
    } else {
        findings.ok("filter", "it is loaded and runs");
    }
}

fn judge_counters(told: &Told, findings: &mut Findings) {
    let queued = told.counted("events_queued");
    let sent = told.counted("events_sent");
    let gone = told.counted("events_dropped") + told.counted("events_rejected");
    let waiting = queued.saturating_sub(sent + gone);
    let resent = told.counted("batches_resent");
    match (queued, waiting, resent) {
        (0, _, _) => findings.warn(
            "calls",
            "the filter has seen no call to a provider yet",
            "make one: the app's base URL must be http://, so that Envoy can read it",
        ),
        (_, 1.., 1..) => findings.fail(
            "calls",
            format!("{waiting} of {queued} events wait, {resent} batches were not acknowledged"),
            "see what is said of the cluster and of the aggregator; events wait, 8 MiB a worker",
        ),
        _ => findings.ok("calls", format!("{queued} metered, {sent} acknowledged")),
    }
    for (thing, what, remedy) in COUNTED {
        let n = told.counted(thing);
        if n > 0 {
            findings.warn("calls", format!("{n} {what}"), remedy);
        }
    }
}
