//! The `tollmesh` binary: runs a command, tells an error as one line, ends with its exit code.

use std::io;
use std::process::ExitCode;

use tollmesh_aggregator::cli;

/// Nothing could be done: wrong usage, or a failure.
const FAILURE: u8 = 2;

fn main() -> ExitCode {
    match cli::run() {
        Ok(outcome) => ExitCode::from(outcome.code()),
        // A reader such as `head` has seen enough. That is no failure, as it would not be one for
        // a program that dies of SIGPIPE, which Rust ignores for us.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tollmesh: {error:#}");
            ExitCode::from(FAILURE)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let json = cause.downcast_ref::<serde_json::Error>();
        io.or_else(|| json.and_then(serde_json::Error::io_error_kind))
            == Some(io::ErrorKind::BrokenPipe)
    })
}
