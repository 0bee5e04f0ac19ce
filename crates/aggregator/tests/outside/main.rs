//! The `tollmesh` binary from outside.

/// Running processes, and a client for them.
mod process;

/// Budgets as operators work with them.
mod budgets;
/// Commands over standard input and over a ledger that is being written.
mod commands;
/// Many who want much at once.
mod crowd;
/// Who is refused on the operator side.
mod guard;
/// Budgets' files that are empty, cut or no files at all.
mod half_saved;
/// Recovery from access logs.
mod import;
/// Outcomes, traces, sessions and periods over the API; backup and check of a live ledger.
mod ledger;
/// Budgets in force: reservations, charges, restarts, tables for filters.
mod limits;
/// Starts that cannot succeed: one clear line each, and exit code 2.
mod refusals;
/// Price files that change while events arrive.
mod reload;
/// Reports for people, over a ledger of nine days.
mod reports;
/// Calls priced anew, through a running process and without one.
mod reprice;
/// What filters send, what operators are answered, what survives.
mod service;
/// Exit codes, and what commands do when nobody reads on.
mod typed;
