//! One node's side of one cell: what it may still spend without asking anybody.

use std::collections::BTreeMap;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use super::message::{AMOUNT_MAX, LEASE_MARGIN_MS, Reply, Report};

/// A call that was let go ahead and has not been settled. Written `r<boot>-<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId {
    /// Which start of the node let it go ahead; persisted, so that it never repeats.
    pub boot: u32,
    /// Which call of that start.
    pub number: u64,
}

/// The text names no reservation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no reservation id; expected such as \"r3-1207\"")]
pub struct NoReservationId;

/// Why a call may not go ahead by what this node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The store may have more: report, and ask again after the reply.
    #[error("the node's grant is used up; the store may give more")]
    NeedsGrant,
    /// There is no more, as far as the last reply knew.
    #[error("the limit is reached")]
    Exhausted,
    /// The store grants nothing until then, since it lost data or is new.
    #[error("the store is rebuilding")]
    Rebuilding {
        /// On the clock that reservations are made by, milliseconds.
        until_ms: u64,
    },
    /// The lease ended; the store did not answer for too long.
    #[error("the node's lease has ended")]
    Expired,
}

/// What a node that starts again finds about its life before: calls of it may still be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The highest total that was ever persisted as granted and not lowered since, units.
    pub granted: u64,
    /// When none of those calls can be in flight any more, on the clock of `reserve`, milliseconds.
    pub until_ms: u64,
    /// The start that begins; reservations of earlier ones draw on what is carried.
    pub boot: u32,
    /// What [`Holder::memory`] was when it was last persisted; the default where it was not.
    pub memory: Memory,
}

/// What a holder knows of the store, worth persisting with its grant: by it a store that lost its data
/// learns what there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// [`Reply::epoch`].
    pub epoch: u64,
    /// [`Reply::version`].
    pub version: u64,
    /// [`Reply::allocated`], units.
    pub seen: u64,
    /// [`Reply::members`].
    pub members: u64,
    /// [`Reply::life`].
    pub life: u64,
}

/// One node's side of one cell.
///
/// * What is spent, held and carried never exceeds what the store granted and the node persisted,
///   unless calls cost more than was reserved for them, or went ahead uncovered.
/// * Of what was granted nothing is used after the lease's end but by calls that had been let go.
/// * A reply counts only for the report that was sent last: what was lowered since stays lowered.
#[derive(Clone, Debug, Default)]
pub struct Holder {
    committed: u64,
    holds: BTreeMap<ReservationId, Hold>,
    held: u64,
    /// Calls of these that went ahead though nothing covered them.
    n_uncovered: usize,
    carried: Option<CarriedHold>,
    /// What the store was last heard to grant, minus what was given back since.
    granted: u64,
    /// The part of it that is persisted.
    usable: u64,
    /// `None` until the first grant.
    deadline_ms: Option<u64>,
    /// When the store grants, on our clock.
    granting_from_ms: u64,
    last_seq: u64,
    limit: u64,
    /// Allocated to others at the last reply, units.
    others: u64,
    memory: Memory,
    is_superseded: bool,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    amount: u64,
    since_ms: u64,
    is_uncovered: bool,
}

#[derive(Clone, Copy, Debug)]
struct CarriedHold {
    amount: u64,
    until_ms: u64,
    boot: u32,
}

impl Holder {
    /// A holder that has spent so much of the cell already, by the ledger. `carried` where the node
    /// was granted something before it started.
    pub fn new(committed: u64, carried: Option<Carried>) -> Holder {
        let committed = committed.min(AMOUNT_MAX);
        let mut holder = Holder {
            committed,
            granted: committed,
            usable: committed,
            ..Holder::default()
        };
        if let Some(carried) = carried {
            holder.memory = carried.memory;
            holder.granted = carried.granted.clamp(committed, AMOUNT_MAX);
            holder.usable = holder.granted;
            let amount = holder.granted - committed;
            holder.carried = (amount > 0).then_some(CarriedHold {
                amount,
                until_ms: carried.until_ms,
                boot: carried.boot,
            });
        }
        holder
    }

