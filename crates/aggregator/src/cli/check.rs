//! `tollmesh check`: every mistake in every file, before a start finds the first of them.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use tollmesh_wire::plugin::{PluginConfig, TagSources};

use super::check_budgets::{self, Names};
use super::late_tags::late_tags;
use super::progress::Progress;
use super::say::to_the_end;
use super::{Files, Outcome};
use crate::alerts::Receivers;
use crate::budgets::store;
use crate::config::{self, Config, DEFAULT_FILE, Listen, Problem, budgets};
use crate::forward::Place;
use crate::ledger::QueryError;
use crate::ledger::query::Reader;
use crate::otlp;
use crate::prices::{self, Prices};
use crate::shown::shown_lines;

/// Tell every mistake in every file, with place and remedy.
///
/// Looks at the configuration, the price files and budgets that it names, and those named here. Ends with 0
/// where all is well, 1 where there is something to consider, 2 where a file cannot be used.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The filter's configuration, as JSON.
    #[arg(long, value_name = "FILE")]
    filter_config: Option<PathBuf>,
    /// What Envoy's admin interface shows at `/config_dump`: tells tags that its routes set, which
    /// the filter does not see and the provider does.
    #[arg(long, value_name = "FILE")]
    config_dump: Option<PathBuf>,
    /// Price files or folders of them; may be given several times.
    #[arg(long, value_name = "DIR")]
    pricing: Vec<PathBuf>,
    /// Look through the ledger in state_dir, too: its pages, and whether every sum is that of its
    /// calls. Takes some seconds for a million calls; `tollmesh serve` goes on meanwhile.
    #[arg(long)]
    ledger: bool,
}

/// Tokens below this length can be tried one by one: 16 hexadecimal digits are 64 bits.
const TOKEN_BYTES_GUESSED: usize = 16;

/// What was found.
#[derive(Default)]
struct Findings {
    mistakes: Vec<String>,
    warnings: Vec<String>,
    n_files: usize,
}

/// Reads all files and tells what is wrong with them.
pub fn run(files: &Files, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let mut findings = Findings::default();
    let mut pricing = arguments.pricing.clone();
    let (mut overrides, mut budgets, mut labels) = (None, None, Vec::new());
    let file = config::in_use(files.config.as_deref(), Path::new(DEFAULT_FILE));
    let (config, problems) = Config::look(file, files.state_dir.as_deref());
    findings.n_files += usize::from(file.is_some());
    let told = problems.iter().map(Problem::to_string);
    findings.mistakes.extend(told);
    // A mistake hides no other: what the rest of the file names is looked at all the same.
    if let Some(config) = config {
        let is_good = |key: &str| !problems.iter().any(|problem| is_at(problem, key));
        if let Some(file) = file {
            findings.consider(&config, file);
        }
        if !problems.is_empty() {
            // They may be of what holds by default in the place of what was meant.
            findings.warnings.clear();
        }
        if arguments.ledger && is_good("state_dir") {
            findings.check_ledger(&config.state_dir);
        }
        pricing.extend(config.pricing);
        overrides = config.overrides;
        let receivers = is_good("alerts").then_some(config.alerts);
        budgets = config.budgets.map(|file| (file, receivers));
        labels = config.metrics.labels;
    }
    let mut tags = TagSources::default();
    if let Some(file) = &arguments.filter_config
        && let Some(filter) = findings.check_filter(file)
    {
        tags = filter.tags;
    }
    let prices = findings.check_prices(&pricing, overrides.as_deref());
    if let Some((file, receivers)) = &budgets {
        let names = check_budgets::Names::new(&labels, &tags);
        findings.check_budgets(file, &names, receivers.as_ref(), prices.as_ref());
    }
    if let Some(file) = &arguments.config_dump {
        findings.check_routes(file, &tags);
    }
    findings.tell()
}

/// Whether the mistake is at that key or below it.
fn is_at(problem: &Problem, key: &str) -> bool {
    let below = problem.key.strip_prefix(key);
    below.is_some_and(|below| below.is_empty() || below.starts_with('.'))
}

