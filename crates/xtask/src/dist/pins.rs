//! The manifests with images and filter pinned: where digests are zeros, they become those that were built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The registry that stands in the repository's manifests.
pub const PLACEHOLDER: &str = "registry.example/tollmesh";

/// What the manifests are to name.
pub struct Pins {
    /// Registry and path, before `/aggregator` and `/filter`.
    pub registry: String,
    /// The tag of the aggregator's image.
    pub version: String,
    /// Digest of the aggregator's image, in hex.
    pub aggregator: String,
    /// Digest of the filter's image, in hex; both proxies' own checks compare with it.
    pub filter: String,
}

impl Pins {
    fn pinned(&self, text: &str) -> String {
        let zeros = "0".repeat(64);
        let aggregator = format!("{PLACEHOLDER}/aggregator:{}@sha256:{zeros}", self.version);
        let filter = format!("{PLACEHOLDER}/filter@sha256:{zeros}");
        let Pins {
            registry,
            version,
            aggregator: built,
            filter: wasm,
        } = self;
        text.replace(
            &aggregator,
            &format!("{registry}/aggregator:{version}@sha256:{built}"),
        )
        .replace(&filter, &format!("{registry}/filter@sha256:{wasm}"))
        .replace(
            &format!("sha256: \"{zeros}\""),
            &format!("sha256: \"{wasm}\""),
        )
    }
}

/// Copies the folder, pinned. An unpinned place that is left is an error.
pub fn copy(from: &Path, to: &Path, pins: &Pins) -> Result<()> {
    let mut n_pinned = 0;
    for file in files(from)? {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let pinned = pins.pinned(&text);
        let is_manifest = file
            .extension()
            .is_some_and(|extension| extension == "yaml");
        let is_loose = pinned.contains(PLACEHOLDER) || pinned.contains(&"0".repeat(64));
        ensure!(
            !(is_manifest && is_loose),
            "{} has a place that cannot be pinned",
            file.display()
        );
        n_pinned += usize::from(pinned != text);
        let target = to.join(file.strip_prefix(from).context("it lies there")?);
        let folder = target.parent().context("a file lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        fs::write(&target, pinned).with_context(|| format!("write {}", target.display()))?;
    }
    ensure!(n_pinned > 0, "{} has nothing to pin", from.display());
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_our_own_manifests_is_pinned() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pins = Pins {
            registry: "ghcr.io/acme".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            aggregator: "a".repeat(64),
            filter: "f".repeat(64),
        };
        copy(&root.join("k8s"), folder.path(), &pins).unwrap();
        let read = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
        let plugin = read("overlays/istio-sidecar/wasm-plugin.yaml");
        let filter = format!("oci://ghcr.io/acme/filter@sha256:{}\n", pins.filter);
        assert!(plugin.contains(&filter), "{plugin}");
        assert!(
            plugin.contains(&format!("sha256: \"{}\"", pins.filter)),
            "{plugin}"
        );
        for path in [
            "overlays/istio-sidecar/istiod-values.yaml",
            "overlays/envoy-gateway/envoy-proxy.yaml",
            "overlays/istio-waypoint/waypoint-pod.yaml",
            "components/egress/egress.yaml",
        ] {
            let image = format!(
                "ghcr.io/acme/aggregator:{}@sha256:{}",
                pins.version, pins.aggregator
            );
            assert!(read(path).contains(&image), "{path}");
        }
    }

    #[test]
    fn a_place_that_would_stay_loose_is_refused() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = from.path().join("a.yaml");
        fs::write(&file, format!("image: {PLACEHOLDER}/other@sha256:00\n")).unwrap();
        let pins = Pins {
            registry: "r".to_owned(),
            version: "1".to_owned(),
            aggregator: "a".to_owned(),
            filter: "f".to_owned(),
        };
        let error = copy(from.path(), to.path(), &pins).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{} has a place that cannot be pinned", file.display())
        );
    }
}
