//! Why traffic is not seen, or not counted: an Envoy, the aggregator and their files, looked through.
//!
//! What is asked and what is made of the answers are apart: [`envoy`] and [`aggregator`] ask, the
//! judging is done on values.

pub mod aggregator;
mod clusters;
pub mod envoy;
mod exposition;
mod filter;

use serde_json::{Map, Value, json};

use crate::rows::Rows;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// As it should be.
    Ok,
    /// Calls are missing from some sum, or may come to be.
    Warn,
    /// Calls are not seen, or not kept.
    Fail,
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub status: Status,
    /// What was looked at.
    pub check: &'static str,
    /// What was found.
    pub what: String,
    /// What to do; empty where nothing is.
    pub remedy: String,
}

/// Everything that was looked at, in that order.
#[derive(Clone, Debug, Default)]
pub struct Findings(pub Vec<Finding>);

impl Status {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        }
    }
}

impl Findings {
    /// Something is as it should be.
    pub fn ok(&mut self, check: &'static str, what: impl Into<String>) {
        self.push(Status::Ok, check, what.into(), "");
    }

    /// Something may make calls miss.
    pub fn warn(&mut self, check: &'static str, what: impl Into<String>, remedy: &str) {
        self.push(Status::Warn, check, what.into(), remedy);
    }

    /// Something makes calls miss.
    pub fn fail(&mut self, check: &'static str, what: impl Into<String>, remedy: &str) {
        self.push(Status::Fail, check, what.into(), remedy);
    }

    /// How bad it all is.
    pub fn worst(&self) -> Status {
        let all = self.0.iter().map(|finding| finding.status);
        all.max().unwrap_or(Status::Ok)
    }

    /// As rows, for a table or a program.
    pub fn rows(&self) -> Rows {
        let item = |finding: &Finding| -> Map<String, Value> {
            let item = json!({
                "status": finding.status.name(),
                "check": finding.check,
                "what": finding.what,
                "remedy": finding.remedy,
            });
            item.as_object().cloned().unwrap_or_default()
        };
        Rows {
            columns: ["status", "check", "what", "remedy"]
                .map(str::to_owned)
                .to_vec(),
            items: self.0.iter().map(item).collect(),
            next_cursor: None,
        }
    }

    fn push(&mut self, status: Status, check: &'static str, what: String, remedy: &str) {
        self.0.push(Finding {
            status,
            check,
            what,
            remedy: remedy.to_owned(),
        });
    }
}
