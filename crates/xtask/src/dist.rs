//! What is handed out: both artefacts, an image of each, what they are made of, and the manifests with
//! all of it pinned by digest.

mod linked;
mod notices;
mod oci;
mod pins;
mod sbom;
mod terms;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::cli::Dist;
use crate::debian;
use crate::toolchain::{self, WASM_TARGET};
use crate::workshop::{Workshop, remove_folder};
pub use pins::PLACEHOLDER;
use terms::Terms;

/// The release that is built: the one of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where the authorities lie that the aggregator trusts when it calls webhooks and databases.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The C library that the aggregator has in it, as Debian packages it.
const MUSL: &str = "musl-dev";

/// Its terms in that package.
const TERMS_OF_MUSL: &str = "usr/share/doc/musl-dev/copyright";

/// The user of the image; Kubernetes' manifests say the same.
const USER: &str = "65532:65532";

/// Builds everything into `target/dist`, and says what to do with it.
pub fn run(workshop: &Workshop, asked: &Dist) -> Result<ExitCode> {
    let home = workshop.target.join("dist");
    remove_folder(&home)?;
    fs::create_dir_all(home.join("images"))
        .with_context(|| format!("create {}", home.display()))?;
    let filter = built_filter(workshop, &home)?;
    let aggregator = built_aggregator(workshop, &home)?;
    let terms = Terms::of(workshop, &home, "tollmesh-filter", WASM_TARGET)?;
    let filter = filter_image(&filter, &terms)?;
    let mut terms = Terms::of(workshop, &home, "tollmesh-aggregator", &musl_target()?)?;
    let musl = debian::unpacked(workshop, MUSL)?.join(TERMS_OF_MUSL);
    terms.add(&home, "licenses/musl", read(&musl)?)?;
    let aggregator = aggregator_image(&aggregator, &terms)?;
    write(&home.join("images/filter.tar"), &filter.archive)?;
    write(&home.join("images/aggregator.tar"), &aggregator.archive)?;
    pins::copy(
        &workshop.root.join("k8s"),
        &home.join("k8s"),
        &pins::Pins {
            registry: asked.registry.clone(),
            version: VERSION.to_owned(),
            aggregator: aggregator.digest,
            filter: filter.digest,
        },
    )?;
    write(&home.join("SHA256SUMS"), sums(&home)?.as_bytes())?;
    println!("{}", told(&home, asked));
    Ok(ExitCode::SUCCESS)
}

fn told(home: &Path, asked: &Dist) -> String {
    let (home, registry) = (home.display(), &asked.registry);
    // A registry that would take the image in another form only would give it another digest.
    let push = "skopeo copy --preserve-digests";
    format!(
        "{home}\n\n\
         {push} oci-archive:{home}/images/aggregator.tar docker://{registry}/aggregator:{VERSION}\n\
         {push} oci-archive:{home}/images/filter.tar docker://{registry}/filter:{VERSION}\n\
         kubectl apply -k {home}/k8s/overlays/…"
    )
}

/// The filter with no path of this machine in it: the same sources give the same bytes anywhere.
fn built_filter(workshop: &Workshop, home: &Path) -> Result<Vec<u8>> {
    let built = build(workshop, "tollmesh-filter", WASM_TARGET, &[])?;
    let bytes = read(&built.join("tollmesh_filter.wasm"))?;
    write(&home.join("tollmesh_filter.wasm"), &bytes)?;
    Ok(bytes)
}

fn built_aggregator(workshop: &Workshop, home: &Path) -> Result<Vec<u8>> {
    let target = musl_target()?;
    toolchain::add(workshop, &target)?;
    let musl = debian::unpacked(workshop, MUSL).context("fetch the headers of musl")?;
    let environment = c_environment(workshop, &musl, &target)?;
    let built = build(workshop, "tollmesh-aggregator", &target, &environment)?;
    let path = built.join("tollmesh");
    let bytes = read(&path)?;
    ensure!(
        is_static(&bytes),
        "{} needs a dynamic linker",
        path.display()
    );
    let copy = home.join("tollmesh");
    fs::copy(&path, &copy).with_context(|| format!("create {}", copy.display()))?;
    Ok(bytes)
}

/// The machine's own, with a libc that can be linked statically.
fn musl_target() -> Result<String> {
    let arch = std::env::consts::ARCH;
    ensure!(["x86_64", "aarch64"].contains(&arch), "no image for {arch}");
    Ok(format!("{arch}-unknown-linux-musl"))
}

