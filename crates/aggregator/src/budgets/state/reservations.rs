//! Calls that were let go ahead and have not ended, and why others were not.

use std::sync::Arc;

use tollmesh_budget::lease::{Refusal, ReservationId};

use super::State;
use crate::ledger::budgets::SpendKey;

/// Refusals whose facts are kept until the call's event comes.
const REFUSED_MAX: usize = 4_096;
/// Bits of a reservation's number that count within one millisecond.
const NUMBER_BITS: u32 = 20;

/// A call that was let go ahead.
#[derive(Debug)]
pub(super) struct Reservation {
    pub(super) event_id: Arc<str>,
    since_ms: u64,
    pub(super) holds: Vec<Hold>,
}

/// What one account holds for a call.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The account.
    pub at: SpendKey,
    /// In the store's units.
    pub units: u64,
    /// Whether the lease covers it; else it went ahead without one.
    pub is_leased: bool,
}

/// Why a call was refused, in figures.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The account.
    pub at: SpendKey,
    /// What the call might have cost, in the store's units.
    pub asked: u64,
    /// What was spent, by all nodes.
    pub spent: u64,
    /// What calls in flight held, through this node.
    pub held: u64,
}

impl State {
    /// The reservation of that event, if it has one.
    pub fn reserved(&self, event_id: &str) -> Option<ReservationId> {
        self.by_event.get(event_id).copied()
    }

    /// Whether that call is over already, so that nothing is to be held for it.
    pub fn has_ended(&self, event_id: &str) -> bool {
        self.ended.has(event_id)
    }

    /// An id for a reservation at that instant. The number tells the instant too, so that a call is
    /// counted in the window of its admission even by a process that never heard of it.
    pub fn next_id(&mut self, unix_ms: i64) -> ReservationId {
        self.counter += 1;
        let in_ms = self.counter & ((1 << NUMBER_BITS) - 1);
        ReservationId {
            boot: self.boot(),
            number: (unix_ms.unsigned_abs() << NUMBER_BITS) | in_ms,
        }
    }

    /// Holds what a call may cost in one account.
    pub fn hold(
        &mut self,
        at: &SpendKey,
        id: ReservationId,
        units: u64,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        // A lease from before the limit was lowered may still cover more.
        let is_over = self.is_over(at, units);
        let Some(account) = self.accounts.get_mut(at) else {
            return Err(Refusal::NeedsGrant);
        };
        account.use_at(now_ms);
        let reserved = account.holder.reserve(now_ms, id, units);
        if let Err(why) = reserved {
            return Err(self.of_bound(at, why, now_ms));
        }
        let Some(account) = self.accounts.get_mut(at) else {
            return Err(Refusal::NeedsGrant);
        };
        if is_over {
            account.holder.release(id);
            return Err(Refusal::Exhausted);
        }
        account.took(units);
        Ok(())
    }

    /// Whether the account would pass the limit by that much more, as far as is known here.
    pub fn is_over(&self, at: &SpendKey, units: u64) -> bool {
        self.accounts.get(at).is_some_and(|account| {
            let taken = self.spent(account).saturating_add(account.holder.held());
            taken.saturating_add(units) > account.budget.hard_units
        })
    }

    /// Nothing is exhausted of a window whose earlier parts are not known: the store was asked for
    /// nothing.
    fn of_bound(&self, at: &SpendKey, why: Refusal, now_ms: u64) -> Refusal {
        let account = self.accounts.get(at);
        if why != Refusal::Exhausted || account.is_none_or(|account| self.is_bounded(account)) {
            return why;
        }
        match self.lives.waits_until_ms(&at.budget) {
            until_ms if now_ms < until_ms => Refusal::Rebuilding { until_ms },
            _ => Refusal::NeedsGrant,
        }
    }

    /// Notes a call that goes ahead with these holds.
    pub fn keep(&mut self, id: ReservationId, event_id: &str, holds: Vec<Hold>, now_ms: u64) {
        let event_id: Arc<str> = event_id.into();
        self.by_event.insert(Arc::clone(&event_id), id);
        let reservation = Reservation {
            event_id,
            since_ms: now_ms,
            holds,
        };
        self.reservations.insert(id, reservation);
    }

    /// Lets go of what is held for a call. Where it was charged, it has used up what it had of an
    /// allowance.
    pub fn let_go(&mut self, id: ReservationId, holds: &[Hold], is_charged: bool) {
        for hold in holds {
            if let Some(account) = self.accounts.get_mut(&hold.at) {
                account.holder.release(id);
                if !hold.is_leased && !is_charged {
                    account.unleased = account.unleased.saturating_sub(hold.units);
                }
                account.touch();
            }
        }
    }

    /// Ends reservations that nobody has settled for as long as a call may take.
    pub fn expire(&mut self, now_ms: u64) -> usize {
        let longest = self.policies.all.iter().map(|b| b.policy.max_stream).max();
        let longest_ms = longest.map_or(0, |longest| longest.as_millis());
        let longest_ms = u64::try_from(longest_ms).unwrap_or(u64::MAX);
        let old = |r: &Reservation| now_ms.saturating_sub(r.since_ms) > longest_ms;
        let old = self.reservations.iter().filter(|(_, r)| old(r));
        let old: Vec<ReservationId> = old.map(|(id, _)| *id).collect();
        for id in &old {
            self.end(*id);
        }
        old.len()
    }

    fn end(&mut self, id: ReservationId) {
        if let Some(reservation) = self.reservations.remove(&id) {
            self.by_event.remove(&reservation.event_id);
            self.let_go(id, &reservation.holds, false);
        }
    }

    /// Calls in flight that something is reserved for.
    pub fn n_reserved(&self) -> usize {
        self.reservations.len()
    }

    /// Keeps why a call was refused until its event comes.
    pub fn refuse(&mut self, event_id: &str, refused: Refused) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back((event_id.to_owned(), refused));
    }

    /// Why that call was refused.
    pub fn refused(&self, event_id: &str) -> Option<&Refused> {
        let mut newest = self.refused.iter().rev();
        newest.find(|(id, _)| id == event_id).map(|(_, why)| why)
    }
}

/// When the call of that reservation was let go ahead, in milliseconds since 1970.
pub fn admitted_ms(id: ReservationId) -> i64 {
    i64::try_from(id.number >> NUMBER_BITS).unwrap_or(i64::MAX)
}
