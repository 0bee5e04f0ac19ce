//! What Istio's injector makes of a pod by one of our injection templates.
//!
//! Only the few forms of Go's templates that ours have are understood, each on a line of its own; any
//! other is an error. Merging is that of Kubernetes' strategic merge for the lists of a pod, and
//! afterwards each container that the pod brought is laid over the result once more, as Istio does:
//! <https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/#custom-templates-experimental>.

use anyhow::{Context, bail};
use serde_json::Value;

/// The annotation by which a template has containers begin before the proxy.
const BEFORE_PROXY: &str = "sidecar.istio.io/init-containers-before-proxy";

/// Lists of a pod that are merged item by item, with the key that tells items apart.
const KEYED: [(&str, &str); 6] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("volumeMounts", "mountPath"),
    ("ports", "containerPort"),
];

/// The template of that name in values of Istio's chart.
///
/// # Errors
/// Where there is none.
pub fn template<'a>(values: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    let template = &values["sidecarInjectorWebhook"]["templates"][name];
    template
        .as_str()
        .with_context(|| format!("no template {name}"))
}

/// The pod after injection of `template`. Its own proxy must have been injected already, as a native
/// sidecar or as a container.
///
/// # Errors
/// Where the template has a form that is not understood, or does not make YAML.
pub fn inject(template: &str, pod: &Value, is_native: bool) -> anyhow::Result<Value> {
    let lines: Vec<&str> = template.lines().collect();
    let mut text = String::new();
    let scope = Scope {
        pod,
        is_native,
        container: None,
    };
    if let Some(n) = expand(&lines, &scope, true, &mut text)? {
        bail!("line {n}: an end too many");
    }
    let patch: Value =
        serde_saphyr::from_str(&text).with_context(|| format!("no YAML:\n{text}"))?;
    let mut merged = pod.clone();
    merge(&mut merged, &patch);
    for list in ["containers", "initContainers"] {
        let own = pod["spec"][list].as_array().cloned().unwrap_or_default();
        for container in own
            .iter()
            .filter(|container| container["name"] != "istio-proxy")
        {
            let containers = merged["spec"][list].as_array_mut();
            let found = containers.into_iter().flatten();
            for target in found.filter(|target| target["name"] == container["name"]) {
                merge(target, container);
            }
        }
    }
    order(&mut merged);
    Ok(merged)
}

struct Scope<'a> {
    pod: &'a Value,
    is_native: bool,
    container: Option<&'a str>,
}

/// Expands lines until the end of the block, and answers how many it read, that end included; `None`
/// where there is no such end.
fn expand(
    lines: &[&str],
    scope: &Scope<'_>,
    is_shown: bool,
    text: &mut String,
) -> anyhow::Result<Option<usize>> {
    let block = |n: usize, scope: &Scope<'_>, is_shown, text: &mut String| {
        expand(&lines[n..], scope, is_shown, text)?.context("a block without its end")
    };
    let mut n = 0;
    while let Some(line) = lines.get(n) {
        n += 1;
        let action = line
            .trim()
            .strip_prefix("{{-")
            .map(|rest| rest.trim_end_matches("}}").trim());
        match action {
            None if is_shown => text.push_str(&format!("{}\n", plain(line, scope)?)),
            None => {}
            Some("end") => return Ok(Some(n)),
            Some("range .Spec.Containers") => {
                let own = scope.pod["spec"]["containers"].as_array();
                let n_block = block(n, scope, false, text)?;
                for container in own.into_iter().flatten() {
                    let container = container["name"].as_str();
                    let scope = Scope {
                        container,
                        ..*scope
                    };
                    block(n, &scope, is_shown, text)?;
                }
                n += n_block;
            }
            Some(action) if action.starts_with("if ") => {
                let is_true = is_shown && holds(action, scope)?;
                n += block(n, scope, is_true, text)?;
            }
            Some(action) if action.starts_with("$native := ") => {}
            Some(action) => bail!("not understood here: {action}"),
        }
    }
    Ok(None)
}

fn holds(action: &str, scope: &Scope<'_>) -> anyhow::Result<bool> {
    Ok(match action {
        "if $native" => scope.is_native,
        "if not $native" => !scope.is_native,
        r#"if ne .Name "istio-proxy""# => scope.container != Some("istio-proxy"),
        other => bail!("not understood here: {other}"),
    })
}

fn plain(line: &str, scope: &Scope<'_>) -> anyhow::Result<String> {
    let line = line.replace("{{ .Name }}", scope.container.unwrap_or_default());
    if line.contains("{{") {
        bail!("not understood here: {line}");
    }
    Ok(line)
}

fn merge(target: &mut Value, patch: &Value) {
    let (Some(fields), Some(patch)) = (target.as_object_mut(), patch.as_object()) else {
        *target = patch.clone();
        return;
    };
    for (name, value) in patch {
        let key = KEYED
            .iter()
            .find(|(list, _)| list == name)
            .map(|(_, key)| *key);
        match (key, fields.get_mut(name)) {
            (Some(key), Some(Value::Array(items))) => merge_lists(items, value, key),
            (_, Some(field)) if field.is_object() => merge(field, value),
            _ => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
}

fn merge_lists(items: &mut Vec<Value>, patch: &Value, key: &str) {
    for new in patch.as_array().into_iter().flatten() {
        match items.iter_mut().find(|item| item[key] == new[key]) {
            Some(item) => merge(item, new),
            None => items.push(new.clone()),
        }
    }
}

/// The proxy first among native sidecars, after those that the annotation names.
fn order(pod: &mut Value) {
    let before = pod["metadata"]["annotations"][BEFORE_PROXY]
        .as_str()
        .unwrap_or_default();
    let before: Vec<String> = before.split(',').map(str::to_owned).collect();
    let rank = |container: &Value| {
        let name = container["name"].as_str().unwrap_or_default();
        match name {
            name if before.iter().any(|other| other == name) => 0,
            "istio-proxy" => 1,
            _ => 2,
        }
    };
    if let Some(containers) = pod["spec"]["initContainers"].as_array_mut()
        && containers
            .iter()
            .any(|container| container["name"] == "istio-proxy")
    {
        containers.sort_by_key(rank);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TEMPLATE: &str = r#"
{{- $native := whatever }}
spec:
  containers:
    {{- if not $native }}
    - { name: istio-proxy, image: proxy }
    {{- end }}
    {{- range .Spec.Containers }}
    {{- if ne .Name "istio-proxy" }}
    - name: {{ .Name }}
      env: [{ name: A, value: ours }, { name: B, value: ours }]
    {{- end }}
    {{- end }}
"#;

    #[test]
    fn what_a_pod_says_itself_stays() {
        let app = json!({ "name": "app", "env": [{ "name": "A", "value": "its own" }] });
        let pod = json!({ "spec": { "containers": [app, { "name": "istio-proxy" }] } });
        let pod = inject(TEMPLATE, &pod, false).expect("it is understood");
        let containers = &pod["spec"]["containers"];
        let env = json!([{ "name": "A", "value": "its own" }, { "name": "B", "value": "ours" }]);
        assert_eq!(containers[0]["env"], env);
        assert_eq!(
            containers[1],
            json!({ "name": "istio-proxy", "image": "proxy" })
        );
        assert_eq!(containers.as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let pod = json!({ "spec": { "containers": [{ "name": "app" }] } });
        for template in [
            "{{- with .X }}\n{{- end }}",
            "a: {{ .Y }}",
            "{{- end }}",
            "{{- if $native }}",
        ] {
            assert!(inject(template, &pod, true).is_err(), "{template}");
        }
    }
}
