//! The manifests below `k8s/`: they build, fit the schemas of their kinds, and keep what they promise.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tollmesh_tests::artifacts;
use tollmesh_tests::injection;
use tollmesh_tests::manifests::{self, Catalog, Object};
use tollmesh_tests::tls::Identity;

/// Overlays that are workloads of their own, to which all components can be added.
const WITH_COMPONENTS: [&str; 3] = ["plain", "istio-egress-gateway", "https-apps"];

const COMPONENTS: [&str; 5] = [
    "components/monitoring",
    "components/network-policy",
    "components/persistent-ledger",
    "components/postgres",
    "components/redis",
];

/// Containers that may reach the aggregator's socket.
const TRUSTED: [&str; 3] = ["tollmesh", "istio-proxy", "envoy"];

/// Every overlay as it is, and those with all components, by title.
fn rendered() -> Option<&'static BTreeMap<String, Vec<Object>>> {
    static RENDERED: OnceLock<Option<BTreeMap<String, Vec<Object>>>> = OnceLock::new();
    let render = || {
        let kustomize = artifacts::kustomize()
            .map_err(|missing| artifacts::skip(&missing))
            .ok()?;
        let plain = overlays()
            .into_iter()
            .map(|overlay| (overlay, &[] as &[&str]));
        let with_all =
            WITH_COMPONENTS.map(|overlay| (format!("overlays/{overlay}"), &COMPONENTS[..]));
        let objects = plain.chain(with_all).map(|(overlay, components)| {
            let objects = manifests::render(&kustomize, &overlay, components);
            let objects = objects.unwrap_or_else(|error| panic!("{error:#}"));
            let title = if components.is_empty() {
                overlay
            } else {
                format!("{overlay} with all")
            };
            (title, objects)
        });
        Some(objects.collect())
    };
    RENDERED.get_or_init(render).as_ref()
}

/// Every folder below `k8s/overlays` and `k8s/ingress` that kustomize builds.
fn overlays() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![k8s("overlays"), k8s("ingress")];
    while let Some(folder) = folders.pop() {
        if folder.join("kustomization.yaml").is_file() {
            let path = folder.strip_prefix(k8s("")).expect("it lies there");
            found.push(path.display().to_string());
        }
        let entries = fs::read_dir(&folder).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        folders.extend(paths.filter(|path| path.is_dir()));
    }
    assert!(found.len() >= 13, "{found:?}");
    found.sort();
    found
}

