//! `--store`: whether a question goes to this sidecar's ledger or to the cluster's.

use std::cell::RefCell;

use anyhow::Context;
use clap::Args;

use super::Files;
use crate::forward::{Asked, ForwardError, Place};
use crate::ledger::QueryError;
use crate::ledger::query::{Page, Reader, Repeats, RequestsQuery, SpendQuery, SpendRow};
use crate::report::Store;

/// The environment variable that PostgreSQL's own tools read a password from
/// (<https://www.postgresql.org/docs/current/libpq-envars.html>).
const PASSWORD_VARIABLE: &str = "PGPASSWORD";

/// Which ledger is asked.
#[derive(Debug, Args)]
pub struct Asks {
    /// Ask the cluster's ledger: postgres://USER@HOST/DATABASE (password in PGPASSWORD), or
    /// `postgres` for the one that the configuration file names.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

/// An open ledger.
pub enum Opened {
    /// This sidecar's.
    Own(Reader),
    /// The cluster's, with what its connection runs on.
    Shared(tokio::runtime::Runtime, Box<RefCell<Asked>>),
}

/// Why an open ledger does not answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// This sidecar's cannot.
    #[error(transparent)]
    Own(#[from] QueryError),
    /// The cluster's cannot.
    #[error(transparent)]
    Shared(#[from] ForwardError),
}

impl Asks {
    /// Opens the ledger that is meant.
    pub fn open(&self, files: &Files) -> anyhow::Result<Opened> {
        let Some(store) = &self.store else {
            return Ok(Opened::Own(Reader::open(&files.load()?.state_dir)?));
        };
        let place = match store.as_str() {
            "postgres" => files
                .load()?
                .postgres
                .map(|settings| settings.place)
                .context("--store: the configuration has no postgres.url; name the database")?,
            url => Place::parse(url).map_err(|what| anyhow::anyhow!("--store: {what}"))?,
        };
        let place = place.or_password(std::env::var(PASSWORD_VARIABLE).ok());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let asked = runtime.block_on(Asked::connect(&place))?;
        Ok(Opened::Shared(runtime, Box::new(RefCell::new(asked))))
    }
}

impl Store for Opened {
    type Error = Unanswered;

    fn spend(&self, query: &SpendQuery) -> Result<Vec<SpendRow>, Unanswered> {
        Ok(match self {
            Opened::Own(reader) => reader.spend(query)?,
            Opened::Shared(runtime, asked) => runtime.block_on(asked.borrow_mut().spend(query))?,
        })
    }

    fn requests(&self, query: &RequestsQuery) -> Result<Page, Unanswered> {
        Ok(match self {
            Opened::Own(reader) => reader.requests(query)?,
            Opened::Shared(runtime, asked) => {
                runtime.block_on(asked.borrow_mut().requests(query))?
            }
        })
    }

    fn repeats(&self, query: &SpendQuery) -> Result<Vec<Repeats>, Unanswered> {
        Ok(match self {
            Opened::Own(reader) => reader.repeats(query)?,
            Opened::Shared(runtime, asked) => {
                runtime.block_on(asked.borrow_mut().repeats(query))?
            }
        })
    }
}
