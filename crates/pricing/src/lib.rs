//! Token counts to money, by dated tables, in exact decimals.
//!
//! Pure: the caller reads the files and names the instant. Nothing is ever silently free: a call
//! that no row prices is [`Status::Unpriced`].

pub mod book;
pub mod cost;

pub use book::{Book, Problem, SourceFile};
pub use cost::{Call, Line, Priced, Status, Usd};