/// What is wrong with the ledger in that directory.
fn audit(state_dir: &Path) -> Result<Vec<String>, QueryError> {
    let reader = Reader::open(state_dir)?;
    let file = reader.path().display().to_string();
    let mut progress = Progress::new();
    let audit = reader.audit(&mut |hours| progress.tell(|| format!("{file}: {hours} hours")));
    progress.clear();
    let audit = audit?;
    let findings = audit.findings.iter();
    let mut mistakes: Vec<String> = findings.map(|found| format!("{file}: {found}")).collect();
    // Each call that is in a sum was counted once; a ledger that took the place of a damaged one
    // counts on from it, so there may be more.
    let counted = reader.counted("tollmesh_requests_total")?;
    if counted.is_some_and(|counted| counted < i128::from(audit.summed_requests)) {
        mistakes.push(format!(
            "{file}: tollmesh_requests_total is {}, less than the {} calls in its sums",
            counted.unwrap_or(0),
            audit.summed_requests
        ));
    }
    Ok(mistakes)
}

/// Whether a header of that name is likely to hold a key.
fn is_secret(name: &str) -> bool {
    const PARTS: [&str; 5] = ["auth", "key", "token", "secret", "team"];
    let name = name.to_ascii_lowercase();
    PARTS.iter().any(|part| name.contains(part))
}

impl Findings {
    /// What is no mistake, yet seldom meant.
    fn consider(&mut self, config: &Config, file: &Path) {
        let file = file.display();
        if let Listen::Tcp(address) = &config.ingest {
            let who = match config.ingest.is_local() {
                true => "every process of this pod or machine, metered apps included,",
                false => "whoever reaches this address",
            };
            self.warnings.push(format!(
                "{file}: ingest.listen: at {address} {who} can forge events; beside metered apps \
                 use \"unix:/PATH\" on a volume that only the proxy mounts"
            ));
        }
        if !config.operator.listen.is_local() && config.operator.token_file.is_none() {
            self.warnings.push(format!(
                "{file}: operator.listen: {} is not loopback, so dashboard and API are not served \
                 without operator.token_file",
                config.operator.listen
            ));
        }
        match config
            .operator
            .token_file
            .as_deref()
            .map(crate::serve::read_token)
        {
            Some(Err(error)) => self.mistakes.push(format!("{file}: {error:#}")),
            Some(Ok(token)) if token.len() < TOKEN_BYTES_GUESSED => self.warnings.push(format!(
                "{file}: operator.token_file: a token of {} characters can be guessed; make one \
                 with `openssl rand -hex 32`",
                token.len()
            )),
            _ => {}
        }
        if let Some(redis) = &config.redis {
            self.consider_redis(redis, &file);
        }
        if let Some(postgres) = &config.postgres {
            self.consider_store(&postgres.place, &file);
        }
        if let Some(otlp) = &config.otlp {
            self.consider_receiver(otlp, &file);
        }
    }

    fn consider_receiver(&mut self, otlp: &otlp::Settings, file: impl std::fmt::Display) {
        if let Err(error) = otlp.check_files() {
            self.mistakes.push(format!("{file}: {error}"));
        }
        for name in otlp.headers.keys().filter(|name| is_secret(name)) {
            self.warnings.push(format!(
                "{file}: otlp.headers: whoever reads this file reads {name:?}; put it into a file \
                 of its own, and name that as otlp.headers_file"
            ));
        }
        if otlp.endpoint.may_be_read_on_the_way() {
            self.warnings.push(format!(
                "{file}: otlp.endpoint: {} is reached without encryption; use https://, or a \
                 collector on loopback",
                otlp.endpoint
            ));
        }
    }

    fn consider_redis(&mut self, place: &store::Place, file: &impl std::fmt::Display) {
        if let Err(error) = place.check_files() {
            self.mistakes.push(format!("{file}: {error}"));
        }
        if place.has_password() {
            self.warnings.push(format!(
                "{file}: redis.url: whoever reads this file reads the password; put it into a \
                 file of its own, and name that as redis.password_file"
            ));
        }
        if place.may_be_read_on_the_way() {
            self.warnings.push(format!(
                "{file}: redis.url: {place} is reached without encryption; begin it with \
                 \"rediss://\""
            ));
        }
    }

