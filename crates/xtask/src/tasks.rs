//! The recipe of each task: set up, build, hand over.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::artefacts::{self, Profile, Variables};
use crate::cli::{Bench, Demo, Memory, Model, Pinned, Soak, Task, Test};
use crate::tally::Tally;
use crate::tools::{self, For};
use crate::workshop::Workshop;
use crate::{deny, dist, fuzz, redis, steps, street};

/// Carries out one task.
pub fn run(task: Task) -> Result<ExitCode> {
    let workshop = Workshop::open()?;
    match task {
        Task::Demo(demo) => run_demo(&workshop, &demo),
        Task::Test(test) => run_tests(&workshop, &test),
        Task::Bench(bench) => run_bench(&workshop, &bench),
        Task::Memory(memory) => run_memory(&workshop, &memory),
        Task::Model(model) => run_model(&workshop, &model),
        Task::Soak(soak) if soak.faults => soak_in_faults(&workshop, &soak),
        Task::Soak(soak) => run_soak(&workshop, &soak),
        Task::Fuzz(asked) => fuzz::run(&workshop, &asked),
        Task::Dist(asked) => dist::run(&workshop, &asked),
        Task::Deny => deny::run(&workshop),
        Task::Setup(pinned) => set_up(&workshop, &pinned),
    }
}

fn run_demo(workshop: &Workshop, demo: &Demo) -> Result<ExitCode> {
    let variables = made_ready(workshop, &demo.pinned, For::Running)?;
    let program = artefacts::driver(workshop, "demo", Profile::Quick)?;
    hand_over(
        workshop,
        Command::new(program).args(demo.forwarded()),
        variables,
    )
}

fn run_bench(workshop: &Workshop, bench: &Bench) -> Result<ExitCode> {
    let whom = match bench.postgres || bench.dashboard {
        true => For::All,
        false => For::Running,
    };
    let mut variables = made_ready(workshop, &bench.pinned, whom)?;
    let maker = "TOLLMESH_LARGE_LEDGER";
    variables.push(match bench.ledger_rows {
        Some(_) => (maker, artefacts::large_ledger(workshop)?),
        None if bench.dashboard => (maker, artefacts::large_ledger(workshop)?),
        None if bench.postgres => ("TOLLMESH_FORWARD_LOAD", artefacts::forward_load(workshop)?),
        None => ("TOLLMESH_NOOP_WASM", artefacts::noop_filter(workshop)?),
    });
    let program = artefacts::driver(workshop, "bench", Profile::Fast)?;
    hand_over(
        workshop,
        Command::new(program).args(bench.forwarded()),
        variables,
    )
}

fn run_memory(workshop: &Workshop, memory: &Memory) -> Result<ExitCode> {
    let mut variables = made_ready(workshop, &memory.pinned, For::Running)?;
    variables.push((
        "TOLLMESH_STREAM_MEMORY",
        artefacts::stream_memory(workshop)?,
    ));
    let program = artefacts::driver(workshop, "memory", Profile::Fast)?;
    hand_over(
        workshop,
        Command::new(program).args(memory.forwarded()),
        variables,
    )
}

/// Runs the model; it needs no Envoy and neither artefact.
fn run_model(workshop: &Workshop, model: &Model) -> Result<ExitCode> {
    let redis = redis::find(workshop)?;
    let program = artefacts::budget_model(workshop)?;
    let variables = redis.variable.map(|name| (name, redis.path));
    hand_over(
        workshop,
        Command::new(program).args(model.forwarded()),
        variables.into_iter().collect(),
    )
}

fn run_soak(workshop: &Workshop, soak: &Soak) -> Result<ExitCode> {
    let variables = made_ready(workshop, &soak.pinned, For::Running)?;
    let program = artefacts::driver(workshop, "soak", Profile::Fast)?;
    hand_over(
        workshop,
        Command::new(program).args(soak.forwarded()),
        variables,
    )
}

/// Runs the tests of faults as long as they are meant to be; none may be skipped.
fn soak_in_faults(workshop: &Workshop, soak: &Soak) -> Result<ExitCode> {
    let variables = made_ready(workshop, &soak.pinned, For::All)?;
    let tests = ["-p", "tollmesh-tests", "--test", "faults_*"];
    let mut cargo = workshop.cargo("test", &["--no-fail-fast"]);
    cargo.args(tests).args(["--test", "recovery"]);
    cargo
        .envs(variables)
        .env("TOLLMESH_REQUIRE", "1")
        .env("TOLLMESH_FAULTS", "full");
    tallied(workshop, &mut cargo)
}

/// Runs every test of the workspace, or under another Envoy those that start one; the last line of
/// output are the counts.
fn run_tests(workshop: &Workshop, test: &Test) -> Result<ExitCode> {
    let whom = match steps::runs_in_ci() {
        true => For::All,
        false => For::Tests,
    };
    let variables = made_ready(workshop, &test.pinned, whom)?;
    // One failure must not hide the next one.
    let mut cargo = workshop.cargo("test", &["--no-fail-fast"]);
    match (test.narrowed.as_slice(), &test.pinned.envoy) {
        ([], None) => cargo.arg("--workspace"),
        ([], Some(envoy)) => {
            let programs = street::programs(&workshop.root)?;
            println!("under Envoy {envoy}: {}", programs.join(", "));
            cargo.args(street::arguments(&programs))
        }
        (narrowed, _) => cargo.args(narrowed),
    };
    cargo.envs(variables);
    if steps::runs_in_ci() {
        cargo.env("TOLLMESH_REQUIRE", "1");
    }
    tallied(workshop, &mut cargo)
}

/// Runs tests; the last line of output are their counts.
fn tallied(workshop: &Workshop, cargo: &mut Command) -> Result<ExitCode> {
    let mut tally = Tally::default();
    let status = workshop.steps.tee(cargo, |line| tally.read(line))?;
    println!("\n{tally}");
    Ok(if status.success() && tally.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn set_up(workshop: &Workshop, pinned: &Pinned) -> Result<ExitCode> {
    for found in tools::find_all(workshop, pinned, For::All)? {
        println!("{:<16} {}", found.what, found.path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Sets up and builds; answers the environment of whoever drives the artefacts.
fn made_ready(workshop: &Workshop, pinned: &Pinned, whom: For) -> Result<Variables> {
    let found = tools::find_all(workshop, pinned, whom)?;
    let mut variables = artefacts::build(workshop)?;
    variables.extend(
        found
            .into_iter()
            .filter_map(|tool| Some((tool.variable?, tool.path))),
    );
    Ok(variables)
}

/// Becomes the driver: a Ctrl-C is its own affair from here on, and so is the exit code.
fn hand_over(workshop: &Workshop, driver: &mut Command, env: Variables) -> Result<ExitCode> {
    let env = env
        .into_iter()
        .map(|(name, path)| (name, OsString::from(path)));
    Err(workshop.steps.become_it(driver.envs(env)))
}
