//! Lines for people: whoever reads them may have gone, which stops no work.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use crate::shown::{shown, shown_lines};

/// A line on standard error, beside what a command puts out.
pub fn say(line: impl Display) {
    // As one write, so that lines of several processes do not mix. Nobody can be told of a failure.
    let line = format!("tollmesh: {line}\n");
    let _ = io::stderr().write_all(shown_lines(&line).as_bytes());
}

/// A line on standard output, where that is all that a command puts out.
pub fn put_line(line: impl Display) -> io::Result<()> {
    to_the_end(writeln!(io::stdout(), "{}", shown(&line.to_string())))
}

/// What was written, to a reader such as `head` that may have seen enough: that is no failure, and
/// what the command found is still told by its exit code.
pub fn to_the_end(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_is_no_failure_and_a_full_disk_is_one() {
        let error = |kind: ErrorKind| to_the_end(Err(kind.into()));
        assert!(error(ErrorKind::BrokenPipe).is_ok());
        assert!(error(ErrorKind::StorageFull).is_err());
    }
}
