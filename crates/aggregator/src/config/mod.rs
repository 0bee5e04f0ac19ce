//! The settings of the aggregator: `tollmesh.toml`, every key optional, no surprise accepted.

mod alerts;
pub mod budgets;
mod guards;
mod limits;
mod listen;
pub mod notified;
mod otlp_section;
mod problem;
pub(crate) mod section;
mod state_dir;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::alerts::Receivers;
use crate::budgets::store;
use crate::forward::{Place, Settings};
use crate::otlp;
pub use listen::Listen;
pub use problem::{Problem, Problems};
use section::{Section, Sink};

/// Read where no `--config` is given and this file exists.
pub const DEFAULT_FILE: &str = "/etc/tollmesh/tollmesh.toml";

/// What `tollmesh.toml` means, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `state_dir`: where ledger and lock are.
    /// Default `/var/lib/tollmesh`; where that is not writable `$XDG_STATE_HOME/tollmesh`, else
    /// `~/.local/state/tollmesh`.
    pub state_dir: PathBuf,
    /// `pricing`: folders or files of price tables; later ones override earlier ones, and all
    /// override the tables that ship. Default: none.
    pub pricing: Vec<PathBuf>,
    /// `overrides`: the operator's own terms over those tables. Default: none.
    pub overrides: Option<PathBuf>,
    /// `budgets`: limits on spend, which daily reports compare with. Default: none.
    pub budgets: Option<PathBuf>,
    /// `drain`: the longest that ingest goes on after SIGTERM. Default 10 s.
    pub drain: Duration,
    /// `ingest.listen`: the filter's side. Default `127.0.0.1:4100`.
    pub ingest: Listen,
    /// `[operator]`.
    pub operator: Operator,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `retention.days`: how long single calls are kept; hourly sums and counters stay.
    /// Default 90.
    pub retention_days: u32,
    /// `[redis]`: where nodes agree on budgets. Default: none, each node for itself.
    pub redis: Option<store::Place>,
    /// `[postgres]`: the cluster's shared ledger. Default: none.
    pub postgres: Option<Settings>,
    /// `[otlp]`: a receiver of telemetry. Default: none.
    pub otlp: Option<otlp::Settings>,
    /// `[alerts.…]`: who is told of budgets that have come far. Default: nobody.
    pub alerts: Receivers,
    /// `retention.max_size`: bytes that the ledger's file may have; the oldest single calls go
    /// earlier where it would grow beyond. Default: no bound.
    pub retention_bytes_max: Option<u64>,
}

/// `[operator]`: the side of people and Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// `operator.listen`. Default `127.0.0.1:4101`.
    pub listen: Listen,
    /// `operator.token_file`: holds the bearer token of the API. Default: none.
    pub token_file: Option<PathBuf>,
    /// `operator.hosts`: names, besides addresses and `localhost`, under which browsers reach it, as
    /// an ingress has one. Default: none.
    pub hosts: Vec<String>,
}

/// `[metrics]`: what becomes a label, and how many series there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// `metrics.labels`: tags that become labels. Default `team`, `feature`, `environment`.
    pub labels: Vec<String>,
    /// `metrics.max_values_per_label`. Default 100.
    pub max_values_per_label: usize,
    /// `metrics.max_series`: of cost, tokens and requests together. Default 10,000.
    pub max_series: usize,
}

impl Config {
    /// Reads that file, or else [`DEFAULT_FILE`] where it exists, or else takes the defaults.
    pub fn load(file: Option<&Path>, state_dir: Option<&Path>) -> Result<Config, Problems> {
        whole(Config::look(file, state_dir))
    }

    /// The same with all mistakes, and what the file says beside them: a key with a mistake is as
    /// if it were not there. `None` where nothing can be made of the file.
    pub fn look(file: Option<&Path>, state_dir: Option<&Path>) -> (Option<Config>, Vec<Problem>) {
        let Some(file) = in_use(file, Path::new(DEFAULT_FILE)) else {
            return look_at("tollmesh.toml", "", state_dir);
        };
        let name = file.display().to_string();
        match std::fs::read_to_string(file) {
            Ok(text) => look_at(&name, &text, state_dir),
            Err(error) => {
                let problem = Problem {
                    file: name,
                    key: String::new(),
                    what: format!("cannot be read: {error}; give its path with --config"),
                };
                (None, vec![problem])
            }
        }
    }

    /// Reads that text; `file` is its name in messages.
    pub fn parse(file: &str, text: &str, state_dir: Option<&Path>) -> Result<Config, Problems> {
        whole(look_at(file, text, state_dir))
    }
}

fn look_at(file: &str, text: &str, state_dir: Option<&Path>) -> (Option<Config>, Vec<Problem>) {
    let sink = Sink::new(file);
    let config = match text.parse::<toml::Table>() {
        Ok(table) => read(Section::root(&sink, table), state_dir),
        Err(error) => {
            sink.refuse("", not_toml(text, &error));
            None
        }
    };
    (config, sink.into_problems())
}

fn whole((config, problems): (Option<Config>, Vec<Problem>)) -> Result<Config, Problems> {
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Problems(problems)),
    }
}

/// The file that holds: the one that is named, or else `default` where it exists.
pub fn in_use<'f>(named: Option<&'f Path>, default: &'f Path) -> Option<&'f Path> {
    named.or_else(|| default.exists().then_some(default))
}