    /// Lets a call go ahead that costs at most `amount`; the same call twice is one.
    pub fn reserve(&mut self, now_ms: u64, id: ReservationId, amount: u64) -> Result<(), Refusal> {
        if self.holds.contains_key(&id) {
            return Ok(());
        }
        self.let_carried_go(now_ms);
        let needed = self.bound().saturating_add(amount);
        let is_leased = self.deadline_ms.is_some_and(|deadline| now_ms < deadline);
        if is_leased && needed <= self.usable {
            let hold = Hold {
                amount,
                since_ms: now_ms,
                is_uncovered: false,
            };
            self.holds.insert(id, hold);
            self.held = self.held.saturating_add(amount);
            return Ok(());
        }
        Err(self.refusal(now_ms, needed))
    }

    fn refusal(&self, now_ms: u64, needed: u64) -> Refusal {
        if self.deadline_ms.is_some_and(|deadline| now_ms >= deadline) {
            return Refusal::Expired;
        }
        if now_ms < self.granting_from_ms {
            let until_ms = self.granting_from_ms;
            return Refusal::Rebuilding { until_ms };
        }
        if self.deadline_ms.is_some() && self.others.saturating_add(needed) > self.limit {
            return Refusal::Exhausted;
        }
        Refusal::NeedsGrant
    }

    /// Notes a call that goes ahead though nothing covers it: its budget says so of calls that cannot
    /// be verified. The next report claims it, so that nobody is granted it, and until it is over only
    /// what is granted beyond it is left for others here; the same call twice is one.
    pub fn hold_uncovered(&mut self, now_ms: u64, id: ReservationId, amount: u64) {
        if self.holds.contains_key(&id) {
            return;
        }
        let hold = Hold {
            amount,
            since_ms: now_ms,
            is_uncovered: true,
        };
        self.holds.insert(id, hold);
        self.held = self.held.saturating_add(amount);
        self.n_uncovered += 1;
    }

    /// A call is over and cost that much. Without a known reservation it is charged all the same.
    pub fn settle(&mut self, id: Option<ReservationId>, actual: u64) {
        self.committed = self.committed.saturating_add(actual).min(AMOUNT_MAX);
        let Some(id) = id else { return };
        if self.holds.contains_key(&id) {
            self.release(id);
        } else if let Some(carried) = &mut self.carried
            && id.boot < carried.boot
        {
            carried.amount = carried.amount.saturating_sub(actual);
        }
    }

    /// A call did not happen.
    pub fn release(&mut self, id: ReservationId) {
        if let Some(hold) = self.holds.remove(&id) {
            self.held = self.held.saturating_sub(hold.amount);
            self.n_uncovered -= usize::from(hold.is_uncovered);
        }
    }

    /// Whether that call was let go ahead here and is not settled.
    pub fn holds(&self, id: ReservationId) -> bool {
        self.holds.contains_key(&id)
    }

    /// Calls that were let go ahead before that instant and are not settled.
    pub fn held_since_before(&self, instant_ms: u64) -> Vec<ReservationId> {
        let old = |hold: &Hold| hold.since_ms < instant_ms;
        let old = self.holds.iter().filter(|(_, hold)| old(hold));
        old.map(|(id, _)| *id).collect()
    }

    /// What to tell the store. `want_more` is what to have in stock beyond what calls in flight hold;
    /// what is granted beyond both is given back. `seq` must be higher than any before, boots included.
    pub fn report(&mut self, now_ms: u64, seq: u64, want_more: u64) -> Report {
        self.let_carried_go(now_ms);
        let bound = self.bound();
        let is_leased = self.deadline_ms.is_some_and(|deadline| now_ms < deadline);
        let want = bound - self.committed + want_more.min(AMOUNT_MAX);
        let kept = match is_leased {
            true => self.committed + want,
            false => bound,
        };
        self.granted = self.granted.min(kept).max(self.committed);
        self.usable = self.usable.min(self.granted);
        self.last_seq = seq;
        Report {
            seq,
            committed: self.committed,
            // What is uncovered may be spent all the same: nobody else is to be granted it.
            claim: match self.n_uncovered {
                0 => self.granted,
                _ => self.granted.max(bound),
            },
            firm: match self.carried {
                Some(_) => self.committed,
                None => self.granted,
            },
            want,
            need: bound - self.committed,
            seen: self.memory.seen,
            members: self.memory.members,
            epoch: self.memory.epoch,
            version: self.memory.version,
            life: self.memory.life,
        }
    }

