//! What a holder and its store say to each other about one cell: a budget's key in one window.

/// The largest amount that is told apart from its neighbours everywhere: a store's script reckons in
/// doubles, which are exact up to 2^53.
pub const AMOUNT_MAX: u64 = (1 << 53) - 1;

/// How long a lease lasts unless it is renewed, milliseconds.
pub const LEASE_MS: u64 = 10_000;
/// How much earlier its holder takes it for ended than the store, milliseconds.
pub const LEASE_MARGIN_MS: u64 = 1_000;
/// How long a store that lost data grants nothing, milliseconds: the longest lease, and two beats of
/// holders that were cut off for a moment.
pub const HOLD_MS: u64 = LEASE_MS + LEASE_MARGIN_MS + 2_000;
/// How long a store that nobody remembers grants nothing, milliseconds: a beat of busy holders.
pub const SETTLE_MS: u64 = 2_000;
/// Of a limit, one part in so many may be granted by a store that is younger than `hold_ms`, though
/// nobody remembers an older one.
pub const YOUNG_SHARE: u64 = 10;

/// What a budget demands of the store, the same from every holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The most that may be allocated, in the budget's units; at most [`AMOUNT_MAX`].
    pub limit: u64,
    /// How long a lease lasts, milliseconds.
    pub lease_ms: u64,
    /// The least that a raise gives where there is room, units.
    pub min_slice: u64,
    /// How long a store grants nothing once it is known to have lost data, milliseconds.
    pub hold_ms: u64,
    /// How long a new store waits whether somebody knows an older one, milliseconds.
    pub settle_ms: u64,
    /// How long after its lease a silent holder loses what it has not spent, milliseconds. `None` is
    /// never, and the only answer that holds limits whatever happens; any other must be longer than
    /// the longest partition and the longest call together.
    pub reclaim_after_ms: Option<u64>,
    /// When the store may forget the cell, milliseconds since 1970.
    pub expire_at_ms: u64,
}

impl Terms {
    /// The usual terms for that limit.
    pub fn new(limit: u64, expire_at_ms: u64) -> Terms {
        let limit = limit.min(AMOUNT_MAX);
        Terms {
            limit,
            lease_ms: LEASE_MS,
            min_slice: (limit / 200).max(1),
            hold_ms: HOLD_MS,
            settle_ms: SETTLE_MS,
            reclaim_after_ms: None,
            expire_at_ms,
        }
    }
}

/// What a holder tells the store: totals, never differences, so that it may be lost, doubled or late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rises with each report of this holder, over restarts too.
    pub seq: u64,
    /// All that was ever spent from the cell here, units.
    pub committed: u64,
    /// What the holder may spend in all as far as it knows, units; at least `committed`. It is more than
    /// was granted where calls went ahead uncovered, and may pass the limit then.
    pub claim: u64,
    /// The part of the claim that the store gave for certain, units; less than the claim only while
    /// calls of a life before a crash may still spend.
    pub firm: u64,
    /// What it wants to be able to spend beyond `committed`, units.
    pub want: u64,
    /// The part of it that calls in flight hold or that calls wait for, units: where there is room for
    /// all of it, it is given at once, and not in the steps in which stock is.
    pub need: u64,
    /// What the last reply gave as allocated to all holders, units.
    pub seen: u64,
    /// What the last reply gave as the number of holders.
    pub members: u64,
    /// The cell's epoch in the last reply; 0 for a holder that never had one.
    pub epoch: u64,
    /// The cell's version in the last reply.
    pub version: u64,
    /// The budget's life in the last reply for any of its cells; 0 where there was none.
    pub life: u64,
}

/// What the store answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The report that it answers.
    pub seq: u64,
    /// Whether a later report was there before: nothing was changed, and nothing below is granted.
    pub is_stale: bool,
    /// What this holder may spend in all, units.
    pub granted: u64,
    /// What is allocated to all holders, what is held back included, units.
    pub allocated: u64,
    /// What all holders have spent, units.
    pub spent: u64,
    /// What is held back for holders that a loss of data made unknown, units.
    pub held_back: u64,
    /// How many holders there are, unknown ones counted as one.
    pub members: u64,
    /// Changes whenever the cell was born anew.
    pub epoch: u64,
    /// Rises with each report that the cell takes in an epoch.
    pub version: u64,
    /// Changes whenever the budget was born anew.
    pub life: u64,
    /// The limit that was reckoned with, units.
    pub limit: u64,
    /// [`Terms::lease_ms`].
    pub lease_ms: u64,
    /// The store's clock, milliseconds since 1970.
    pub now_ms: u64,
    /// When the store grants again; not after `now_ms` where it does.
    pub granting_from_ms: u64,
}

/// What a cell has for all holders but one, for somebody who asks without reporting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// What the others have spent, units.
    pub spent: u64,
    /// What the others may spend or have spent, whichever is more, and what is held back for unknown
    /// ones, units.
    pub allocated: u64,
    /// How long the cell still waits for holders that it may have forgotten, milliseconds: what they
    /// will tell is missing above.
    pub wait_ms: u64,
}