fn k8s(path: &str) -> PathBuf {
    artifacts::root().join("k8s").join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(path: &Path) -> Value {
    serde_saphyr::from_str(&read(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A pod, as far as the manifests say what it is.
struct Pod {
    title: String,
    spec: Value,
    labels: Value,
    /// Whether nobody else adds to it: then it must say everything.
    is_whole: bool,
}

/// Every pod that comes of the manifests.
fn pods(rendered: &BTreeMap<String, Vec<Object>>) -> Vec<Pod> {
    let mut pods = injected_pods();
    for (overlay, objects) in rendered {
        pods.extend(objects.iter().filter_map(|object| pod_of(overlay, object)));
    }
    pods
}

fn pod_of(overlay: &str, object: &Object) -> Option<Pod> {
    let title = format!("{overlay}: {}", object.title());
    match object.kind() {
        "StatefulSet" => {
            let template = &object.0["spec"]["template"];
            Some(Pod {
                title,
                spec: template["spec"].clone(),
                labels: template["metadata"]["labels"].clone(),
                is_whole: true,
            })
        }
        "ConfigMap" if object.0["data"]["deployment"].is_string() => {
            let deployment = object.0["data"]["deployment"].as_str().unwrap_or_default();
            let deployment: Value = serde_saphyr::from_str(deployment).expect("a deployment");
            Some(Pod {
                title,
                spec: deployment["spec"]["template"]["spec"].clone(),
                labels: Value::Null,
                is_whole: false,
            })
        }
        "EnvoyProxy" => {
            let deployment = &object.0["spec"]["provider"]["kubernetes"]["envoyDeployment"];
            let mut spec = deployment["pod"].clone();
            let mut envoy = deployment["container"].clone();
            envoy["name"] = json!("envoy");
            spec["containers"] = json!([envoy]);
            spec["initContainers"] = deployment["initContainers"].clone();
            spec["terminationGracePeriodSeconds"] = json!(900);
            Some(Pod {
                title,
                spec,
                labels: deployment["pod"]["labels"].clone(),
                is_whole: false,
            })
        }
        _ => None,
    }
}

/// An app's pod after Istio's injection, with the proxy as native sidecar and as container.
fn injected_pods() -> Vec<Pod> {
    let values = yaml(&k8s("overlays/istio-sidecar/istiod-values.yaml"));
    let template = injection::template(&values, "tollmesh").expect("a template");
    [true, false]
        .map(|is_native| {
            let pod = app_pod(is_native);
            let pod = injection::inject(template, &pod, is_native);
            let pod = pod.unwrap_or_else(|error| panic!("{error:#}"));
            Pod {
                title: format!("an app's pod, native sidecar {is_native}"),
                spec: pod["spec"].clone(),
                labels: pod["metadata"]["labels"].clone(),
                is_whole: false,
            }
        })
        .into()
}

/// An app with the proxy that Istio's own template has injected.
fn app_pod(is_native: bool) -> Value {
    let app = json!({
        "name": "checkout", "image": "shop/checkout:1",
        "env": [{ "name": "ANTHROPIC_BASE_URL", "value": "http://llm.internal" }]
    });
    let proxy = json!({ "name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.30.0" });
    let (mut containers, mut init) = (vec![app], vec![]);
    if is_native {
        let mut proxy = proxy;
        proxy["restartPolicy"] = json!("Always");
        init.push(proxy);
    } else {
        containers.push(proxy);
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "checkout-1", "namespace": "shop" },
        "spec": { "containers": containers, "initContainers": init }
    })
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers"].into_iter();
    lists.flat_map(|list| spec[list].as_array().into_iter().flatten())
}

fn container<'a>(spec: &'a Value, name: &str) -> &'a Value {
    containers(spec)
        .find(|container| container["name"] == name)
        .unwrap_or(&Value::Null)
}

