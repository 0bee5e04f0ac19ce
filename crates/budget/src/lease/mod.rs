//! How many nodes spend one limit without asking for each call: leases on parts of it.
//!
//! A node is a [`Holder`], the store a [`Cell`]; both are one side of one budget's key in one window.
//! The holder lets calls go ahead by what it was granted, and reports now and then; the store adds up
//! and grants more. See [`Cell`] for what holds, and why.

mod cell;
mod fault;
mod holder;
mod message;
#[cfg(any(test, feature = "model"))]
pub mod model;

pub use cell::{Cell, Marker};
pub use fault::Fault;
pub use holder::{Carried, Holder, Memory, NoReservationId, Refusal, ReservationId};
pub use message::{
    AMOUNT_MAX, HOLD_MS, LEASE_MARGIN_MS, LEASE_MS, Reply, Report, SETTLE_MS, Terms, YOUNG_SHARE,
};

#[cfg(test)]
mod tests;
