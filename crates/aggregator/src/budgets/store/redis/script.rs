//! The scripts that take a report in one step and look at cells, their arguments and their answers.

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};
use sha1::{Digest, Sha1};
use tollmesh_budget::lease::{Elsewhere, Reply, YOUNG_SHARE};

use super::super::Ask;
use super::keys::Keys;

/// How many numbers an answer has.
const ANSWER_LEN: usize = 14;

/// A script with the name under which a server remembers it.
#[derive(Clone, Debug)]
pub struct Script {
    source: String,
    sha1: String,
}

impl Script {
    /// The one that ships.
    pub fn shipped() -> Script {
        Script::new(include_str!("sync.lua").to_owned())
    }

    /// The one that looks at cells without reporting.
    pub fn looking() -> Script {
        Script::new(include_str!("elsewhere.lua").to_owned())
    }

    /// Any other, which a test may want.
    pub fn new(source: String) -> Script {
        let digest = Sha1::digest(source.as_bytes());
        let sha1 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Script { source, sha1 }
    }

    /// Makes a server remember it.
    pub fn load(&self) -> Cmd {
        let mut cmd = redis::cmd("SCRIPT");
        cmd.arg("LOAD").arg(&self.source);
        cmd
    }

    /// The call by name, which a server that forgot it refuses, and the one with the text.
    pub fn calls(&self, keys: &Keys, instance: &str, ask: &Ask, now_ms: u64) -> (Cmd, Cmd) {
        let by_name = self.call("EVALSHA", &self.sha1, keys, instance, ask, now_ms);
        let by_text = self.call("EVAL", &self.source, keys, instance, ask, now_ms);
        (by_name, by_text)
    }

    /// The same of [`Script::looking`], for cells of one budget.
    pub fn looks(&self, cells: &[String], instance: &str, now_ms: u64) -> (Cmd, Cmd) {
        let look = |verb: &str, script: &str| {
            let mut cmd = redis::cmd(verb);
            cmd.arg(script).arg(cells.len()).arg(cells);
            cmd.arg(instance).arg(now_ms);
            cmd
        };
        (look("EVALSHA", &self.sha1), look("EVAL", &self.source))
    }

    fn call(
        &self,
        verb: &str,
        script: &str,
        keys: &Keys,
        instance: &str,
        ask: &Ask,
        now_ms: u64,
    ) -> Cmd {
        let mut cmd = redis::cmd(verb);
        cmd.arg(script);
        let (report, terms) = (&ask.report, &ask.terms);
        match terms.reclaim_after_ms {
            None => cmd.arg(2).arg(&keys.cell).arg(&keys.marker),
            Some(_) => {
                let reclaim = format!("{}:x", keys.cell);
                cmd.arg(3).arg(&keys.cell).arg(&keys.marker).arg(reclaim)
            }
        };
        cmd.arg(instance);
        for number in [
            report.seq,
            report.committed,
            report.claim,
            report.firm,
            report.want,
            report.seen,
            report.members,
            report.epoch,
            report.version,
            report.life,
            terms.limit,
            terms.lease_ms,
            terms.min_slice,
            terms.hold_ms,
        ] {
            cmd.arg(number);
        }
        match terms.reclaim_after_ms {
            None => cmd.arg(-1),
            Some(after_ms) => cmd.arg(after_ms),
        };
        cmd.arg(terms.settle_ms).arg(terms.expire_at_ms);
        cmd.arg(YOUNG_SHARE).arg(now_ms).arg(report.need);
        cmd
    }
}

/// Whether a server has forgotten the script, as it does when it starts anew.
pub fn is_forgotten(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The answer to a look at so many cells.
pub fn elsewhere_in(answer: &[u64], n_cells: usize) -> Option<Vec<Elsewhere>> {
    let (cells, rest) = answer.as_chunks::<3>();
    let is_whole = rest.is_empty() && cells.len() == n_cells;
    let elsewhere = |&[spent, allocated, wait_ms]: &[u64; 3]| Elsewhere {
        spent,
        allocated,
        wait_ms,
    };
    is_whole.then(|| cells.iter().map(elsewhere).collect())
}

/// The script's answer.
pub fn reply_in(answer: &[u64]) -> Option<Reply> {
    let numbers: [u64; ANSWER_LEN] = answer.try_into().ok()?;
    let [seq, stale, granted, allocated, spent, held_back, rest @ ..] = numbers;
    let [
        members,
        epoch,
        version,
        life,
        limit,
        lease_ms,
        now_ms,
        granting_from_ms,
    ] = rest;
    Some(Reply {
        seq,
        is_stale: stale != 0,
        granted,
        allocated,
        spent,
        held_back,
        members,
        epoch,
        version,
        life,
        limit,
        lease_ms,
        now_ms,
        granting_from_ms,
    })
}
