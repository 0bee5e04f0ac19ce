//! The model of a failing cluster against the stores that ship, at length: a row a scenario.

#[path = "../../tests/budget_store/broken.rs"]
mod broken;
#[path = "../../tests/budget_store/in_redis.rs"]
mod in_redis;
#[path = "../../tests/budget_store/redis_server.rs"]
mod redis_server;
mod sidecars;
mod table;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tollmesh_aggregator::budgets::store::redis::Script;
use tollmesh_budget::lease::Fault;
use tollmesh_budget::lease::model::{InMemory, Outcome, SCENARIOS, Scenario, run};

use in_redis::InRedis;
use redis_server::Server;
use table::Row;

/// Try the arithmetic of leases by a model of a cluster that fails
#[derive(Parser)]
struct Options {
    /// Seeds of each scenario
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Steps of each run; a step is a fifth of a second of the model's time
    #[arg(long, default_value_t = 2_000)]
    steps: usize,
    /// Which store
    #[arg(long, value_enum, default_value_t = Which::Both)]
    store: Which,
    /// Only scenarios whose name contains this
    #[arg(long)]
    scenario: Option<String>,
    /// Break each rule in turn, and say who notices
    #[arg(long)]
    mutants: bool,
    /// Measure instead how many reports a second a Redis takes from so many sidecars
    #[arg(long)]
    sidecars: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Memory,
    Redis,
    Both,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let server = match options.store {
        Which::Memory => None,
        Which::Redis | Which::Both => {
            let Some(server) = Server::start(&["--appendfsync", "no"]) else {
                eprintln!("error: no redis-server; run cargo xtask setup");
                return ExitCode::FAILURE;
            };
            Some(server)
        }
    };
    if let (Some(n), Some(server)) = (options.sidecars, &server) {
        sidecars::measure(n, &server.url());
        return ExitCode::SUCCESS;
    }
    let is_good = match options.mutants {
        true => mutants_die(&options, server.as_ref()),
        false => limits_hold(&options, server.as_ref()),
    };
    match is_good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

impl Options {
    fn scenarios(&self) -> impl Iterator<Item = &'static Scenario> {
        let part = self.scenario.clone().unwrap_or_default();
        SCENARIOS
            .iter()
            .filter(move |scenario| scenario.name.contains(&part))
    }

    fn seeds(&self) -> std::ops::Range<u64> {
        self.from..self.from + self.seeds
    }
}

fn limits_hold(options: &Options, server: Option<&Server>) -> bool {
    table::head();
    let mut is_good = true;
    if options.store != Which::Redis {
        for scenario in options.scenarios() {
            let outcomes = options.seeds().map(|seed| {
                (
                    seed,
                    run(seed, options.steps, scenario, &mut InMemory::new(None)),
                )
            });
            is_good &= tell("memory", scenario, outcomes);
        }
    }
    if let Some(server) = server {
        for scenario in options.scenarios() {
            let mut store = InRedis::new(&server.url(), Script::shipped());
            let outcomes = options
                .seeds()
                .map(|seed| (seed, run(seed, options.steps, scenario, &mut store)));
            is_good &= tell("redis", scenario, outcomes);
        }
    }
    is_good
}

fn tell(store: &str, scenario: &Scenario, outcomes: impl Iterator<Item = (u64, Outcome)>) -> bool {
    let mut row = Row::new(store, scenario);
    for (seed, outcome) in outcomes {
        row.add(seed, &outcome);
    }
    row.print();
    row.is_good()
}

/// Whether each rule is noticed when it is broken: in memory at some seed, and by the script at the
/// same, since it does what memory does.
fn mutants_die(options: &Options, server: Option<&Server>) -> bool {
    let mut all_die = true;
    for fault in Fault::ALL {
        let mut in_memory = InMemory::new(Some(fault));
        let mut tried = options
            .seeds()
            .flat_map(|seed| options.scenarios().map(move |scenario| (scenario, seed)));
        let found = tried
            .find(|(scenario, seed)| !run(*seed, options.steps, scenario, &mut in_memory).holds());
        let Some((scenario, seed)) = found else {
            println!("{fault:<18?} NOT NOTICED");
            all_die = false;
            continue;
        };
        let by_script = server.map(|server| {
            let mut store = InRedis::new(&server.url(), broken::script(fault));
            !run(seed, options.steps, scenario, &mut store).holds()
        });
        let of_script = match by_script {
            None => "",
            Some(true) => ", of the script too",
            Some(false) => ", NOT of the script",
        };
        all_die &= by_script != Some(false);
        println!(
            "{fault:<18?} noticed in \"{}\", seed {seed}{of_script}",
            scenario.name
        );
    }
    all_die
}
