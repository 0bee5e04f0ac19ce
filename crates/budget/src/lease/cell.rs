//! The store's side of one cell: who may spend how much of a limit.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fault::Fault;
use super::message::{Elsewhere, Reply, Report, Terms, YOUNG_SHARE};

/// The most expired leases that one report reclaims: the bound of a report's work.
const RECLAIMED_MAX: usize = 8;

/// Since when a store knows a budget, and whether there is proof that it had forgotten it.
///
/// It outlives the cells: where it is old, a cell that is missing was never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marker {
    /// Names this life; 0 before the first report.
    pub life: u64,
    /// When it began, milliseconds since 1970.
    pub since_ms: u64,
    /// Whether a holder remembers another life, or another epoch of one of the cells.
    pub is_reborn: bool,
}

/// The store's side of one cell.
///
/// `allocated` is the sum over all holders of what they may spend or have spent, whichever is more.
/// *Whenever it grants, what is allocated and what is held back are together at most the limit.*
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// 0 before the first report.
    epoch: u64,
    version: u64,
    allocated: u64,
    spent: u64,
    /// No grants before, by the store's clock; the marker's wait comes on top.
    wait_until_ms: u64,
    /// How many holders have something left.
    n_holding: u64,
    members: BTreeMap<Arc<str>, Member>,
    lost: Lost,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    granted: u64,
    committed: u64,
    seq: u64,
    /// The cell's epoch when it last reported; 0 for one that never did.
    epoch: u64,
    /// Its part of [`Lost::returned`], in that epoch.
    returned: u64,
    /// The epoch that it returned from; 0 once it has answered to the present one.
    from_epoch: u64,
    reclaim_at_ms: Option<u64>,
}

/// What a loss of data left unknown.
#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    /// The most that a returned holder had seen allocated.
    seen: u64,
    /// Of it, what is known again.
    returned: u64,
    /// The latest epoch that a returned holder knew.
    epoch: u64,
    /// How many holders that epoch had, as far as returned ones know; one more where some were
    /// unknown then already.
    n_before: u64,
    /// How many holders of that epoch returned, and have answered to a reply since: what a dead one
    /// said long ago may come late.
    n_returned: u64,
}

impl Marker {
    /// A store that was always there.
    pub const OLD: Marker = Marker {
        life: 1,
        since_ms: 0,
        is_reborn: false,
    };

    /// Takes notice of a report; answers from when this store grants, whatever the cell says.
    fn meet(&mut self, now_ms: u64, report: &Report, terms: &Terms) -> u64 {
        if self.life == 0 {
            self.life = now_ms.max(report.life + 1);
            self.since_ms = now_ms;
        }
        if report.life != 0 && report.life != self.life {
            self.is_reborn = true;
        }
        let wait_ms = match self.is_reborn {
            true => terms.hold_ms,
            false => terms.settle_ms,
        };
        self.since_ms.saturating_add(wait_ms)
    }
}

impl Cell {
    /// A cell with a rule broken.
    #[cfg(any(test, feature = "model"))]
    pub fn broken(fault: Option<Fault>) -> Cell {
        Cell {
            fault,
            ..Cell::default()
        }
    }

    /// Takes a report of that instance and answers it; `marker` is the one of the cell's budget.
    pub fn sync(
        &mut self,
        marker: &mut Marker,
        now_ms: u64,
        instance: &str,
        report: &Report,
        terms: &Terms,
    ) -> Reply {
        let marker_wait_ms = marker.meet(now_ms, report, terms);
        self.notice_loss(now_ms, report, terms);
        let before = self.members.get(instance).copied().unwrap_or_default();
        let is_new = report.seq > before.seq || self.is_broken(Fault::NoSeqCheck);
        let mut member = before;
        if is_new {
            member.seq = report.seq;
            member.committed = match self.is_broken(Fault::DeltaForMax) {
                true => before.committed + report.committed,
                false => before.committed.max(report.committed),
            };
            self.note_return(now_ms, &mut member, &before, report, terms);
            self.reclaim(now_ms, instance, terms);
            let from_ms = self.wait_until_ms.max(marker_wait_ms);
            let is_granting = now_ms >= from_ms || self.is_broken(Fault::NoRebuildHold);
            let is_young = now_ms < marker.since_ms.saturating_add(terms.hold_ms);
            let limit = match is_young && !self.is_broken(Fault::NoRebuildHold) {
                true => terms.limit / YOUNG_SHARE,
                false => terms.limit,
            };
            member.granted = self.grant(
                &member,
                &before,
                report,
                terms,
                is_granting.then_some(limit),
            );
            self.keep(now_ms, instance, &before, member, terms);
        }
        let held_back = self.held_back();
        Reply {
            seq: report.seq,
            is_stale: report.seq < member.seq,
            granted: member.granted,
            allocated: self.allocated.saturating_add(held_back),
            spent: self.spent,
            held_back,
            members: self.members.len() as u64 + u64::from(held_back > 0),
            epoch: self.epoch,
            version: self.version,
            life: marker.life,
            limit: terms.limit,
            lease_ms: terms.lease_ms,
            now_ms,
            granting_from_ms: self.wait_until_ms.max(marker_wait_ms),
        }
    }

