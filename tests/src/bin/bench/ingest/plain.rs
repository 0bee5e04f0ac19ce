//! The yardstick: what SQLite itself takes of the same rows, in a loop and nothing else.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use rusqlite::Connection;

use super::send::EVENTS_PER_BATCH;

/// Narrow rows with an index on their id and one on their time, as durable as the ledger's.
pub struct Plain {
    connection: Connection,
    next_id: u64,
}

/// Rows a second, and a CPU second.
pub struct Rate {
    pub per_second: f64,
    pub per_cpu_second: f64,
}

impl Plain {
    /// A file of its own in that folder.
    pub fn create(dir: &Path) -> anyhow::Result<Plain> {
        let connection = Connection::open(dir.join("plain.db"))?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = 4096;
             CREATE TABLE t (id INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE,
                             time_ms, model, tags, input, output, cost);
             CREATE INDEX t_by_time ON t (time_ms);",
        )?;
        Ok(Plain {
            connection,
            next_id: 0,
        })
    }

    /// Commits as many rows at once as a batch has, for that long.
    pub fn run(&mut self, span: Duration) -> anyhow::Result<Rate> {
        let (started, cpu) = (Instant::now(), cpu_of_this_thread()?);
        let first = self.next_id;
        while started.elapsed() < span {
            self.commit_batch()?;
        }
        let n = (self.next_id - first) as f64;
        Ok(Rate {
            per_second: n / started.elapsed().as_secs_f64(),
            per_cpu_second: n / (cpu_of_this_thread()? - cpu).as_secs_f64(),
        })
    }

    fn commit_batch(&mut self) -> anyhow::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut insert = transaction.prepare_cached(
            "INSERT INTO t (event_id, time_ms, model, tags, input, output, cost)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for n in self.next_id..self.next_id + EVENTS_PER_BATCH {
            let n_signed = n.cast_signed();
            insert.execute((
                format!("bench-{n:016x}"),
                n_signed,
                n_signed % 3,
                n_signed % 60,
                300 + n_signed % 1_000,
                96,
                1_000_000,
            ))?;
        }
        drop(insert);
        transaction.commit()?;
        self.next_id += EVENTS_PER_BATCH;
        Ok(())
    }
}

/// What the kernel's scheduler says that this thread has run.
fn cpu_of_this_thread() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}
