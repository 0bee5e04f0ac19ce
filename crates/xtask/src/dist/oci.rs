//! A container image as an OCI archive, made byte by byte: the same files give the same digest.
//!
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

use std::io::Write;

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use super::sha256;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Istio reads a filter out of a layer of this type and of no other of OCI's.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Bytes of a block of a tar archive, `tar(5)`.
const BLOCK_BYTES: usize = 512;

/// A file of an image.
pub struct File<'a> {
    /// From the image's root, without a slash before it.
    pub path: &'a str,
    /// Permissions.
    pub mode: u32,
    /// The content.
    pub bytes: &'a [u8],
}

/// What runs in a container of the image.
pub struct Process<'a> {
    /// Number of user and group.
    pub user: &'a str,
    /// The program.
    pub entrypoint: &'a str,
    /// Its argument where none is given.
    pub command: &'a str,
}

/// An image.
pub struct Image {
    /// Of the manifest, in hex: what `image@sha256:…` names.
    pub digest: String,
    /// The archive.
    pub archive: Vec<u8>,
}

/// Makes an image of one layer.
pub fn image(
    files: &[File<'_>],
    process: Option<&Process<'_>>,
    annotations: &[(&str, String)],
) -> Result<Image> {
    let tree = tar(files)?;
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(&tree)?;
    let layer = gzip.finish()?;
    let config = config(process, &sha256(&tree)).to_string().into_bytes();
    let labels: Value = annotations
        .iter()
        .map(|(name, value)| (*name, value.clone()))
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &layer)],
        "annotations": labels,
    });
    let manifest = manifest.to_string().into_bytes();
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor(MANIFEST, &manifest)] });
    let index = index.to_string().into_bytes();
    let blobs = [&config, &layer, &manifest].map(|blob| (blob_path(blob), blob));
    let mut archived = vec![
        File {
            path: "oci-layout",
            mode: 0o644,
            bytes: br#"{"imageLayoutVersion":"1.0.0"}"#,
        },
        File {
            path: "index.json",
            mode: 0o644,
            bytes: &index,
        },
    ];
    for (path, bytes) in &blobs {
        archived.push(File {
            path,
            mode: 0o644,
            bytes,
        });
    }
    Ok(Image {
        digest: sha256(&manifest),
        archive: tar(&archived)?,
    })
}

fn config(process: Option<&Process<'_>>, diff_id: &str) -> Value {
    let runs = process.map_or(json!({}), |process| {
        json!({
            "User": process.user,
            "Entrypoint": [process.entrypoint],
            "Cmd": [process.command],
        })
    });
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": runs,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
    })
}

/// As Go names machines.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": format!("sha256:{}", sha256(blob)),
        "size": blob.len(),
    })
}

fn blob_path(blob: &[u8]) -> String {
    format!("blobs/sha256/{}", sha256(blob))
}

/// An archive in the format of POSIX 1003.1-1988, of root's files of 1970.
fn tar(files: &[File<'_>]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for file in files {
        archive.extend(header(file)?);
        archive.extend(file.bytes);
        archive.resize(archive.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK_BYTES, 0);
    Ok(archive)
}

fn header(file: &File<'_>) -> Result<[u8; BLOCK_BYTES]> {
    let mut header = [0; BLOCK_BYTES];
    let mut put = |offset: usize, text: &[u8]| -> Result<()> {
        let field = header.get_mut(offset..offset + text.len());
        field
            .context("a tar header is too short")?
            .copy_from_slice(text);
        Ok(())
    };
    ensure!(file.path.len() < 100, "{} is too long a name", file.path);
    put(0, file.path.as_bytes())?;
    put(100, format!("{:07o}\0", file.mode).as_bytes())?;
    put(108, b"0000000\x000000000\0")?;
    put(124, format!("{:011o}\0", file.bytes.len()).as_bytes())?;
    put(136, b"00000000000\0")?;
    // The sum is taken over the header with blanks in its own place.
    put(148, b"        ")?;
    put(156, b"0")?;
    put(257, b"ustar\x0000")?;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::process::Command;

    fn sample() -> Image {
        let files = [
            File {
                path: "etc/ca.pem",
                mode: 0o644,
                bytes: b"ca",
            },
            File {
                path: "tollmesh",
                mode: 0o755,
                bytes: &[7; 700],
            },
        ];
        let process = Process {
            user: "65532:65532",
            entrypoint: "/tollmesh",
            command: "serve",
        };
        image(&files, Some(&process), &[("a", "b".to_owned())]).unwrap()
    }

    /// The files of an archive, as tar(1) reads them.
    fn unpacked(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("archive.tar");
        std::fs::write(&file, archive).unwrap();
        let tree = folder.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--same-permissions", "--file"])
            .arg(&file);
        let output = tar.arg("--directory").arg(&tree).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut found = BTreeMap::new();
        let mut folders = vec![tree.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&tree).unwrap().display().to_string();
                    found.insert(name, std::fs::read(path).unwrap());
                }
            }
        }
        found
    }

    #[test]
    fn every_digest_names_what_is_there() {
        let image = sample();
        let files = unpacked(&image.archive);
        let json = |path: &str| -> Value { serde_json::from_slice(&files[path]).unwrap() };
        assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"]
                .as_str()
                .unwrap()
                .trim_start_matches("sha256:");
            let bytes = files[&format!("blobs/sha256/{digest}")].clone();
            assert_eq!(sha256(&bytes), digest);
            assert_eq!(descriptor["size"], bytes.len());
            bytes
        };
        let manifest = blob(&json("index.json")["manifests"][0]);
        assert_eq!(sha256(&manifest), image.digest);
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["config"]["User"], "65532:65532");
        let layer = blob(&manifest["layers"][0]);
        let mut tree = Vec::new();
        std::io::copy(&mut flate2::read::GzDecoder::new(&layer[..]), &mut tree).unwrap();
        let diff_id = format!("sha256:{}", sha256(&tree));
        assert_eq!(config["rootfs"]["diff_ids"][0], diff_id);
        assert_eq!(unpacked(&tree)["tollmesh"], [7; 700]);
    }

    #[test]
    fn the_same_files_make_the_same_image() {
        assert_eq!(sample().digest, sample().digest);
    }
}
