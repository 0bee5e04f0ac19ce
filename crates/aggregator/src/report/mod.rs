//! Reports for people: what a day cost, who pays, what changed and why.
//!
//! A report asks a [`Store`] for sums and calls, works on what comes back, and knows neither files
//! nor where those rows are kept. Amounts stay whole pico-dollars until they are shown.

pub(crate) mod budgets;
mod causes;
mod chargeback;
mod daily;
mod day;
mod focus;
mod html;
mod movers;
mod share;
mod show;
mod weights;

use crate::ledger::QueryError;
use crate::ledger::query::{Page, Reader, Repeats, RequestsQuery, SpendQuery, SpendRow};

pub use budgets::BudgetState;
pub use causes::{Cause, Causes};
pub use chargeback::{CHARGED_BY, chargeback};
pub use daily::{Daily, DailyQuery};
pub use day::Day;
pub use focus::{Exported, Focus, FocusError};
pub use html::page;
pub use movers::Mover;

/// What holds rows: the sidecar's ledger, or one for the whole cluster.
pub trait Store {
    /// Why a question has no answer.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Sums of cost, tokens and requests.
    fn spend(&self, query: &SpendQuery) -> Result<Vec<SpendRow>, Self::Error>;

    /// Calls, page by page.
    fn requests(&self, query: &RequestsQuery) -> Result<Page, Self::Error>;

    /// How many calls repeat another one, by the query's dimensions; its interval is not looked at.
    fn repeats(&self, query: &SpendQuery) -> Result<Vec<Repeats>, Self::Error>;
}

impl Store for Reader {
    type Error = QueryError;

    fn spend(&self, query: &SpendQuery) -> Result<Vec<SpendRow>, QueryError> {
        Reader::spend(self, query)
    }

    fn requests(&self, query: &RequestsQuery) -> Result<Page, QueryError> {
        Reader::requests(self, query)
    }

    fn repeats(&self, query: &SpendQuery) -> Result<Vec<Repeats>, QueryError> {
        Reader::repeats(self, query)
    }
}