#[test]
fn every_object_fits_the_schema_of_its_kind() {
    let (Some(rendered), Some(catalog)) = (rendered(), catalog()) else {
        return;
    };
    let mut wrong = Vec::new();
    let mut kinds = BTreeSet::new();
    for (overlay, objects) in rendered {
        assert!(!objects.is_empty(), "{overlay} makes nothing");
        for object in objects {
            kinds.insert(object.kind());
            match catalog.violations(object) {
                Ok(found) => wrong.extend(
                    found
                        .iter()
                        .map(|what| format!("{overlay}: {}{what}", object.title())),
                ),
                Err(error) => wrong.push(format!("{overlay}: {error:#}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(kinds.len() > 20, "{kinds:?}");
}

fn catalog() -> Option<&'static Catalog> {
    static CATALOG: OnceLock<Option<Catalog>> = OnceLock::new();
    let open = || {
        let core = artifacts::kubernetes_schemas();
        let core = core.map_err(|missing| artifacts::skip(&missing)).ok()?;
        Some(Catalog::open(&core).unwrap_or_else(|error| panic!("{error:#}")))
    };
    CATALOG.get_or_init(open).as_ref()
}

#[test]
fn an_injected_pod_fits_the_schema_of_pods() {
    let Some(catalog) = catalog() else { return };
    let values = yaml(&k8s("overlays/istio-sidecar/istiod-values.yaml"));
    let ca_values = yaml(&k8s("overlays/https-apps/istiod-values.yaml"));
    let sidecar = injection::template(&values, "tollmesh").expect("a template");
    let ca = injection::template(&ca_values, "tollmesh-ca").expect("a template");
    for (template, is_native) in [(sidecar, true), (sidecar, false), (ca, true), (ca, false)] {
        let pod = injection::inject(template, &app_pod(is_native), is_native);
        let pod = Object(pod.unwrap_or_else(|error| panic!("{error:#}")));
        let found = catalog
            .violations(&pod)
            .unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(found, Vec::<String>::new(), "{:#}", pod.0);
    }
}

#[test]
fn mistakes_in_objects_are_found() {
    let Some(catalog) = catalog() else { return };
    let stateful = |pod: Value| {
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "a" },
            "spec": { "selector": {}, "serviceName": "a", "template": { "spec": pod } }
        })
    };
    let plugin = |spec: Value| {
        json!({
            "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
            "metadata": { "name": "a" }, "spec": spec
        })
    };
    let sha = "0".repeat(64);
    let good = [
        stateful(json!({ "containers": [{ "name": "a" }] })),
        plugin(json!({ "url": "oci://a", "sha256": sha, "failStrategy": "FAIL_OPEN" })),
    ];
    let bad = [
        stateful(json!({ "containers": [{ "name": "a", "restartPolice": "Always" }] })),
        stateful(json!({ "containers": [{ "name": 1 }] })),
        stateful(json!({ "containers": [{ "image": "a" }] })),
        plugin(json!({ "url": "oci://a", "sha256": "00" })),
        plugin(json!({ "url": "oci://a", "failureStrategy": "FAIL_OPEN" })),
        plugin(json!({ "url": "oci://a", "failStrategy": "FAIL_OFTEN" })),
        plugin(json!({ "sha256": sha })),
    ];
    let n_violations = |object: &Value| {
        let found = catalog.violations(&Object(object.clone()));
        found.unwrap_or_else(|error| panic!("{error:#}")).len()
    };
    for object in &good {
        assert_eq!(n_violations(object), 0, "{object}");
    }
    for object in &bad {
        assert!(n_violations(object) > 0, "{object}");
    }
    let unknown = Object(json!({ "apiVersion": "a.b/v1", "kind": "C", "metadata": {} }));
    assert!(catalog.violations(&unknown).is_err());
}

#[test]
fn aggregators_are_confined_and_probed() {
    let Some(rendered) = rendered() else { return };
    for Pod { title, spec, .. } in pods(rendered) {
        let tollmesh = container(&spec, "tollmesh");
        assert!(tollmesh.is_object(), "{title} has no aggregator");
        assert_eq!(
            tollmesh["restartPolicy"], "Always",
            "{title}: no native sidecar"
        );
        assert_is_confined(&title, tollmesh);
        assert_eq!(
            tollmesh["livenessProbe"]["httpGet"]["path"], "/healthz",
            "{title}"
        );
        // Trouble with metering must not take a pod out of its Service, nor keep it from starting.
        assert_eq!(tollmesh["readinessProbe"], Value::Null, "{title}");
        assert_eq!(tollmesh["startupProbe"], Value::Null, "{title}");
        assert_eq!(
            tollmesh["resources"]["limits"]["cpu"],
            Value::Null,
            "{title}"
        );
        let secrets = tollmesh["env"].as_array().into_iter().flatten();
        let in_the_open = secrets.filter(|variable| {
            let name = variable["name"].as_str().unwrap_or_default();
            name.contains("TOKEN") || name.contains("PASSWORD")
        });
        assert_eq!(in_the_open.count(), 0, "{title}: secrets come from files");
    }
}

/// What the level "restricted" of Pod Security asks, and a root that cannot be written.
/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>
fn assert_is_confined(title: &str, container: &Value) {
    let context = &container["securityContext"];
    for (key, want) in [
        ("runAsNonRoot", json!(true)),
        ("readOnlyRootFilesystem", json!(true)),
        ("allowPrivilegeEscalation", json!(false)),
        ("capabilities", json!({ "drop": ["ALL"] })),
        ("seccompProfile", json!({ "type": "RuntimeDefault" })),
    ] {
        assert_eq!(context[key], want, "{title}: {} {key}", container["name"]);
    }
    assert!(
        context["runAsUser"].as_u64() > Some(0),
        "{title}: {}",
        container["name"]
    );
    assert_ne!(
        container["resources"]["requests"]["memory"],
        Value::Null,
        "{title}"
    );
    assert_ne!(
        container["resources"]["limits"]["memory"],
        Value::Null,
        "{title}"
    );
}

#[test]
fn pods_of_our_own_are_restricted_and_drain() {
    let Some(rendered) = rendered() else { return };
    let drain_seconds = 10; // `drain` in base/tollmesh.toml
    let own: Vec<Pod> = pods(rendered)
        .into_iter()
        .filter(|pod| pod.is_whole)
        .collect();
    assert!(own.len() >= 4, "{}", own.len());
    for Pod {
        title,
        spec,
        labels,
        ..
    } in own
    {
        for container in containers(&spec) {
            assert_is_confined(&title, container);
        }
        assert_eq!(spec["automountServiceAccountToken"], false, "{title}");
        assert_eq!(
            spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault",
            "{title}"
        );
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            assert_eq!(spec[key], Value::Null, "{title}");
        }
        let grace = spec["terminationGracePeriodSeconds"]
            .as_u64()
            .unwrap_or_default();
        assert!(
            grace >= 600 + drain_seconds,
            "{title}: streams may last ten minutes"
        );
        let proxy = containers(&spec).find(|container| container["name"] != "tollmesh");
        assert_ne!(
            proxy.expect("a proxy")["readinessProbe"],
            Value::Null,
            "{title}"
        );
        for name in ["name", "instance", "component", "part-of", "version"] {
            assert_ne!(
                labels[format!("app.kubernetes.io/{name}")],
                Value::Null,
                "{title}: {name}"
            );
        }
    }
    let budgets = rendered
        .values()
        .flatten()
        .filter(|o| o.kind() == "PodDisruptionBudget");
    assert!(budgets.count() >= 4);
}