fn read(mut root: Section<'_>, state_dir: Option<&Path>) -> Option<Config> {
    let written = root.parsed("state_dir", limits::absolute_path);
    let state_dir = state_dir.map(Path::to_owned).or(written);
    let pricing = root.texts("pricing").unwrap_or_default();
    let overrides = root.parsed("overrides", limits::absolute_path);
    let budgets = root.parsed("budgets", limits::absolute_path);
    let drain = root.parsed("drain", limits::drain);
    let ingest = read_ingest(root.section("ingest"));
    let operator = read_operator(root.section("operator"), &ingest);
    let metrics = read_metrics(root.section("metrics"));
    let mut retention = root.section("retention");
    let days = retention.number("days", limits::RETENTION_DAYS, "days");
    let bytes_max = retention.parsed("max_size", limits::size);
    retention.finish();
    let redis = read_redis(root.section("redis"));
    let postgres = read_postgres(root.section("postgres"));
    let otlp = otlp_section::read(root.section("otlp"));
    let alerts = alerts::read(root.section("alerts"));
    let state_dir = match state_dir.or_else(state_dir::default) {
        Some(dir) => dir,
        None => {
            root.refuse("state_dir", state_dir::NONE_WRITABLE);
            return None;
        }
    };
    root.finish();
    Some(Config {
        state_dir,
        pricing: pricing.into_iter().map(PathBuf::from).collect(),
        overrides,
        budgets,
        drain: drain.unwrap_or(limits::DRAIN_DEFAULT),
        ingest,
        operator,
        metrics,
        retention_bytes_max: bytes_max,
        retention_days: days.unwrap_or(limits::RETENTION_DAYS_DEFAULT) as u32,
        redis,
        postgres,
        otlp,
        alerts,
    })
}

fn read_ingest(mut section: Section<'_>) -> Listen {
    let listen = section.parsed("listen", Listen::parse);
    section.finish();
    listen.unwrap_or(Listen::Tcp(([127, 0, 0, 1], 4100).into()))
}

fn read_operator(mut section: Section<'_>, ingest: &Listen) -> Operator {
    let listen = section.parsed("listen", Listen::parse);
    let listen = listen.unwrap_or(Listen::Tcp(([127, 0, 0, 1], 4101).into()));
    if listen.collides_with(ingest) {
        section.refuse(
            "listen",
            format!("{ingest} is where ingest.listen is; give each an address of its own"),
        );
    }
    let token_file = section.parsed("token_file", limits::absolute_path);
    let hosts = section.texts("hosts");
    if let Some(Err(what)) = hosts.as_deref().map(limits::check_hosts) {
        section.refuse("hosts", what);
    }
    section.finish();
    Operator {
        listen,
        token_file,
        hosts: hosts.unwrap_or_default(),
    }
}

fn read_metrics(mut section: Section<'_>) -> Metrics {
    let labels = section.texts("labels");
    if let Some(Err(what)) = labels.as_deref().map(limits::check_labels) {
        section.refuse("labels", what);
    }
    let values = section.number("max_values_per_label", limits::VALUES_PER_LABEL, "values");
    let series = section.number("max_series", limits::SERIES, "series");
    section.finish();
    Metrics {
        labels: labels.unwrap_or_else(|| limits::LABELS_DEFAULT.map(str::to_owned).to_vec()),
        max_values_per_label: values.unwrap_or(limits::VALUES_PER_LABEL_DEFAULT) as usize,
        max_series: series.unwrap_or(limits::SERIES_DEFAULT) as usize,
    }
}

/// `redis.url` with what belongs to it: `password_file`, `ca_file`, `cluster` (false) and `prefix`
/// (`tm`).
fn read_redis(mut section: Section<'_>) -> Option<store::Place> {
    let lacks_url = !section.is_empty() && !section.has("url");
    let place = section.parsed("url", store::Place::parse);
    let password_file = section.parsed("password_file", limits::absolute_path);
    let ca_file = section.parsed("ca_file", limits::absolute_path);
    let is_cluster = section.flag("cluster").unwrap_or(false);
    let prefix = section.parsed("prefix", limits::key_prefix);
    if lacks_url {
        section.refuse("url", "missing; name the server, or remove the section");
    }
    if place.as_ref().is_some_and(store::Place::has_password) && password_file.is_some() {
        section.refuse(
            "password_file",
            "the URL holds a password too; remove that one",
        );
    }
    if place.as_ref().is_some_and(|place| !place.is_encrypted()) && ca_file.is_some() {
        section.refuse(
            "ca_file",
            "the URL is of no TLS; begin it with \"rediss://\"",
        );
    }
    section.finish();
    let place = place?.password_file(password_file).ca_file(ca_file);
    Some(place.cluster(is_cluster).prefix(prefix))
}

/// `postgres.url` with what belongs to it: `password_file`, `ca_file`, `interval` (30 s) and
/// `retention_months` (13).
fn read_postgres(mut section: Section<'_>) -> Option<Settings> {
    let lacks_url = !section.is_empty() && !section.has("url");
    let place = section.parsed("url", Place::parse);
    let password_file = section.parsed("password_file", limits::absolute_path);
    let ca_file = section.parsed("ca_file", limits::absolute_path);
    let interval = section.parsed("interval", limits::interval);
    let months = section.number("retention_months", limits::RETENTION_MONTHS, "months");
    if lacks_url {
        section.refuse("url", "missing; name the database, or remove the section");
    }
    if place.as_ref().is_some_and(Place::has_password) && password_file.is_some() {
        section.refuse(
            "password_file",
            "the URL holds a password too; remove that one",
        );
    }
    section.finish();
    Some(Settings {
        place: place?.password_file(password_file).ca_file(ca_file),
        interval: interval.unwrap_or(limits::INTERVAL_DEFAULT),
        retention_months: months.unwrap_or(limits::RETENTION_MONTHS_DEFAULT) as u32,
    })
}

/// The parser's words on one line, with the place as people count.
fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let offset = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    let message = error.message().replace('\n', ", ");
    format!("line {line}, column {column}: not TOML: {message}")
}

#[cfg(test)]
mod tests;
