//! A real Alertmanager, which tells one webhook.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;

use crate::process::Running;
use crate::{fact, http, ports};

/// How long it may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// Where Debian's build reads its templates, wherever the program itself lies.
const TEMPLATES: &str = "/usr/share/prometheus/alertmanager";

/// Puts the templates where they are looked for, in a mount namespace that nobody else sees, and
/// becomes the program: `sh -c … sh FOLDER KEPT PROGRAM ARGUMENTS`.
const AMONG_TEMPLATES: &str = "set -e; mkdir -p \"$2\"; cp \"$1\"/*.tmpl \"$2\"; \
    mount -t tmpfs tmpfs /usr/share; mkdir -p /usr/share/prometheus/alertmanager; \
    cp \"$2\"/*.tmpl /usr/share/prometheus/alertmanager; shift 2; exec \"$@\"";

/// A running Alertmanager.
#[derive(Debug)]
pub struct Alertmanager {
    address: SocketAddr,
    _running: Running,
}

impl Alertmanager {
    /// Starts the program in `dir`; `more` is YAML beside the one route, to the webhook.
    pub fn start(
        program: &Path,
        dir: &Path,
        webhook: SocketAddr,
        more: &str,
        runtime: &Handle,
    ) -> anyhow::Result<Alertmanager> {
        let config = dir.join("alertmanager.yml");
        let text = format!(
            "route: {{ receiver: hook, group_by: ['...'], group_wait: 1s, group_interval: 1s }}\n\
             receivers:\n- name: hook\n  \
               webhook_configs: [ {{ url: 'http://{webhook}/', send_resolved: false }} ]\n{more}\n"
        );
        fs::write(&config, text)?;
        let address = ports::free();
        let mut command = command(program, dir);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", dir.join("alerts").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=");
        let mut running = Running::start("alertmanager", command, &dir.join("alertmanager.log"))?;
        let ready = fact::until(START_PATIENCE, || {
            if let Some(status) = running.ended() {
                return Ok(Err(status));
            }
            let reply = runtime.block_on(http::get(address, "/-/ready"));
            match reply.map(|reply| reply.status) {
                Ok(200) => Ok(Ok(())),
                other => Err(format!("/-/ready: {other:?}")),
            }
        });
        let status = ready
            .map_err(anyhow::Error::msg)
            .with_context(|| running.log_tail())?;
        match status {
            Ok(()) => Ok(Alertmanager {
                address,
                _running: running,
            }),
            Err(status) => anyhow::bail!("it ended, {status}\n{}", running.log_tail()),
        }
    }

    /// Where Prometheus sends alerts.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The program itself where it finds its templates, else among those that were unpacked with it.
fn command(program: &Path, dir: &Path) -> Command {
    let usr = program.parent().and_then(Path::parent);
    let unpacked = usr.map(|usr| usr.join("share/prometheus/alertmanager"));
    match unpacked {
        Some(templates) if templates.is_dir() && !Path::new(TEMPLATES).is_dir() => {
            let mut command = Command::new("unshare");
            command
                .args([
                    "--map-root-user",
                    "--mount",
                    "sh",
                    "-c",
                    AMONG_TEMPLATES,
                    "sh",
                ])
                .arg(templates)
                .arg(dir.join("templates"))
                .arg(program);
            command
        }
        _ => Command::new(program),
    }
}