/// Kubernetes mounts a token into each container that mounts nothing at its place, in pods that do
/// not say otherwise; an injected aggregator is in a pod that is not ours.
#[test]
fn no_aggregator_has_a_token_of_the_cluster() {
    const PLACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let Some(rendered) = rendered() else { return };
    for Pod { title, spec, .. } in pods(rendered) {
        let mounts = container(&spec, "tollmesh")["volumeMounts"].as_array();
        let mut mounts = mounts.into_iter().flatten();
        let in_its_place = mounts.find(|mount| mount["mountPath"] == PLACE);
        let volumes = spec["volumes"].as_array().into_iter().flatten();
        let empty = volumes.filter(|volume| volume["emptyDir"].is_object());
        let is_empty = in_its_place.is_some_and(|mount| {
            let mut empty = empty.map(|volume| &volume["name"]);
            empty.any(|name| *name == mount["name"])
        });
        let is_told = spec["automountServiceAccountToken"] == false;
        assert!(is_empty || is_told, "{title}: the app's token is mounted");
    }
}

#[test]
fn only_proxy_and_aggregator_reach_the_socket() {
    let Some(rendered) = rendered() else { return };
    for Pod {
        title,
        spec,
        labels,
        is_whole,
    } in pods(rendered)
    {
        let mut mounted = BTreeSet::new();
        for container in containers(&spec) {
            let mounts = container["volumeMounts"].as_array().into_iter().flatten();
            let ours: Vec<_> = mounts
                .filter_map(|mount| mount["name"].as_str())
                .filter(|name| name.starts_with("tollmesh-"))
                .collect();
            let name = container["name"].as_str().unwrap_or_default();
            if !TRUSTED.contains(&name) {
                assert_eq!(ours, Vec::<&str>::new(), "{title}: {name}");
            }
            if ours.contains(&"tollmesh-socket") {
                mounted.insert(name);
            }
            if name != "tollmesh" {
                assert!(!ours.contains(&"tollmesh-secrets"), "{title}: {name}");
            }
        }
        assert_eq!(mounted.len(), 2, "{title}: {mounted:?}");
        let volumes = spec["volumes"].as_array().into_iter().flatten();
        let socket = volumes
            .clone()
            .find(|volume| volume["name"] == "tollmesh-socket");
        assert!(
            socket.is_some_and(|volume| volume["emptyDir"].is_object()),
            "{title}"
        );
        if is_whole || !labels.is_null() {
            assert_eq!(labels["tollmesh.io/aggregator"], "true", "{title}");
        }
    }
}

