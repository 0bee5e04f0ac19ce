//! What a soak looks at while it runs, and its verdict.

use std::time::Duration;

use tollmesh_tests::aggregator::Metrics;
use tollmesh_tests::{Mesh, fact, vm_memory};

use crate::mixture::{Kind, Mixture};

/// What memory may differ by between two looks without having grown: the slack of two heaps that
/// give pages back late.
const SLACK_BYTES: u64 = 16 * 1024 * 1024;
/// What the VMs' own memories may differ by, all of them together. They never shrink, and grow by
/// whole pages when a piece of unusual size first comes.
const VM_SLACK_BYTES: u64 = 4 * 1024 * 1024;
/// How long the last events may take to the ledger.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);
/// Buckets that good calls fill.
const BUCKETS: [&str; 3] = ["input", "cache_read", "output"];
const MIB: f64 = (1 << 20) as f64;

/// Prints a line a look, and remembers Envoy's memory.
pub struct Watch<'a> {
    mesh: &'a Mesh,
    /// Requests sent by then, and Envoy's resident bytes.
    memory: Vec<(u64, u64)>,
    /// Requests sent by then, and the bytes of the filter's VMs.
    vms: Vec<(u64, u64)>,
}

impl<'a> Watch<'a> {
    /// Prints the table's head.
    pub fn start(mesh: &'a Mesh) -> Watch<'a> {
        println!(
            "{:>10} {:>10} {:>10} {:>10} {:>12} {:>8} {:>15}",
            "requests",
            "per second",
            "troubles",
            "Envoy MiB",
            "Envoy's heap",
            "VMs MiB",
            "aggregator MiB"
        );
        Watch {
            mesh,
            memory: Vec::new(),
            vms: Vec::new(),
        }
    }

    /// One line, after `n_sent` requests.
    pub fn look(&mut self, n_sent: u64, per_second: f64) -> anyhow::Result<()> {
        let envoy = self.mesh.envoy();
        let resident = envoy.process().resident_bytes()?;
        self.memory.push((n_sent, resident));
        let linear = vm_memory::linear_bytes(envoy.process().id())?;
        self.vms.push((n_sent, linear));
        let aggregator = self.mesh.aggregator();
        let process = aggregator.process();
        let beside = process.map_or(Ok(0), |process| process.resident_bytes())?;
        println!(
            "{n_sent:>10} {per_second:>10.0} {:>10} {:>10.1} {:>12.1} {:>8.1} {:>15.1}",
            self.n_troubles(),
            resident as f64 / MIB,
            envoy.stat("server.memory_allocated") as f64 / MIB,
            linear as f64 / MIB,
            beside as f64 / MIB
        );
        Ok(())
    }

    /// Prints what held and what did not; whether all did.
    pub fn verdict(&self, mixture: &Mixture, n_sent: u64) -> anyhow::Result<bool> {
        let trap = self.mesh.trap();
        let n_faults = self.mesh.counted("faults");
        let checks = [
            ("no trap", trap.map_or(Ok("none".to_string()), Err)),
            ("no impossible state", none(n_faults, "faults")),
            (
                "nothing dropped",
                none(self.mesh.counted("events_dropped"), "events dropped"),
            ),
            ("each call has its event", self.metered(mixture, n_sent)),
            (
                "Envoy's memory is flat",
                is_flat(&self.memory, n_sent, SLACK_BYTES),
            ),
            (
                "the VMs' memory is flat",
                is_flat(&self.vms, n_sent, VM_SLACK_BYTES),
            ),
        ];
        for (what, found) in &checks {
            match found {
                Ok(words) => println!("held    {what}: {words}"),
                Err(words) => println!("BROKEN  {what}: {words}"),
            }
        }
        Ok(checks.iter().all(|(_, found)| found.is_ok()))
    }

    fn n_troubles(&self) -> u64 {
        let stats = self.mesh.envoy().stats_with("tollmesh_filter_trouble");
        stats.into_iter().map(|(_, n)| n).sum()
    }

    /// Waits until the ledger has one event a call, and each good call's tokens.
    fn metered(&self, mixture: &Mixture, n_sent: u64) -> Result<String, String> {
        fact::until(SETTLE_PATIENCE, || {
            let metrics = self.mesh.aggregator().metrics();
            let metrics = metrics.map_err(|error| format!("{error:#}"))?;
            for kind in [Kind::Good, Kind::Hostile, Kind::Leaving] {
                let calls = mixture.n_of(kind, n_sent);
                let team = format!("team=\"{}\"", kind.team());
                let events = metrics.sum("tollmesh_requests_total", &[&team]);
                same(events, calls, &format!("{} events", kind.team()))?;
            }
            good_is_exact(&metrics, mixture, n_sent)
        })
    }
}

fn good_is_exact(metrics: &Metrics, mixture: &Mixture, n_sent: u64) -> Result<String, String> {
    let team = format!("team=\"{}\"", Kind::Good.team());
    let n_good = mixture.n_of(Kind::Good, n_sent);
    let labels = [&*team, "outcome=\"success\"", "usage_source=\"reported\""];
    let reported = metrics.sum("tollmesh_requests_total", &labels);
    same(reported, n_good, "good calls with reported usage")?;
    for bucket in BUCKETS {
        let label = format!("bucket=\"{bucket}\"");
        let tokens = metrics.sum("tollmesh_tokens_total", &[&team, &label]);
        same(tokens, mixture.tokens(bucket, n_sent), bucket)?;
    }
    Ok(format!(
        "{n_sent} events, {n_good} good ones exact to the token"
    ))
}

fn same(got: f64, want: u64, what: &str) -> Result<(), String> {
    // Counts below 2^53, which the exposition carries exactly.
    if got == want as f64 {
        Ok(())
    } else {
        Err(format!("{what}: {got} instead of {want}"))
    }
}

fn none(n: u64, what: &str) -> Result<String, String> {
    match n {
        0 => Ok("none".to_string()),
        n => Err(format!("{n} {what}")),
    }
}

/// Whether the last look shows no more than the first one after a fifth of the calls.
fn is_flat(memory: &[(u64, u64)], n_sent: u64, slack_bytes: u64) -> Result<String, String> {
    let early = memory.iter().find(|(n, _)| n * 5 >= n_sent);
    let (Some((n, early)), Some((_, last))) = (early, memory.last()) else {
        return Err("never looked at".to_string());
    };
    let words = format!(
        "{:.1} MiB after {n} requests, {:.1} MiB at the end",
        *early as f64 / MIB,
        *last as f64 / MIB
    );
    if *last <= early + slack_bytes {
        Ok(words)
    } else {
        Err(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_from_slack() {
        let mib = |n: u64| n << 20;
        let flat = [(10, mib(50)), (20, mib(100)), (100, mib(116))];
        assert_eq!(
            is_flat(&flat, 100, SLACK_BYTES),
            Ok("100.0 MiB after 20 requests, 116.0 MiB at the end".to_string())
        );
        let grown = [(20, mib(100)), (100, mib(117))];
        assert!(is_flat(&grown, 100, SLACK_BYTES).is_err());
        assert!(is_flat(&[], 100, SLACK_BYTES).is_err());
    }
}
