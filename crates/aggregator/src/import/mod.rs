//! Recovery: what access logs hold and the ledger does not.
//!
//! The filter leaves each event in Envoy's filter state, too, so that a JSON access log is a second
//! record of it. Here its lines become events again, and go the way of those that filters send: the
//! ledger takes each once, by its id. Memory is bounded by the size of a batch, whatever the log's.

mod aggregator;
mod line;
mod lines;
mod own;

use std::io::BufRead;

use anyhow::Context;
use tollmesh_wire::Timestamp;
use tollmesh_wire::event::{Event, Kind};

use crate::clock;
use crate::ingest;
pub use aggregator::Aggregator;
use lines::{Lines, Next};
pub use own::Own;

/// Events that are taken together: one commit each, and a body well below what ingest takes.
const BATCH_EVENTS_MAX: usize = 500;
/// The same in bytes of JSON.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How compressed files begin, and what undoes it: RFC 1952, RFC 8878, and the formats' own
/// descriptions (<https://tukaani.org/xz/xz-file-format.txt>, <https://sourceware.org/bzip2/>).
const COMPRESSED: [(&[u8], &str); 4] = [
    (b"\x1f\x8b", "zcat"),
    (b"\x28\xb5\x2f\xfd", "zstdcat"),
    (b"\xfd7zXZ\0", "xzcat"),
    (b"BZh", "bzcat"),
];

/// Bytes of JSON of late usage that wait for the end of all logs.
const LATE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Where events go.
pub trait Taker {
    /// Takes a batch; after an error nothing or all of it was taken.
    fn take(&mut self, batch: Vec<Found>) -> anyhow::Result<Taken>;
}

/// One event that a log holds.
#[derive(Clone, Debug)]
pub struct Found {
    /// The log.
    pub log: String,
    /// The number of its line.
    pub line: u64,
    /// The event.
    pub event: Event,
    /// The event as it was written.
    pub json: String,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Events that the ledger did not hold.
    pub imported: u64,
    /// Events that changed nothing: they had been taken before, or nothing waits for them.
    pub already: u64,
    /// Events of a time whose rows that ledger has deleted.
    pub forgotten: u64,
    /// Events that can never be taken, as log, line and reason.
    pub refused: Vec<(String, u64, String)>,
}

/// What was in the logs, in lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that the ledger holds now and did not before.
    pub imported: u64,
    /// Events that it held already.
    pub already: u64,
    /// Lines without an event.
    pub without_usage: u64,
    /// Lines that cannot be read.
    pub unreadable: u64,
    /// Logs of which nothing can be taken: compressed ones, and those where no line has the field.
    pub useless_logs: u64,
    /// Events of hours that retention has deleted: whether they were counted, nobody knows.
    pub forgotten: u64,
}

/// What an import tells while it runs.
pub trait Told {
    /// A line cannot be read.
    fn bad_line(&mut self, log: &str, line: u64, reason: &str);
    /// Nothing can be taken of a log.
    fn bad_log(&mut self, log: &str, reason: &str);
    /// A line more was read.
    fn progress(&mut self, place: Place<'_>, tally: &Tally);
}

/// How far a log was read.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The log.
    pub log: &'a str,
    /// Bytes of it that were read.
    pub n_bytes: u64,
    /// Its bytes in all, where that is known.
    pub of: Option<u64>,
}

/// An import at work.
pub struct Import<'a> {
    taker: &'a mut dyn Taker,
    told: &'a mut dyn Told,
    field: &'a str,
    forgotten_before: Option<Timestamp>,
    batch: Batch,
    late: Batch,
    tally: Tally,
}

/// Events that wait to be taken.
#[derive(Default)]
struct Batch {
    events: Vec<Found>,
    n_bytes: usize,
}

// === impl Import ===

