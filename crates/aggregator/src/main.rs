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
            cli::say::say(format_args!("{error:#}"));
            ExitCode::from(FAILURE)
        }
    }
}

/// Whether writing to standard output failed so, which nobody puts into words. A connection that
/// broke is something else, and whoever had one says which.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let json = cause.downcast_ref::<serde_json::Error>();
        io.or_else(|| json.and_then(serde_json::Error::io_error_kind))
    };
    error.chain().next().and_then(io) == Some(io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn only_a_reader_that_went_is_no_failure() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&broken().into()));
        let json = serde_json::Error::io(broken());
        assert!(is_broken_pipe(&json.into()));
        let sent: Result<(), _> = Err(broken());
        let sent = sent.context("the aggregator at 127.0.0.1:4100");
        assert!(!is_broken_pipe(&sent.unwrap_err()));
        assert!(!is_broken_pipe(&io::Error::other("disk full").into()));
    }
}
