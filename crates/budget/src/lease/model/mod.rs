//! A model of a cluster, by which any store is tried: what is lost, doubled, late, dead or emptied.
//!
//! [`run`] plays one seed of one [`Scenario`] against a [`Backend`]: nodes let calls go ahead by their
//! holders, calls end seconds or minutes later, reports and replies are lost, doubled and overtake each
//! other, nodes crash with calls in flight, are cut off, or die for ever; the store is emptied, or
//! falls back to an older copy. Leases go up to the whole limit, and calls up to a twentieth of it,
//! so that a mistake costs much and shows.
//!
//! A twin, a [`super::Cell`] that is fed the same reports, tells what a right store knows: its replies
//! are what the backend's must be, and what it does not know gives the bound on what may be
//! overspent (see [`super`]).

mod dice;
mod node;
mod world;

use super::{Cell, Fault, Marker, Reply, Report, Terms};

pub use world::run;

/// A store to be tried, with one cell.
pub trait Backend {
    /// A copy of all that it has.
    type Copy: Clone;

    /// Takes a report of that node and answers it.
    fn sync(&mut self, now_ms: u64, instance: &str, report: &Report, terms: &Terms) -> Reply;

    /// Loses all.
    fn empty(&mut self);

    /// Copies all.
    fn copy(&mut self) -> Self::Copy;

    /// Becomes that copy.
    fn become_copy(&mut self, copy: &Self::Copy);
}

/// A cell in memory.
#[derive(Clone, Debug)]
pub struct InMemory {
    marker: Marker,
    cell: Cell,
    fault: Option<Fault>,
}

impl InMemory {
    /// An empty store with that rule broken.
    pub fn new(fault: Option<Fault>) -> InMemory {
        InMemory {
            marker: Marker::default(),
            cell: Cell::broken(fault),
            fault,
        }
    }

    pub(super) fn cell(&self) -> &Cell {
        &self.cell
    }

    pub(super) fn marker(&self) -> &Marker {
        &self.marker
    }
}

impl Backend for InMemory {
    type Copy = InMemory;

    fn sync(&mut self, now_ms: u64, instance: &str, report: &Report, terms: &Terms) -> Reply {
        self.cell
            .sync(&mut self.marker, now_ms, instance, report, terms)
    }

    fn empty(&mut self) {
        *self = InMemory::new(self.fault);
    }

    fn copy(&mut self) -> InMemory {
        self.clone()
    }

    fn become_copy(&mut self, copy: &InMemory) {
        *self = copy.clone();
    }
}

/// What may happen, beside messages that are lost, doubled and late; chances are of 10,000, a step.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// A node crashes and starts again.
    pub crashes: u64,
    /// A node is cut off for up to a minute.
    pub partitions: u64,
    /// A node dies for ever.
    pub deaths: u64,
    /// The store is emptied.
    pub floods: u64,
    /// The store falls back to an older copy.
    pub failovers: u64,
    /// [`Terms::reclaim_after_ms`].
    pub reclaim_after_ms: Option<u64>,
    /// Whether leases are as large as they are outside of tests, and calls as small: at most a
    /// twentieth and a two-hundredth of the limit.
    pub is_moderate: bool,
}

impl Scenario {
    const QUIET: Scenario = Scenario {
        name: "",
        crashes: 0,
        partitions: 0,
        deaths: 0,
        floods: 0,
        failovers: 0,
        reclaim_after_ms: None,
        is_moderate: false,
    };

    /// Whether the store loses data in it.
    pub fn loses_data(&self) -> bool {
        self.floods + self.failovers > 0
    }
}

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "messages, crashes",
        crashes: 100,
        ..Scenario::QUIET
    },
    Scenario {
        name: "+ partitions",
        crashes: 100,
        partitions: 40,
        ..Scenario::QUIET
    },
    Scenario {
        name: "+ deaths",
        crashes: 100,
        partitions: 40,
        deaths: 10,
        ..Scenario::QUIET
    },
    Scenario {
        name: "reclaim, partitions",
        partitions: 40,
        reclaim_after_ms: Some(60_000 + node::CALL_MS_MAX),
        ..Scenario::QUIET
    },
    Scenario {
        name: "emptied",
        floods: 35,
        ..Scenario::QUIET
    },
    Scenario {
        name: "emptied, crashes",
        crashes: 100,
        floods: 35,
        ..Scenario::QUIET
    },
    Scenario {
        name: "emptied, partitions, deaths",
        crashes: 100,
        partitions: 40,
        deaths: 10,
        floods: 35,
        ..Scenario::QUIET
    },
    Scenario {
        name: "failover",
        failovers: 35,
        ..Scenario::QUIET
    },
    Scenario {
        name: "failover, crashes",
        crashes: 100,
        failovers: 35,
        ..Scenario::QUIET
    },
    Scenario {
        name: "everything",
        crashes: 100,
        partitions: 40,
        deaths: 10,
        floods: 20,
        failovers: 20,
        ..Scenario::QUIET
    },
    Scenario {
        name: "everything, usual leases",
        crashes: 10,
        partitions: 20,
        deaths: 10,
        floods: 20,
        failovers: 20,
        is_moderate: true,
        ..Scenario::QUIET
    },
];

/// What came of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The limit, units.
    pub limit: u64,
    /// The most that was spent beyond it, calls in flight included.
    pub overspent: u64,
    /// The most that may be, by what a right store could not know; 0 without loss of data.
    pub bound: u64,
    /// The first step at which it was more than that.
    pub broken_at_step: Option<usize>,
    /// What the ledgers say in the end.
    pub ledgers: u64,
    /// What the store says was spent in the end.
    pub stored: u64,
    /// What the store says is allocated in the end, without what it holds back.
    pub allocated: u64,
    /// Replies that are not those of a right store, fed the same.
    pub n_differing: u64,
    /// Calls that went ahead.
    pub n_admitted: u64,
    /// Calls that did not.
    pub n_refused: u64,
}

impl Outcome {
    /// Whether limit and sums held. What is allocated must be what was spent when all is quiet.
    pub fn holds(&self) -> bool {
        self.broken_at_step.is_none()
            && self.stored == self.ledgers
            && self.allocated == self.ledgers
    }
}
