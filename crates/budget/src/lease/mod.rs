//! How many nodes spend one limit without asking for each call: leases on parts of it.
//!
//! A node is a [`Holder`], the store a [`Cell`]; both are one side of one budget's key in one window.
//! The holder lets calls go ahead by what it was granted, and reports now and then: what it has spent
//! in all, what it was granted in all, what it wants. The store adds up and grants more. Only totals
//! cross the network, so that a message may be lost, doubled or late: a total is known or it is not.
//!
//! # What holds while the store keeps its data
//!
//! *Spend never exceeds the limit, but by what calls in flight cost beyond what was reserved for
//! them.* For each holder the store keeps on record at least what that holder may come to spend: its
//! grant, which the store itself wrote before it replied, or what it has spent. The record is lowered
//! only by a report in which the holder has given the difference up already, and an older report
//! cannot come after a newer one ([`Report::seq`]). A holder uses a grant only once it is on disk, so
//! that after a crash the calls of the life before are still covered by it ([`Carried`]); what is
//! carried over is never used for new calls. `allocated` is the sum of the records, and the store
//! grants only while `allocated ≤ limit`.
//!
//! # What holds when it loses data
//!
//! Let *A* be what all holders may come to spend at the moment of the loss, and *U(t)* the part of it
//! that is not on record at time *t*. It only falls, since each holder's report puts its own part on
//! record again ([`Report::claim`]). What may be spent in all is `allocated + U`, and the store grants
//! only while `allocated + held_back ≤ limit`. So
//!
//! > *spend ≤ limit + the greatest of U(t) − held_back(t) over all times t at which it granted.*
//!
//! A holder that reports an epoch which the store does not have, or a version which it had not reached,
//! proves the loss. From then on the store grants nothing for `hold_ms`, in which every holder that
//! can reach it reports at least twice, and then U consists of those that are cut off or dead. Let *F*
//! be the most that a holder which is back had seen allocated ([`Report::seen`]), and *R* the parts of
//! those that are back. The store holds back *F − R*. Now *U ≤ A − R*, and therefore
//!
//! > *U − held_back ≤ A − F: what the store granted between the last reply that reached a holder which
//! > is back, and the loss.*
//!
//! Where everybody is back that the others knew of, nothing is held back, and U is what those have who
//! came after the last reply to any holder that is back: the same bound. With everybody back U is 0,
//! and so is the bound. A store that is emptied costs nothing unless nodes are cut off or dead at the
//! same time, and then what it granted in the last beat before.
//!
//! Two cases remain in which nobody has proved the loss yet. A store that is set back to an *older
//! copy* grants until the first report of a holder which knows more; U is then at most what the copy
//! lacks, and that report ends it. An *empty* store which nobody remembers grants nothing for
//! `settle_ms`, and until `hold_ms` has passed only a part of the limit, one in [`YOUNG_SHARE`]: so a
//! new store grants after two seconds, and one whose loss nobody can prove in that time, because all
//! who report are new themselves, grants a tenth of the limit too much at most.
//!
//! `model` tries all this, and computes U and the bound beside each run.

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
    AMOUNT_MAX, Elsewhere, HOLD_MS, LEASE_MARGIN_MS, LEASE_MS, Reply, Report, SETTLE_MS, Terms,
    YOUNG_SHARE,
};

#[cfg(test)]
mod tests;