    /// All that holders have spent, units.
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// What that holder may spend or has spent, whichever is more, units.
    #[cfg(any(test, feature = "model"))]
    pub(super) fn allocated_to(&self, instance: &str) -> u64 {
        self.members.get(instance).map_or(0, Member::allocated)
    }

    /// What it has for all holders but that one. Nothing changes by it, and nobody is noted.
    pub fn elsewhere(&self, now_ms: u64, instance: &str) -> Elsewhere {
        let own = self.members.get(instance).copied().unwrap_or_default();
        let allocated = self.allocated.saturating_sub(own.allocated());
        Elsewhere {
            spent: self.spent.saturating_sub(own.committed),
            allocated: allocated.saturating_add(self.held_back()),
            wait_ms: self.wait_until_ms.saturating_sub(now_ms),
        }
    }

    /// Gives up what is held back: somebody has reckoned that nothing is missing.
    pub fn release_held_back(&mut self) {
        self.lost = Lost::default();
    }

    /// Begins the cell's epoch; a new one where the report remembers more than the cell does, which
    /// was then set back to an older copy: all holders are to return.
    fn notice_loss(&mut self, now_ms: u64, report: &Report, terms: &Terms) {
        if self.epoch == 0 {
            self.epoch = now_ms.max(report.epoch + 1);
            return;
        }
        let remembers_more = (report.epoch, report.version) > (self.epoch, self.version);
        if !remembers_more || self.is_broken(Fault::NoVersionCheck) {
            return;
        }
        let held_back = self.held_back();
        self.lost = Lost {
            seen: self.allocated.saturating_add(held_back),
            returned: self.allocated,
            epoch: report.epoch,
            n_before: self.members.len() as u64 + u64::from(held_back > 0),
            n_returned: 0,
        };
        self.epoch = now_ms.max(report.epoch + 1);
        self.wait_until_ms = now_ms.saturating_add(terms.hold_ms);
    }

    /// Takes notice of a holder that outlived a loss of data, or of an entry from before one.
    fn note_return(
        &mut self,
        now_ms: u64,
        member: &mut Member,
        before: &Member,
        report: &Report,
        terms: &Terms,
    ) {
        if before.epoch != self.epoch {
            member.epoch = self.epoch;
            member.from_epoch = 0;
            // Of an entry that outlived the loss itself; nothing for one that is new.
            member.returned = before.granted.max(before.committed);
        }
        if report.epoch == self.epoch && member.from_epoch != 0 {
            self.lost.n_returned += u64::from(member.from_epoch == self.lost.epoch);
            member.from_epoch = 0;
        }
        if report.epoch == 0 || report.epoch == self.epoch {
            return;
        }
        if self.lost.epoch == 0 {
            self.wait_until_ms = now_ms.saturating_add(terms.hold_ms);
        }
        let lost = &mut self.lost;
        if report.epoch > lost.epoch {
            (lost.epoch, lost.n_before, lost.n_returned) = (report.epoch, 0, 0);
        }
        if report.epoch == lost.epoch {
            lost.n_before = lost.n_before.max(report.members);
        }
        lost.seen = lost.seen.max(report.seen);
        let returned = report.firm.max(member.committed);
        if self.fault != Some(Fault::ReturnsTwice) {
            lost.returned = lost.returned.saturating_sub(member.returned);
        }
        lost.returned = lost.returned.saturating_add(returned);
        member.returned = returned;
        member.from_epoch = report.epoch;
    }