    /// The store's reply to a report sent at `sent_ms`. Answers the new total where it is more than
    /// was persisted: it can be used once [`Holder::persisted`] is told so.
    pub fn take(&mut self, reply: &Reply, sent_ms: u64) -> Option<u64> {
        if reply.seq != self.last_seq {
            return None;
        }
        self.is_superseded = reply.is_stale;
        if reply.is_stale {
            return None;
        }
        self.memory = Memory {
            epoch: reply.epoch,
            version: reply.version,
            seen: reply.allocated,
            members: reply.members,
            life: reply.life,
        };
        self.limit = reply.limit;
        self.others = reply.allocated.saturating_sub(reply.granted);
        let wait_ms = reply.granting_from_ms.saturating_sub(reply.now_ms);
        // A call may have looked at the clock before the report did, and been held up by a lock.
        self.granting_from_ms = match wait_ms {
            0 => 0,
            _ => sent_ms.saturating_add(wait_ms),
        };
        let lease_ms = reply
            .lease_ms
            .saturating_sub(LEASE_MARGIN_MS.min(reply.lease_ms / 2));
        self.deadline_ms = Some(sent_ms.saturating_add(lease_ms));
        self.granted = reply.granted.max(self.committed);
        self.usable = self.usable.min(self.granted);
        (self.granted > self.usable).then_some(self.granted)
    }

    /// The ledger holds on disk that so much was granted.
    pub fn persisted(&mut self, granted: u64) {
        self.usable = self.usable.max(granted.min(self.granted));
    }

    /// Another cell of the budget was answered for with that life.
    pub fn learn(&mut self, life: u64) {
        self.memory.life = life;
    }

    /// What to persist with a grant.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// Spent here, units.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Held by calls in flight, those of a life before included, units.
    pub fn held(&self) -> u64 {
        self.bound() - self.committed
    }

    /// What the node may spend in all, units.
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// What is left for new calls while the lease lasts, units.
    pub fn left(&self) -> u64 {
        self.usable.saturating_sub(self.bound())
    }

    /// When the lease ends; `None` before there was one.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    /// When the store grants, on the clock of `reserve`; in the past where it does.
    pub fn granting_from_ms(&self) -> u64 {
        self.granting_from_ms
    }

    /// Whether the store has heard of this node from a later life: two of them share one identity, or
    /// the ledger was set back. Reports with a higher number end it.
    pub fn is_superseded(&self) -> bool {
        self.is_superseded
    }

    /// Spent, held and carried.
    fn bound(&self) -> u64 {
        let carried = self.carried.map_or(0, |carried| carried.amount);
        let bound = self.committed.saturating_add(self.held);
        bound.saturating_add(carried).min(AMOUNT_MAX)
    }

    /// Whatever was carried and not spent is given up, and never used: it may be less than was
    /// persisted, because what is given back is persisted late.
    fn let_carried_go(&mut self, now_ms: u64) {
        if self
            .carried
            .is_some_and(|carried| now_ms >= carried.until_ms)
        {
            self.carried = None;
            self.granted = self.granted.min(self.bound()).max(self.committed);
            self.usable = self.usable.min(self.granted);
        }
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}-{}", self.boot, self.number)
    }
}

impl FromStr for ReservationId {
    type Err = NoReservationId;

    fn from_str(text: &str) -> Result<ReservationId, NoReservationId> {
        let rest = text.strip_prefix('r').ok_or(NoReservationId)?;
        let (boot, number) = rest.split_once('-').ok_or(NoReservationId)?;
        let none = |_: ParseIntError| NoReservationId;
        Ok(ReservationId {
            boot: boot.parse().map_err(none)?,
            number: number.parse().map_err(none)?,
        })
    }
}
