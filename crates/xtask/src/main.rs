//! The tasks of this repository, as one command: `cargo xtask`.

mod chromium;
mod cli;
mod tasks;

mod artefacts;
mod deny;
mod dist;
mod fuzz;
mod street;
mod tally;

mod tools;

mod envoy;
mod kubernetes;
mod postgres;
mod prometheus;
mod redis;
mod toolchain;

mod wheel;

mod pip;

mod alertmanager;
mod debian;

mod sdks;
mod signals;
mod steps;
mod workshop;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match tasks::run(cli::Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
