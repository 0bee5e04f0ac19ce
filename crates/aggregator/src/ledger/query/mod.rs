//! Questions to the ledger, on read-only connections beside the writer's.

mod audit;
mod backup;
mod comparison;
mod coverage;
mod file;
mod filter;
mod forgotten;
mod parts;
mod past;
pub mod postgres;
mod quarantined;
mod reader;
mod repeats;
mod repriced;
mod requests;
mod rolled;
pub(super) mod scope;
mod spend;
mod tally;
mod told;

pub use audit::{Audit, Finding};
pub use backup::{BackedUp, BackupError};
pub use comparison::{Compared, ComparisonQuery};
pub use coverage::{Coverage, CoverageQuery};
pub use file::FileSize;
pub use filter::{Column, Dimension, Filter, Span};
pub use past::Unsummed;
pub use quarantined::Held;
pub use reader::Reader;
pub use repeats::Repeats;
pub use requests::{PAGE_ROWS_MAX, Page, RequestRow, RequestsQuery, Sort};
pub use rolled::{Unit, UnitRow, UnitSort, UnitsPage, UnitsQuery};
pub use spend::{SpendQuery, SpendRow};
pub use told::{OutcomeRow, OutcomesQuery};