    /// What the holder may spend in all from now on: what it keeps, and more where there is room
    /// under the limit; `None` while nothing is granted.
    fn grant(
        &self,
        member: &Member,
        before: &Member,
        report: &Report,
        terms: &Terms,
        limit: Option<u64>,
    ) -> u64 {
        let target = member.committed.saturating_add(report.want);
        let mut kept = report.claim;
        if self.is_broken(Fault::NoClaimMerge) {
            kept = kept.min(before.granted);
        }
        if self.is_broken(Fault::RecordWithoutRoom) {
            kept = kept.max(before.granted);
        }
        let kept = kept.min(target).max(member.committed);
        let Some(limit) = limit else { return kept };
        let others = self.allocated.saturating_sub(before.allocated());
        let taken = others.saturating_add(kept).saturating_add(self.held_back());
        let room = match self.is_broken(Fault::NoRoomCap) {
            true => terms.limit,
            false => limit.saturating_sub(taken),
        };
        let share = room / (2 * self.n_holding.max(1));
        // What is on record already is the holder's, though the reply may have been lost.
        let on_record = before.granted.saturating_sub(kept);
        let needed = member.committed.saturating_add(report.need);
        // Where not all of it is there, the call is refused: others are not to lack what is left.
        let needed = Some(needed.saturating_sub(kept)).filter(|needed| *needed <= room);
        let steps = share.max(terms.min_slice).max(on_record);
        let most = steps.max(needed.unwrap_or(0)).min(room);
        kept + (target - kept).min(most)
    }

    /// Writes the entry, and the sums with it.
    fn keep(
        &mut self,
        now_ms: u64,
        instance: &str,
        before: &Member,
        mut member: Member,
        terms: &Terms,
    ) {
        let ends_ms = now_ms.saturating_add(terms.lease_ms);
        let is_holding = member.granted > member.committed;
        member.reclaim_at_ms = match is_holding {
            true => terms
                .reclaim_after_ms
                .map(|after| ends_ms.saturating_add(after)),
            false => None,
        };
        self.spent = (self.spent + member.committed).saturating_sub(before.committed);
        self.allocated = self
            .allocated
            .saturating_sub(before.allocated())
            .saturating_add(member.allocated());
        self.n_holding = (self.n_holding + u64::from(is_holding))
            .saturating_sub(u64::from(before.granted > before.committed));
        self.version += 1;
        self.members.insert(instance.into(), member);
    }

    /// Takes back what silent holders have not spent.
    fn reclaim(&mut self, now_ms: u64, instance: &str, terms: &Terms) {
        if terms.reclaim_after_ms.is_none() {
            return;
        }
        let is_due = |member: &Member| member.reclaim_at_ms.filter(|at| *at < now_ms);
        let others = self.members.iter().filter(|(name, _)| ***name != *instance);
        let due = others.filter_map(|(name, member)| Some((is_due(member)?, name.clone())));
        let mut due: Vec<(u64, Arc<str>)> = due.collect();
        due.sort_unstable();
        for (_, name) in due.into_iter().take(RECLAIMED_MAX) {
            let Some(member) = self.members.get_mut(&name) else {
                continue;
            };
            let unspent = member.granted.saturating_sub(member.committed);
            self.allocated = self.allocated.saturating_sub(unspent);
            self.n_holding = self.n_holding.saturating_sub(u64::from(unspent > 0));
            member.granted = member.granted.min(member.committed);
            member.reclaim_at_ms = None;
        }
    }

    /// What returned holders had seen allocated and has not come back, unless everybody has.
    fn held_back(&self) -> u64 {
        let lost = &self.lost;
        let is_complete = lost.n_returned >= lost.n_before;
        match is_complete || self.is_broken(Fault::NoFloor) {
            true => 0,
            false => lost.seen.saturating_sub(lost.returned),
        }
    }

    fn is_broken(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

impl Member {
    fn allocated(&self) -> u64 {
        self.granted.max(self.committed)
    }
}
