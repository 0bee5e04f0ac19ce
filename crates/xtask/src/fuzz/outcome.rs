//! What came of fuzzing: what libFuzzer tells of a run, and how it is told on.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What libFuzzer tells of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub n_executions: u64,
    /// Edges of the code that were reached.
    n_edges: u64,
    /// Edges and how often, and what was compared with what.
    n_features: u64,
    /// The file with the input that failed.
    pub artefact: Option<PathBuf>,
}

impl Stats {
    /// Reads what a run said.
    pub fn read(log: &str) -> Stats {
        let mut stats = Stats::default();
        for line in log.lines() {
            if let Some(n) = line.strip_prefix("stat::number_of_executed_units:") {
                stats.n_executions = n.trim().parse().unwrap_or(0);
            }
            if let Some((_, path)) = line.split_once("Test unit written to ") {
                stats.artefact = Some(PathBuf::from(path.trim()));
            }
            let number = |name: &str| {
                let (_, rest) = line.split_once(name)?;
                rest.split_whitespace().next()?.parse::<u64>().ok()
            };
            if line.starts_with('#')
                && let Some(n_edges) = number(" cov: ")
            {
                stats.n_edges = n_edges;
                stats.n_features = number(" ft: ").unwrap_or(0);
            }
        }
        stats
    }
}

/// What came of one target.
pub struct Outcome {
    /// Its name.
    pub target: String,
    pub took: Duration,
    pub stats: Stats,
    pub finding: Option<Finding>,
}

/// What made a target fail.
pub struct Finding {
    pub program: PathBuf,
    /// The input; none where the program failed by itself.
    pub artefact: Option<PathBuf>,
    pub log: PathBuf,
}

impl Outcome {
    /// What to do about the finding; nothing where there is none.
    pub fn report(&self) -> String {
        let Some(finding) = &self.finding else {
            return String::new();
        };
        let log = finding.log.display();
        let Some(artefact) = &finding.artefact else {
            return format!("{}: failed without an input; see {log}\n", self.target);
        };
        format!(
            "{}: a finding; see {log}, and replay it with\n  {} {}\n",
            self.target,
            finding.program.display(),
            artefact.display()
        )
    }
}

/// All outcomes, a row each.
pub struct Table<'a>(pub &'a [Outcome]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<12} {:>7} {:>12} {:>9} {:>7} {:>9} {:>9}",
            "target", "seconds", "executions", "per s", "edges", "features", "findings"
        )?;
        for outcome in self.0 {
            let (stats, seconds) = (&outcome.stats, outcome.took.as_secs());
            write!(
                f,
                "\n{:<12} {:>7} {:>12} {:>9} {:>7} {:>9} {:>9}",
                outcome.target,
                seconds,
                stats.n_executions,
                stats.n_executions / seconds.max(1),
                stats.n_edges,
                stats.n_features,
                u8::from(outcome.finding.is_some())
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
INFO: Running with entropic power schedule (0xFF, 100).
#2\tINITED cov: 30 ft: 40 corp: 1/1b exec/s: 0 rss: 25Mb
#512\tNEW    cov: 31 ft: 41 corp: 2/2b lim: 4 exec/s: 0 rss: 25Mb L: 1/1 MS: 1 ChangeByte-
Test unit written to findings/sse/crash-0a
stat::number_of_executed_units: 513
";

    fn outcome() -> Outcome {
        Outcome {
            target: "sse".to_owned(),
            took: Duration::from_millis(2900),
            stats: Stats::read(LOG),
            finding: Some(Finding {
                program: PathBuf::from("release/sse"),
                artefact: Some(PathBuf::from("findings/sse/crash-0a")),
                log: PathBuf::from("logs/sse.log"),
            }),
        }
    }

    #[test]
    fn the_last_word_of_the_log_counts() {
        let stats = Stats::read(LOG);
        assert_eq!(
            (stats.n_executions, stats.n_edges, stats.n_features),
            (513, 31, 41)
        );
        assert_eq!(Stats::read("no such thing"), Stats::default());
    }

    #[test]
    fn a_finding_is_told_with_how_to_replay_it() {
        let outcome = outcome();
        assert_eq!(
            outcome.report(),
            "sse: a finding; see logs/sse.log, and replay it with\n  \
             release/sse findings/sse/crash-0a\n"
        );
        let table = Table(&[outcome]).to_string();
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1], ["sse", "2", "513", "256", "31", "41", "1"]);
    }
}
