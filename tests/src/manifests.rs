//! The manifests below `k8s/`: rendered by kustomize, and held against the schemas of their kinds.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value, json};

use crate::artifacts;
use crate::schema::{self, Schema};

/// The releases of Kubernetes whose schemas the objects must fit: the oldest one that takes them and
/// the newest one whose schemas are to be had.
pub const KUBERNETES: [&str; 2] = ["1.33", "1.37"];

/// Schemas of custom resources, a file each: `group_Kind_version.json`.
const CUSTOM: &str = "tests/crds";

/// An object of Kubernetes.
#[derive(Clone, Debug, PartialEq)]
pub struct Object(pub Value);

impl Object {
    /// The kind.
    pub fn kind(&self) -> &str {
        self.0["kind"].as_str().unwrap_or_default()
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The namespace; `None` where it has none of its own.
    pub fn namespace(&self) -> Option<&str> {
        self.0["metadata"]["namespace"].as_str()
    }

    /// Its labels.
    pub fn labels(&self) -> &Value {
        &self.0["metadata"]["labels"]
    }

    /// Kind and name, for messages.
    pub fn title(&self) -> String {
        format!("{} {}", self.kind(), self.name())
    }
}

/// What kustomize makes of that folder, or of an overlay with components: paths below `k8s/`.
///
/// # Errors
/// Where kustomize refuses it, with its words.
pub fn render(kustomize: &Path, overlay: &str, components: &[&str]) -> anyhow::Result<Vec<Object>> {
    render_in(
        kustomize,
        &artifacts::root().join("k8s"),
        overlay,
        components,
    )
}

/// The same of manifests that lie in `home`.
///
/// # Errors
/// As [`render`].
pub fn render_in(
    kustomize: &Path,
    home: &Path,
    overlay: &str,
    components: &[&str],
) -> anyhow::Result<Vec<Object>> {
    if components.is_empty() {
        return built(kustomize, &home.join(overlay));
    }
    // Kustomize takes relative paths only, so the folder that combines them lies beside them.
    let target = artifacts::root().join("target");
    fs::create_dir_all(&target)?;
    let dir = tempfile::Builder::new()
        .prefix("kustomize-")
        .tempdir_in(target)?;
    let below = |path: &str| Value::from(relative(dir.path(), &home.join(path)));
    let components: Vec<Value> = components.iter().copied().map(below).collect();
    let file = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [below(overlay)],
        "components": components,
    });
    fs::write(dir.path().join("kustomization.yaml"), file.to_string())?;
    built(kustomize, dir.path())
}

/// The way from one folder to another, by `..`.
fn relative(from: &Path, to: &Path) -> String {
    let from: Vec<_> = from.components().collect();
    let to: Vec<_> = to.components().collect();
    let n_same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let mut path: PathBuf = from[n_same..].iter().map(|_| "..").collect();
    path.extend(&to[n_same..]);
    path.display().to_string()
}

fn built(kustomize: &Path, folder: &Path) -> anyhow::Result<Vec<Object>> {
    let is_kubectl = kustomize.file_stem().is_some_and(|name| name == "kubectl");
    let subcommand = if is_kubectl { "kustomize" } else { "build" };
    let output = Command::new(kustomize)
        .arg(subcommand)
        .arg(folder)
        .output()
        .with_context(|| format!("cannot run {}", kustomize.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", folder.display());
    let text = String::from_utf8(output.stdout).context("kustomize says no text")?;
    documents(&text)
}

/// The objects of a file of YAML.
///
/// # Errors
/// Where one is no YAML.
pub fn documents(yaml: &str) -> anyhow::Result<Vec<Object>> {
    yaml.split("\n---\n")
        .filter(|document| !document.trim().is_empty())
        .map(|document| {
            let object = serde_saphyr::from_str(document);
            object
                .map(Object)
                .with_context(|| format!("no YAML: {document}"))
        })
        .collect()
}

/// The schemas that objects are held against.
pub struct Catalog {
    /// By release: the folder of its files, and the definitions that they refer to.
    core: Vec<(&'static str, PathBuf, Value)>,
    custom: HashMap<String, Value>,
}

impl Catalog {
    /// Opens Kubernetes' schemas below `core`, and those of custom resources.
    ///
    /// # Errors
    /// Where files are missing or broken.
    pub fn open(core: &Path) -> anyhow::Result<Catalog> {
        let folder = |release: &&'static str| -> anyhow::Result<_> {
            let folder = core.join(format!("v{release}.0-local-strict"));
            let definitions = schema::read(&folder.join("_definitions.json"))?;
            let definitions = match definitions.get("$defs") {
                Some(found) => found.clone(),
                None => definitions["definitions"].clone(),
            };
            Ok((*release, folder, definitions))
        };
        let mut custom = HashMap::new();
        for entry in fs::read_dir(artifacts::root().join(CUSTOM))? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                custom.insert(name.into_owned(), schema::read(&path)?);
            }
        }
        ensure!(!custom.is_empty(), "{CUSTOM} has no schema");
        Ok(Catalog {
            core: KUBERNETES.iter().map(folder).collect::<Result<_, _>>()?,
            custom,
        })
    }

    /// Everything in the object that its kind does not allow. A kind without a schema is an error.
    ///
    /// # Errors
    /// Where there is no schema.
    pub fn violations(&self, object: &Object) -> anyhow::Result<Vec<String>> {
        let version = object.0["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let name = format!("{group}_{}_{version}", object.kind());
        if let Some(custom) = self.custom.get(&name) {
            let custom = with_object_fields(custom);
            return Ok(Schema::of_custom_resource(&custom).violations(&object.0));
        }
        let short = group.split('.').next().unwrap_or_default();
        let kind = object.kind().to_lowercase();
        let file = match short {
            "" => format!("{kind}-{version}.json"),
            group => format!("{kind}-{group}-{version}.json"),
        };
        let mut found = Vec::new();
        for (release, folder, definitions) in &self.core {
            let path = folder.join(&file);
            if !path.is_file() {
                bail!(
                    "{}: Kubernetes {release} and {CUSTOM} have no schema",
                    object.title()
                );
            }
            let root = schema::read(&path)?;
            let violations = Schema::of_kubernetes(&root, definitions).violations(&object.0);
            found.extend(
                violations
                    .iter()
                    .map(|what| format!("Kubernetes {release}: {what}")),
            );
        }
        Ok(found)
    }
}

/// A custom resource's schema leaves out what every object has.
fn with_object_fields(schema: &Value) -> Value {
    let mut schema = schema.clone();
    let mut fields = Map::new();
    fields.insert("apiVersion".to_owned(), json!({ "type": "string" }));
    fields.insert("kind".to_owned(), json!({ "type": "string" }));
    fields.insert("metadata".to_owned(), json!({ "type": "object" }));
    match schema["properties"].as_object_mut() {
        Some(properties) => properties.extend(fields),
        None => schema["properties"] = fields.into(),
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_between_folders() {
        for (from, to, way) in [
            ("/a/b", "/a/c", "../c"),
            ("/a/b/d", "/a/c/e", "../../c/e"),
            ("/a", "/a/b", "b"),
        ] {
            assert_eq!(relative(Path::new(from), Path::new(to)), way);
        }
    }
}