#[test]
fn an_injected_pod_gets_base_urls_and_keeps_its_own() {
    for Pod { title, spec, .. } in injected_pods() {
        let env = container(&spec, "checkout")["env"]
            .as_array()
            .expect("variables")
            .clone();
        let value = |name: &str| {
            let found = env.iter().find(|variable| variable["name"] == name);
            found.map_or(Value::Null, |variable| variable["value"].clone())
        };
        assert_eq!(
            value("OPENAI_BASE_URL"),
            "http://api.openai.com/v1",
            "{title}"
        );
        assert_eq!(
            value("ANTHROPIC_BASE_URL"),
            "http://llm.internal",
            "{title}: its own"
        );
        let init = spec["initContainers"].as_array().expect("native sidecars");
        assert_eq!(
            init[0]["name"], "tollmesh",
            "{title}: begins first, ends last"
        );
        // Past the proxy: Istio leaves alone what its own group sends.
        assert_eq!(
            container(&spec, "tollmesh")["securityContext"]["runAsGroup"],
            1337,
            "{title}"
        );
    }
}

#[test]
fn every_object_carries_the_recommended_labels() {
    let Some(rendered) = rendered() else { return };
    for (overlay, objects) in rendered {
        for object in objects {
            for label in ["name", "part-of", "managed-by"] {
                let key = format!("app.kubernetes.io/{label}");
                assert_ne!(
                    object.labels()[&key],
                    Value::Null,
                    "{overlay}: {} {key}",
                    object.title()
                );
            }
        }
    }
}

#[test]
fn artefacts_are_pinned_by_digest() {
    let mut digests: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut folders = vec![k8s("")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                for rest in read(&path).split("registry.example/tollmesh/").skip(1) {
                    let reference = rest.split_whitespace().next().unwrap_or_default();
                    let (name, digest) = reference
                        .split_once("@sha256:")
                        .unwrap_or_else(|| panic!("{}: {reference}", path.display()));
                    let name = name.split(':').next().unwrap_or_default().to_owned();
                    assert_eq!(digest.len(), 64, "{}: {reference}", path.display());
                    digests.entry(name).or_default().insert(digest.to_owned());
                }
            }
        }
    }
    assert_eq!(digests.keys().collect::<Vec<_>>(), ["aggregator", "filter"]);
    for (name, digests) in digests {
        assert_eq!(
            digests.len(),
            1,
            "{name} is pinned in several ways: {digests:?}"
        );
    }
}

#[test]
fn the_filter_is_loaded_from_what_is_verified_and_fails_open() {
    let Some(rendered) = rendered() else { return };
    let mut n = 0;
    for object in rendered.values().flatten() {
        let (url, sha256, fails_open) = match object.kind() {
            "WasmPlugin" => {
                let spec = &object.0["spec"];
                (
                    &spec["url"],
                    &spec["sha256"],
                    spec["failStrategy"] == "FAIL_OPEN",
                )
            }
            "TrafficExtension" => {
                let wasm = &object.0["spec"]["wasm"];
                (
                    &wasm["url"],
                    &wasm["sha256"],
                    wasm["failStrategy"] == "FAIL_OPEN",
                )
            }
            "EnvoyExtensionPolicy" => {
                let wasm = &object.0["spec"]["wasm"][0];
                let image = &wasm["code"]["image"];
                (&image["url"], &image["sha256"], wasm["failOpen"] == true)
            }
            _ => continue,
        };
        n += 1;
        let url = url.as_str().unwrap_or_default();
        assert_eq!(
            url.split("@sha256:").nth(1),
            sha256.as_str(),
            "{}",
            object.title()
        );
        assert!(fails_open, "{}", object.title());
    }
    assert!(n >= 8, "{n}");
}

#[test]
fn the_aggregators_configuration_is_right_in_every_overlay() {
    let Some(rendered) = rendered() else { return };
    let binary = match artifacts::tollmesh() {
        Ok(binary) => binary,
        Err(missing) => return artifacts::skip(&missing),
    };
    let mut checked = BTreeSet::new();
    for (overlay, objects) in rendered {
        let is_ours =
            |object: &&Object| object.kind() == "ConfigMap" && object.name() == "tollmesh";
        let Some(map) = objects.iter().find(is_ours) else {
            continue;
        };
        let data = map.0["data"].clone();
        let text = data["tollmesh.toml"].as_str().unwrap_or_default();
        assert!(
            text.contains("listen = \"unix:/run/tollmesh/ingest.sock\""),
            "{overlay}"
        );
        assert!(text.contains("token_file"), "{overlay}");
        assert_eq!(
            data["budgets.toml"].as_str().map(lines_that_say),
            Some(0),
            "observe only"
        );
        if checked.insert(data.to_string()) {
            check(&binary, &data);
        }
    }
    assert_eq!(checked.len(), 2, "as it is, and with components");
}