    fn consider_store(&mut self, place: &Place, file: impl std::fmt::Display) {
        if let Err(error) = place.check_files() {
            self.mistakes.push(format!("{file}: {}", error.chain()));
        }
        if place.has_password() {
            self.warnings.push(format!(
                "{file}: postgres.url: whoever reads this file reads the password; put it into a \
                 file of its own, and name that as postgres.password_file"
            ));
        }
        if place.may_be_read_on_the_way() {
            self.warnings.push(format!(
                "{file}: postgres.url: {place} may be reached without encryption; name its \
                 authority as postgres.ca_file, or add sslmode=require"
            ));
        }
    }

    fn check_filter(&mut self, file: &Path) -> Option<PluginConfig> {
        let json = self.read(file)?;
        let config = PluginConfig::parse(&json);
        if let Err(mistakes) = &config {
            let name = file.display();
            let mistakes = mistakes.iter().map(|mistake| format!("{name}: {mistake}"));
            self.mistakes.extend(mistakes);
        }
        config.ok()
    }

    fn check_routes(&mut self, file: &Path, tags: &TagSources) {
        let Some(json) = self.read(file) else {
            return;
        };
        let name = file.display();
        match late_tags(&json, tags) {
            Ok(late) => {
                let late = late.iter().map(|late| format!("{name}: {late}"));
                self.warnings.extend(late);
            }
            Err(error) => self.mistakes.push(format!(
                "{name}: not JSON: {error}; write here what /config_dump answers"
            )),
        }
    }

    fn read(&mut self, file: &Path) -> Option<Vec<u8>> {
        self.n_files += 1;
        let bytes = std::fs::read(file);
        if let Err(error) = &bytes {
            let name = file.display();
            self.mistakes
                .push(format!("{name}: cannot be read: {error}; check the path"));
        }
        bytes.ok()
    }

    fn check_budgets(
        &mut self,
        file: &Path,
        names: &Names,
        receivers: Option<&Receivers>,
        prices: Option<&Prices>,
    ) {
        self.n_files += 1;
        let tables = prices.map(Prices::tables);
        let book = tables.as_ref().map(|tables| &tables.book);
        match budgets::load_all(file) {
            Ok(limits) => {
                let found = check_budgets::look(file, &limits, names, receivers, book);
                self.mistakes.extend(found.mistakes);
                self.warnings.extend(found.warnings);
            }
            Err(problems) => {
                let problems = problems.0.iter().map(Problem::to_string);
                self.mistakes.extend(problems);
            }
        }
    }

    fn check_ledger(&mut self, state_dir: &Path) {
        self.n_files += 1;
        match audit(state_dir) {
            Ok(mistakes) => self.mistakes.extend(mistakes),
            Err(error) => self.mistakes.push(error.to_string()),
        }
    }

    fn check_prices(&mut self, paths: &[PathBuf], overrides: Option<&Path>) -> Option<Prices> {
        let Ok(prices) = Prices::load(paths, overrides) else {
            self.mistakes.extend(prices::mistakes(paths, overrides));
            return None;
        };
        self.n_files += prices.n_files();
        let edits = prices.past_edits(crate::clock::now());
        self.mistakes.extend(edits.iter().map(ToString::to_string));
        let doubts = prices.tables().book.doubts();
        self.warnings.extend(doubts.iter().map(ToString::to_string));
        Some(prices)
    }

    fn tell(&self) -> anyhow::Result<Outcome> {
        let mistakes = self.mistakes.iter().map(|it| format!("error: {it}\n"));
        let warnings = self.warnings.iter().map(|it| format!("warning: {it}\n"));
        let mut text: String = mistakes.chain(warnings).collect();
        if text.is_empty() {
            let files = if self.n_files == 1 { "file" } else { "files" };
            text = format!("{} {files} checked, all well\n", self.n_files);
        }
        to_the_end(std::io::stdout().write_all(shown_lines(&text).as_bytes()))?;
        match (self.mistakes.len(), self.warnings.len()) {
            (0, 0) => Ok(Outcome::Done),
            (0, _) => Ok(Outcome::Findings),
            (1, _) => Err(anyhow::anyhow!("1 mistake")),
            (n, _) => Err(anyhow::anyhow!("{n} mistakes")),
        }
    }
}
