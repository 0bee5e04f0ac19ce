//! `--store`: whether a question goes to this sidecar's ledger or to the cluster's.

use anyhow::Context;
use clap::Args;

use super::Files;
use crate::forward::{Asked, Place};
use crate::ledger::query::{Reader, RequestRow, RequestsQuery, SpendQuery, SpendRow};

/// The environment variable that PostgreSQL's own tools read a password from
/// (<https://www.postgresql.org/docs/current/libpq-envars.html>).
const PASSWORD_VARIABLE: &str = "PGPASSWORD";

/// Which ledger is asked.
#[derive(Debug, Args)]
pub struct Store {
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
    Shared(tokio::runtime::Runtime, Box<Asked>),
}

impl Store {
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
        Ok(Opened::Shared(runtime, Box::new(asked)))
    }
}

impl Opened {
    /// Sums.
    pub fn spend(&mut self, query: &SpendQuery) -> anyhow::Result<Vec<SpendRow>> {
        Ok(match self {
            Opened::Own(reader) => reader.spend(query)?,
            Opened::Shared(runtime, asked) => runtime.block_on(asked.spend(query))?,
        })
    }

    /// The first calls in the query's order.
    pub fn requests(
        &mut self,
        query: &RequestsQuery,
    ) -> anyhow::Result<(Vec<RequestRow>, Option<String>)> {
        Ok(match self {
            Opened::Own(reader) => {
                let page = reader.requests(query)?;
                (page.items, page.next_cursor)
            }
            Opened::Shared(runtime, asked) => (runtime.block_on(asked.requests(query))?, None),
        })
    }
}