/// Lines that are neither empty nor a comment.
fn lines_that_say(text: &str) -> usize {
    text.lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .count()
}

/// `tollmesh check` on these files, below a folder of the test's own.
fn check(binary: &Path, data: &Value) {
    let dir = tempfile::tempdir().expect("a folder");
    let etc = dir.path().join("etc");
    for folder in [
        "etc/tollmesh",
        "etc/tollmesh-pricing",
        "etc/tollmesh-secrets",
    ] {
        fs::create_dir_all(dir.path().join(folder)).expect("a folder");
    }
    let authority = Identity::of(&["a.b"]).expect("an authority").ca_pem;
    for (secret, text) in [
        ("operator-token", "0123456789abcdef"),
        ("postgres-password", "0123456789abcdef"),
        ("postgres-ca.pem", &authority),
        ("redis-password", "0123456789abcdef"),
        ("redis-ca.pem", &authority),
    ] {
        fs::write(etc.join("tollmesh-secrets").join(secret), text).expect("a file");
    }
    for (name, text) in data.as_object().expect("files") {
        let text = text.as_str().expect("a text");
        let text = text.replace("\"/etc/", &format!("\"{}/", etc.display()));
        let text = text.replace(
            "\"/var/lib/tollmesh\"",
            &format!("\"{}\"", dir.path().display()),
        );
        fs::write(etc.join("tollmesh").join(name), text).expect("a file");
    }
    let config = etc.join("tollmesh/tollmesh.toml");
    let output = Command::new(binary)
        .arg("check")
        .arg("--config")
        .arg(&config)
        .output();
    let output = output.expect("it runs");
    assert!(output.status.code().is_some(), "{}", output.status);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let mistakes: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert!(mistakes.is_empty(), "{said}\n{}", read(&config));
}

#[test]
fn calls_leave_under_tls_to_a_provider_whose_name_is_checked() {
    let Some(rendered) = rendered() else { return };
    for (overlay, objects) in rendered {
        let of = |kind: &'static str| objects.iter().filter(move |object| object.kind() == kind);
        for entry in of("ServiceEntry") {
            let host = entry.0["spec"]["hosts"][0].as_str().unwrap_or_default();
            let rule = of("DestinationRule").find(|rule| rule.0["spec"]["host"] == host);
            let rule = rule.unwrap_or_else(|| panic!("{overlay}: no rule for {host}"));
            let tls = &rule.0["spec"]["trafficPolicy"]["portLevelSettings"][0]["tls"];
            let want = json!({
                "mode": "SIMPLE", "sni": host, "subjectAltNames": [host], "caCertificates": "system"
            });
            assert_eq!(tls, &want, "{overlay}: {host}");
            assert_eq!(
                entry.0["spec"]["ports"][0]["targetPort"], 443,
                "{overlay}: {host}"
            );
        }
        for backend in of("Backend") {
            let host = &backend.0["spec"]["endpoints"][0]["fqdn"]["hostname"];
            let policy = of("BackendTLSPolicy").find(|policy| policy.name() == backend.name());
            let validation = &policy.expect("a policy").0["spec"]["validation"];
            let want = json!({ "hostname": host, "wellKnownCACertificates": "System" });
            assert_eq!(validation, &want, "{overlay}: {host}");
        }
    }
}

