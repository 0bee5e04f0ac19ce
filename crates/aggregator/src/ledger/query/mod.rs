//! Questions to the ledger, on read-only connections beside the writer's.

mod coverage;
mod filter;
mod forgotten;
pub mod postgres;
mod quarantined;
mod reader;
mod repeats;
mod repriced;
mod requests;
pub(super) mod scope;
mod spend;

pub use coverage::{Coverage, CoverageQuery};
pub use filter::{Column, Dimension, Filter, Span};
pub use quarantined::Held;
pub use reader::Reader;
pub use repeats::Repeats;
pub use requests::{PAGE_ROWS_MAX, Page, RequestRow, RequestsQuery, Sort};
pub use spend::{SpendQuery, SpendRow};
