//! Lines of JSON from standard input to standard output, one answer a line.

use std::io::{BufRead, BufWriter, Write};

use anyhow::Context;
use serde_json::Value;

use super::Outcome;
use super::say::say;

/// A recorded exchange with a long body comes to some megabytes; a line without an end must not
/// take all memory.
const LINE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Answers each line with `answer`. A line that cannot be answered is told on standard error with
/// its number, and the others go on; `instead` makes what stands for its answer, if anything does.
pub fn for_each(
    mut answer: impl FnMut(&[u8]) -> anyhow::Result<Value>,
    instead: impl Fn(&[u8], &anyhow::Error) -> Option<Value>,
) -> anyhow::Result<Outcome> {
    let mut input = std::io::stdin().lock();
    let mut output = BufWriter::new(std::io::stdout().lock());
    let mut outcome = Outcome::Done;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let mut bounded = std::io::Read::take(&mut input, LINE_BYTES_MAX);
        let n_bytes = bounded
            .read_until(b'\n', &mut line)
            .context("cannot read standard input")?;
        if n_bytes == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let answered = answer(&line).map(Some).unwrap_or_else(|error| {
            // In their order, where both are seen together; what cannot be written is told below.
            let _ = output.flush();
            say(format_args!("line {number}: {error:#}"));
            outcome = Outcome::Findings;
            instead(&line, &error)
        });
        if let Some(value) = answered {
            serde_json::to_writer(&mut output, &value)?;
            output.write_all(b"\n")?;
        }
    }
    output.flush()?;
    Ok(outcome)
}