#[test]
fn no_service_of_the_mesh_leads_to_the_aggregators_ingest() {
    let Some(rendered) = rendered() else { return };
    for (overlay, objects) in rendered {
        for object in objects {
            let text = object.0.to_string();
            let names_it = text.contains("ingest.sock");
            let may = ["EnvoyFilter", "EnvoyProxy", "ConfigMap"].contains(&object.kind());
            assert!(!names_it || may, "{overlay}: {}", object.title());
            assert!(!text.contains("4100"), "{overlay}: {}", object.title());
            if object.kind() == "Service" {
                let ports = object.0["spec"]["ports"].as_array().into_iter().flatten();
                let opened: Vec<_> = ports.filter_map(|port| port["port"].as_u64()).collect();
                assert!(!opened.contains(&4101), "{overlay}: {}", object.title());
            }
        }
    }
}

/// By itself Envoy writes its access log, the second record, every ten seconds.
#[test]
fn envoys_that_we_start_write_their_access_logs_often() {
    let plain = yaml(&k8s("overlays/plain/envoy-pod.yaml"));
    let gateway = yaml(&k8s("overlays/envoy-gateway/envoy-proxy.yaml"));
    let container = container(&plain["spec"]["template"]["spec"], "envoy");
    for arguments in [&container["args"], &gateway["spec"]["extraArgs"]] {
        let all = arguments.as_array().expect("a list");
        let option = all
            .iter()
            .position(|own| own == "--file-flush-interval-msec");
        let interval_ms = option.and_then(|at| all.get(at + 1));
        assert_eq!(interval_ms, Some(&json!("250")), "{arguments}");
    }
}