/// C sources of dependencies are compiled by the machine's compiler against musl's headers.
fn c_environment(workshop: &Workshop, musl: &Path, target: &str) -> Result<Vec<(String, String)>> {
    let mut cc = Command::new("cc");
    let output = workshop.steps.ask(cc.arg("-print-file-name=include"))?;
    let own = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let arch = std::env::consts::ARCH;
    let headers = musl.join(format!("usr/include/{arch}-linux-musl"));
    ensure!(headers.is_dir(), "no headers in {}", headers.display());
    let flags = format!(
        "-nostdinc -isystem {} -isystem {own} -ffile-prefix-map={}=/tollmesh -ffile-prefix-map={}=/cargo",
        headers.display(),
        workshop.root.display(),
        cargo_home()?.display(),
    );
    let name = target.replace('-', "_");
    Ok(vec![
        (format!("CC_{name}"), "cc".to_owned()),
        (format!("CFLAGS_{name}"), flags),
    ])
}

/// Builds as it ships; answers the folder of what was built.
fn build(
    workshop: &Workshop,
    package: &str,
    target: &str,
    environment: &[(String, String)],
) -> Result<PathBuf> {
    let remapped = format!(
        "target.{target}.rustflags=[\"--remap-path-prefix={}=/cargo\", \
         \"--remap-path-prefix={}=/tollmesh\"]",
        cargo_home()?.display(),
        workshop.root.display()
    );
    let folder = workshop.target.join("dist-build");
    let args = [
        "--locked",
        "--release",
        "-p",
        package,
        "--target",
        target,
        "--config",
    ];
    let mut cargo = workshop.cargo_into(&folder, "build", &args);
    cargo.arg(remapped).envs(environment.iter().cloned());
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        cargo.env_remove(variable);
    }
    let what = format!("building {package} for {target}");
    workshop.steps.run(&what, &mut cargo)?;
    Ok(folder.join(target).join("release"))
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(home));
    }
    let home = std::env::home_dir().context("no home directory; set CARGO_HOME")?;
    Ok(home.join(".cargo"))
}

/// An ELF file without the program header that names an interpreter (PT_INTERP, `elf(5)`).
fn is_static(elf: &[u8]) -> bool {
    elf.starts_with(b"\x7fELF") && !elf.windows(4).any(|bytes| bytes == b"/ld-")
}

fn filter_image(wasm: &[u8], terms: &Terms) -> Result<oci::Image> {
    // The name that Istio and Envoy Gateway look for in an image of one layer; they read no further.
    let plugin = oci::File {
        path: "plugin.wasm",
        mode: 0o644,
        bytes: wasm,
    };
    let files: Vec<_> = [plugin].into_iter().chain(terms.files()).collect();
    oci::image(&files, None, &annotations("filter"))
}

fn aggregator_image(binary: &[u8], terms: &Terms) -> Result<oci::Image> {
    let authorities = read(Path::new(AUTHORITIES))?;
    let own = [
        oci::File {
            path: "etc/ssl/certs/ca-certificates.crt",
            mode: 0o644,
            bytes: &authorities,
        },
        oci::File {
            path: "tollmesh",
            mode: 0o755,
            bytes: binary,
        },
    ];
    let files: Vec<_> = own.into_iter().chain(terms.files()).collect();
    let process = oci::Process {
        user: USER,
        entrypoint: "/tollmesh",
        command: "serve",
    };
    oci::image(&files, Some(&process), &annotations("aggregator"))
}

/// <https://github.com/opencontainers/image-spec/blob/main/annotations.md>
fn annotations(title: &str) -> [(&'static str, String); 3] {
    [
        (
            "org.opencontainers.image.title",
            format!("tollmesh-{title}"),
        ),
        ("org.opencontainers.image.version", VERSION.to_owned()),
        ("org.opencontainers.image.licenses", "Apache-2.0".to_owned()),
    ]
}

/// A line a file, as `sha256sum -c` reads them.
fn sums(home: &Path) -> Result<String> {
    let mut lines = Vec::new();
    for folder in [home.to_path_buf(), home.join("images")] {
        for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_file() {
                let name = path.strip_prefix(home).unwrap_or(&path);
                lines.push(format!("{}  {}\n", sha256(&read(&path)?), name.display()));
            }
        }
    }
    lines.sort_by(|a, b| a[64..].cmp(&b[64..]));
    Ok(lines.concat())
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}