impl<'a> Import<'a> {
    /// Begins: events stand in that field of the logs' lines, and those of before
    /// `forgotten_before` are left alone.
    pub fn new(
        taker: &'a mut dyn Taker,
        told: &'a mut dyn Told,
        field: &'a str,
        forgotten_before: Option<Timestamp>,
    ) -> Import<'a> {
        Import {
            taker,
            told,
            field,
            forgotten_before,
            batch: Batch::default(),
            late: Batch::default(),
            tally: Tally::default(),
        }
    }

    /// Reads a log to its end. What is known of it is taken, but for a last batch, which
    /// [`Import::finish`] takes.
    pub fn read(&mut self, log: &str, of: Option<u64>, input: impl BufRead) -> anyhow::Result<()> {
        let mut lines = Lines::new(input);
        let (mut n_with_field, mut n_without) = (0_u64, 0_u64);
        loop {
            let read = lines.read_next();
            let mut is_record = true;
            let found = match read.with_context(|| format!("{log}: cannot be read"))? {
                Next::End => break,
                Next::TooLong => Err("longer than any line with an event".to_owned()),
                Next::Line(line) => {
                    if let Some(remedy) =
                        compression(line).filter(|_| n_with_field + n_without == 0)
                    {
                        self.bad_log(log, &remedy);
                        return Ok(());
                    }
                    is_record = !line::is_process_log(line);
                    line::events_json(line, self.field).map_err(|error| error.to_string())
                }
            };
            match found {
                Ok(events) => {
                    n_with_field += u64::from(is_record && events.is_some());
                    n_without += u64::from(events.is_none());
                    let events = events.unwrap_or_default();
                    self.tally.without_usage += u64::from(events.is_empty());
                    for json in events {
                        self.one(log, lines.number(), json)?;
                    }
                }
                Err(reason) => self.bad_line(log, lines.number(), &reason),
            }
            let n_bytes = lines.n_bytes();
            self.told.progress(Place { log, n_bytes, of }, &self.tally);
        }
        if n_with_field == 0 && n_without > 0 {
            let field = self.field;
            self.bad_log(
                log,
                &format!(
                    "none of its {n_without} lines has the field {field:?}; name with --field the \
                     one that the log's format has for wasm.tollmesh.usage, or add one \
                     (envoy/envoy.yaml)"
                ),
            );
        }
        Ok(())
    }

    /// Takes what still waits, and says what was found.
    pub fn finish(mut self) -> anyhow::Result<Tally> {
        self.take_batch()?;
        self.take_late()?;
        Ok(self.tally)
    }

    /// An event, read as those from filters are.
    fn one(&mut self, log: &str, line: u64, json: String) -> anyhow::Result<()> {
        match ingest::event(&json, clock::now()) {
            Ok(event) => self.keep(Found {
                log: log.to_owned(),
                line,
                event,
                json,
            }),
            Err(error) => {
                self.bad_line(log, line, &error.to_string());
                Ok(())
            }
        }
    }

    /// Late usage waits for the end: the call that it completes may stand in a log that comes
    /// later.
    fn keep(&mut self, found: Found) -> anyhow::Result<()> {
        if self
            .forgotten_before
            .is_some_and(|before| found.event.time < before)
        {
            self.tally.forgotten += 1;
            return Ok(());
        }
        match found.event.kind {
            Kind::Call => self.batch.push(found),
            Kind::LateUsage => self.late.push(found),
        }
        if self.late.n_bytes >= LATE_BYTES_MAX {
            self.take_batch()?;
            return self.take_late();
        }
        if self.batch.is_full() {
            return self.take_batch();
        }
        Ok(())
    }

    fn take_batch(&mut self) -> anyhow::Result<()> {
        let batch = std::mem::take(&mut self.batch).events;
        self.take(batch)
    }

    fn take_late(&mut self) -> anyhow::Result<()> {
        let mut late = std::mem::take(&mut self.late).events.into_iter();
        loop {
            let batch: Vec<Found> = late.by_ref().take(BATCH_EVENTS_MAX).collect();
            if batch.is_empty() {
                return Ok(());
            }
            self.take(batch)?;
        }
    }

    fn take(&mut self, batch: Vec<Found>) -> anyhow::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let taken = self.taker.take(batch).with_context(|| {
            let n = self.tally.imported;
            format!("stopped after {n} imported; the same command goes on from there")
        })?;
        self.tally.imported += taken.imported;
        self.tally.already += taken.already;
        self.tally.forgotten += taken.forgotten;
        for (log, line, reason) in taken.refused {
            self.bad_line(&log, line, &reason);
        }
        Ok(())
    }

    fn bad_log(&mut self, log: &str, reason: &str) {
        self.tally.useless_logs += 1;
        self.told.bad_log(log, reason);
    }

    fn bad_line(&mut self, log: &str, line: u64, reason: &str) {
        self.tally.unreadable += 1;
        self.told.bad_line(log, line, reason);
    }
}

/// What undoes the compression of a log that begins so.
fn compression(line: &[u8]) -> Option<String> {
    let mut known = COMPRESSED.iter();
    let (_, program) = known.find(|(begin, _)| line.starts_with(begin))?;
    Some(format!(
        "is compressed; {program} FILE | tollmesh import --access-log -"
    ))
}

// === impl Batch ===

impl Batch {
    fn push(&mut self, found: Found) {
        self.n_bytes += found.json.len();
        self.events.push(found);
    }

    fn is_full(&self) -> bool {
        self.events.len() >= BATCH_EVENTS_MAX || self.n_bytes >= BATCH_BYTES_MAX
    }
}