#[test]
fn each_folder_has_a_page_that_names_what_it_makes() {
    let Some(rendered) = rendered() else { return };
    let mut missing = Vec::new();
    for (overlay, objects) in rendered
        .iter()
        .filter(|(title, _)| !title.ends_with("with all"))
    {
        let mut page = read(&k8s(overlay).join("README.md"));
        if let Some(before) = overlay.strip_suffix("-1.30") {
            page += &read(&k8s(before).join("README.md"));
        }
        if overlay == "overlays/https-apps" {
            page += &read(&k8s("overlays/istio-egress-gateway/README.md"));
        }
        for object in objects {
            let (kind, name) = (object.kind(), object.name());
            // The name of a generated one ends in a hash of its content.
            let name = name
                .strip_prefix("tollmesh-envoy-")
                .map_or(name, |_| "tollmesh-envoy");
            let is_named = page.lines().any(|line| {
                line.contains(&format!("`{kind}`")) && line.contains(&format!("`{name}`"))
            });
            if !is_named {
                missing.push(format!("{overlay}: {kind} {name}"));
            }
        }
    }
    for component in COMPONENTS {
        let page = k8s(component).join("README.md");
        if !page.is_file() {
            missing.push(page.display().to_string());
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_written_envoy_configuration_is_that_of_the_manifests() {
    let Some(rendered) = rendered() else { return };
    let mut n = 0;
    for (overlay, objects) in rendered {
        let file = k8s(overlay).join("envoy.yaml");
        if !file.is_file() {
            continue;
        }
        n += 1;
        let config = yaml(&file);
        let clusters = config["static_resources"]["clusters"]
            .as_array()
            .expect("clusters");
        let tollmesh = clusters
            .iter()
            .find(|cluster| cluster["name"] == "tollmesh");
        assert_eq!(
            tollmesh,
            Some(&declared_cluster(objects, &config)),
            "{overlay}"
        );
        assert_eq!(
            written_plugin(&config),
            declared_plugin(objects, &config),
            "{overlay}"
        );
        let text = config.to_string();
        assert!(
            !text.contains("\"cluster\":\"tollmesh\"}"),
            "{overlay}: a route to the aggregator"
        );
        for object in objects
            .iter()
            .filter(|o| ["ServiceEntry", "Backend"].contains(&o.kind()))
        {
            let spec = &object.0["spec"];
            let host = spec["hosts"][0].as_str();
            let host = host
                .or(spec["endpoints"][0]["fqdn"]["hostname"].as_str())
                .expect("a host");
            let sni = "/transport_socket/typed_config/sni";
            let cluster = clusters
                .iter()
                .find(|cluster| cluster.pointer(sni) == Some(&json!(host)));
            let cluster = cluster.unwrap_or_else(|| panic!("{overlay}: no cluster for {host}"));
            let open_at_once = &cluster["circuit_breakers"]["thresholds"][0]["max_requests"];
            assert!(open_at_once.as_u64() >= Some(65_536), "{overlay}: {host}");
            let san = "/transport_socket/typed_config/common_tls_context/validation_context/\
                       match_typed_subject_alt_names/0/matcher/exact";
            assert_eq!(cluster.pointer(san), Some(&json!(host)), "{overlay}");
        }
    }
    assert_eq!(n, 6, "an envoy.yaml for each way to run an Envoy");
}

/// The cluster that the overlay adds, or where it brings Envoy's file, that file's own.
fn declared_cluster(objects: &[Object], config: &Value) -> Value {
    let added = objects.iter().find_map(|object| match object.kind() {
        "EnvoyFilter" => Some(object.0["spec"]["configPatches"][0]["patch"]["value"].clone()),
        "EnvoyProxy" => {
            let text = object.0["spec"]["bootstrap"]["value"]
                .as_str()
                .unwrap_or_default();
            let bootstrap: Value = serde_saphyr::from_str(text).expect("a bootstrap");
            Some(bootstrap["static_resources"]["clusters"][0].clone())
        }
        _ => None,
    });
    added.unwrap_or_else(|| config["static_resources"]["clusters"][0].clone())
}

fn declared_plugin(objects: &[Object], config: &Value) -> Value {
    let declared = objects.iter().find_map(|object| match object.kind() {
        "WasmPlugin" => Some(object.0["spec"]["pluginConfig"].clone()),
        "EnvoyExtensionPolicy" => Some(object.0["spec"]["wasm"][0]["config"].clone()),
        _ => None,
    });
    declared.unwrap_or_else(|| written_plugin(config))
}

/// The plugin's configuration in a file of Envoy's.
fn written_plugin(config: &Value) -> Value {
    fn find(value: &Value) -> Option<&Value> {
        if value["vm_config"].is_object() {
            return Some(&value["configuration"]["value"]);
        }
        match value {
            Value::Object(fields) => fields.values().find_map(find),
            Value::Array(items) => items.iter().find_map(find),
            _ => None,
        }
    }
    let text = find(config).and_then(Value::as_str).expect("a plugin");
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn kept_schemas_are_those_of_the_projects_own_files() {
    let folder = artifacts::root().join("../shared/crds");
    if !folder.is_dir() {
        return;
    }
    let mut n = 0;
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        for definition in manifests::documents(&read(&path)).expect("definitions") {
            n += compare(&definition);
        }
    }
    assert_eq!(
        n,
        fs::read_dir(k8s("../tests/crds"))
            .expect("a folder")
            .count()
            - 1
    );
}

/// Compares a definition's versions with the kept ones; answers how many there were.
fn compare(definition: &Object) -> usize {
    let spec = &definition.0["spec"];
    let (group, kind) = (spec["group"].as_str(), spec["names"]["kind"].as_str());
    let mut n = 0;
    for version in spec["versions"].as_array().into_iter().flatten() {
        let name = version["name"].as_str().unwrap_or_default();
        let file = format!("{}_{}_{name}.json", group.unwrap_or(""), kind.unwrap_or(""));
        let kept = k8s("../tests/crds").join(&file);
        if kept.is_file() {
            n += 1;
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            reduce(&mut schema, false);
            let kept: Value = serde_json::from_str(&read(&kept)).expect("JSON");
            assert!(kept == schema, "{file} differs");
        }
    }
    n
}

/// Takes out what says nothing of a value's form.
fn reduce(schema: &mut Value, is_properties: bool) {
    const LEFT_OUT: [&str; 9] = [
        "default",
        "description",
        "example",
        "externalDocs",
        "title",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-map-type",
        "x-kubernetes-validations",
    ];
    match schema {
        Value::Object(fields) => {
            if !is_properties {
                fields.retain(|name, _| !LEFT_OUT.contains(&name.as_str()));
            }
            for (name, value) in fields.iter_mut() {
                let is_enum = name == "enum" && !is_properties;
                if !is_enum {
                    reduce(value, name == "properties" && !is_properties);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| reduce(item, false)),
        _ => {}
    }
}
