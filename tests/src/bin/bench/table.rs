//! The figures of the filter as people read them: a row a set-up, and the goals beside them.

use std::time::Duration;

use crate::load::{LOADS, Load};
use crate::quantile;
use crate::setups::Setup;

/// What the filter may add to a burst of events, as a part of what Envoy's own extraction adds.
const PART_OF_NATIVE_MAX: f64 = 0.05;

/// How far a median may be off before the time to first byte counts as changed: set-ups that do
/// the same differ by as much from run to run.
const UNCHANGED: f64 = 0.05;

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// CPU time of Envoy for each request.
    pub cpu_us_per_request: f64,
    /// Answers a second.
    pub requests_per_second: f64,
    /// From a request to the first byte of its answer's body, median.
    pub first_byte_us: f64,
    /// The same, 99th percentile.
    pub first_byte_p99_us: f64,
}

/// Figures of one set-up under one load, one for each round.
pub type Cell = Vec<Figure>;

/// All figures.
pub struct Table<'a> {
    /// By set-up, then by load.
    pub cells: &'a [Vec<Cell>],
    /// The places of the loads that were measured.
    pub loads: Vec<usize>,
}

impl Table<'_> {
    /// Prints all.
    pub fn print(&self, n_rounds: u32, span: Duration) {
        println!(
            "CPU of Envoy (1 worker) in µs a request, and µs to the first byte of the body; median \
             of {n_rounds} rounds of {} s, set-ups alternating",
            span.as_secs()
        );
        println!(
            "{:<17} {:<20} {:>8} {:>7} {:>11} {:>8} {:>10} {:>7} {:>7} {:>9}",
            "load",
            "set-up",
            "µs",
            "x alone",
            "over empty",
            "calls/s",
            "first byte",
            "x alone",
            "x empty",
            "its p99"
        );
        for load in &self.loads {
            for setup in Setup::ALL {
                self.print_row(*load, setup);
            }
        }
        println!("\ngoals: what tollmesh adds to the empty filter, which is the floor for any");
        self.loads.iter().for_each(|load| self.print_goals(*load));
    }

    fn print_row(&self, load: usize, setup: Setup) {
        let us = self.cpu(setup, load);
        let first_byte = |setup| self.middle(setup, load, |f| f.first_byte_us);
        println!(
            "{:<17} {:<20} {us:>8.1} {:>7.2} {:>11.1} {:>8.0} {:>10.0} {:>7.2} {:>7.2} {:>9.0}",
            LOADS[load].name,
            setup.name(),
            us / self.cpu(Setup::Alone, load),
            us - self.cpu(Setup::Empty, load),
            self.middle(setup, load, |f| f.requests_per_second),
            first_byte(setup),
            first_byte(setup) / first_byte(Setup::Alone),
            first_byte(setup) / first_byte(Setup::Empty),
            self.middle(setup, load, |f| f.first_byte_p99_us),
        );
    }

    fn print_goals(&self, load: usize) {
        let named = &LOADS[load];
        let added = self.cpu(Setup::Ours, load) - self.cpu(Setup::Empty, load);
        match named.goal_us {
            Some(goal) => {
                let word = met(added <= goal);
                println!(
                    "{:<17} {added:>6.1} µs, at most {goal:.0}: {word}",
                    named.name
                );
            }
            None => println!("{:<17} {added:>6.1} µs", named.name),
        }
        self.print_native(named, added, load);
        if named.is_paced() {
            // Under the other loads a worker is busy all the time, and the time to first byte is
            // the time in its queue: CPU time once more.
            let first_byte = |setup| self.middle(setup, load, |f| f.first_byte_us);
            let (ours, empty) = (first_byte(Setup::Ours), first_byte(Setup::Empty));
            let word = met(ours <= empty * (1.0 + UNCHANGED));
            println!(
                "{:<17} {:>6.2} x the time to first byte, {:.0} µs more; unchanged: {word}",
                "",
                ours / empty,
                ours - empty
            );
        }
    }

    fn print_native(&self, named: &Load, added: f64, load: usize) {
        let native = self.cpu(Setup::Native, load) - self.cpu(Setup::Alone, load);
        if native <= 0.0 {
            println!(
                "{:<17} {:>6} ai_protocol_manager adds nothing that shows",
                "", "-"
            );
            return;
        }
        let part = added / native;
        let whole = (self.cpu(Setup::Ours, load) - self.cpu(Setup::Alone, load)) / native;
        let goal = match named.is_burst() {
            true => format!(", at most {:.0} %: {}", PART_OF_NATIVE_MAX * 100.0, {
                met(part <= PART_OF_NATIVE_MAX)
            }),
            false => String::new(),
        };
        println!(
            "{:<17} {:>6.1} % of what ai_protocol_manager adds to Envoy alone{goal} ({:.1} % with \
             the floor)",
            "",
            part * 100.0,
            whole * 100.0
        );
    }

    fn cpu(&self, setup: Setup, load: usize) -> f64 {
        self.middle(setup, load, |figure| figure.cpu_us_per_request)
    }

    fn middle(&self, setup: Setup, load: usize, of: fn(&Figure) -> f64) -> f64 {
        let row = Setup::ALL.iter().position(|s| *s == setup).unwrap_or(0);
        quantile(self.cells[row][load].iter().map(of).collect(), 0.5)
    }
}

fn met(is_met: bool) -> &'static str {
    match is_met {
        true => "met",
        false => "NOT met",
    }
}
