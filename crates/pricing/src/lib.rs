//! Token counts to money, by dated tables, in exact decimals.
//!
//! Pure: the caller reads the files and names the instant. Nothing is ever silently free: a call
//! that no row prices is [`Status::Unpriced`].

pub mod book;
pub mod cost;
pub mod dearest;

pub mod case;
pub mod file;
pub mod row;

pub mod amount;
mod calendar;
mod condition;
mod doubts;
mod fields;
mod header;
mod names;
mod overrides;
mod past;
mod provider;
mod reckon;
mod shipped;
mod synonyms;
mod table;

pub use amount::Rate;
pub use book::{Book, Problem, ReadFile, SourceFile};
pub use case::Case;
pub use cost::{Call, Line, Priced, Reason, Status, Usd};
pub use dearest::Dearest;
pub use file::Model;
pub use row::Row;
